"""Videos as streams of RGB frames, for the verbs that look at videos and change none."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.media.color import frames_to_clip
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions


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


def open_clip(path: Path, name: str = "") -> Clip:
    """A video file, upright. Raises MediaError or UsageError when it cannot be read."""
    info = probe(path)
    if info.is_pipe:
        raise UsageError(
            f"{path} passes only once", hint="this reads its videos more than once: give files"
        )
    options = ReadOptions(bake_rotation=True)

    def frames() -> Iterator[Tensor]:
        with Reader(info, options) as reader:
            for frame in reader:
                yield frames_to_clip([frame], reader.spec)[0]

    return Clip(
        name=name or path.name,
        size=info.video.spec(bake_rotation=True).display_size,
        rate=float(info.video.rate),
        frames=frames,
        facts=_facts(info),
    )


def _facts(info: MediaInfo) -> dict[str, str]:
    video = info.video
    return {
        "codec": video.codec,
        "pixels": video.pix_fmt,
        "frames": str(video.claimed_frames or ""),
        "frames/s": f"{float(video.rate):.5g}",
        "length": f"{info.duration:.2f} s" if info.duration else "",
        "file": _bytes(Path(info.path).stat().st_size) if Path(info.path).is_file() else "",
    }


def _bytes(count: int) -> str:
    return f"{count / 1e6:.2f} MB" if count >= 1e5 else f"{count / 1e3:.1f} kB"


def names_for(paths: Sequence[Path]) -> list[str]:
    """Short names that differ: the file's, with its folder where two are the same.

    >>> names_for([Path("a/in.mp4"), Path("b/in.mp4"), Path("b/out.mp4")])
    ['a/in.mp4', 'b/in.mp4', 'out.mp4']
    """
    short = [path.name for path in paths]
    return [
        name if short.count(name) == 1 else f"{path.absolute().parent.name}/{name}"
        for name, path in zip(short, paths, strict=True)
    ]


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
