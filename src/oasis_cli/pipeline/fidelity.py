"""How far a result may leave its input: strength, colour, and the seams between windows.

    high = base + correction          base: the bicubic clip, what the input certainly says

`FidelityControl` wraps any model and changes the correction; the pipeline does not know of it.
Letters: T frames   H, W target pixels
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.errors import UsageError
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.runtime.backend import Model

ColorFix = Literal["none", "wavelet", "adain"]
COLOR_FIXES: tuple[ColorFix, ...] = ("none", "wavelet", "adain")

LEVELS = 5
"""Bands of detail, finest first: about 2, 4, 8, 16 and 32 pixels; what is coarser is the rest."""

FINEST_EXPONENT, COARSEST_EXPONENT = 0.5, 2.0
"""At a strength s the bands of the correction are multiplied by s to powers between these."""


class FidelityControl:
    """A model that stays closer to its input."""

    def __init__(
        self, model: Model, *, strength: float = 1.0, color_fix: ColorFix = "none"
    ) -> None:
        if not 0 <= strength <= 1:
            raise UsageError(
                f"a strength of {strength:g} is not possible",
                hint="choose --strength from 0 (bicubic) to 1 (all that the model adds)",
            )
        if color_fix not in COLOR_FIXES:
            raise UsageError(
                f"{color_fix!r} is not a colour correction",
                hint=f"choose --color-fix {', '.join(COLOR_FIXES)}",
            )
        self.model, self.strength, self.color_fix = model, strength, color_fix
        self.notes: deque[str] = getattr(model, "notes", deque())
        """The model's notes for the user; see `oasis_cli.model.cuda_graph`."""

    def __call__(self, low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
        """low: (1, T, 3, h, w) in [-1, 1]. Returns (1, T, 3, H, W)."""
        high = self.model(low, size, tile).float()
        if self.strength == 1 and self.color_fix == "none":
            return high
        out = torch.empty_like(high)
        for number in range(high.shape[1]):  # a frame at a time: the bands of a window are large
            base = bicubic_upsample(low[:, number].float(), size)
            out[:, number] = faithful(high[:, number], base, self.strength, self.color_fix)
        return out


def faithful(high: Tensor, base: Tensor, strength: float, color_fix: ColorFix) -> Tensor:
    """Apply both controls. high, base: (N, 3, H, W) in [-1, 1]. Returns (N, 3, H, W)."""
    if color_fix == "wavelet":
        high = wavelet_color(high, base)
    elif color_fix == "adain":
        high = adain_color(high, base)
    return blend_by_frequency(high, base, strength)


def _smooth(x: Tensor, step: int) -> Tensor:
    """One step of the a-trous wavelet: the kernel (1 2 1)/4 in both directions, `step` apart."""
    kernel = x.new_tensor([0.25, 0.5, 0.25])
    for shape, pad in (((-1, 1), (0, 0, step, step)), ((1, -1), (step, step, 0, 0))):
        weight = kernel.view(1, 1, *shape).expand(x.shape[1], 1, -1, -1)
        padded = F.pad(x, pad, mode="replicate")
        x = F.conv2d(padded, weight, groups=x.shape[1], dilation=step)
    return x


def bands(picture: Tensor, levels: int = LEVELS) -> list[Tensor]:
    """Split into bands of detail, finest first, and what is left; their sum is the picture.

    picture: (N, C, H, W). Returns levels + 1 tensors of that shape.
    """
    parts = []
    for level in range(levels):
        smooth = _smooth(picture, 2**level)
        parts.append(picture - smooth)
        picture = smooth
    return [*parts, picture]


def blend_by_frequency(high: Tensor, base: Tensor, strength: float) -> Tensor:
    """Between the bicubic picture (0) and the model's (1), keeping fine detail longest.

    A plain mix at 0.5 halves everything. Here the finest detail of the correction keeps 0.71 of
    itself and its coarsest part, which moves shapes, faces and colours, keeps 0.25.
    high, base: (N, 3, H, W). Returns (N, 3, H, W).
    """
    if strength == 1:
        return high
    if strength == 0:
        return base
    out = base.clone()
    for level, band in enumerate(bands(high - base)):
        share = level / LEVELS
        exponent = FINEST_EXPONENT + share * (COARSEST_EXPONENT - FINEST_EXPONENT)
        out += band * strength**exponent
    return out


def wavelet_color(high: Tensor, base: Tensor) -> Tensor:
    """Take everything coarser than 32 pixels, colour and light, from the bicubic picture."""
    return high + bands(base - high)[-1]


def adain_color(high: Tensor, base: Tensor) -> Tensor:
    """Give each colour of each frame the mean and spread that it has in the bicubic picture."""
    axes = (-2, -1)
    mean, spread = high.mean(axes, keepdim=True), high.std(axes, keepdim=True)
    wanted, width = base.mean(axes, keepdim=True), base.std(axes, keepdim=True)
    return (high - mean) * (width / spread.clamp(min=1e-6)) + wanted


NOISE = 0.1
"""8-bit steps that codecs change anyway: below them a change is none."""


@dataclass(frozen=True, slots=True)
class Seam:
    """How much the picture changes where two windows meet, against the change beside it."""

    frame: int
    """The first frame that comes from the later window alone."""
    jump: float
    """Mean change per frame across the border, in 8-bit steps."""
    inside: float
    """Mean change per frame inside the two windows, in 8-bit steps."""
    natural: float = 1.0
    """The input's own `step` at this place: no video moves evenly."""

    @property
    def step(self) -> float:
        """How many times as large as beside it the change across the border is."""
        return (self.jump + NOISE) / (self.inside + NOISE)

    @property
    def ratio(self) -> float:
        """`step` over the input's: 1 cannot be told from the rest, 1.15 is a visible step."""
        return self.step / self.natural


class SeamMeter:
    """Collects the change from frame to frame while a video is made. Keeps one small picture."""

    def __init__(self) -> None:
        self.changes: list[float] = []
        """changes[t] is the mean |frame t - frame t-1| in 8-bit steps; changes[0] is 0."""
        self._last: Tensor | None = None

    def add(self, frame: Tensor) -> None:
        """Note the next frame. frame: (3, H, W) in [-1, 1]."""
        small = frame[:, ::2, ::2].detach().float().clamp(-1, 1)
        change = 0.0 if self._last is None else float((small - self._last).abs().mean())
        self.changes.append(127.5 * change)
        self._last = small

    def seams(self, scenes: Sequence[Sequence[tuple[int, int]]], overlap: int) -> list[Seam]:
        """One Seam for each pair of neighbouring windows.

        scenes: for each scene its windows [first, last), as `window_spans` gives them. overlap:
        frames over which neighbours are cross-faded.
        """
        found = []
        for windows in scenes:
            zones = [range(last - overlap, last + 1) for _, last in windows[:-1]]
            faded = {t for zone in zones for t in zone}
            for number, zone in enumerate(zones):
                first, last = windows[number][0] + 1, windows[number + 1][1]
                inside = [self.changes[t] for t in range(first, last) if t not in faded]
                at = [self.changes[t] for t in zone if t < last]
                if inside and at:
                    mean = sum(inside) / len(inside)
                    found.append(Seam(windows[number][1], sum(at) / len(at), mean))
        return found
