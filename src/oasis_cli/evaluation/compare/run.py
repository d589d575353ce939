"""Verb: compare videos. The suffix decides: a page (.html), a sheet (.png, .webp), a video."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.compare.blind import BlindOptions
from oasis_cli.evaluation.compare.blind import blind as blind_page
from oasis_cli.evaluation.compare.films import LAYOUTS, Layout, sheet, side_by_side_video
from oasis_cli.evaluation.compare.look import Look, check_extra, look
from oasis_cli.evaluation.compare.page import PageOptions, choose_frames, report
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.media.atomic import check_target, write_output
from oasis_cli.media.output.containers import MUXERS
from oasis_cli.media.pictures import Kind, encode_picture
from oasis_cli.pipeline.clips import Clip, names_for, open_clip

SHEETS: dict[str, Kind] = {".png": "png", ".webp": "webp", ".jpg": "jpeg", ".jpeg": "jpeg"}
SHEET_ROWS = 4
"""Frames on a sheet, unless they are named."""


def compare(
    paths: Sequence[Path],
    target: Path,
    *,
    reference: Path | None = None,
    perceptual: Path | None = None,
    extra: Sequence[str] = (),
    layout: Layout = "sides",
    frames: Sequence[int] = (),
    budget: int = 24 << 20,
    title: str = "",
    blind: BlindOptions | None = None,
    overwrite: bool = False,
    progress: Callable[[int], None] = lambda frames: None,
) -> str:
    """Make the page, sheet or video; returns a sentence about it.

    reference: what the others should look like; shown last. perceptual: SqueezeNet features for
    LPIPS curves. extra: further curves, from look.EXTRA. frames: for a sheet. budget: bytes of
    pictures in a page. blind: make a blind test; of its options, places and seed count.
    """
    every = [*paths, reference] if reference is not None else list(paths)
    suffix = target.suffix.lower()
    _check_wishes(every, suffix, layout, budget, blind=blind is not None)
    for path in every:
        check_target(target, str(path), overwrite=overwrite)
    names = names_for(every)
    if suffix not in (".html", ".htm", *SHEETS):
        _check_film(suffix, layout, len(every))
        count = side_by_side_video(
            every, target, layout=layout, overwrite=overwrite, progress=progress
        )
        return f"{target}: {count} frames, left to right: {', '.join(names)}"
    clips = [open_clip(path, name) for path, name in zip(every, names, strict=True)]
    check_extra(clips, reference is not None, extra)
    if suffix in SHEETS:
        numbers = list(frames) or choose_frames(_look(clips, progress), SHEET_ROWS)
        write_output(target, encode_picture(sheet(clips, numbers), SHEETS[suffix]))
        return f"{target}: frames {', '.join(map(str, numbers))}, left to right: {', '.join(names)}"
    reference_at = len(every) - 1 if reference is not None else None
    if blind is not None:
        chosen = replace(
            blind,
            budget=budget,
            title=title or blind.title,
            reference=reference_at,
            progress=progress,
        )
        page = blind_page(clips, chosen).encode()
        write_output(target, page)
        return f"{target}: a blind test, {len(page) / 1e6:.1f} MB, opens in any browser"
    options = PageOptions(
        budget=budget,
        title=title or " | ".join(names),
        reference=reference_at,
        lpips=_lpips(perceptual),
        extra=extra,
        progress=progress,
    )
    page = report(clips, options).encode()
    write_output(target, page)
    return f"{target}: {len(page) / 1e6:.1f} MB, opens in any browser"


def _check_wishes(
    every: Sequence[Path], suffix: str, layout: str, budget: int, *, blind: bool
) -> None:
    """Refuse what cannot be meant."""
    if len(every) < 2:
        raise UsageError("one video cannot be compared with itself", hint="name two or more")
    if layout not in LAYOUTS:
        raise UsageError(f"there is no layout {layout}", hint=f"choose {' or '.join(LAYOUTS)}")
    if budget < 1:
        raise UsageError("a page without pictures shows nothing", hint="choose --budget 1 or more")
    if blind and suffix not in (".html", ".htm"):
        raise UsageError(f"a blind test is a page, not {suffix or 'this'}", hint="name it .html")


def _check_film(suffix: str, layout: str, inputs: int) -> None:
    """Refuse what cannot become a video."""
    if suffix not in MUXERS:
        raise UsageError(
            f"{suffix or 'no suffix'} is neither a page nor a sheet nor a video",
            hint="name the output .html, .png, .webp, .mp4, .mkv or .mov",
        )
    if layout == "wipe" and inputs != 2:
        raise UsageError(
            f"a wipe shows two videos, and {inputs} are named",
            hint="name two without --ref, or choose --layout sides",
        )


def _look(clips: Sequence[Clip], progress: Callable[[int], None]) -> Look:
    return look(clips, seen=lambda number, frames, cut: progress(number + 1))


def _lpips(path: Path | None) -> SqueezeLpips | None:
    if path is None:
        return None
    try:
        return SqueezeLpips(path)
    except ValueError as error:
        raise OasisError(
            str(error), hint="--perceptual takes a .safetensors file of SqueezeNet features"
        ) from error
