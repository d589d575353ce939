"""The parameters of every degradation, for all frames of many clips at once.

Ranges are those of Real-ESRGAN and RealBasicVSR. How a parameter moves through a clip is the
clip's mode: progressive training first holds it, then lets it vary (OASIS, progressive training).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oasis_cli.runtime.devices import capabilities

Array = NDArray[np.float64]

CONSISTENT, WALK, INDEPENDENT, SEGMENT = range(4)
"""Drawn once a clip; a random walk; drawn for each frame; drawn again every 4 to 8 frames."""


@dataclass(frozen=True, slots=True)
class BlurDraw:
    """(N,) each. shape: 0 Gaussian, 1 generalised, 2 plateau, 3 low-pass."""

    shape: Tensor
    size: Tensor
    sigma_x: Tensor
    sigma_y: Tensor
    angle: Tensor
    beta: Tensor
    cutoff: Tensor


@dataclass(frozen=True, slots=True)
class NoiseDraw:
    """(N,) each. level: sigma of Gaussian noise, scale of Poisson noise."""

    poisson: Tensor
    grey: Tensor
    level: Tensor
    counts: Tensor
    """Photons that make full white."""


@dataclass(frozen=True, slots=True)
class FilmDraw:
    """on (N,), gain (N, 3), scratch (N, 2) columns, brightness (N,), grain (N,)."""

    on: Tensor
    gain: Tensor
    scratch: Tensor
    brightness: Tensor
    grain: Tensor


@dataclass(frozen=True, slots=True)
class Rare:
    """What only a few clips suffer: (n,) bool each, and how damage comes and goes in time."""

    halo: Array
    """(n,) strength of an unsharp mask, 0 in most clips."""
    night: NDArray[np.bool_]
    deinterlaced: NDArray[np.bool_]
    tape: NDArray[np.bool_]
    few_colours: NDArray[np.bool_]
    starved: NDArray[np.bool_]
    """Compressed to next to nothing."""
    good: Array
    """(n, T) 0 to 1: how nearly a frame is clean."""
    soft: Array
    """(n, T) 0 to 1: blur that comes and goes. -1 in all frames of other clips."""
    lost: Array
    """(n, 4) first and last frame, first and last part of the height of a slice that is lost and
    shows the frame before. The first frame is 0 in clips that lose none."""

    @property
    def keyed(self) -> NDArray[np.bool_]:
        """(n,) clips with nearly clean frames; the others suffer all the more."""
        return np.asarray((self.good > 0).any(1))

    @property
    def waxing(self) -> NDArray[np.bool_]:
        """(n,) clips with blur that comes and goes; without it they are damaged lightly."""
        return np.asarray((self.soft >= 0).any(1))


def draw_rare(
    clips: int, frames: int, rng: np.random.Generator, uneven: float, **shares: float
) -> Rare:
    """shares: of clips, for each of the first six fields of `Rare`."""
    chosen = {name: rng.random(clips) < share for name, share in shares.items()}
    halo = rng.uniform(0.4, 2.5, clips) * chosen.pop("halo")
    # Every n-th frame good, blur that comes and goes, a lost slice; some of that in half a clip.
    kind = np.where(rng.random(clips) < uneven, rng.choice(3, clips, p=[0.55, 0.3, 0.15]), 3)
    time = np.arange(frames)
    period = rng.integers(4, 13, clips)[:, None]
    key = (time + rng.integers(0, 13, clips)[:, None]) % period == 0
    good = rng.uniform(0.8, 1.0, (clips, frames)) * (key & (kind == 0)[:, None])
    wave = np.sin(
        2 * math.pi * (time / period / rng.uniform(0.8, 2, (clips, 1)))
        + 6.3 * rng.random((clips, 1))
    )
    jumps = rng.random((clips, frames)) ** 2
    soft = np.where(rng.random((clips, 1)) < 0.6, (0.5 + 0.5 * wave) ** 2, jumps)
    soft = np.where((kind == 1)[:, None], soft, -1.0)
    first = rng.integers(1, max(frames, 2), clips) * (kind == 2)
    top = rng.uniform(0, 0.8, clips)
    lost = [first, first + rng.integers(0, 4, clips), top, top + rng.uniform(0.1, 0.5, clips)]
    return Rare(halo, **chosen, good=good, soft=soft, lost=np.stack(lost, 1).astype(float))


def shown_frames(lost: Array, frames: int, side: int) -> NDArray[np.int64]:
    """(n, T, S) which frame every row shows, by `Rare.lost`."""
    first, last, top, foot = (column[:, None, None] for column in lost.T)
    time, row = np.arange(frames)[None, :, None], (np.arange(side) + 0.5)[None, None] / side
    inside = (first > 0) & (time >= first) & (time <= last) & (row >= top) & (row < foot)
    return np.where(inside, first - 1, time).astype(np.int64)


class Draws:
    """Random parameters for `clips` clips of `frames` frames; equal seeds give equal draws."""

    def __init__(
        self, clips: int, frames: int, seed: Sequence[int], varying: float, device: torch.device
    ) -> None:
        """varying: the share of clips whose parameters change from frame to frame."""
        self.clips, self.frames, self.device = clips, frames, device
        self.rng = np.random.default_rng(list(seed))
        varied = self.rng.choice([WALK, INDEPENDENT, SEGMENT], clips, p=[0.5, 0.25, 0.25])
        self.modes = np.where(self.rng.random(clips) < varying, varied, CONSISTENT)

    def uniform(self, low: float | Array, high: float | Array, step: float = 0.0) -> Array:
        """(clips, frames) between low and high, moving as each clip's mode says."""
        n, frames, rng = self.clips, self.frames, self.rng
        low, high = (np.broadcast_to(x, (n,))[:, None].astype(float) for x in (low, high))
        held = rng.random((n, 1)).repeat(frames, 1)
        steps = rng.uniform(-step, step, (n, frames)) / np.maximum(high - low, 1e-9)
        walk = np.clip(held + np.cumsum(steps, 1), 0, 1)
        each = rng.random((n, frames))
        cuts = np.cumsum(np.arange(frames) % rng.integers(4, 9, (n, 1)) == 0, 1)
        segment = np.take_along_axis(rng.random((n, frames + 1)), cuts, 1)
        share = np.choose(self.modes[:, None], [held, walk, each, segment])
        return low + share * (high - low)

    def choice(self, chances: Sequence[float], each_frame: bool = False) -> Array:
        """(clips, frames) numbers of options; per frame only for clips drawn independently."""
        p = np.asarray(chances) / sum(chances)
        held = self.rng.choice(len(p), (self.clips, 1), p=p).repeat(self.frames, 1)
        free = self.rng.choice(len(p), (self.clips, self.frames), p=p)
        return np.where((self.modes[:, None] == INDEPENDENT) & each_frame, free, held)

    def tensor(self, values: NDArray[Any]) -> Tensor:
        """(clips, frames, ...) to (N, ...) on the device, float32 or bool."""
        x = torch.from_numpy(np.ascontiguousarray(values.reshape(-1, *values.shape[2:])))
        x = x if x.dtype == torch.bool else x.float()
        if capabilities(self.device).streams:
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True)

    def clips_with(self, chance: Array) -> Tensor:
        """(N,) bool: frames of the clips that something happens to; chance: (clips, 1)."""
        return self.tensor((self.rng.random((self.clips, 1)) < chance).repeat(self.frames, 1))

    def blur(
        self,
        sigma: float,
        chance: float | Array = 1.0,
        low_pass: float = 0.1,
        soft: Array | None = None,
    ) -> BlurDraw:
        """Blur kernels with sigmas of 0.2 to `sigma`; other clips have no blur at all.

        chance: of each clip to be blurred, also (clips, 1). soft: (clips, frames), where it is not
        negative the blur is a Gaussian that reaches `sigma` at 1.
        """
        n = self.clips
        kinds = [0.405, 0.225, 0.108, 0.027, 0.108, 0.027]
        total = sum(kinds)
        kind = self.choice([k * (1 - low_pass) / total for k in kinds] + [low_pass], True)
        size = (2 * self.rng.integers(3, 11, (n, 1)) + 1).repeat(self.frames, 1)
        sigma_x, sigma_y = self.uniform(0.2, sigma, 0.02), self.uniform(0.2, sigma, 0.02)
        sigma_y = np.where(kind % 2 == 0, sigma_x, sigma_y)  # even kinds are isotropic
        # Half of the others lie along the axes: narrow formats and old recorders blur so.
        upright = (self.rng.random((n, 1)) < 0.5) & (kind % 2 == 1)
        plateau = kind >= 4
        below, coin = 0.5 + 0.5 * plateau, self.rng.random(n) < 0.5
        first = np.where(plateau[:, 0], 1.0, below[:, 0])
        beta = self.uniform(
            np.where(coin, first, 1.0), np.where(coin, 1.0, np.where(plateau[:, 0], 2.0, 4.0)), 0.05
        )
        lowest = np.where(size[:, 0] < 13, math.pi / 3, math.pi / 5)
        cutoff = self.uniform(lowest, math.pi, 0.0628)
        skipped = (self.rng.random((n, 1)) >= chance).repeat(self.frames, 1)
        shape = np.select([kind < 2, kind < 4, kind < 6], [0, 1, 2], 3)
        size = np.where(skipped, 1, size)
        if soft is not None:
            waxing = soft >= 0
            shape, size = np.where(waxing, 0, shape), np.where(waxing, 21, size)
            sigma_x = np.where(waxing, 0.2 + (sigma - 0.2) * soft, sigma_x)
            sigma_y = np.where(waxing, sigma_x, sigma_y)
            skipped &= ~waxing
        parts = (
            np.where(skipped, 0, shape),
            size,
            sigma_x,
            sigma_y,
            np.where(upright, 0.0, self.uniform(-math.pi, math.pi, 0.314)),
            beta,
            cutoff,
        )
        return BlurDraw(*(self.tensor(np.asarray(p, dtype=float)) for p in parts))

    def low_pass(self, chance: float | Array, soft: Array | None = None) -> BlurDraw:
        """The last low-pass, on clips by their `chance`; `soft` as in `blur`, up to sigma 2.5."""
        return self.blur(2.5, chance, low_pass=1.0, soft=soft)

    def noise(self, sigma: float, scale: float) -> NoiseDraw:
        """Half Gaussian (sigma 1 to `sigma`), half Poisson (scale 0.05 to `scale`).

        Levels are squared uniform: real footage is more often a little noisy than very noisy.
        """
        poisson = self.choice([0.5, 0.5]) == 1
        strength = self.uniform(0, 1, 0.01) ** 2
        gaussian_level = 1 + (sigma - 1) * strength
        poisson_level = 0.05 + (scale - 0.05) * strength
        return NoiseDraw(
            self.tensor(poisson),
            self.tensor(self.choice([0.6, 0.4]) == 1),
            self.tensor(np.where(poisson, poisson_level, gaussian_level)),
            self.tensor(2.0 ** self.choice([0.1, 0.3, 0.6]) * 64),
        )

    def film(self, chance: float, side: int) -> FilmDraw:
        """Old-film damage on a share of the clips; side: pixels a scratch can be at."""
        n, frames, rng = self.clips, self.frames, self.rng
        on = (rng.random((n, 1)) < chance).repeat(frames, 1)
        tint = rng.uniform(0.85, 1.1, (n, 1, 3))
        flicker = rng.uniform(0.9, 1.1, (n, frames, 1))
        scratch = rng.uniform(0, side, (n, 1, 2)) + rng.normal(0, 0.7, (n, frames, 2))
        brightness = rng.uniform(-120, 120, (n, 1)) * (rng.random((n, frames)) < 0.7)
        grain = rng.uniform(0, 15, (n, 1)).repeat(frames, 1)
        parts = (tint * flicker, scratch, brightness, grain)
        return FilmDraw(self.tensor(on), *(self.tensor(p) for p in parts))

    def scale(self, chances: Sequence[float], low: float, high: float, step: float) -> Array:
        """(clips, frames) resize factors; chances of up, down, keep."""
        kind = self.choice(chances)
        up = self.uniform(1, high, step)
        down = self.uniform(low, 1, step)
        return np.select([kind == 0, kind == 1], [up, down], 1.0)
