"""Clean clips: photographs under a moving camera, and shots of real video.

Everything stays on the training device as bytes; a batch of clips is a few large launches.
Letters: n clips   T frames   S side of a clip in pixels
"""

import hashlib
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.files import walk
from oasis_cli.media.training import Clip, read_clip
from oasis_cli.runtime.processors import processors
from oasis_cli.train.camera import (
    CELL,
    SOURCE,
    UNKNOWN,
    bend,
    camera_motion,
    camera_paths,
    cut_out,
    draw_lens,
    positions,
    shoot,
)

PHOTO_SUFFIXES = {".webp", ".png", ".jpg", ".jpeg"}
VIDEO_SUFFIXES = {".mp4", ".mkv", ".mov", ".webm"}

FEW = 16
"""Files that are read sooner than processes for reading them would start."""

FRONTS = (0.5, 0.85)
"""Where the shares of clips without, with one and with two foregrounds end."""

PLACE = 32
"""Side of the squares, in pixels, whose detail is known."""

LOOKS = 4
"""Places looked at before one is chosen for its detail; a third of the clips takes the first."""


@dataclass(frozen=True, slots=True)
class Picture:
    """A photograph (H, W, 3) or a shot (T, H, W, 3), uint8 on the training device."""

    pixels: Tensor
    detail: np.ndarray
    """(H / PLACE, W / PLACE) mean step of the luma from pixel to pixel, of a shot's first frame."""
    name: str = ""
    """Path below the folder of the data, with slashes."""

    def place(self, size: int, rng: np.random.Generator) -> tuple[int, int]:
        """Top and left of a square of `size` pixels; flat places, which teach little, are rarer."""
        height, width = self.pixels.shape[-3:-1]
        looks = LOOKS if rng.random() < 2 / 3 else 1
        tops = rng.integers(height - size + 1, size=looks)
        lefts = rng.integers(width - size + 1, size=looks)

        def seen(number: int) -> float:
            rows, cols = (
                slice(first // PLACE, -(-(first + size) // PLACE))
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
    photo_chances: np.ndarray | None = None
    shot_chances: np.ndarray | None = None
    """Chances of each to be filmed; None: all alike."""

    def weighed(self, often: tuple[tuple[str, float], ...]) -> "Footage":
        """The same, with files filmed more or less often than others.

        often: patterns of names below the folder, as a shell's (`pack4/portrait*`, * also matches
        slashes), and how much more often than a file that none matches; the first match counts.

        Raises UsageError for a weight below 0, a pattern that no file matches, and weights that
        leave no photograph.
        """
        if not often:
            return self
        names = [picture.name for picture in self.photos + self.shots]
        for pattern, weight in often:
            if weight < 0 or not any(fnmatchcase(name, pattern) for name in names):
                raise UsageError(
                    f"often: {pattern!r} with weight {weight} "
                    + ("is less than never" if weight < 0 else "matches no file of the data"),
                    hint="[data] often = [[PATTERN, WEIGHT], ...], paths below the data's folder",
                )

        def chances(pictures: list[Picture]) -> np.ndarray | None:
            weights = np.array(
                [
                    next((w for pattern, w in often if fnmatchcase(picture.name, pattern)), 1.0)
                    for picture in pictures
                ]
            )
            return weights / weights.sum() if weights.any() else None

        photos = chances(self.photos)
        if photos is None:
            raise UsageError("often: no photograph has a weight above 0", hint="leave one at 1")
        shots = chances(self.shots)
        return replace(
            self,
            shots=self.shots if shots is not None else [],
            photo_chances=photos,
            shot_chances=shots,
        )


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
        with ProcessPoolExecutor(min(16, processors()), mp_context=get_context("spawn")) as pool:
            clips = list(pool.map(_read, wanted, chunksize=4))
    photos, shots, names = [], [], hashlib.sha256()
    for path, (clip, digest) in zip(wanted, clips, strict=True):
        name = path.relative_to(folder).as_posix()
        names.update(f"{name} {digest}\n".encode())
        if min(clip.shape[1:3]) < side:
            continue
        pixels = torch.from_numpy(clip).to(device)
        detail = _detail(pixels[0])
        if path.suffix.lower() in PHOTO_SUFFIXES:
            photos.append(Picture(pixels[0], detail, name))
        elif len(clip) >= frames:
            shots.append(Picture(pixels, detail, name))
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
    cells = F.avg_pool2d(steps[None], PLACE, ceil_mode=True)[0]
    # One step fewer than pixels: the last cell may be missing.
    edge = [-(-side // PLACE) - have for side, have in zip(luma.shape, cells.shape, strict=True)]
    return F.pad(cells[None], (0, edge[1], 0, edge[0]), mode="replicate")[0].cpu().numpy()


def sample_clips(
    footage: Footage, clips: int, frames: int, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Make clean clips: (n, T, 3, S, S) uint8. A third comes from shots when there are any.

    Beside them their motion as `camera.motion` gives it, (n, T - 1, 2, S / CELL, S / CELL);
    `UNKNOWN` for shots.
    """
    from_shots = rng.random(clips) < (0.35 if footage.shots else 0.0)
    still = int((~from_shots).sum())
    device = footage.photos[0].pixels.device
    out = torch.empty((clips, frames, 3, side, side), dtype=torch.uint8, device=device)
    motions = torch.full((clips, frames - 1, 2, side // CELL, side // CELL), UNKNOWN, device=device)
    if still:
        where = torch.from_numpy(np.flatnonzero(~from_shots)).to(device)
        out[where], motions[where] = _camera_moves(footage, still, frames, side, rng)
    for number in np.flatnonzero(from_shots):
        out[number] = _cut_shot(footage, frames, side, rng)
    return out, motions


def _cut_shot(footage: Footage, frames: int, side: int, rng: np.random.Generator) -> Tensor:
    """A random place in a random shot, sometimes seen from further away, sometimes backwards."""
    picture = footage.shots[rng.choice(len(footage.shots), p=footage.shot_chances)]
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
    footage: Footage, clips: int, frames: int, side: int, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """Photographs filmed by a moving camera, half of them with one or two foregrounds; and how
    what lies in front moves."""
    kind = rng.random(clips)
    lens = draw_lens(kind, frames, rng)
    device = footage.photos[0].pixels.device
    paths = camera_paths(kind, frames, side, rng, lens.zoom).to(device)
    sources = _crops(footage, clips, rng)
    at = bend(positions(paths, side), kind, rng)
    mixed = shoot(sources, at, lens)
    moves = camera_motion(at, paths)
    fronts = np.digitize(rng.random(clips), FRONTS)
    for front in range(len(FRONTS)):
        chosen = np.flatnonzero(fronts > front)
        if not len(chosen):
            continue
        kind = rng.random(len(chosen))
        lens_here = lens.of(chosen)
        paths = camera_paths(kind, frames, side, rng, lens_here.zoom).to(device)
        layer = cut_out(_crops(footage, len(chosen), rng), paths, side, rng)
        at = bend(positions(paths, side), kind, rng)
        layer = shoot(layer, at, lens_here)
        where = torch.from_numpy(chosen).to(device)
        covered = F.avg_pool3d(layer[:, 1:, 3:].transpose(1, 2), (1, CELL, CELL)).transpose(1, 2)
        moves[where] = torch.where(covered > 0.5, camera_motion(at, paths), moves[where])
        mixed[where] = mixed[where] * (1 - layer[:, :, 3:]) + layer[:, :, :3]
    return mixed.round_().clamp_(0, 255).to(torch.uint8), moves


def _crops(footage: Footage, clips: int, rng: np.random.Generator) -> Tensor:
    """(n, 3, SOURCE, SOURCE) float32 parts of random photographs, some scaled or flipped."""
    out = []
    for number in rng.choice(len(footage.photos), clips, p=footage.photo_chances):
        photo = footage.photos[number]
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
