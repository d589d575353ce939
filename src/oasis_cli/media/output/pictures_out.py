"""One picture, or a numbered sequence of them, as output."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import av

from oasis_cli.errors import MediaError
from oasis_cli.media.atomic import behind, discard, sync, temporary_beside
from oasis_cli.media.faults import writing
from oasis_cli.media.icc import add_profile
from oasis_cli.media.info import some
from oasis_cli.media.input.stills import is_pattern, list_pictures, numbered
from oasis_cli.media.output.encoders import PACKED
from oasis_cli.media.output.plan import OutputPlan


class PictureSink:
    """Pictures are written into a hidden folder beside the target and moved out at the end."""

    def __init__(self, plan: OutputPlan) -> None:
        self._plan = plan
        self.losses: list[str] = []
        target = Path(plan.target)
        self._single = bool(target.suffix) and not is_pattern(target) and not target.is_dir()
        self._pattern = target.name if is_pattern(target) or self._single else "%05d.png"
        is_folder = not self._single and not is_pattern(target)
        self._folder = target if is_folder else target.parent
        with writing(plan.target):
            self._temporary = temporary_beside(target, folder=True)

    def write(self, index: int, frame: av.VideoFrame | None) -> None:
        if frame is None:
            return
        if self._single and index:
            raise MediaError(
                f"{self._plan.target} is one picture, but the input has more frames",
                hint="write NAME_%05d.png, or a folder",
            )
        name = self._pattern if self._single else numbered(self._pattern, index + 1)
        with writing(self._plan.target):
            (self._temporary / name).write_bytes(_encode(frame, self._plan))

    def finish(self) -> None:
        made: set[str] = set()
        with writing(self._plan.target):
            self._folder.mkdir(exist_ok=True)
            for path in sorted(self._temporary.iterdir()):
                sync(path)
                os.replace(path, behind(self._folder / path.name))
                made.add(path.name)
            discard(self._temporary)
            sync(self._folder)
        if not self._single:
            before = [p.name for p in list_pictures(self._plan.target) if p.name not in made]
            if before:
                count = f"{len(before)} picture{'s' if len(before) > 1 else ''}"
                self.losses.append(
                    f"{count} from before stay among the new ones, and are read with them: "
                    f"{some(before)}"
                )

    def abandon(self) -> None:
        discard(self._temporary)


def _encode(frame: av.VideoFrame, plan: OutputPlan) -> bytes:
    """The bytes of one picture file."""
    context: Any = av.CodecContext.create(plan.codec, "w")
    context.width, context.height = frame.width, frame.height
    context.pix_fmt = PACKED.get((plan.codec, plan.spec.pix_fmt), plan.spec.pix_fmt)
    context.time_base = 1 / plan.rate
    context.options = dict(plan.options)
    context.color_range = plan.color.range
    context.color_primaries, context.color_trc = plan.color.primaries, plan.color.transfer
    if plan.codec in ("png", "tiff"):
        context.colorspace = 0
    if plan.sar is not None:
        context.sample_aspect_ratio = plan.sar
    frame.pts = 0
    made = b"".join(bytes(p) for p in [*context.encode(frame), *context.encode(None)])
    size = context.width, context.height
    return add_profile(made, plan.icc, plan.codec, size) if plan.icc else made
