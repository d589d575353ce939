"""Before the first step: a start for the map from pixels to latents.

Without pretraining, the latents begin as the principal components of the clips, each at unit
variance. With a random map every channel would mostly hold brightness, and detail would be 1e-4 of
the variance. At the paper's size the pretrained transformer knows the latents of Wan2.1's
autoencoder. There the map is fitted to that autoencoder's encoder.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

import torch
from einops import rearrange
from torch import Tensor

from oasis_cli.checkpoints.format import describe
from oasis_cli.model.latent import ToLatent
from oasis_cli.model.oasis import Oasis

if TYPE_CHECKING:
    from oasis_cli.train.latents import Encoder
    from oasis_cli.train.loop import Trainer

RIDGE = 1e-3
"""Strength of the ridge, as a part of the inputs' mean square."""

WHITE_FLOOR = 1e-2
"""Added to the components' variances, in squared pixel values: noise is not blown up."""

PREPARING = 128
"""Clips that the start is made from."""

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

    def products(clip: Tensor) -> list[Tensor]:
        rows = _rows(to_latent, clip)
        latents = rearrange(encode(clip), "b c t h w -> (b t h w) c").double()
        return [rows.T @ rows, rows.T @ latents, latents.square().sum(0), latents.sum(0)]

    inputs, outputs, squares, totals = _added(map(products, clips))
    count = inputs[-1, -1]
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
def whiten(to_latent: ToLatent, clips: Iterable[Tensor]) -> float:
    """Set the map to the principal components of unshuffled pixels, scaled to unit variance.

    clips as for `fit_linear`. Returns the share of the variance that the latents keep; raises
    ValueError without clips.
    """
    linear = to_latent.linear
    (products,) = _added([rows.T @ rows] for rows in (_rows(to_latent, clip) for clip in clips))
    moments = products / products[-1, -1]
    mean = moments[-1, :-1]
    variances, components = torch.linalg.eigh(moments[:-1, :-1] - mean.outer(mean))
    kept, found = variances[-linear.out_features :], components[:, -linear.out_features :]
    weight = (found / (kept + WHITE_FLOOR).sqrt()).T
    linear.weight.copy_(weight)
    linear.bias.copy_(-weight @ mean)
    return float(kept.sum() / variances.sum())


def _rows(to_latent: ToLatent, clip: Tensor) -> Tensor:
    """What the map reads, a row for each latent position, and a column of ones; float64."""
    rows = to_latent.unshuffle(clip).flatten(0, -2).double()
    return torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1)


def _added(parts: Iterable[list[Tensor]]) -> list[Tensor]:
    """The parts' tensors added up, place by place."""
    sums: list[Tensor] = []
    for part in parts:
        sums = [kept + new for kept, new in zip(sums, part, strict=True)] if sums else part
    if not sums:
        raise ValueError("the map's start needs at least one clip")
    return sums


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


def start_linear_map(run: "Trainer", encoder: "Encoder | None") -> None:
    """Give a run's linear map its start on pooled clips, unless its weights were trained.

    Weights to start from were, but for imported ones, which get an encoder to fit.
    """
    start = run.options.start_from
    if start is not None and (encoder is None or "steps" in describe(str(start))["provenance"]):
        return
    model = run.model
    lows = [clip[None].float() for clip in run.pool.low[: min(PREPARING, run.pool.have)]]
    if encoder is None:
        kept = whiten(model.to_latent, lows)
        run.say(f"linear map: principal components with {kept:.2%} of the variance")
    else:
        fit = fit_linear(model.to_latent, lows, encoder)
        run.say(f"linear map: R^2 of each channel {' '.join(f'{r:.2f}' for r in fit)}")
    # Every process looked at its own clips; they must all begin as the first one does.
    linear = model.to_latent.linear
    weight, bias = run.processes.from_first((linear.weight.cpu(), linear.bias.cpu()))
    with torch.no_grad():
        for network in (model, run.average):
            network.to_latent.linear.weight.copy_(weight)
            network.to_latent.linear.bias.copy_(bias)
    if encoder is not None:
        clean = [clip[None].float() / 127.5 - 1 for clip in run.pool.high[: min(4, run.pool.have)]]
        errors = sweep_sigma(model, list(zip(lows, clean, strict=False)), encoder)
        found = " ".join(f"{sigma:g} {error:.3f}" for sigma, error in errors.items())
        run.say(f"sigma sweep, squared error at each: {found}; in use {run.config.model.sigma:g}")
