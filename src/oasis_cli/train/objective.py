"""What a step minimises: the network on a training clip, and the losses on what comes out.

On a GPU both are compiled, and the network's forward and backward passes replayed from a CUDA
graph: launched one by one from Python, its kernels take half of the time they wait for.
"""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor, nn

from oasis_cli.errors import UsageError
from oasis_cli.metrics.perceptual import SqueezeLpips
from oasis_cli.model.oasis import Oasis
from oasis_cli.train.losses import (
    charbonnier,
    frame_difference,
    frequency,
    lattice,
    log_error,
    pick,
    structure,
    views,
)
from oasis_cli.train.presets import LossWeights, TrainConfig


class Restorer(nn.Module):
    """The network on clips that already have their target size, in one piece, as training does."""

    def __init__(self, model: Oasis) -> None:
        super().__init__()
        self.model = model

    def forward(self, clip: Tensor) -> Tensor:
        """clip: (B, 4k+1, 3, H, W) in [-1, 1]. Returns the same shape."""
        model = self.model
        latent = model.refine(model.to_latent(clip))
        correction, _ = model.decoder(model.decoder.frame_features(latent), clip)
        return clip + correction


def recorded(model: Oasis, clip: Tensor) -> nn.Module:
    """A Restorer for clips like `clip`, whose passes are replayed CUDA graphs.

    What it returns is overwritten by its next call. The head table must not change.
    """
    # Gradients are added up on the stream of the recording, which waits for the one in use.
    torch.autograd.graph.set_warn_on_accumulate_grad_stream_mismatch(False)
    with torch.autocast("cuda", torch.bfloat16, cache_enabled=False):
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


class Objective:
    """The losses of a run.

    Raises UsageError when a stage has a perceptual loss and `perceptual` is no features file.
    """

    def __init__(self, config: TrainConfig, perceptual: Path | None, device: torch.device) -> None:
        self.frames, self.device = config.perceptual_frames, device
        self.pixels, self.structure = pixel_losses, structure
        self.lpips: SqueezeLpips | None = None
        if not any(stage.losses.perceptual for stage in config.stages):
            return
        if perceptual is None:
            raise UsageError(
                "this run has a perceptual loss, and no features file was given",
                hint="pass --perceptual FILE, or set the stages' perceptual weight to 0",
            )
        try:
            self.lpips = SqueezeLpips(perceptual).to(device)
        except ValueError as error:
            raise UsageError(str(error)) from error

    def compile(self) -> None:
        """Make one kernel of many."""
        self.pixels, self.structure = torch.compile(pixel_losses), torch.compile(structure)
        if self.lpips is not None:
            self.lpips.compile()

    def __call__(self, output: Tensor, target: Tensor, weights: LossWeights) -> dict[str, Tensor]:
        """output, target: (B, T, 3, H, W) in [-1, 1]. Returns the losses that count, by name."""
        wanted = tuple(name for name, weight in asdict(weights).items() if weight)
        losses = self.pixels(output, target, wanted)
        if weights.structure or weights.perceptual:
            seen = pick([output, target], self.frames)
        if weights.structure:
            losses["structure"] = self.structure(*seen)
        if weights.perceptual:
            assert self.lpips is not None
            with torch.autocast(self.device.type, torch.bfloat16, self.device.type == "cuda"):
                losses["perceptual"] = self.lpips(*views(seen)).mean()
        return losses
