"""The training loop, top to bottom.

    for each step: a batch from the pool -> restore -> losses -> backward -> optimiser -> EMA

Progress through the stages is a share of the steps or of the minutes given, whichever is further:
a run always ends with its learning rate at the end of the last stage's cosine.
"""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.model import attention
from oasis_cli.model.assignment import decide
from oasis_cli.model.calibration import measure_heads
from oasis_cli.model.oasis import Oasis
from oasis_cli.model.routing import HeadTable
from oasis_cli.model.wan_vae import WanDecoder
from oasis_cli.train.adversary import Judge
from oasis_cli.train.codec import CodecPool
from oasis_cli.train.data import ClipPool
from oasis_cli.train.footage import load_footage
from oasis_cli.train.grow import grow
from oasis_cli.train.latents import Encoder, decode_part
from oasis_cli.train.meter import Meter
from oasis_cli.train.objective import Objective, Restorer, recorded
from oasis_cli.train.optim import Optimizer
from oasis_cli.train.parallel import join
from oasis_cli.train.presets import LossWeights, Stage, TrainConfig
from oasis_cli.train.schedule import rate_at, stage_at
from oasis_cli.train.start import prepare
from oasis_cli.train.state import (
    DENSE,
    STATE,
    ancestors,
    load,
    restore_state,
    save,
    write_final,
    write_model,
    write_samples,
)
from oasis_cli.weights import channels_last, load_model, other_decoders


@dataclass(frozen=True, slots=True, kw_only=True)
class RunOptions:
    """How long and where; nothing here changes what is learned from a step."""

    data: Path
    out: Path
    max_minutes: float | None = None
    max_steps: int | None = None
    resume: bool = False
    start_from: Path | None = None
    """Checkpoint whose weights to start from; its head table is kept and stage 0 skipped."""
    perceptual: Path | None = None
    """SqueezeNet's features with LPIPS heads."""
    vgg: Path | None = None
    """VGG-16's features."""
    encoder: Path | None = None
    """Wan2.1's encoder, for a run behind its autoencoder."""
    device: str = "cpu"
    workers: int = 2
    """Codec processes."""
    compile: bool = False
    log_every: int = 50
    save_minutes: float | None = None
    """Between two saves; None for the configuration's own."""

    def __post_init__(self) -> None:
        if self.max_minutes is None and self.max_steps is None:
            raise UsageError(
                "a run needs an end",
                hint="pass --max-minutes or --max-steps, whichever comes first",
            )
        if not self.resume and (self.out / STATE).exists():
            raise UsageError(
                f"{self.out} holds a run", hint="pass --resume, or choose another --out"
            )


class Trainer:
    """State of a run: the network, its average, the optimisers, the pool and the clock."""

    def __init__(
        self, config: TrainConfig, options: RunOptions, say: Callable[[str], None]
    ) -> None:
        self.config, self.options = config, options
        self.device = torch.device(options.device)
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise UsageError(
                f"{options.device} was asked for, and torch sees no CUDA device",
                hint="`oasis doctor` says what there is",
            )
        self.processes, self.device = join(self.device)
        self.rank, self.world = self.processes.rank, self.processes.world
        self.say = say if self.rank == 0 else _silence
        torch.manual_seed(config.seed)
        torch.set_float32_matmul_precision("high")
        self.objective = Objective(
            config, self.device, perceptual=options.perceptual, vgg=options.vgg
        )
        self.encoder = self._encoder()
        self.model = self._network()
        self.average = deepcopy(self.model).requires_grad_(False)
        # Weights to start from are past the dense stages.
        self.stages = config.stages if not options.start_from else _routed(config)
        self.ancestors = ancestors(options.out, options.start_from)
        fixed_latents = config.behind_autoencoder and options.start_from is not None
        self.decoders = other_decoders(str(options.start_from)) if fixed_latents else {}
        """What else reads the latents that the run trains towards; handed on."""
        self.step, self.stage_number, self.seconds = 0, -1, 0.0
        self.good_step = 0
        self.restorer: nn.Module | None = None
        self.bad_step = torch.full((), -1, device=self.device)
        self.judge: Judge | None = None
        footage = load_footage(options.data, self.device, config.data.side, config.data.frames)
        self.footage_hash = footage.sha256
        self.say(f"footage: {len(footage.photos)} photographs, {len(footage.shots)} shots")
        self.pool = ClipPool(
            footage,
            config.data,
            CodecPool(options.workers),
            config.seed * self.world + self.rank,
            self.device,
        )
        state = load(self) if options.resume else None
        self._enter(state["stage"] if state else 0, state)
        if options.compile:
            attention.for_compiler()
            for block in self.model.dit.blocks:
                block.compile()
            self.model.decoder.compile()
            self.objective.compile()

    def _encoder(self) -> Encoder | None:
        """What makes latents to reach, for a run behind an autoencoder."""
        if not self.config.behind_autoencoder:
            return None
        if self.options.encoder is None:
            raise UsageError(
                "this run trains towards latents, and no encoder was given",
                hint="pass --encoder FILE, Wan2.1's autoencoder as .safetensors",
            )
        return Encoder(self.options.encoder, self.device)

    def _network(self) -> Oasis:
        """A new network, or one from a checkpoint, in float32."""
        if self.options.start_from is None:
            model = Oasis(self.config.model).to(self.device)
            channels_last(model)
        else:
            model = load_model(str(self.options.start_from), device=self.device)
            if model.config != self.config.model:
                try:
                    model = grow(model, self.config.model)
                except ValueError as error:
                    raise UsageError(
                        f"{self.options.start_from} does not fit this run's model: {error}"
                    ) from error
            model.train().requires_grad_(True)
        model.dit.checkpointing = self.config.recompute
        if isinstance(model.decoder, WanDecoder) and self.config.behind_autoencoder:
            model.decoder.requires_grad_(False)
            model.decoder.checkpointing = self.config.recompute
        return model

    def run(self) -> None:
        """Train until the minutes or steps are over."""
        with (self.options.out / "log.jsonl").open("a") as log:
            self._train(log)
        save(self)
        write_samples(self)
        write_final(self)
        self.processes.from_first(None)  # nobody leaves before everything is written
        self.pool.codecs.close()

    def _train(self, log: TextIO) -> None:
        meter = Meter(self.device)
        saved = time.monotonic()
        began = time.monotonic() - self.seconds
        between = self.options.save_minutes
        between = 60 * (self.config.save_minutes if between is None else between)
        while (progress := self._progress()) < 1:
            self._enter(stage_at(self.stages, progress), None)
            meter.data()
            if self.step % self.config.data.every == 0:
                self.pool.tick()
            self.pool.poll()
            low, high = self.pool.batch(self.step)
            meter.train()
            losses = self._step(low, high, progress)
            meter.end(losses)
            self.step += 1
            self.seconds = time.monotonic() - began
            if self.step % self.options.log_every == 0:
                self._check()
                line = self._line(meter, progress)
                if self.rank == 0:
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    self.say(_text(line))
            due = time.monotonic() - saved > between
            if self.optimizer.sharded:  # saving is then a meeting: one clock decides
                due = self.processes.from_first(due)
            if due:
                save(self)
                write_samples(self)
                saved = time.monotonic()
        self._check()

    def _step(self, low: Tensor, high: Tensor, progress: float) -> dict[str, Tensor]:
        """One update. Returns the losses, still on the device."""
        stage = self.stages[self.stage_number]
        rate = self._rate(progress)
        half = torch.autocast(self.device.type, torch.bfloat16, self.device.type == "cuda")
        with half:
            losses, output, high = self._restore(low, high, stage.losses)
        if output is not None:
            losses |= self.objective(output, high, stage.losses)
        judged: tuple[Tensor, Tensor] | None = None
        if self.judge is not None and output is not None:
            judged = self.judge.watched(output, high)
            with half:
                losses |= self.judge.losses(*judged)
        total = sum(
            (self._weight(name) * loss for name, loss in losses.items()),
            torch.zeros((), device=self.device),
        )
        total.backward()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        self.processes.average(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        self.optimizer.step(rate)
        good = total.isfinite() & norm.isfinite()
        if self.judge is not None and judged is not None:
            with half:
                losses["judge"] = self.judge.learn(*judged, self.processes.average)
            good &= losses["judge"].isfinite()
        self.bad_step = torch.where(~good & (self.bad_step < 0), self.step, self.bad_step)
        self._average()
        return {name: loss.detach() for name, loss in losses.items()} | {"norm": norm}

    def _restore(
        self, low: Tensor, high: Tensor, weights: LossWeights
    ) -> tuple[dict[str, Tensor], Tensor | None, Tensor]:
        """Losses on latents, the frames that other losses look at, and the clean ones there."""
        model = self.model
        if self.encoder is None or not isinstance(model.decoder, WanDecoder):
            if self.restorer is None:
                graphs = self.options.compile and low.is_cuda and not self.config.recompute
                self.restorer = recorded(model, low) if graphs else Restorer(model)
            return {}, self.restorer(low).float(), high
        latent = model.refine(model.to_latent(low))
        losses = {"latent": (latent.float() - self.encoder(high)).square().mean()}
        if not weights.sees_pixels:
            return losses, None, high
        frames, (rows, cols) = decode_part(model.decoder, latent, self.config.core)
        return losses, frames.float(), high[..., rows, cols]

    def _weight(self, name: str) -> float:
        """What a loss counts; new discriminators are heard only as far as they have learned."""
        weight: float = getattr(self.stages[self.stage_number].losses, name)
        if name != "adversarial":
            return weight
        return weight * min(1.0, (self.step - self.stage_step) / max(1, self.config.warm_up))

    @torch.no_grad()
    def _average(self) -> None:
        """Move the average towards the network; quickly at first, as there is little to average."""
        keep = min(self.config.ema, (1 + self.step) / (10 + self.step))
        averaged: list[Tensor] = list(self.average.parameters())
        current: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(averaged, current, 1 - keep)

    # Stages ---------------------------------------------------------------------------------

    def _progress(self) -> float:
        """How much of the run is done, from 0 to 1."""
        steps, minutes = self.options.max_steps, self.options.max_minutes
        by_steps = self.step / steps if steps else 0.0
        by_time = self.seconds / 60 / minutes if minutes else 0.0
        if minutes:
            by_time = self.processes.from_first(by_time)
        return max(by_steps, by_time)

    def _rate(self, progress: float) -> float:
        steps_in = self.step - self.stage_step
        return rate_at(self.stages, self.stage_number, progress, steps_in, self.config.warm_up)

    def _enter(self, number: int, state: dict[str, Any] | None) -> None:
        """Begin or resume a stage: route the heads, make its optimisers, set its degradations."""
        if number == self.stage_number:
            return
        stage = self.stages[number]
        self._check()
        if self.stage_number >= 0 and self.rank == 0:
            write_model(self, self.options.out / f"stage-{self.stage_number}.safetensors")
        if state is None:
            self.pool.vary(stage.varying)
            if not self.pool.finished:
                self.pool.fill(self._first_fill())
            if number == 0:
                prepare(self, self.encoder)
            if stage.routed and self.model.dit.table.is_dense:
                self._calibrate()
        self.stage_number, self.stage_step = number, state["stage_step"] if state else self.step
        self.optimizer = Optimizer(self.model, self.config)
        if not stage.losses.adversarial:
            self.judge = None
        elif self.judge is None:
            rate, frames = self.config.discriminator_rate, self.config.adversarial_frames
            self.judge = Judge(rate, frames, self.device)
        if state is not None:
            restore_state(self, state)
        self.say(f"stage {number} ({stage.name}) from step {self.step}: {asdict(stage)}")

    def _first_fill(self) -> int:
        """Chunks made before the first step: a quarter of the pool."""
        return max(1, self.config.data.pool // self.config.data.chunk // 4)

    def _calibrate(self) -> None:
        """Save the dense weights, measure every head on pooled clips, route by the result."""
        if self.rank == 0:
            write_model(self, self.options.out / DENSE)
            self.ancestors = ancestors(self.options.out, self.options.start_from)
        statistics = measure_heads(
            self.average, list(self.pool.low[: min(16, self.pool.have)].float()), seed=0
        )
        # Every process measures its own clips; they must all route as the first one does.
        layers = decide(statistics, self.config.rule).table.layers
        table = HeadTable(self.processes.from_first(layers))
        self.model.dit.route(table)
        self.average.dit.route(table)
        self.restorer = None  # what was recorded knows the old table
        self.say(f"head table: {' '.join(table.layers)}")

    # Reports --------------------------------------------------------------------------------

    def _check(self) -> None:
        """Stop when a loss is no longer a number."""
        bad = int(self.bad_step)
        if bad >= 0:
            raise OasisError(
                f"the loss of step {bad} is not a finite number (seed {self.config.seed})",
                hint=f"{self.options.out / STATE} holds step {self.good_step}, which was good",
            )

    def _line(self, meter: Meter, progress: float) -> dict[str, Any]:
        """One line of the log."""
        left = self.seconds * (1 - progress) / max(progress, 1e-9)
        line: dict[str, Any] = {
            "step": self.step,
            "stage": self.stages[self.stage_number].name,
            "rate": self._rate(progress),
            "eta_minutes": round(left / 60, 1),
            "images_per_second": 0.0,
        }
        line |= meter.read(self.pool.waited)
        c = self.config.data
        line["images_per_second"] = round(
            line["steps_per_second"] * c.batch * c.frames * self.world, 1
        )
        if self.device.type == "cuda":
            line["memory_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 1)
        return line


def _routed(config: TrainConfig) -> tuple[Stage, ...]:
    return tuple(stage for stage in config.stages if stage.routed)


def _text(line: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value}" for key, value in line.items())


def _silence(text: str) -> None:
    """Only the first process speaks."""
