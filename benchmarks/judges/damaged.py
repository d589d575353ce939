"""Clips damaged by the training's own code, from pictures that were not trained on."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from judges.cases import SCALE, Missing
from oasis_cli.train.codec import CodecPool
from oasis_cli.train.data import ClipPool
from oasis_cli.train.data_config import DataConfig
from oasis_cli.train.footage import load_footage

SIDE = 288
"""Pixels of a clean clip, S."""
VARYING = 0.5
"""Share of the clips whose damage varies from frame to frame."""

Pixels = NDArray[np.uint8]
"""(H, W, 3), RGB."""


@dataclass(frozen=True, slots=True)
class Damaged:
    """A filmed clip before and after."""

    low: Tensor
    """(T, 3, S / 4, S / 4), values that 8 bits can hold, in [-1, 1]."""
    clean: Tensor
    """(T, 3, S, S) in [-1, 1]."""


def damaged(
    pictures: Sequence[Pixels], clips: int, frames: int, seed: int, side: int = SIDE
) -> list[Damaged]:
    """Film and damage random pictures as training does; equal seeds give equal clips.

    pictures: at least `side` pixels on each side; best 512, all of which the camera may see.
    """
    config = DataConfig(
        side=side,
        crop=side,
        frames=frames,
        batch=1,
        chunk=clips,
        pool=clips,
        scales=((SCALE, 1.0),),
    )
    codecs = CodecPool(1)
    try:
        with TemporaryDirectory() as folder:
            for number, pixels in enumerate(pictures):
                Image.fromarray(pixels).save(Path(folder) / f"{number:03}.png")
            footage = load_footage(Path(folder), torch.device("cpu"), side, frames)
        pool = ClipPool(footage, config, codecs, seed, torch.device("cpu"))
        pool.vary(VARYING)
        pool.fill(1)
    finally:
        codecs.close()
    low, high = pool.low.float(), pool.high.float() / 127.5 - 1
    return [Damaged(_unenlarged(a), b) for a, b in zip(low, high, strict=True)]


def _unenlarged(large: Tensor) -> Tensor:
    """The pictures that training enlarged by bicubic: it keeps no others.

    large: (T, 3, S, S). Enlarging is linear and loses nothing, so least squares and rounding to 8
    bits give back what it was made from, exactly.
    """
    side = large.shape[-1] // SCALE
    lines = torch.eye(side, dtype=torch.float64)[None, None]
    across = F.interpolate(lines, size=(side, side * SCALE), mode="bicubic")[0, 0]
    back = torch.linalg.pinv(across)
    small = back.T @ large.double() @ back
    return (((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1).float()


def shrunk(clean: Tensor) -> Tensor:
    """Nearly clean pictures of the low-quality size. clean: (T, 3, H, W) in [-1, 1]."""
    small = F.interpolate(
        clean, scale_factor=1 / SCALE, mode="bicubic", antialias=True, recompute_scale_factor=False
    )
    return ((small.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def packaged(*names: tuple[str, str]) -> list[Pixels]:
    """Pictures that lie in installed packages: (package, path in it).

    Raises Missing when one of them is not there.
    """
    from importlib.util import find_spec

    found = []
    for package, inside in names:
        spec = find_spec(package)
        path = Path(spec.origin).parent / inside if spec and spec.origin else None
        if path is None or not path.is_file():
            raise Missing(f"{package} with its {inside} is not installed: pip install {package}")
        found.append(np.asarray(Image.open(path).convert("RGB")))
    return found
