"""Videos as streams of RGB frames, for the verbs that look at videos and change none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from oasis_cli.errors import OasisError


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A video that can be read from its beginning as often as wanted."""

    name: str
    size: tuple[int, int]
    """(width, height) as shown, in pixels."""
    rate: float
    """Frames per second."""
    frames: Callable[[], Iterator[Tensor]]
    """Opens the video: frames in order, each (3, H, W) float32, RGB in [-1, 1]."""
    facts: dict[str, str] = field(default_factory=dict)
    """What is worth showing about it."""

    @classmethod
    def of(cls, name: str, frames: Tensor, rate: float = 25) -> "Clip":
        """A clip in memory. frames: (T, 3, H, W)."""
        height, width = frames.shape[-2:]
        return cls(name=name, size=(width, height), rate=rate, frames=lambda: iter(frames))


def lockstep(clips: Sequence[Clip], *, strict: bool) -> Iterator[tuple[Tensor, ...]]:
    """The n-th frame of every clip, for n = 0, 1, ...

    strict: raise OasisError when one ends before another. Otherwise the shortest clip decides.
    """
    streams = [clip.frames() for clip in clips]
    number = 0
    while True:
        frames = [next(stream, None) for stream in streams]
        there = [frame for frame in frames if frame is not None]
        if len(there) == len(frames):
            yield tuple(there)
            number += 1
            continue
        if strict and there:
            ended = clips[frames.index(None)].name
            longer = next(c.name for c, f in zip(clips, frames, strict=True) if f is not None)
            raise OasisError(
                f"{ended} has {number} frames, {longer} has more",
                hint="compare clips of the same frames; `oasis info --count FILE` counts them",
            )
        return


def to_pixels(frame: Tensor) -> Tensor:
    """(3, H, W) in [-1, 1] -> (H, W, 3) uint8."""
    levels = ((frame.float() + 1) * 127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(1, 2, 0).contiguous()
