"""How far an output lies off its reference, in space and in time, and how to take that out.

Published outputs of several methods lie a few pixels or a frame off their references, which costs
decibels that have nothing to do with how they look.
"""

import math
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import torch
from torch import Tensor

from oasis_cli.errors import OasisError
from oasis_cli.evaluation.metrics import shift
from oasis_cli.pipeline.clips import Clip

FRAMES = 3
"""Whole frames each way that are tried."""
WORTH_SAYING = 0.1
"""Pixels; a smaller shift is neither told nor taken out."""
WHOLE = 0.03
"""A shift so near to whole pixels is taken for whole ones: nothing has to be interpolated."""
SIDE = 512
"""The middle of the picture that is looked at, in pixels."""
LEAST_SIDE = 32
WINDOW = 26
"""Frames in a row that are looked at; of a long clip in two places."""
LONGEST_STEP = 160
"""Frames from one window to the next, at most."""
FLAT = 1.0
"""A picture that varies by less than this, in 8-bit steps, shows no shift."""
LEAST_AGREEMENT = 0.25
"""Clips that agree less at their best are too different for a shift to be told."""
PRIOR = 0.005
"""What the reference explains counts for so much less for each pixel and frame of the shift."""
STILL = 0.1
"""Frames of the reference that differ by less than this share of what the output and the reference
differ by are the same: noise would decide which of them it is."""
FLOOR = 1e-5
"""Disagreement that is none."""

Pair = tuple[Tensor, Tensor]
"""A frame of the output and one of the reference."""


@dataclass(frozen=True, slots=True)
class Shift:
    """Where the output is: what is at p in frame t of the reference is at p + (x, y) in t + frames.

    Axes that are off by less than WORTH_SAYING are 0.
    """

    x: float = 0.0
    """Pixels to the right."""
    y: float = 0.0
    """Pixels down."""
    frames: int = 0
    """Frames later."""
    agreement: float = 1.0
    """Correlation of both pictures' slopes there, at most 1."""

    def __bool__(self) -> bool:
        return bool(self.x or self.y or self.frames)

    def __str__(self) -> str:
        parts = [
            f"{abs(amount):.2f} pixels {after if amount > 0 else before}"
            for amount, before, after in ((self.x, "left", "right"), (self.y, "up", "down"))
            if amount
        ]
        if self.frames:
            plural = "s" if abs(self.frames) > 1 else ""
            parts.append(f"{abs(self.frames)} frame{plural} {_late(self.frames)}")
        return ", ".join(parts) or "none"

    def to_dict(self) -> dict[str, float]:
        """Plain data for JSON."""
        return {"x": round(self.x, 3), "y": round(self.y, 3), "frames": self.frames}


def _late(frames: int) -> str:
    return "late" if frames > 0 else "early"


def find_shift(output: Clip, reference: Clip) -> Shift | None:
    """Look at some frames of both. None when they are too small, too flat or too different.

    The clips have one size. Under a steady pan over something flat a frame is as good as the pixels
    it moves by: then the smaller shift is taken.
    """
    if min(output.size) < LEAST_SIDE:
        return None
    with torch.inference_mode():
        windows = _windows(output, reference)
        if not windows:
            return None
        lengths = [len(refs) for _, refs in windows]
        search = shift.Search(windows)
        reach = min(FRAMES, lengths[0] // 2)
        tried = {n: [_partners(t, n) for t in lengths] for n in range(-reach, reach + 1)}
        rough = {frames: search.rough(partners) for frames, partners in tried.items()}
        rough = {n: near for n, near in rough.items() if _moves(search, lengths, n, near)}
        fine = {
            frames: search.fine(tried[frames], near)
            for frames, near in sorted(rough.items(), key=lambda item: item[1].whole)
        }
        frames = min(fine, key=lambda n: (_cost(fine[n], n), abs(n)))
        if fine[frames].agreement < LEAST_AGREEMENT:
            return None
        found = search.final(tried[frames], fine[frames])
    return Shift(_worth(found.x), _worth(found.y), frames, found.agreement)


def _partners(length: int, late: int) -> shift.Partners:
    """The frames of a window that belong together when the output is so many frames late.

    For every number the same frames of the reference, unless the window is so short that most
    would be left out.
    """
    if length >= 4 * FRAMES:
        return slice(FRAMES + late, length - FRAMES + late), slice(FRAMES, length - FRAMES)
    first, last = max(0, -late), min(length, length - late)
    return slice(first + late, last + late), slice(first, last)


def _moves(search: shift.Search, lengths: Sequence[int], frames: int, near: shift.Found) -> bool:
    """Whether the reference changes in so many frames by more than chance does."""
    if not frames:
        return True
    own = search.likeness([_partners(length, frames) for length in lengths])
    return 1 - own + FLOOR > STILL * (1 - near.agreement)


def _cost(found: shift.Found, frames: int) -> float:
    """How little both agree, a little more for a large shift."""
    return found.unexplained * (1 - PRIOR * (abs(frames) + math.hypot(found.x, found.y)))


def _worth(amount: float) -> float:
    near = round(amount)
    if abs(amount - near) < WHOLE:
        return float(near)
    return amount if abs(amount) > WORTH_SAYING else 0.0


def _windows(output: Clip, reference: Clip) -> list[shift.Pair]:
    """Frames of both, grey, (T, H, W): windows lie farther apart, the longer the clip is."""
    found: list[shift.Pair] = []
    outs: deque[Tensor] = deque(maxlen=WINDOW)
    refs: deque[Tensor] = deque(maxlen=WINDOW)
    step = WINDOW - 2 * FRAMES

    def here() -> list[shift.Pair]:
        window = torch.stack(list(outs)), torch.stack(list(refs))
        return [window] if refs[len(refs) // 2].std() * 127.5 >= FLAT else []

    for number, (out, ref) in enumerate(zip(output.frames(), reference.frames(), strict=False), 1):
        outs.append(_middle(out))
        refs.append(_middle(ref))
        if number < WINDOW or (number - WINDOW) % step:
            continue
        found += here()
        if len(found) > 2:
            del found[1]
            step *= 2
            if step > LONGEST_STEP:
                break
    return found or (here() if refs else [])


def _middle(frame: Tensor) -> Tensor:
    """(3, H, W) -> (h, w), grey."""
    height, width = frame.shape[-2:]
    top, left = max(0, height - SIDE) // 2, max(0, width - SIDE) // 2
    return frame[:, top : top + SIDE, left : left + SIDE].mean(0)


def together(output: Clip, reference: Clip, frames: int, alone: list[int]) -> Iterator[Pair]:
    """Frames that belong together when the output is `frames` late.

    alone: is told, at the end, how many frames had no partner. Raises OasisError when one clip goes
    on for more than FRAMES after the other.
    """
    outs, refs = output.frames(), reference.frames()
    skipped = sum(1 for _ in islice(outs if frames > 0 else refs, abs(frames)))
    while True:
        pair = next(outs, None), next(refs, None)
        if pair[0] is None or pair[1] is None:
            break
        yield pair[0], pair[1]
    rest = outs if pair[1] is None else refs
    left = sum(frame is not None for frame in pair) + sum(1 for _ in islice(rest, FRAMES))
    if left > FRAMES:
        raise OasisError(
            f"{output.name} and {reference.name} differ in length by more than {FRAMES} frames",
            hint="compare clips of the same frames; `oasis info --count FILE` counts them",
        )
    alone.append(skipped + left)


def kept(length: int, amount: float, border: int) -> tuple[int, int]:
    """First and last (excluded) pixel of the reference that can be compared along one side.

    What the output lacks there, and what interpolating needs, or the border if that is more.
    """
    whole = math.floor(amount)
    before, after = (shift.TAPS - 1, shift.TAPS) if amount != whole else (0, 0)
    return max(border, before - whole, 0), min(length - border, length - whole - after, length)


def cut(out: Tensor, ref: Tensor, found: Shift, border: int) -> Pair:
    """One pair, the output moved back onto the reference, both cut alike. (..., H, W).

    For a part of a pixel, Lanczos of 8 pixels interpolates.
    """
    for dim, amount in ((-1, found.x), (-2, found.y)):
        first, last = kept(ref.shape[dim], amount, border)
        whole = math.floor(amount)
        if amount == whole:
            out = out.narrow(dim, first + whole, last - first)
        else:
            start, size = first + whole - shift.TAPS + 1, last - first + 2 * shift.TAPS - 1
            out = shift.moved(out.narrow(dim, start, size), amount - whole, dim)
        ref = ref.narrow(dim, first, last - first)
    return out, ref
