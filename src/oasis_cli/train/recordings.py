"""Damage of recorders, cameras and broadcasts, on the few clips of a batch that suffer it.

Every function takes those clips alone, draws what it needs from the generator, and is a handful of
launches. Damage of lenses, files and films, for all clips at once, is in `degrade`.

Letters: m clips   T frames   S canvas side
Clips are (m, T, 3, S, S), RGB, 0 to 255, float32.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.train.degrade import YCC

STREAKS = 3
"""Dropouts of a tape in a frame, at most."""


def night(x: Tensor, generator: torch.Generator) -> Tensor:
    """Noise of a sensor in the dark: most in shadows, coloured in blotches, new in each frame."""
    m, frames, _, side, _ = x.shape
    level = 1.5 + 7 * _between(0.0, 1.0, m, generator) ** 2
    flat = x.flatten(0, 1)
    fine = torch.randn((m * frames, 1, side, side), device=x.device, generator=generator)
    coarse = torch.randn(
        (m * frames, 3, side // 2, side // 2), device=x.device, generator=generator
    )
    coarse = F.interpolate(coarse, size=(side, side), mode="bilinear")
    light = flat.mean(1, keepdim=True).clamp(0, 255) / 255
    noise = (fine + 2.0 * coarse) * (0.3 + 0.9 * (1 - light) ** 2)
    return x + level * noise.unflatten(0, (m, frames))


def deinterlaced(x: Tensor, generator: torch.Generator) -> Tensor:
    """What bad deinterlacing leaves of two fields: combs, a double picture, or half the rows.

    Odd rows come from the next frame, as fields do; each clip has one of the three.
    """
    m = len(x)
    later = torch.cat([x[:, 1:], x[:, -1:]], dim=1)
    how = torch.rand((m, 1, 1, 1, 1), device=x.device, generator=generator)
    strength = _between(0.4, 1.0, m, generator)
    odd = (torch.arange(x.shape[-2], device=x.device) % 2 == 1)[:, None]
    combs = torch.where(odd, x.lerp(later, strength), x)
    double = x.lerp(later, 0.5)
    between = (x + torch.cat([x[..., 2:, :], x[..., -2:, :]], dim=-2)) / 2
    halved = torch.where(odd, between.roll(1, -2), x)
    return torch.where(how < 0.5, combs, torch.where(how < 0.75, double, halved))


def tape(x: Tensor, generator: torch.Generator) -> Tensor:
    """A video tape: smeared and late colour, soft and unsteady lines, dropouts, noise."""
    m, frames, _, side, _ = x.shape
    to_ycc = torch.tensor(YCC, device=x.device)
    ycc = torch.einsum("rc,mtchw->mtrhw", to_ycc, x)
    luma, chroma = ycc[:, :, :1], ycc[:, :, 1:]
    grain = torch.randn(ycc.shape, device=x.device, generator=generator)
    chroma = _narrow(chroma + 12 * grain[:, :, 1:], 6)
    luma = luma.lerp(_narrow(luma, 2), _between(0.3, 1.0, m, generator))
    luma = luma + _between(0.0, 6.0, m, generator) * _narrow(grain[:, :, :1], 2)
    jitter = torch.randn((m, frames, 1, side, 1), device=x.device, generator=generator)
    jitter = jitter * _between(0.0, 0.35, m, generator)
    luma = _shifted(luma, jitter)
    chroma = _shifted(chroma, jitter + _between(0.5, 3.0, m, generator))
    luma = luma + _dropouts(m, frames, side, x.device, generator)
    return torch.einsum("rc,mtchw->mtrhw", to_ycc.inverse(), torch.cat([luma, chroma], 2))


def _narrow(x: Tensor, by: int) -> Tensor:
    """Keep about the lower `by`-th of what a line can hold: a tape's bandwidth is horizontal."""
    wide = 2 * (by // 2) + 1
    lines = x.flatten(0, 2)
    for _ in range(2):
        lines = F.avg_pool1d(lines, wide, 1, wide // 2, count_include_pad=False)
    return lines.unflatten(0, x.shape[:3])


def _shifted(x: Tensor, by: Tensor) -> Tensor:
    """Lines moved to the right by (m, T or 1, 1, S or 1, 1) pixels, ends repeated."""
    last = x.shape[-1] - 1
    at = (torch.arange(last + 1, device=x.device) - by).clamp(0, last)
    first = at.floor()
    left = first.long().expand(x.shape)
    right = (left + 1).clamp(max=last)
    return x.gather(-1, left).lerp(x.gather(-1, right), at - first)


def _dropouts(
    m: int, frames: int, side: int, device: torch.device, generator: torch.Generator
) -> Tensor:
    """(m, T, 1, S, S) streaks of a line or less that flash up in single frames."""
    shape = (m, frames, STREAKS, 1, 1)
    row, start, length, there, bright = (
        torch.rand(shape, device=device, generator=generator) for _ in range(5)
    )
    n = torch.arange(side, device=device)
    ahead = n - start * side
    inside = (ahead >= 0) & (ahead < (2 + length * 0.3 * side))
    on = inside & (n[:, None] == (row * side).floor()) & (there < 0.25)
    return (on * torch.where(bright < 0.75, 150.0, -100.0)).sum(2, keepdim=True)


def few_colours(x: Tensor) -> Tensor:
    """Colour at half the size, enlarged by repetition: 4:2:0 as careless players show it."""
    m, frames = x.shape[:2]
    over = -x.shape[-1] % 2
    to_ycc = torch.tensor(YCC, device=x.device)
    ycc = torch.einsum("rc,nchw->nrhw", to_ycc, x.flatten(0, 1))
    chroma = F.avg_pool2d(F.pad(ycc[:, 1:], (0, over, 0, over), mode="replicate"), 2)
    chroma = F.interpolate(chroma, scale_factor=2.0)[..., : x.shape[-2], : x.shape[-1]]
    rgb = torch.einsum("rc,nchw->nrhw", to_ycc.inverse(), torch.cat([ycc[:, :1], chroma], 1))
    return rgb.unflatten(0, (m, frames))


def frozen(x: Tensor, shown: Tensor) -> Tensor:
    """Rows that show an earlier frame, as where a slice was lost. shown: (m, T, S) frames."""
    return x.gather(1, shown.long()[:, :, None, :, None].expand(x.shape))


def _between(low: float, high: float, m: int, generator: torch.Generator) -> Tensor:
    """(m, 1, 1, 1, 1) uniform numbers on the generator's device."""
    share = torch.rand((m, 1, 1, 1, 1), device=generator.device, generator=generator)
    return low + (high - low) * share
