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
        if self.device.type == "cuda":
            x = x.pin_memory()
        return x.to(self.device, non_blocking=True)

    def clips_with(self, chance: Array) -> Tensor:
        """(N,) bool: frames of the clips that something happens to; chance: (clips, 1)."""
        return self.tensor((self.rng.random((self.clips, 1)) < chance).repeat(self.frames, 1))

    def blur(self, sigma: float, chance: float | Array = 1.0, low_pass: float = 0.1) -> BlurDraw:
        """Blur kernels with sigmas of 0.2 to `sigma`; other clips have no blur at all.

        chance: of each clip to be blurred, also (clips, 1).
        """
        n = self.clips
        kinds = [0.405, 0.225, 0.108, 0.027, 0.108, 0.027]
        total = sum(kinds)
        kind = self.choice([k * (1 - low_pass) / total for k in kinds] + [low_pass], True)
        size = (2 * self.rng.integers(3, 11, (n, 1)) + 1).repeat(self.frames, 1)
        sigma_x, sigma_y = self.uniform(0.2, sigma, 0.02), self.uniform(0.2, sigma, 0.02)
        sigma_y = np.where(kind % 2 == 0, sigma_x, sigma_y)  # even kinds are isotropic
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
        parts = (
            np.where(skipped, 0, shape),
            np.where(skipped, 1, size),
            sigma_x,
            sigma_y,
            self.uniform(-math.pi, math.pi, 0.314),
            beta,
            cutoff,
        )
        return BlurDraw(*(self.tensor(np.asarray(p, dtype=float)) for p in parts))

    def low_pass(self, chance: float | Array) -> BlurDraw:
        """The last low-pass, on clips by their `chance`."""
        return self.blur(1.0, chance, low_pass=1.0)

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
