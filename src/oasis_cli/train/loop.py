"""The training loop, top to bottom.

    for each step: a batch from the pool -> restore -> losses -> backward -> optimiser -> EMA

Progress through the stages is a share of the steps or of the minutes given, whichever is further:
a run always ends with its learning rate at the end of the last stage's cosine.
"""

import json
import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import asdict
from typing import Any, TextIO

import torch
from torch import Tensor, nn

from oasis_cli.errors import OasisError
from oasis_cli.model import attention
from oasis_cli.model.decoders.wan import WanDecoder
from oasis_cli.model.heads.assignment import assign_heads
from oasis_cli.model.heads.calibration import measure_heads
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.runtime.device_memory import peak_bytes
from oasis_cli.runtime.devices import autocast, capabilities, choose_device
from oasis_cli.train import begin
from oasis_cli.train.adversary import Judge
from oasis_cli.train.camera import CELL
from oasis_cli.train.codec import CodecPool
from oasis_cli.train.data import Batch, ClipPool
from oasis_cli.train.footage import load_footage
from oasis_cli.train.latents import decode_part
from oasis_cli.train.losses import flow_error
from oasis_cli.train.meter import Meter
from oasis_cli.train.objective import Objective, Restorer, compile_parts, recorded
from oasis_cli.train.optim import Optimizer
from oasis_cli.train.options import STATE, RunOptions
from oasis_cli.train.parallel import join
from oasis_cli.train.presets import LossWeights, Stage, TrainConfig
from oasis_cli.train.schedule import rate_at, stage_at
from oasis_cli.train.start import start_linear_map
from oasis_cli.train.state import (
    DENSE,
    ancestors,
    load,
    restore_state,
    save,
    write_final,
    write_model,
    write_samples,
)


class Trainer:
    """State of a run: the network, its average, the optimisers, the pool and the clock."""

    def __init__(
        self, config: TrainConfig, options: RunOptions, say: Callable[[str], None]
    ) -> None:
        self.config, self.options = config, options
        self.processes, self.device = join(choose_device(options.device))
        self.rank, self.world = self.processes.rank, self.processes.world
        self.say = say if self.rank == 0 else _silence
        torch.manual_seed(config.seed)
        torch.set_float32_matmul_precision("high")
        self.objective = Objective(
            config,
            self.device,
            perceptual=options.perceptual,
            vgg=options.vgg,
            teacher=options.teacher,
        )
        self.encoder = begin.encoder(config, options, self.device)
        self.model = begin.network(config, options, self.device)
        self.average = deepcopy(self.model).requires_grad_(False)
        # Weights to start from are past the dense stages.
        self.stages = config.stages if not options.start_from else _routed(config)
        self.ancestors = ancestors(options.out, options.start_from)
        self.decoders = begin.decoders_beside(config, options)
        """What else reads the run's latents; handed on."""
        self.own_decoder = begin.own_decoder(config, options)
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
            compile_parts(self.model)
            self.objective.compile()

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
            batch = self.pool.batch(self.step)
            meter.train()
            losses = self._step(batch, progress)
            meter.end(losses)
            self.step += 1
            self.seconds = time.monotonic() - began
            if self.step % self.options.log_every == 0:
                self.check()
                line = self._line(meter, progress)
                if self.rank == 0:
                    log.write(json.dumps(line) + "\n")
                    log.flush()
                    self.say(_text(line))
            due = time.monotonic() - saved > between
            if self.optimizer.sharded:  # saving is then a meeting: one clock decides
                due = self.processes.from_first(due)
            if due:
                self.check()
                save(self)
                write_samples(self)
                saved = time.monotonic()
        self.check()

    def _step(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        """One update. Returns the losses, still on the device."""
        stage = self.stages[self.stage_number]
        rate = self._rate(progress)
        half = autocast(self.device)
        if self.judge is not None and self._adversarial_steps() < 0:
            with half:
                return self._teach_judge(self.judge, batch)
        with half:
            losses, output, batch = self._restore(batch, stage.losses)
        if output is not None:
            losses |= self.objective(output, batch, stage.losses)
        judged: tuple[Tensor, Tensor] | None = None
        if self.judge is not None and output is not None:
            judged = self.judge.watched(output, batch.high)
            with half:
                losses |= self.judge.losses(*judged)
        weighted = {name: self._weight(name) * loss for name, loss in losses.items()}
        total = sum(weighted.values(), torch.zeros((), device=self.device))
        if self.judge is not None and output is not None and self.config.adversarial_shares:
            flow = weighted.pop("flow", None)  # it does not look at the output
            output.backward(self.judge.shared_gradient(output, weighted, self._weight))
            if flow is not None:
                flow.backward()
        else:
            total.backward()
        parameters = [p for p in self.model.parameters() if p.grad is not None]
        self.processes.average(parameters)
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip)
        self.optimizer.step(rate)
        watched = [total.detach(), norm]
        if self.judge is not None and judged is not None:
            with half:
                pace = rate / (max(stage.rate) or 1.0)
                learned = self.judge.learn(*judged, self.processes.average, pace)
            losses |= learned
            watched += learned.values()
        self._watch(*watched)
        self._average()
        return {name: loss.detach() for name, loss in losses.items()} | {"norm": norm}

    def _restore(
        self, batch: Batch, weights: LossWeights
    ) -> tuple[dict[str, Tensor], Tensor | None, Batch]:
        """Losses on latents, the frames that other losses look at, and the batch there."""
        low, high, motion = batch
        model = self.model
        if self.encoder is None or not isinstance(model.decoder, WanDecoder):
            if self.restorer is None:
                graphs = capabilities(low.device).graphs and self.options.compile
                graphs = graphs and not self.config.recompute
                self.restorer = recorded(model, low) if graphs else Restorer(model)
            return self._flow_loss(batch, weights), self.restorer(low).float(), batch
        latent = model.refine(model.to_latent(low))
        losses = {"latent": (latent.float() - self.encoder(high)).square().mean()}
        if not weights.sees_pixels:
            return losses, None, batch
        frames, (rows, cols) = decode_part(model.decoder, latent, self.config.core)
        down, right = (slice(s.start // CELL, s.stop // CELL) for s in (rows, cols))
        there = Batch(low[..., rows, cols], high[..., rows, cols], motion[..., down, right])
        return losses, frames.float(), there

    def _flow_loss(self, batch: Batch, weights: LossWeights) -> dict[str, Tensor]:
        """What the fusion's flow misses; a pass of its own, as the restorer may be a graph."""
        fusion = self.model.fusion
        learns = torch.is_grad_enabled() and not self.config.only_decoder
        if fusion is None or not weights.flow or not learns:
            return {}
        flows = fusion.flows(fusion.features(batch.low), ahead=False)
        errors = [flow_error(flow, batch.motion) for flow in flows]
        return {"flow": sum(errors[1:], errors[0]) / len(errors)}

    def _teach_judge(self, judge: Judge, batch: Batch) -> dict[str, Tensor]:
        """One update of the discriminators alone."""
        with torch.no_grad():
            _, output, batch = self._restore(batch, self.stages[self.stage_number].losses)
        assert output is not None
        learned = judge.learn(*judge.watched(output, batch.high), self.processes.average)
        self._watch(*learned.values())
        return learned

    def _watch(self, *numbers: Tensor) -> None:
        """Remember the first step one of whose numbers is not finite; `check` looks."""
        good = torch.stack(numbers).isfinite().all()
        self.bad_step = torch.where(~good & (self.bad_step < 0), self.step, self.bad_step)

    def _adversarial_steps(self) -> int:
        """Steps of this stage since the discriminators' warm-up; below zero during it."""
        return self.step - self.stage_step - self.config.discriminator_warm_up

    def _weight(self, name: str) -> float:
        """What a loss counts; discriminators are heard little by little."""
        weight: float = getattr(self.stages[self.stage_number].losses, name)
        if not name.startswith("adversarial"):
            return weight
        return weight * min(1.0, self._adversarial_steps() / max(1, self.config.adversarial_rise))

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
        if self.judge is not None:
            steps_in = max(0, self._adversarial_steps())
        return rate_at(self.stages, self.stage_number, progress, steps_in, self.config.warm_up)

    def _enter(self, number: int, state: dict[str, Any] | None) -> None:
        """Begin or resume a stage: route the heads, make its optimisers, set its degradations."""
        if number == self.stage_number:
            return
        stage = self.stages[number]
        self.check()
        if self.stage_number >= 0 and self.rank == 0:
            write_model(self, self.options.out / f"stage-{self.stage_number}.safetensors")
        if state is None:
            self.pool.vary(stage.varying)
            if not self.pool.finished:
                self.pool.fill(self._first_fill())
            if number == 0:
                start_linear_map(self, self.encoder)
            if stage.routed and self.model.dit.table.is_dense:
                self._calibrate()
        self.stage_number, self.stage_step = number, state["stage_step"] if state else self.step
        self.optimizer = Optimizer(self.model, self.config)
        if not stage.losses.adversarial:
            self.judge = None
        elif self.judge is None:
            rate, frames = self.config.discriminator_rate, self.config.adversarial_frames
            features = self.objective.vgg if stage.losses.adversarial_features else None
            self.judge = Judge(rate, frames, self.device, features=features)
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
        layers = assign_heads(statistics, self.config.rule).table.layers
        table = HeadTable(self.processes.from_first(layers))
        self.model.dit.route(table)
        self.average.dit.route(table)
        self.restorer = None  # what was recorded knows the old table
        self.say(f"head table: {' '.join(table.layers)}")

    # Reports --------------------------------------------------------------------------------

    def check(self) -> None:
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
        if self.pool.codecs.crashes:
            line["codec_crashes"] = self.pool.codecs.crashes
        if not capabilities(self.device).host:
            line["memory_gib"] = round(peak_bytes(self.device) / 2**30, 1)
        return line


def _routed(config: TrainConfig) -> tuple[Stage, ...]:
    return tuple(stage for stage in config.stages if stage.routed)


def _text(line: dict[str, Any]) -> str:
    return "  ".join(f"{key} {value}" for key, value in line.items())


def _silence(text: str) -> None:
    """Only the first process speaks."""
