"""The report page: one file, every picture inside it, nothing loaded from anywhere."""

import base64
import html
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from torch import Tensor

from oasis_cli.errors import OasisError
from oasis_cli.evaluation.compare.look import ABOUT, Look, Score, look
from oasis_cli.media.pictures import MIME, Kind, encode_picture
from oasis_cli.pipeline.clips import Clip, lockstep, to_pixels

KIND: Kind = "webp"
QUALITY = 90
BASE64 = 4 / 3
SAMPLES = 8
"""Frames encoded to learn how large a picture is."""
SAFETY = 1.1
"""Pictures elsewhere may be larger than those that were tried."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PageOptions:
    """How a page is made."""

    budget: int = 24 << 20
    """Bytes that the pictures may take, as they stand in the file."""
    title: str = "Comparison"
    reference: int | None = None
    """The number of the clip that the others should look like."""
    lpips: Score | None = None
    extra: Sequence[str] = ()
    """Names of further curves, from look.EXTRA."""
    progress: Callable[[int], None] = lambda frames: None
    """Told how many frames the first pass has seen."""


def report(clips: Sequence[Clip], options: PageOptions) -> str:
    """Read all clips twice and make the page. Raises OasisError when there is nothing to show."""
    sizes: list[int] = []

    def sample(number: int, frames: tuple[Tensor, ...], starts: bool) -> None:
        options.progress(number + 1)
        if starts and len(sizes) < SAMPLES:
            sizes.append(sum(len(_encode(frame)) for frame in frames))

    found = look(
        clips,
        reference=options.reference,
        lpips=options.lpips,
        extra=options.extra,
        seen=sample,
    )
    if not found.total:
        raise OasisError("there is no frame that all inputs have", hint="`oasis info FILE` tells")
    each = max(sizes) * BASE64 * SAFETY
    numbers = choose_frames(found, max(1, int(options.budget / each)))
    pictures = _pictures(clips, numbers)
    numbers = _within(pictures, rank(found), options.budget)
    return fill(_data(clips, found, {n: pictures[n] for n in numbers}, options), options.title)


def rank(found: Look) -> list[int]:
    """Frames that tell most, first: the first one, the worst ones, where scenes start."""
    wanted = [0, *(s.frame for s in found.spots), *found.scenes]
    return list(dict.fromkeys(wanted))


def choose_frames(found: Look, room: int) -> list[int]:
    """Which frames to embed when `room` fit: all, or the telling ones and evenly spaced ones.

    >>> choose_frames(Look(total=100, scenes=[0, 60]), 5)
    [0, 33, 60, 66, 99]
    """
    if room >= found.total:
        return list(range(found.total))
    chosen = set(rank(found)[:room])
    left = room - len(chosen)
    if left > 0:
        steps = max(left, 1)
        spaced = [round(i * (found.total - 1) / steps) for i in range(steps + 1)]
        chosen |= set([n for n in spaced if n not in chosen][:: 1 if left > 1 else -1][:left])
    return sorted(chosen)


def _encode(frame: Tensor) -> bytes:
    return encode_picture(to_pixels(frame).numpy(), KIND, QUALITY)


def _pictures(clips: Sequence[Clip], numbers: Sequence[int]) -> dict[int, list[str]]:
    """Second pass: frame number -> a data URI for each clip."""
    wanted, out = set(numbers), {}
    for number, frames in enumerate(lockstep(clips, strict=False)):
        if number in wanted:
            data = [base64.b64encode(_encode(frame)).decode() for frame in frames]
            out[number] = [f"data:{MIME[KIND]};base64,{text}" for text in data]
        if len(out) == len(wanted):
            break
    return out


def _within(pictures: dict[int, list[str]], first: Sequence[int], budget: int) -> list[int]:
    """The frames that fit the budget, the telling ones before the others; always one."""
    order = [n for n in first if n in pictures]
    order += [n for n in pictures if n not in set(order)]
    kept: list[int] = []
    used = 0
    for number in order:
        size = sum(len(uri) for uri in pictures[number])
        if not kept or used + size <= budget:
            kept.append(number)
            used += size
    return sorted(kept)


def _data(
    clips: Sequence[Clip], found: Look, pictures: dict[int, list[str]], options: PageOptions
) -> dict[str, Any]:
    """Everything that the page's script reads."""
    rate = clips[0].rate or 25.0
    notes = [_embedded(len(pictures), found.total)]
    if options.reference is not None:
        notes.append(f"The reference is {clips[options.reference].name}.")
    if len({clip.facts.get("frames") or found.total for clip in clips}) > 1:
        notes.append(f"The inputs differ in length: the first {found.total} frames are compared.")
    shown = set(pictures)
    return {
        "rate": rate,
        "total": found.total,
        "inputs": [{"name": c.name, "size": c.size, "facts": _facts(c)} for c in clips],
        "frames": [
            {"number": n, "seconds": n / rate, "images": images}
            for n, images in sorted(pictures.items())
        ],
        "scenes": found.scenes,
        "crops": [
            {"frame": s.frame, "box": s.box, "difference": s.difference}
            for s in found.spots
            if s.frame in shown
        ],
        "curves": [
            {
                "name": name,
                "about": ABOUT[name],
                "lines": [
                    {"input": which, "values": [None if v is None else round(v, 5) for v in values]}
                    for which, values in lines.items()
                ],
            }
            for name, lines in found.curves.items()
        ],
        "notes": notes,
    }


def _embedded(shown: int, total: int) -> str:
    """Which frames the page can show."""
    if shown == total:
        return f"All {total} frames are embedded and measured."
    return f"{shown} of {total} frames are embedded; all are measured."


def _facts(clip: Clip) -> dict[str, str]:
    return {"size": f"{clip.size[0]}x{clip.size[1]}", **clip.facts}


def fill(data: dict[str, Any], title: str, kind: str = "page") -> str:
    """Put the data, the style and the script into the page `kind`."""
    folder = files("oasis_cli.evaluation.compare")
    # "<" as an escape: no text in the data can close the script element it stands in.
    text = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    page = (folder / f"{kind}.html").read_text(encoding="utf-8")
    parts = {
        "title": html.escape(title),
        "css": (folder / "page.css").read_text(encoding="utf-8"),
        "script": (folder / f"{kind}.js").read_text(encoding="utf-8"),
        "data": text,
    }
    for name in ("css", "script", "title", "data"):  # data last: it may hold any text
        page = page.replace("{{" + name + "}}", parts[name])
    return page
