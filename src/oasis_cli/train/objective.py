"""What a step minimises: the network on a training clip, and the losses on what comes out.

On a GPU both are compiled, and the network's forward and backward passes replayed from a CUDA
graph: launched one by one from Python, its kernels take half of the time they wait for.
"""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from oasis_cli.checkpoints.format import load_model
from oasis_cli.errors import UsageError
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.evaluation.metrics.vgg import VggFeatures
from oasis_cli.model.decoders.wan import WanDecoder
from oasis_cli.model.oasis import Oasis
from oasis_cli.runtime.devices import autocast
from oasis_cli.train.data import Batch
from oasis_cli.train.losses import (
    artifact,
    charbonnier,
    colour,
    cuts,
    excess,
    frame_difference,
    frequency,
    hatching,
    lattice,
    log_error,
    pick,
    structure,
    vgg_distance,
    views,
    warping,
)
from oasis_cli.train.presets import LossWeights, TrainConfig

Network = TypeVar("Network", bound=nn.Module)


class Restorer(nn.Module):
    """The network on clips that already have their target size, in one piece, as training does."""

    def __init__(self, model: Oasis) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        """clip: (B, 4k+1, 3, H, W) in [-1, 1]. Returns the same shape."""
        model = self.model
        clip = model.fused(clip)
        latent = model.refine(model.to_latent(clip))
        correction, _ = model.decoder(model.decoder.frame_features(latent), clip)
        return clip + correction


def recorded(model: Oasis, clip: Tensor) -> nn.Module:
    """A Restorer for clips like `clip`, whose passes are replayed CUDA graphs.

    What it returns is overwritten by its next call. The head table must not change.
    """
    # Gradients are added up on the stream of the recording, which waits for the one in use.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    # Discriminators that learn first call it without gradients; a recording needs them.
    with torch.enable_grad(), torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
        restorer = Restorer(model)  # what is returned is the same module, its forward replaced
        torch.cuda.make_graphed_callables(restorer, (clip.clone(),), allow_unused_input=True)
    return restorer


def pixel_losses(output: Tensor, target: Tensor, wanted: tuple[str, ...]) -> dict[str, Tensor]:
    """The losses on whole clips, (B, T, 3, H, W): two always, of the others those `wanted`."""
    losses = {"pixel": charbonnier(output, target), "difference": frame_difference(output, target)}
    for loss in (log_error, frequency, lattice):
        if loss.__name__ in wanted:
            losses[loss.__name__] = loss(output, target)
    return losses


FRAME_LOSSES = {loss.__name__: loss for loss in (structure, excess, colour, artifact)}
"""The losses that look at a few frames, (N, 3, H, W); beside them `hatching`, which also looks at
the input."""


def frame_losses(
    output: Tensor, target: Tensor, low: Tensor, wanted: tuple[str, ...]
) -> dict[str, Tensor]:
    """Those of the losses on a few frames that are wanted."""
    losses = {name: FRAME_LOSSES[name](output, target) for name in wanted if name in FRAME_LOSSES}
    if "hatching" in wanted:
        losses["hatching"] = hatching(output, target, low)
    return losses


def compile_parts(model: Oasis) -> None:
    """Compile what a network repeats, and its decoder."""
    for block in model.dit.blocks:
        block.compile()
    model.decoder.compile()
    if model.fusion is not None:
        model.fusion.coarse.compile()  # the rest of it takes longer to compile than it saves
        model.fusion.fine.compile()


class Objective:
    """The losses of a run.

    Raises UsageError when a stage has a loss that needs a network, and its file is missing or
    another one.
    """

    def __init__(
        self,
        config: TrainConfig,
        device: torch.device,
        *,
        perceptual: Path | None = None,
        vgg: Path | None = None,
        teacher: Path | None = None,
    ) -> None:
        """perceptual: SqueezeNet's features with LPIPS heads; vgg: VGG-16's features; teacher: a
        checkpoint."""
        self.config, self.device = config, device
        self.pixels, self.frames, self.vgg_distance = pixel_losses, frame_losses, vgg_distance
        self.lpips: SqueezeLpips | None = None
        self.vgg: VggFeatures | None = None
        if any(stage.losses.perceptual for stage in config.stages):
            self.lpips = _loaded(SqueezeLpips, perceptual, "perceptual").to(device)
        if any(s.losses.vgg or s.losses.adversarial_features for s in config.stages):
            self.vgg = _loaded(VggFeatures, vgg, "vgg").to(device)
            self.vgg.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.teacher: Restorer | None = None
        if any(stage.losses.teacher for stage in config.stages):
            self.teacher = _teacher(config, teacher, device)

    def compile(self) -> None:
        """Make one kernel of many."""
        self.pixels, self.frames = torch.compile(pixel_losses), torch.compile(frame_losses)
        self.vgg_distance = torch.compile(vgg_distance)
        if self.lpips is not None:
            self.lpips.compile()
        if self.teacher is not None:
            compile_parts(self.teacher.model)

    def __call__(self, output: Tensor, batch: Batch, weights: LossWeights) -> dict[str, Tensor]:
        """output: (B, T, 3, H, W) in [-1, 1]. Returns the losses that count, by name."""
        low, target, motion = batch
        wanted = tuple(name for name, weight in asdict(weights).items() if weight)
        losses: dict[str, Tensor] = self.pixels(output, target, wanted)
        if self.teacher is not None and weights.teacher:
            with torch.no_grad(), autocast(self.device):
                taught = self.teacher(low).float()
            losses["teacher"] = charbonnier(output, taught)
        if weights.warping and output.shape[1] > 1:
            losses["warping"] = warping(output, target, motion)
        some = tuple(name for name in wanted if name in (*FRAME_LOSSES, "hatching"))
        if not (some or weights.perceptual or weights.vgg):
            return losses
        *seen, given = pick([output, target, low], self.config.perceptual_frames)
        if some:
            losses |= self.frames(seen[0], seen[1], given, some)
        with autocast(self.device):
            if self.lpips is not None and weights.perceptual:
                losses["perceptual"] = self.lpips(*views(seen)).mean()
            if self.vgg is not None and weights.vgg:
                c = self.config
                one, other = cuts(seen, c.vgg_crop)
                losses["vgg"] = self.vgg_distance(
                    self.vgg, one, other, c.vgg_layers, c.vgg_before_relu
                )
        return losses


def _teacher(config: TrainConfig, path: Path | None, device: torch.device) -> Restorer:
    """The network whose pictures another learns from, held."""
    if config.behind_autoencoder:
        raise UsageError(
            "a teacher shows whole clips, and this run decodes parts of them",
            hint="set the stages' teacher weight to 0",
        )
    model = load_model(str(_given(path, "teacher")), device=device)
    if isinstance(model.decoder, WanDecoder):
        raise UsageError(
            f"{path} decodes with an autoencoder and cannot be a teacher",
            hint="pass a checkpoint with a decoder of its own",
        )
    return Restorer(model.eval().requires_grad_(False))


def _given(path: Path | None, name: str) -> Path:
    if path is None:
        raise UsageError(
            f"this run has a loss called {name}, and no file was given for it",
            hint=f"pass --{name} FILE, or set the stages' {name} weight to 0",
        )
    return path


def _loaded(kind: Callable[[Path], Network], path: Path | None, name: str) -> Network:
    """The network of features that the loss called `name` compares."""
    try:
        return kind(_given(path, name))
    except ValueError as error:
        raise UsageError(str(error)) from error
