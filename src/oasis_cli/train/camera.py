"""Photographs under a moving camera: pan, zoom, parallax, exposure, rolling shutter, focus.

Where a pixel of a clip lies in its photograph is one tensor, `at`. Its change from frame to frame
is how fast everything there moves, whatever moves it; so motion blur and a rolling shutter are
the same clip seen a little earlier and later.

Letters: n clips   T frames   S side of a clip in pixels
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[np.float64]

SOURCE = 512
"""Side of the part of a photograph that a clip is filmed from."""

STILL, WHOLE, FAST = 0.1, 0.35, 0.85
"""Where kinds of moves end, drawn from 0 to 1: none, by whole pixels, any, and fast ones."""

BENT = 0.45
"""Share of freely moving layers with parallax."""

INSTANTS = 7
"""Moments of an exposure that are averaged: at most two pixels apart in the fastest clips."""

RELIEF, FINE = 6, 33
"""Points a side at which depth is drawn, and to which it is made smooth."""


CELL = 4
"""Side in pixels of the squares for which motion is known."""

UNKNOWN = 1e4
"""Motion that leads out of any picture: nobody knows where this was."""


@dataclass(frozen=True, slots=True)
class Lens:
    """How frames are taken. Times are parts of the interval between two frames."""

    exposure: Array
    """(n,) how long the shutter is open; 0 takes an instant."""
    rolling: Array
    """(n,) how much later the last row is taken than the first."""
    zoom: Array
    """(n, T) enlargement by breathing: focusing changes the focal length too."""
    focus: Array
    """(n, T) 0 sharp to 1 out of focus."""

    def of(self, clips: NDArray[np.int64]) -> "Lens":
        """The lenses of some of the clips, which stay in focus: another layer is elsewhere."""
        focus = np.zeros_like(self.focus[clips])
        return Lens(self.exposure[clips], self.rolling[clips], self.zoom[clips], focus)


def draw_lens(kind: Array, frames: int, rng: np.random.Generator) -> Lens:
    """kind: (n,) 0 to 1. Clips that stand still or move by whole pixels stay as they were."""
    n, free = len(kind), kind > WHOLE
    exposure = rng.uniform(0.3, 1.0, n) * (free & (rng.random(n) < 0.3))
    rolling = rng.uniform(0.2, 0.9, n) * (free & (rng.random(n) < 0.25))
    bump = pulse(n, frames, rng) * (free & (rng.random(n) < 0.12))[:, None]
    breath = 1 + bump * rng.uniform(-0.05, 0.05, (n, 1))
    return Lens(exposure, rolling, breath, bump * rng.uniform(0.3, 1.0, (n, 1)))


def pulse(clips: int, frames: int, rng: np.random.Generator) -> Array:
    """(n, T) something that comes and goes once, 0 to 1, wherever it is in the clip."""
    time = np.linspace(0, 1, frames)[None]
    centre, width = rng.uniform(0, 1, (clips, 1)), rng.uniform(0.1, 0.35, (clips, 1))
    return np.exp(-(((time - centre) / width) ** 2))


def camera_paths(
    kind: Array, frames: int, side: int, rng: np.random.Generator, zoomed: Array | float = 1.0
) -> Tensor:
    """Camera paths as (n, T, 2, 3) affine maps from clip pixels to source pixels, from the centre.

    Pan, zoom, rotation and hand shake. `kind` (n,) is what `STILL`, `WHOLE` and `FAST` divide:
    moves by whole pixels only keep every pixel of the photograph as sharp as it was. `zoomed`:
    (n, T), further enlargement.
    """
    n, time = len(kind), np.linspace(-0.5, 0.5, frames)[None]
    kind = kind[:, None]
    moving, free, fast = kind > STILL, kind > WHOLE, kind > FAST
    # A longer clip sees more of a move, though not all: it has to stay on the photograph.
    longer = math.sqrt(frames / 13)

    def drift(size: float | Array) -> Array:
        speed, bend = rng.normal(0, size, (n, 1)), rng.normal(0, size, (n, 1))
        return speed * time + bend * time**2

    def shake(size: float) -> Array:
        strength = rng.exponential(size, (n, 1)) * (rng.random((n, 1)) < 0.4)
        return strength * rng.normal(0, 1, (n, frames))

    zoom = np.where(free, rng.uniform(1, 1.3, (n, 1)) * np.exp(drift(0.06)) * zoomed, 1.0)
    turn = np.where(free, rng.normal(0, 0.1, (n, 1)) + drift(0.06) + shake(0.002), 0.0)
    size, reach = np.where(fast, 150.0, 30.0) * longer, np.where(fast, 75.0, 40.0)
    pan = [np.where(moving, drift(size) + shake(1.5), 0.0) for _ in range(2)]
    pan = [reach * np.tanh(p / reach) for p in pan]
    room = (SOURCE - side * zoom.max(1, keepdims=True) * 1.1) / 2 - 4
    start = np.maximum(room - reach / 2, 0)
    at = [rng.uniform(-1, 1, (n, 1)) * start + p for p in pan]
    at = [np.where(free, a, np.round(a)) for a in at]
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    rows = np.stack([np.stack([cos, -sin, at[0]], -1), np.stack([sin, cos, at[1]], -1)], -2)
    return torch.from_numpy(rows).float()


def positions(paths: Tensor, side: int) -> Tensor:
    """Where the pixels of clips lie: (n, T, S, S, 2) x and y from the centre of the source."""
    at = torch.einsum("ntij,pj->ntpi", paths, clip_grid(side).to(paths.device))
    return at.unflatten(2, (side, side))


def clip_grid(side: int) -> Tensor:
    """(S*S, 3) positions x, y, 1 of a clip's pixels from its centre."""
    n = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(n, n, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones(side * side)], 1)


def bend(at: Tensor, kind: Array, rng: np.random.Generator) -> Tensor:
    """Give some layers depth: near parts move further than far ones, and some sway by themselves.

    Depth is a smooth random relief on the photograph that often rises towards its foot, as the
    ground does. at: (n, T, S, S, 2), changed in place.
    """
    chosen = np.flatnonzero((kind > WHOLE) & (rng.random(len(kind)) < BENT))
    m, frames = len(chosen), at.shape[1]
    if not m:
        return at
    time = np.linspace(-0.5, 0.5, frames)[None, :, None]
    ground = np.linspace(0, 1, RELIEF)[:, None] * (rng.random((m, 1, 1)) < 0.5)
    depth = rng.uniform(0, 1, (m, RELIEF, RELIEF)) * rng.uniform(0.3, 1, (m, 1, 1)) + ground
    shift = rng.normal(0, 25, (m, 1, 2)) * time + rng.normal(0, 25, (m, 1, 2)) * time**2
    # What sways, as leaves, cloth and faces do: each place its own way, all of a layer in time.
    sway = rng.normal(0, 1, (m, 2, RELIEF, RELIEF)) * rng.uniform(0.5, 3, (m, 1, 1, 1))
    sway *= rng.random((m, 1, 1, 1)) < 0.4
    swing = np.sin(2 * math.pi * (rng.uniform(0.4, 2, (m, 1, 1)) * time + rng.random((m, 1, 1))))
    field = depth[:, None, None] * shift[..., None, None] + sway[:, None] * swing[..., None, None]
    coarse = torch.from_numpy(field).float().to(at.device).flatten(0, 1)
    smooth = F.interpolate(coarse, (FINE, FINE), mode="bicubic", align_corners=True)
    where = torch.from_numpy(chosen).to(at.device)
    grid = (at[where] / (SOURCE / 2)).flatten(0, 1)
    moved = F.grid_sample(smooth, grid, padding_mode="border", align_corners=True)
    at[where] += moved.permute(0, 2, 3, 1).unflatten(0, (m, frames))
    return at


def shoot(sources: Tensor, at: Tensor, lens: Lens) -> Tensor:
    """Film (n, C, SOURCE, SOURCE) at positions (n, T, S, S, 2). Returns (n, T, C, S, S) float32."""
    device, speed = at.device, None

    def those(amount: Array) -> tuple[Tensor, Tensor]:
        """Which clips have any of it, and how much, to be multiplied with frames."""
        chosen = np.flatnonzero(amount.reshape(len(amount), -1).any(1))
        values = amount[chosen].reshape(*amount[chosen].shape, *[1] * (5 - amount.ndim))
        return torch.from_numpy(chosen).to(device), torch.from_numpy(values).float().to(device)

    if at.shape[1] > 1:
        speed = at.diff(dim=1)
        # The mean of the steps before and after a frame; the first and last frame have one.
        speed = (torch.cat([speed[:, :1], speed], 1) + torch.cat([speed, speed[:, -1:]], 1)) / 2
        late, amount = those(lens.rolling)
        if len(late):
            rows = torch.linspace(-0.5, 0.5, at.shape[2], device=device)[:, None, None]
            at[late] += speed[late] * (amount * rows)
    out = _sample(sources, at, "bicubic")
    long, amount = those(lens.exposure)
    if speed is not None and len(long):
        total, here, there = out[long], at[long], speed[long] * amount
        for instant in range(INSTANTS):
            if instant != INSTANTS // 2:
                moment = (instant + 0.5) / INSTANTS - 0.5
                total += _sample(sources[long], here + moment * there, "bilinear")
        out[long] = total / INSTANTS
    soft, amount = those(lens.focus)
    if len(soft):
        blurred = F.avg_pool2d(sources[soft], 5, 1, 2, count_include_pad=False)
        blurred = F.avg_pool2d(blurred, 4)
        out[soft] = out[soft].lerp(_sample(blurred, at[soft], "bicubic"), amount)
    return out


def camera_motion(at: Tensor, paths: Tensor) -> Tensor:
    """Where the content of a place was in the frame before: (n, T - 1, 2, S / CELL, S / CELL).

    Pixels right and down, for the middle of each cell. at: (n, T, S, S, 2), positions on the
    source; paths: (n, T, 2, 3), whose matrices are about their slope. Solved by Newton's method.
    """
    n, frames, side = at.shape[:3]
    field = at.permute(0, 1, 4, 2, 3)
    now = F.avg_pool2d(field[:, 1:].flatten(0, 1), CELL)
    before = field[:, :-1].flatten(0, 1)
    inverse = paths[:, :-1, :, :2].flatten(0, 1).inverse()
    middle = CELL * torch.arange(side // CELL, device=at.device) + (CELL - 1) / 2
    y, x = torch.meshgrid(middle, middle, indexing="ij")
    place = torch.stack([x, y], -1).to(now)
    moved = torch.zeros_like(now)
    for _ in range(4):
        grid = (place + moved.permute(0, 2, 3, 1)) * 2 / (side - 1) - 1
        there = F.grid_sample(before, grid, padding_mode="border", align_corners=True)
        moved = moved + torch.einsum("nij,njyx->niyx", inverse, now - there)
    return moved.unflatten(0, (n, frames - 1))


def _sample(sources: Tensor, at: Tensor, mode: str) -> Tensor:
    frames, side = at.shape[1:3]
    # Clip and source centres coincide; half a pixel more keeps whole moves on whole pixels.
    grid = ((at + 0.5 * (side % 2)) / (SOURCE / 2)).flatten(1, 2)
    out = F.grid_sample(sources, grid, mode=mode, padding_mode="reflection", align_corners=False)
    return out.unflatten(2, (frames, side)).transpose(1, 2)


def cut_out(sources: Tensor, paths: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """Foregrounds: (n, 4, SOURCE, SOURCE), pictures times their opacity, and the opacity.

    Soft-edged blobs where `paths` look in the middle of the clip.
    """
    n, device = len(sources), sources.device

    def column(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, 1))).float().to(device)

    offset = torch.cat([column(-0.4, 0.4), column(-0.4, 0.4)], -1) * side
    centre = paths[:, paths.shape[1] // 2, :, 2].to(device) + offset
    x, y = (clip_grid(SOURCE)[:, :2].to(device) - centre[:, None]).unbind(-1)
    angle = torch.atan2(y, x)
    radius = column(0.1, 0.35) * side
    for lobes in (2, 3, 5):
        radius = radius * (1 + column(0, 0.25) * torch.cos(lobes * angle + column(0, 2 * math.pi)))
    soft = column(0.5, 2.0)
    opacity = torch.sigmoid((radius - (x * x + y * y).sqrt()) / soft)
    opacity = opacity.unflatten(-1, (SOURCE, SOURCE))[:, None]
    return torch.cat([sources * opacity, opacity], 1)
