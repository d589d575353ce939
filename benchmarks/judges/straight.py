"""Straightness: lines are drawn, damaged and restored; how far do their edges leave the straight?

A line is a bright or a dark bar with soft sides that drifts slowly over a plain wall, as a mast, a
rail or a cable does. Its two edges are where the picture crosses half of the line's contrast, found
to a fraction of a pixel every pixel along the line. Steps, bites and waves all count.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from judges.cases import SCALE, Case, Scores, eight_bits, mean

ANGLES = (10, 20, 30, 40, 50, 60, 70, 80)
"""Degrees from the horizontal."""
SIDE = 384
"""Pixels of the clean picture."""
WIDTH = 4.0
"""Pixels from edge to edge of the clean line: one of the damaged picture's."""
FRAMES = 5
DRIFT = (1.3, 0.7)
"""Pixels a frame, across and down."""
REACH = 130
"""Pixels of the line, from its middle, that are measured."""
FAR = 12.0
"""Pixels from the line's middle at which its ground is; no edge is farther away."""
BLUR, NOISE, QUALITY = 1.2, 4.0, 25.0
"""The damage: sigmas of blur (pixels of the small picture) and noise (8-bit steps), JPEG."""
LOST = 0.2
"""Contrast, of 2 between black and white, below which a line is lost: half its width off then."""
FINE = 0.125
"""Pixels between two samples across the line."""

Offsets = Tensor
"""(2, 2 * REACH + 1): how far each edge lies from the straight that fits it best, in pixels."""


@dataclass(frozen=True, slots=True)
class Line:
    """Where a line is. The middle of the picture is (0, 0)."""

    angle: float
    """Degrees."""
    bright: bool
    bend: float = 0.0
    """Amplitude of a wave of 40 pixels, for tests."""

    def middle(self, frame: int) -> tuple[float, float]:
        """(x, y) of the line's middle in a frame."""
        at = frame - (FRAMES - 1) / 2
        return DRIFT[0] * at, DRIFT[1] * at


def draw(line: Line) -> Tensor:
    """The clean clip: (FRAMES, 3, SIDE, SIDE), 0 to 255."""
    n = torch.arange(SIDE) - (SIDE - 1) / 2
    frames = []
    for number in range(FRAMES):
        x, y = line.middle(number)
        along, across = _turned(n[None] - x, n[:, None] - y, line.angle)
        across = across - line.bend * torch.sin(along * (2 * math.pi / 40))
        inside = (WIDTH / 2 + 0.5 - across.abs()).clamp(0, 1)  # a soft side of one pixel
        ground, ink = (70.0, 200.0) if line.bright else (190.0, 50.0)
        slope = 10 * n[None] / SIDE
        frames.append(ground + slope + inside * (ink - ground))
    return torch.stack(frames)[:, None].expand(-1, 3, -1, -1).contiguous()


def _turned(x: Tensor, y: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Coordinates along and across a line of this angle (upwards to the right)."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return x * cos - y * sin, x * sin + y * cos


def damage(clean: Tensor, seed: int) -> Tensor:
    """Blur, a quarter of the size, noise and JPEG, the same for all. Returns (T, 3, h, w)."""
    # Training's own code is loaded here: judges of other things can do without.
    from oasis_cli.train.degrade import add_noise, jpeg
    from oasis_cli.train.draws import NoiseDraw

    small = F.interpolate(
        clean, scale_factor=1 / SCALE, mode="bicubic", antialias=True, recompute_scale_factor=False
    )
    kernel = torch.exp(-(torch.arange(-4.0, 5.0) ** 2) / (2 * BLUR**2))
    kernel = kernel[:, None] * kernel / kernel.sum() ** 2
    small = F.pad(small, (4,) * 4, mode="replicate")
    small = F.conv2d(small, kernel.expand(3, 1, -1, -1), groups=3)
    n = len(small)
    no, yes = torch.zeros(n, dtype=torch.bool), torch.ones(n, dtype=torch.bool)
    draw = NoiseDraw(no, yes, torch.full((n,), NOISE), torch.full((n,), 255.0))
    noisy = add_noise(small, draw, torch.Generator().manual_seed(seed))
    return eight_bits(jpeg(noisy, torch.full((n,), QUALITY)) / 127.5 - 1)


def edges(frame: Tensor, line: Line, number: int) -> Offsets:
    """Measure a restored frame (3, SIDE, SIDE), which is `number` of its clip."""
    along = torch.arange(-REACH, REACH + 1.0)
    across = torch.arange(-FAR, FAR + FINE, FINE)
    cos, sin = math.cos(math.radians(line.angle)), math.sin(math.radians(line.angle))
    x, y = line.middle(number)
    at_x = x + along[:, None] * cos + across * sin
    at_y = y - along[:, None] * sin + across * cos
    grid = torch.stack([at_x, at_y], -1)[None] * (2 / SIDE)
    grey = frame.float().mean(0)[None, None]
    profiles = F.grid_sample(grey, grid, mode="bilinear", align_corners=False)[0, 0]
    ground = profiles[:, across.abs() > FAR - 3].median()
    ink = profiles[:, across.abs() < 1].median()
    if (ink - ground) * (1 if line.bright else -1) < LOST:
        return torch.full((2, len(along)), WIDTH / 2)
    inside = (profiles - ground) / (ink - ground)
    middle = len(across) // 2
    sides = inside[:, middle:], inside[:, : middle + 1].flip(1)
    return torch.stack([_rest(_crossing(side)) for side in sides])


def _crossing(inside: Tensor) -> Tensor:
    """Pixels from the middle to where each row of (N, M) falls below one half."""
    below = inside < 0.5
    first = torch.where(below.any(1), below.int().argmax(1), inside.shape[1] - 1)
    before = (first - 1).clamp(min=0)
    high, low = (inside.gather(1, at[:, None])[:, 0] for at in (before, first))
    part = ((high - 0.5) / (high - low).clamp(min=1e-6)).clamp(0, 1)
    return torch.where(first == 0, 0.0, (before + part) * FINE)


def _rest(crossing: Tensor) -> Tensor:
    """What is left of an edge when the straight that fits best is taken away."""
    n = torch.linspace(-1, 1, len(crossing))
    basis = torch.stack([torch.ones_like(n), n], 1)
    return crossing - basis @ torch.linalg.lstsq(basis, crossing[:, None]).solution[:, 0]


@dataclass(frozen=True, slots=True)
class Straightness:
    """The judge: eight angles, half of the lines bright, half dark."""

    angles: Sequence[int] = ANGLES
    name: str = "straightness"

    def cases(self) -> Sequence[Case]:
        cases = []
        for number, angle in enumerate(self.angles):
            line = Line(angle, bright=number % 2 == 0)
            low = damage(draw(line), seed=angle)
            cases.append(Case(name=f"line-{angle}", low=low, truth=line))
        return cases

    def score(self, case: Case, out: Tensor) -> Scores:
        found = torch.stack([edges(frame, case.truth, n) for n, frame in enumerate(out)])
        return {
            "off straight": found.square().mean().sqrt().item(),
            "worst": found.abs().flatten().quantile(0.99).item(),
        }

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        return mean(rows)
