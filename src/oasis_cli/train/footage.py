"""Clean clips: photographs under a moving camera, and shots of real video.

Everything stays on the training device as bytes; a batch of clips is a few large launches.
Letters: n clips   T frames   S side of a clip in pixels
"""

import hashlib
import math
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.errors import MediaError
from oasis_cli.media.files import walk
from oasis_cli.media.training import Clip, read_clip

PHOTO_SUFFIXES = {".webp", ".png", ".jpg", ".jpeg"}
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}

FEW = 16
"""Files that are read sooner than processes for reading them would start."""

SOURCE = 512
"""Side of the part of a photograph that a clip is filmed from."""

CELL = 32
"""Side of the squares, in pixels, whose detail is known."""

LOOKS = 4
"""Places looked at before one is chosen for its detail; a third of the clips takes the first."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A photograph (H, W, 3) or a shot (T, H, W, 3), uint8 on the training device."""

    pixels: Tensor
    detail: np.ndarray
    """(H / CELL, W / CELL) mean step of the luma from pixel to pixel, of a shot's first frame."""

    def place(self, size: int, rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of a square of `size` pixels; flat places, which teach little, are rarer."""
        height, width = self.pixels.shape[-3:-1]
        looks = LOOKS if rng.random() < 2 / 3 else 1
        tops = rng.integers(height - size + 1, size=looks)
        lefts = rng.integers(width - size + 1, size=looks)

        def seen(number: int) -> float:
            rows, cols = (
                slice(first // CELL, -(-(first + size) // CELL))
                for first in (tops[number], lefts[number])
            )
            return float(self.detail[rows, cols].mean())

        best = max(range(looks), key=seen) if looks > 1 else 0
        return int(tops[best]), int(lefts[best])


@dataclass(frozen=True, slots=True)
class Footage:
    """What clips are made from."""

    photos: list[Picture]
    shots: list[Picture]
    sha256: str
    """Of the names and SHA-256 of all files read, in order: which data this was."""


def load_footage(folder: Path, device: torch.device, side: int, frames: int) -> Footage:
    """Read every photograph and video below `folder`, links followed, in order of their names.

    Raises MediaError when nothing there is large and long enough.
    """
    files = (inside / name for inside, _, names in walk(folder) for name in names)
    known = PHOTO_SUFFIXES | VIDEO_SUFFIXES
    wanted = sorted(path for path in files if path.suffix.lower() in known and path.is_file())
    if len(wanted) < FEW:
        clips = list(map(_read, wanted))
    else:
        with ProcessPoolExecutor(
            min(16, os.cpu_count() or 1), mp_context=get_context("spawn")
        ) as pool:
            clips = list(pool.map(_read, wanted, chunksize=4))
    photos, shots, names = [], [], hashlib.sha256()
    for path, (clip, digest) in zip(wanted, clips, strict=True):
        names.update(f"{path.relative_to(folder).as_posix()} {digest}\n".encode())
        if min(clip.shape[1:3]) < side:
            continue
        pixels = torch.from_numpy(clip).to(device)
        detail = _detail(pixels[0])
        if path.suffix.lower() in PHOTO_SUFFIXES:
            photos.append(Picture(pixels[0], detail))
        elif len(clip) >= frames:
            shots.append(Picture(pixels, detail))
    if not photos:
        raise MediaError(
            f"{folder} holds no photograph of {side}x{side} pixels or more",
            hint=f"photographs are {', '.join(sorted(PHOTO_SUFFIXES))} files, at any depth",
        )
    return Footage(photos, shots, names.hexdigest())


def _read(path: Path) -> tuple[Clip, str]:
    return read_clip(path), hashlib.sha256(path.read_bytes()).hexdigest()


def _detail(pixels: Tensor) -> np.ndarray:
    """`Picture.detail` of (H, W, 3) uint8; a border narrower than a cell is a cell of its own."""
    luma = pixels.float().mean(-1)
    steps = luma.diff(dim=0)[:, 1:].abs() + luma.diff(dim=1)[1:].abs()
    cells = F.avg_pool2d(steps[None], CELL, ceil_mode=True)[0]
    # One step fewer than pixels: the last cell may be missing.
    edge = [-(-side // CELL) - have for side, have in zip(luma.shape, cells.shape, strict=True)]
    return F.pad(cells[None], (0, edge[1], 0, edge[0]), mode="replicate")[0].cpu().numpy()


def film(footage: Footage, clips: int, frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """Make clean clips: (n, T, 3, S, S) uint8. A third comes from shots when there are any."""
    from_shots = rng.random(clips) < (0.35 if footage.shots else 0.0)
    still = int((~from_shots).sum())
    out = torch.empty(
        (clips, frames, 3, side, side), dtype=torch.uint8, device=footage.photos[0].pixels.device
    )
    if still:
        where = torch.from_numpy(np.flatnonzero(~from_shots)).to(out.device)
        out[where] = _camera_moves(footage.photos, still, frames, side, rng)
    for number in np.flatnonzero(from_shots):
        out[number] = _cut_shot(footage.shots, frames, side, rng)
    return out


def _cut_shot(shots: list[Picture], frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """A random place in a random shot, sometimes seen from further away, sometimes backwards."""
    picture = shots[rng.integers(len(shots))]
    shot = picture.pixels
    first = rng.integers(len(shot) - frames + 1)
    most = min(min(shot.shape[1:3]) / side, 2.0)
    size = side if rng.random() < 0.5 else int(side * rng.uniform(1, most))
    top, left = picture.place(size, rng)
    clip = shot[first : first + frames, top : top + size, left : left + size].permute(0, 3, 1, 2)
    if size != side:
        smaller = F.interpolate(clip.float(), (side, side), mode="bicubic", antialias=True)
        clip = smaller.round().clamp(0, 255).to(torch.uint8)
    if rng.random() < 0.5:
        clip = clip.flip(0)
    return clip


def _camera_moves(
    photos: list[Picture], clips: int, frames: int, side: int, rng: np.random.Generator
) -> Tensor:
    """Photographs filmed by a moving camera, half of them with a foreground moving before them."""
    back = _shoot(_crops(photos, clips, rng), _paths(clips, frames, side, rng), side)
    fore_paths = _paths(clips, frames, side, rng)
    fore = _shoot(_crops(photos, clips, rng), fore_paths, side)
    shown = torch.from_numpy(rng.random((clips, 1, 1, 1)) < 0.5).to(back.device)
    cover = _covers(fore_paths.to(back.device), side, rng) * shown
    mixed = back + (fore - back) * cover[:, :, None]
    return mixed.round_().clamp_(0, 255).to(torch.uint8)


def _crops(photos: list[Picture], clips: int, rng: np.random.Generator) -> Tensor:
    """(n, 3, SOURCE, SOURCE) float32 parts of random photographs, some scaled or flipped."""
    out = []
    for number in rng.integers(len(photos), size=clips):
        photo = photos[number]
        height, width = photo.pixels.shape[:2]
        most = min(min(height, width) / SOURCE, 3.0)
        size = int(SOURCE * (rng.uniform(1, most) if most > 1 and rng.random() < 0.5 else 1.0))
        size = min(size, height, width)
        top, left = photo.place(size, rng)
        crop = photo.pixels[top : top + size, left : left + size].permute(2, 0, 1)[None].float()
        if size != SOURCE:
            crop = F.interpolate(crop, (SOURCE, SOURCE), mode="bicubic", antialias=size > SOURCE)
        out.append(crop.flip(-1) if rng.random() < 0.5 else crop)
    return torch.cat(out)


def _paths(clips: int, frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """Camera paths as (n, T, 2, 3) affine maps from clip pixels to source pixels, from the centre.

    Pan, zoom, rotation and hand shake; a quarter moves by whole pixels only, which keeps every
    pixel of the photograph as sharp as it was; a tenth stands still.
    """
    n, time = clips, np.linspace(-0.5, 0.5, frames)[None]
    kind = rng.random((n, 1))
    moving, whole = kind > 0.1, kind < 0.35
    free = moving & ~whole

    def drift(size: float) -> np.ndarray:
        speed, bend = rng.normal(0, size, (n, 1)), rng.normal(0, size, (n, 1))
        return speed * time + bend * time**2

    def shake(size: float) -> np.ndarray:
        strength = rng.exponential(size, (n, 1)) * (rng.random((n, 1)) < 0.4)
        return strength * rng.normal(0, 1, (n, frames))

    zoom = np.where(free, rng.uniform(1, 1.3, (n, 1)) * np.exp(drift(0.06)), 1.0)
    turn = np.where(free, rng.normal(0, 0.1, (n, 1)) + drift(0.06) + shake(0.002), 0.0)
    pan = [np.where(moving, drift(30) + shake(1.5), 0.0) for _ in range(2)]
    room = (SOURCE - side * zoom.max(1, keepdims=True) * 1.1) / 2 - 4
    at = [rng.uniform(-1, 1, (n, 1)) * np.maximum(room - 20, 0) + np.clip(p, -40, 40) for p in pan]
    at = [np.where(whole | ~moving, np.round(a), a) for a in at]
    cos, sin = zoom * np.cos(turn), zoom * np.sin(turn)
    rows = np.stack([np.stack([cos, -sin, at[0]], -1), np.stack([sin, cos, at[1]], -1)], -2)
    return torch.from_numpy(rows).float()


def _shoot(sources: Tensor, paths: Tensor, side: int) -> Tensor:
    """Sample (n, 3, SOURCE, SOURCE) along `paths`, bicubic. Returns (n, T, 3, S, S) float32."""
    n, frames = paths.shape[:2]
    xy = _clip_grid(side).to(sources.device)
    paths = paths.to(sources.device)
    at = torch.einsum("ntij,pj->ntpi", paths, xy)
    # Clip and source centres coincide; half a pixel more keeps whole moves on whole pixels.
    grid = ((at + 0.5 * (side % 2)) / (SOURCE / 2)).unflatten(2, (side, side)).flatten(1, 2)
    out = F.grid_sample(
        sources, grid, mode="bicubic", padding_mode="reflection", align_corners=False
    )
    return out.unflatten(2, (frames, side)).transpose(1, 2)


def _clip_grid(side: int) -> Tensor:
    """(S*S, 3) positions x, y, 1 of a clip's pixels from its centre."""
    n = torch.arange(side) - (side - 1) / 2
    y, x = torch.meshgrid(n, n, indexing="ij")
    return torch.stack([x.flatten(), y.flatten(), torch.ones(side * side)], 1)


def _covers(paths: Tensor, side: int, rng: np.random.Generator) -> Tensor:
    """(n, T, S, S) opacity of foregrounds: soft-edged blobs that move with their layer's path."""
    n = len(paths)

    def column(low: float, high: float) -> Tensor:
        return torch.from_numpy(rng.uniform(low, high, (n, 1, 1))).float().to(paths.device)

    # The centre is where the blob lies in the layer; paths without their start move it.
    moved = paths[..., 2] - paths[:, :1, :, 2]
    xy = _clip_grid(side)[:, :2].to(paths.device)
    here = xy[None, None] + moved[:, :, None]
    offset = torch.cat([column(-0.4, 0.4), column(-0.4, 0.4)], -1) * side
    x, y = (here - offset[:, :, None]).unbind(-1)
    angle = torch.atan2(y, x)
    radius = column(0.1, 0.35) * side
    for lobes in (2, 3, 5):
        radius = radius * (1 + column(0, 0.25) * torch.cos(lobes * angle + column(0, 2 * math.pi)))
    soft = column(0.5, 2.0)
    return torch.sigmoid((radius - (x * x + y * y).sqrt()) / soft).unflatten(-1, (side, side))
