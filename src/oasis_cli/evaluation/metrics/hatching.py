"""Hatching: regular patterns of 2 to 16 pixels on the smooth places.

Noise, grain and real texture have wide spectra, and those of different places differ. A weave that
a network draws has the same few frequencies wherever it lies, since it comes from the network's own
grid. So: spectra of all smooth places of a clip are averaged, and what stands out of the average's
own surroundings as a narrow peak is hatching. Smooth places are found on a base, never on the
picture that is judged, so a weave cannot hide by making a place look rough. The base is the input
enlarged by bicubic, or a reference.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

SIDE = 64
"""Pixels of a place; frequencies are told apart by 1/32 of a cycle a pixel."""
STEP = 32
"""Pixels from a place to the next."""
PERIODS = (2.0, 16.0)
"""Shortest and longest period that counts, in pixels."""
ROUGHNESS = (0.3, 6.0)
"""Smooth places vary by less than this on the base, in 8-bit steps (standard deviation),
and by more: what does not vary at all is a black bar or clipped."""
LIGHT = (16.0, 235.0)
"""Mean light of a smooth place, in 8-bit steps: in black and white nothing can be seen."""
FEWEST_IN_FRAME = 12
"""Smooth places that a single frame must have: the mean of fewer spectra has peaks by chance."""
PEAK = 6.0
"""A peak is what is above this many times the median of all directions at its period."""
FLOOR = 0.05
"""8-bit steps that nobody sees: added to both sides of the ratio."""


@dataclass(frozen=True, slots=True)
class Energies:
    """Standard deviation in 8-bit steps on the smooth places of a clip."""

    peaks: float
    """Of narrow peaks at PERIODS."""
    all: float
    """Of everything at PERIODS."""


def smooth_places(base: Tensor) -> Tensor:
    """Which places of the base (T, 3, H, W) are smooth: (N,) bool, in `_places`' order.

    Of the places with some light and some, but little, roughness the smoother half.
    """
    places = _places(base).mean(1)
    light, rough = places.mean((1, 2)), _level(places).std((1, 2))
    light = (light + 1) * 127.5
    rough = 127.5 * rough
    fit = (light > LIGHT[0]) & (light < LIGHT[1]) & (rough > ROUGHNESS[0]) & (rough < ROUGHNESS[1])
    if not fit.any():
        return fit
    return fit & (rough <= rough[fit].median())


def energies(frames: Tensor, smooth: Tensor) -> Energies:
    """Regular and all energy on smooth places. frames: (T, 3, H, W); smooth: (N,)."""
    places = _places(frames)[smooth]
    total = torch.zeros(SIDE, SIDE)
    for some in places.split(64):  # a few at a time: spectra are large
        total += _spectrum(some).sum(0)
    mean = total / len(places)
    counted = _counted()
    above = (mean - PEAK * _surroundings(mean)).clamp(min=0)
    return Energies(*((x * counted).sum().item() ** 0.5 for x in (above, mean)))


def _places(frames: Tensor) -> Tensor:
    """(N, 3, SIDE, SIDE) overlapping squares of all frames (T, 3, H, W)."""
    squares = frames.unfold(-2, SIDE, STEP).unfold(-2, SIDE, STEP)
    return squares.permute(0, 2, 3, 1, 5, 4).flatten(0, 2)


def _level(places: Tensor) -> Tensor:
    """Subtract the quadratic surface that fits best: light falls off over any wall."""
    flat = places.flatten(-2)
    basis = _surfaces()
    return (flat - (flat @ basis) @ basis.T).unflatten(-1, (SIDE, SIDE))


@lru_cache
def _surfaces() -> Tensor:
    """(SIDE^2, 6): orthonormal quadratic surfaces."""
    n = torch.linspace(-1, 1, SIDE)
    y, x = torch.meshgrid(n, n, indexing="ij")
    surfaces = torch.stack([torch.ones_like(x), x, y, x * y, x * x, y * y])
    return torch.linalg.qr(surfaces.flatten(1).T)[0]


def _spectrum(places: Tensor) -> Tensor:
    """(N, SIDE, SIDE) power, whose sum is the variance in 8-bit steps; mean of the colours."""
    hann = torch.hann_window(SIDE)
    window = hann[:, None] * hann
    power = torch.fft.fft2(127.5 * _level(places) * window).abs().square().mean(1)
    return power / (SIDE**2 * window.square().sum())


@lru_cache
def _counted() -> Tensor:
    """(SIDE, SIDE) bool: frequencies whose period counts."""
    f = torch.fft.fftfreq(SIDE)
    period = 1 / (f[:, None].square() + f.square()).sqrt().clamp(min=1e-9)
    # The corners of the square hold diagonal patterns down to sqrt(2) pixels: they count too.
    return period <= PERIODS[1]


@lru_cache
def _rings() -> Tensor:
    """(SIDE, SIDE) the whole part of each frequency's length: spectra fall along it."""
    f = SIDE * torch.fft.fftfreq(SIDE)
    return (f[:, None].square() + f.square()).sqrt().round().long()


def _surroundings(power: Tensor) -> Tensor:
    """For each frequency the median of those of the same length. power: (SIDE, SIDE)."""
    rings, out = _rings(), torch.zeros_like(power)
    for number in range(int(rings.max()) + 1):
        ring = rings == number
        out[ring] = power[ring].median()
    return out


def ratio(a: float, b: float) -> float:
    """The ratio of two energies, as far as anybody can see them."""
    return math.hypot(a, FLOOR) / math.hypot(b, FLOOR)


def hatching(out: Tensor, base: Tensor, fewest: int) -> tuple[float, float]:
    """Energy of narrow peaks, and of everything at their periods, over that of the base.

    out, base: (T, 3, H, W) in [-1, 1]. nan, nan when fewer than `fewest` places are smooth.
    """
    if min(base.shape[-2:]) < SIDE:
        return math.nan, math.nan
    smooth = smooth_places(base)
    if int(smooth.sum()) < fewest:
        return math.nan, math.nan
    here, there = energies(out, smooth), energies(base, smooth)
    return ratio(here.peaks, there.peaks), ratio(here.all, there.all)
