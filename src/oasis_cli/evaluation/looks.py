"""Verb: score how a video looks, when there is no video that it should look like.

None of these scores says how near it comes to the truth. Those of the output alone say how sharp,
blocky and restless it is. With the video that it was made from, flicker and hatching tell what the
restorer has added.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.compare.look import common_size, resize
from oasis_cli.evaluation.measure import ABOUT, EXTRA, NEED_REFERENCE, Scores, pyiqa_score
from oasis_cli.evaluation.metrics import flicker, flow, hatching, pixels
from oasis_cli.pipeline.clips import Clip, lockstep

ALONE = ("sharpness", "blockiness", "change", "warp")
"""Scores of the output alone; the last two of a frame and the one before it."""
WITH_INPUT = ("flicker", "hatching")
"""Scores against the video that the output was made from, enlarged by bicubic."""
NOTE = "these say how it looks, not how near it is to the truth: that needs --ref"


def measure_looks(
    output: Clip,
    source: Clip | None = None,
    *,
    border: int = 0,
    only: Sequence[str] = (),
    extra: Sequence[str] = (),
    progress: Callable[[int], None] = lambda frames: None,
) -> Scores:
    """Score `output` frame by frame.

    source: what it was made from, of as many frames and the same shape; adds WITH_INPUT. border:
    pixels left out on each side. only: these scores alone. extra: names from EXTRA that need no
    reference; pyiqa computes them. Raises UsageError for a score that cannot be had, and
    OasisError when the frame counts differ.
    """
    check_looks([*only, *extra], source is not None)
    clips = [output] if source is None else [output, source]
    common_size(clips)
    if min(output.size) - 2 * border < pixels.WINDOW:
        raise UsageError(
            f"a border of {border} pixels leaves too little of "
            f"{output.size[0]}x{output.size[1]} pixels",
            hint="choose a smaller --border",
        )
    names = [*ALONE, *(WITH_INPUT if source is not None else ())]
    names = [name for name in names if not only or name in only]
    more = {name: pyiqa_score(name) for name in extra if name in EXTRA}
    columns: dict[str, list[float]] = {name: [] for name in (*names, *more)}
    last: tuple[Tensor, ...] | None = None
    count = 0
    with torch.inference_mode():
        for frames in lockstep(clips, strict=True):
            height, width = frames[0].shape[-2:]
            same = (resize(frame, (height, width)) for frame in frames)
            now = tuple(pixels.crop(frame[None], border) for frame in same)
            for name in names:
                columns[name].append(_value(name, now, last))
            for name, score in more.items():
                columns[name] += score(now[0], now[0]).tolist()
            last = now
            count += 1
            progress(count)
    if not count:
        raise OasisError(f"{output.name} has no frames")
    made_from = source.name if source is not None else ""
    return Scores(output.name, "", columns, (NOTE,), source=made_from)


def check_looks(names: Sequence[str], has_input: bool) -> None:
    """Raise UsageError for names of scores that cannot be measured without a reference."""
    known = (*ALONE, *WITH_INPUT, *(name for name in EXTRA if name not in NEED_REFERENCE))
    for name in names:
        if name in WITH_INPUT and not has_input:
            raise UsageError(
                f"{name} is told against a reference, or against what OUTPUT was made from",
                hint="name one of them: --ref REFERENCE or --input INPUT",
            )
        if name in known:
            continue
        if name in ABOUT or name in EXTRA:
            raise UsageError(
                f"{name} needs the video that OUTPUT should look like",
                hint=f"name it with --ref; without one: {', '.join(known)}",
            )
        raise UsageError(f"there is no score called {name!r}", hint=f"known: {', '.join(known)}")


def _value(name: str, now: Sequence[Tensor], last: Sequence[Tensor] | None) -> float:
    """One score of one frame; nan where it has none."""
    if name == "sharpness":
        return pixels.sharpness(now[0]).item()
    if name == "blockiness":
        return pixels.blockiness(now[0]).item()
    if name == "hatching":
        return hatching.hatching(now[0], now[1], hatching.FEWEST_IN_FRAME)[0]
    if last is None:
        return float("nan")
    pairs = [torch.cat(both) for both in zip(last, now, strict=True)]
    if name == "change":
        return pixels.temporal_change(pairs[0]).item()
    if name == "warp":
        return flow.warping_error(pairs[0]).item()
    return flicker.flicker(pairs[0], pairs[1]).item()
