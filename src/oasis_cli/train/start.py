"""Before the first step at the paper's size: a linear map and a sigma that fit Wan2.1's weights.

The pretrained transformer knows the latents of Wan2.1's autoencoder. A random map from pixels to
latents would throw that away; one fitted to the encoder starts where the transformer is at home.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from oasis_cli.model.latent import ToLatent
from oasis_cli.model.oasis import Oasis
from oasis_cli.weights import describe

if TYPE_CHECKING:
    from oasis_cli.train.latents import Encoder
    from oasis_cli.train.loop import Trainer

RIDGE = 1e-3
"""Strength of the ridge, as a part of the inputs' mean square."""

SIGMAS = (0.05, *(n / 10 for n in range(1, 10)))


@torch.no_grad()
def fit_linear(
    to_latent: ToLatent, clips: Iterable[Tensor], encode: Callable[[Tensor], Tensor]
) -> list[float]:
    """Set the map from unshuffled pixels to latents by ridge regression on what `encode` makes.

    clips: (B, 4k+1, 3, H, W) in [-1, 1], bicubic to the target size; encode: clip to normalised
    latents (B, C, k+1, H/8, W/8). Sums are float64. Returns R^2 of each channel, 1 for a perfect
    fit; raises ValueError without clips.
    """
    width = to_latent.linear.in_features + 1
    sums: list[Tensor] = []
    count = 0
    for clip in clips:
        rows = rearrange(to_latent.unshuffle(clip), "b t h w c -> (b t h w) c").double()
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)
        latents = rearrange(encode(clip), "b c t h w -> (b t h w) c").double()
        more = [rows.T @ rows, rows.T @ latents, latents.square().sum(0), latents.sum(0)]
        sums = [kept + new for kept, new in zip(sums, more, strict=True)] if sums else more
        count += len(rows)
    if not sums:
        raise ValueError("a regression needs at least one clip")
    inputs, outputs, squares, totals = sums
    strength = RIDGE * inputs.diagonal().sum() / width
    found = torch.linalg.solve(
        inputs + strength * torch.eye(width, dtype=inputs.dtype, device=inputs.device), outputs
    )
    residual = squares - 2 * (found * outputs).sum(0) + (found * (inputs @ found)).sum(0)
    spread = squares - totals.square() / count
    to_latent.linear.weight.copy_(found[:-1].T)
    to_latent.linear.bias.copy_(found[-1])
    return [float(r) for r in 1 - residual / spread.clamp(min=1e-12)]


@torch.no_grad()
def sweep_sigma(
    model: Oasis,
    pairs: Sequence[tuple[Tensor, Tensor]],
    encode: Callable[[Tensor], Tensor],
    sigmas: Sequence[float] = SIGMAS,
) -> dict[float, float]:
    """Mean squared error of z_L - sigma * v(z_L) to the clean clip's latents, for each sigma.

    pairs: (low, high) clips (B, 4k+1, 3, H, W) in [-1, 1] at the target size. The velocity is that
    of the time the model's weights were folded at, so an argmin far from the model's own sigma asks
    for another import at that time.
    """
    errors = dict.fromkeys(sigmas, 0.0)
    for low, high in pairs:
        latent, target = model.to_latent(low), encode(high)
        velocity = model.dit(latent)
        for sigma in sigmas:
            errors[sigma] += float((latent - sigma * velocity - target).square().mean())
    return {sigma: error / max(1, len(pairs)) for sigma, error in errors.items()}


def fit_start(run: "Trainer", encoder: "Encoder") -> None:
    """Fit a run's linear map on pooled clips, unless its weights were trained, and report sigma."""
    start = run.options.start_from
    if start is not None and "steps" in describe(str(start))["provenance"]:
        return
    lows = [clip[None].float() for clip in run.pool.low[: run.pool.have]]
    fit = fit_linear(run.model.to_latent, lows, encoder)
    linear = run.model.to_latent.linear
    # Every process fitted its own clips; they must all begin as the first one does.
    weight, bias = run.processes.from_first((linear.weight.cpu(), linear.bias.cpu()))
    with torch.no_grad():
        for model in (run.model, run.average):
            model.to_latent.linear.weight.copy_(weight)
            model.to_latent.linear.bias.copy_(bias)
    run.say(f"linear map: R^2 of each channel {' '.join(f'{r:.2f}' for r in fit)}")
    clean = [clip[None].float() / 127.5 - 1 for clip in run.pool.high[: min(4, run.pool.have)]]
    errors = sweep_sigma(run.model, list(zip(lows, clean, strict=False)), encoder)
    found = " ".join(f"{sigma:g} {error:.3f}" for sigma, error in errors.items())
    run.say(f"sigma sweep, squared error at each: {found}; in use {run.config.model.sigma:g}")
