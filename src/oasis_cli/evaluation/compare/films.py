"""Videos beside each other as one video, or as one sheet of pictures."""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.compare.look import common_size, resize
from oasis_cli.media.atomic import in_work
from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Frame, Reader, ReadOptions
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.media.output.writer import Writer
from oasis_cli.pipeline.clips import Clip, lockstep, open_clip, to_pixels

Layout = Literal["sides", "wipe"]
LAYOUTS: tuple[Layout, ...] = ("sides", "wipe")

WIPE_SECONDS = 4.0
"""The line goes across and back in this time."""
LINE = 3
"""Width of the line between two inputs, in pixels."""
WIDEST = 7680
"""Sides in a row are shrunk together to stay below this width."""


def side_by_side_video(
    paths: Sequence[Path],
    target: Path,
    *,
    layout: Layout = "sides",
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda frames: None,
) -> int:
    """Write one video of all inputs, with the times and the sound of the first; returns frames.

    sides: next to each other. wipe: the first two, with a line that sweeps across.
    """
    info = probe(paths[0])
    read = ReadOptions(bake_rotation=True)
    clips = [open_clip(path) for path in paths]
    size = film_size(clips, layout)
    plan = plan_output(info, str(target), size, EncodeOptions(crf=16, overwrite=overwrite), read)
    with (
        in_work(Path(plan.target)),
        Reader(info, read) as reader,
        Writer(plan, info, reader.timeline, reader.relay) as writer,
    ):

        def first() -> Iterator[Tensor]:
            frame: Frame
            for frame in reader:
                yield frames_to_clip([frame], reader.spec)[0]

        rest = [Clip(name=c.name, size=c.size, rate=c.rate, frames=c.frames) for c in clips[1:]]
        head = Clip(name=clips[0].name, size=clips[0].size, rate=clips[0].rate, frames=first)
        for number, picture in enumerate(compose([head, *rest], layout, size)):
            writer.write(clip_to_planes(picture[None], plan.spec)[0])
            progress(number + 1)
        writer.close()
    return writer.frames


def film_size(clips: Sequence[Clip], layout: Layout) -> tuple[int, int]:
    """(width, height) of the video that is written, both even."""
    width, height = common_size(clips)
    count = len(clips) if layout == "sides" else 1
    shrink = min(1.0, WIDEST / (width * count))
    return round(width * shrink / 2) * 2 * count, round(height * shrink / 2) * 2


def compose(clips: Sequence[Clip], layout: Layout, size: tuple[int, int]) -> Iterator[Tensor]:
    """The pictures of the joint video, each (3, H, W) in [-1, 1]."""
    width, height = size
    for number, frames in enumerate(lockstep(clips, strict=False)):
        if layout == "sides":
            each = (height, width // len(clips))
            picture = torch.cat([resize(frame, each) for frame in frames], dim=-1)
            for place in range(1, len(clips)):
                _line(picture, place * each[1])
        else:
            left, right = (resize(frame, (height, width)) for frame in frames[:2])
            share = 0.5 - 0.5 * math.cos(2 * math.pi * number / (clips[0].rate * WIPE_SECONDS))
            at = round(share * width)
            picture = torch.cat([left[..., :at], right[..., at:]], dim=-1)
            _line(picture, at)
        yield picture


def _line(picture: Tensor, at: int) -> None:
    picture[..., max(0, at - LINE // 2) : at + LINE // 2 + 1] = 1


def sheet(clips: Sequence[Clip], numbers: Sequence[int]) -> NDArray[np.uint8]:
    """A row for each frame number, a column for each input: (H, W, 3) pixels."""
    size = common_size(clips)[::-1]
    last, wanted = max(numbers), set(numbers)
    rows, seen = [], 0
    for number, frames in enumerate(islice(lockstep(clips, strict=False), last + 1)):
        seen = number + 1
        if number in wanted:
            row = torch.cat([to_pixels(resize(frame, size)) for frame in frames], dim=1)
            for place in range(1, len(clips)):
                at = place * size[1]
                row[:, at - LINE // 2 : at + LINE // 2 + 1] = 255
            rows.append(row)
    if not seen:
        raise OasisError("the inputs have no frame in common", hint="`oasis info FILE` tells")
    if missing := sorted(n for n in wanted if not 0 <= n < seen):
        raise UsageError(
            f"there is no frame {missing[0]}: the inputs have {seen} in common",
            hint=f"choose --frames from 0 to {seen - 1}",
        )
    return np.asarray(torch.cat(rows).numpy())
