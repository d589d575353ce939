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
MOMENTS = 5
"""Places in time that are compared at least, in a long clip; at most twice as many."""
LONGEST_STEP = 16
"""Frames from one place in time to the next, at most."""
FLAT = 1.0
"""A picture that varies by less than this, in 8-bit steps, shows no shift."""
LEAST_AGREEMENT = 0.4
"""Clips that agree less at their best are too different for a shift to be told."""
PRIOR = 0.0075
"""Disagreement counts for so much more for each pixel and each frame of the shift ..."""
LATE = 0.015
"""... and for so much more if the output is late or early."""
STILL = 0.1
"""Frames of the reference that differ by less than this share of what the output and the reference
differ by are the same: noise would decide which of them it is."""
FLOOR = 1e-5
"""Disagreement that is none."""
HOPELESS = 1.2
"""Numbers of frames that cost so much more than the best at first sight are given up."""

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


@dataclass(frozen=True, slots=True)
class _Moment:
    """Some neighbouring frames of both, grey. outs, refs: (T, H, W)."""

    outs: Tensor
    refs: Tensor

    @property
    def middle(self) -> int:
        return (len(self.refs) - 1) // 2

    @property
    def reach(self) -> int:
        """Frames each way that can be tried: half of the frames have a partner even then."""
        return min(FRAMES, len(self.refs) // 2)

    def compared(self, frames: int) -> Iterator[Pair]:
        """The pairs by which one number of late frames is told from another: the same references.

        Of a clip shorter than the window, all that there are.
        """
        if len(self.refs) <= 2 * FRAMES:
            yield from self.pairs(frames)
        else:
            yield self.outs[self.middle + frames], self.refs[self.middle]

    def own(self, frames: int) -> Iterator[Pair]:
        """A frame of the reference, and the one that would be taken for it."""
        yield (
            self.refs[self.middle],
            self.refs[max(0, min(self.middle + frames, len(self.refs) - 1))],
        )

    def pairs(self, frames: int) -> Iterator[Pair]:
        """All that belong together when the output is so many frames late."""
        start = max(0, -frames)
        yield from zip(self.outs[start + frames :], self.refs[start:], strict=False)


def find_shift(output: Clip, reference: Clip) -> Shift | None:
    """Look at some frames of both. None when they are too small, too flat or too different.

    The clips have one size. Under a steady pan over something flat a frame is as good as the pixels
    it moves by: then the smaller shift is taken.
    """
    if min(output.size) < LEAST_SIDE:
        return None
    with torch.inference_mode():
        moments = _moments(output, reference)
        if not moments:
            return None
        reach = moments[0].reach
        tried = {
            frames: [pair for m in moments for pair in m.compared(frames)]
            for frames in range(-reach, reach + 1)
        }
        rough = {frames: shift.rough(pairs) for frames, pairs in tried.items()}
        costs = {frames: _cost(found, frames) for frames, found in rough.items()}
        fine = {
            frames: shift.find(tried[frames], rough[frames])
            for frames, cost in costs.items()
            if cost <= HOPELESS * min(costs.values()) and _moves(moments, frames, cost)
        }
        frames = min(fine, key=lambda n: (_cost(fine[n], n), abs(n)))
        found = shift.find([pair for m in moments for pair in m.pairs(frames)], fine[frames])
    if found.agreement < LEAST_AGREEMENT:
        return None
    return Shift(_worth(found.x), _worth(found.y), frames, found.agreement)


def _moves(moments: Sequence[_Moment], frames: int, cost: float) -> bool:
    """Whether the reference changes in so many frames by more than chance does."""
    if not frames:
        return True
    own = shift.agreement([pair for m in moments for pair in m.own(frames)])
    return 1 - own + FLOOR > STILL * cost


def _cost(found: shift.Found, frames: int) -> float:
    """How little both agree, a little more for a large shift."""
    far = abs(frames) + math.hypot(found.x, found.y)
    return (max(0.0, 1 - found.agreement) + FLOOR) * (1 + PRIOR * far + LATE * bool(frames))


def _worth(amount: float) -> float:
    near = round(amount)
    if abs(amount - near) < WHOLE:
        return float(near)
    return amount if abs(amount) > WORTH_SAYING else 0.0


def _moments(output: Clip, reference: Clip) -> list[_Moment]:
    """Places in time at which both are looked at: farther apart, the longer the clip is."""
    found: list[_Moment] = []
    outs: deque[Tensor] = deque(maxlen=2 * FRAMES + 1)
    refs: deque[Tensor] = deque(maxlen=2 * FRAMES + 1)
    step = 1

    def here() -> list[_Moment]:
        moment = _Moment(torch.stack(list(outs)), torch.stack(list(refs)))
        return [moment] if moment.refs[moment.middle].std() * 127.5 >= FLAT else []

    for number, (out, ref) in enumerate(zip(output.frames(), reference.frames(), strict=False)):
        outs.append(_middle(out))
        refs.append(_middle(ref))
        if len(refs) <= 2 * FRAMES or number % step:
            continue
        found += here()
        if len(found) == 2 * MOMENTS:
            del found[1::2]
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
