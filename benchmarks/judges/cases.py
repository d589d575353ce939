"""What every judge is made of: damaged clips, whoever enlarges them, and a score of the result."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import torch
from torch import Tensor

from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.model.oasis import Oasis
from oasis_cli.pipeline.clips import open_clip

SCALE = 4
"""How much larger every picture is made."""

Scores = dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A damaged clip that somebody enlarges four times. Values are those of 8 bits, in [-1, 1]."""

    name: str
    low: Tensor
    """(T, 3, h, w)."""
    truth: Any = None
    """What its judge knows about the clean clip."""

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the enlarged clip."""
        return self.low.shape[-2] * SCALE, self.low.shape[-1] * SCALE


class Judge(Protocol):
    """One question about enlarged clips."""

    @property
    def name(self) -> str:
        """What the table and `--only` call it."""

    def cases(self) -> Sequence[Case]:
        """The same clips at every call. Raises Missing when something they need is not there."""

    def score(self, case: Case, out: Tensor) -> Scores:
        """Scores of one enlarged clip. out: (T, 3, H, W)."""

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        """The judge's line in the table, from the scores of all cases by name."""


class Missing(Exception):
    """A judge cannot work here; says what is missing."""


Maker = Callable[[Case], Tensor]
"""Makes the enlarged clip (T, 3, H, W) of a case."""


def mean(rows: Mapping[str, Scores]) -> Scores:
    """The mean of each score over the cases."""
    columns = next(iter(rows.values()))
    return {key: sum(row[key] for row in rows.values()) / len(rows) for key in columns}


def eight_bits(frames: Tensor) -> Tensor:
    """What a viewer sees: values that 8 bits can hold."""
    return ((frames.clamp(-1, 1) + 1) * 127.5).round() / 127.5 - 1


def read(path: Path, count: int | None = None) -> Tensor:
    """The frames of a video, or its first `count`: (T, 3, H, W)."""
    return torch.stack(list(itertools.islice(open_clip(path).frames(), count)))


def write(path: Path, frames: Tensor) -> None:
    """Write a video that loses nothing (FFV1, RGB). frames: (T, 3, H, W)."""
    pixels = ((frames.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    with av.open(path, "w") as box:
        stream = box.add_stream("ffv1", rate=25)
        stream.height, stream.width = pixels.shape[1:3]
        stream.pix_fmt = "bgr0"
        for rgb in pixels:
            box.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
        box.mux(stream.encode(None))


def bicubic(case: Case) -> Tensor:
    """The yardstick."""
    return eight_bits(bicubic_upsample(case.low, case.size))


@dataclass(frozen=True, slots=True)
class Network:
    """A network of oasis; every clip is one window."""

    network: Oasis
    device: torch.device

    def __call__(self, case: Case) -> Tensor:
        out = self.network(case.low[None].to(self.device), case.size)[0]
        return eight_bits(out.float().cpu())


@dataclass(frozen=True, slots=True)
class Made:
    """Clips that another tool has made: a video NAME.mkv, or a folder NAME of pictures."""

    folder: Path

    def __call__(self, case: Case) -> Tensor:
        """Raises Missing when there is no such clip, or one of another size or length."""
        found = sorted(p for p in self.folder.glob(f"{case.name}*") if p.stem == case.name)
        if not found:
            raise Missing(f"{self.folder} has no {case.name}.mkv")
        out = read(found[0])
        if out.shape != (len(case.low), 3, *case.size):
            raise Missing(f"{found[0]} is {tuple(out.shape)}, not {(len(case.low), 3, *case.size)}")
        return out
