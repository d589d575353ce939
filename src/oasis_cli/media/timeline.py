"""When each frame is shown: the table that carries the input's timing to the output.

Encoders see frame numbers 0, 1, 2...; each packet they return is stamped from this table. So
variable rates, offsets and odd time bases come through exactly, in integers.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np

JUMP_SECONDS = 10
"""A clock that falls back by more than this was restarted (joined recordings), not repeated."""

STANDSTILL, LONG = 10, 600
"""Seconds between two frames after which the encoder begins anew: where frames usually come more
often, and anywhere. See `Timeline.after_hole`."""

FARTHEST, LONGEST = 1 << 62, 1 << 40
"""Ticks past which a time or a duration is damage: the table holds 64 bits."""


def ticks(values: Iterable[int] = ()) -> array[int]:
    """Integers at 8 bytes each: a table grows with the film, and a list takes 9 times as much."""
    return array("q", values)


@dataclass
class Timeline:
    """Frame index -> presentation time and duration, in integer ticks of `time_base` seconds.

    >>> line = Timeline(Fraction(1, 100), nominal=4)
    >>> [line.append(pts) for pts in (0, 4, None, 8, 20)]
    [0, 1, 2, 3, 4]
    >>> list(line.pts), line.repaired
    ([0, 4, 8, 9, 20], 2)
    >>> line.at(-1), line.at(1)
    (-4, 4)
    """

    time_base: Fraction
    nominal: int
    """Ticks between frames when nothing better is known; at least 1."""
    pts: array[int] = field(default_factory=ticks)
    durations: array[int] = field(default_factory=ticks)
    repaired: int = 0
    """Timestamps that were missing, repeated or went back."""
    _rebase: int = 0

    def __len__(self) -> int:
        return len(self.pts)

    def append(self, pts: int | None, duration: int | None = None) -> int:
        """Note the next frame, mending its time where needed, and return its index.

        Missing: one nominal frame after the one before. Not later than the one before: one tick
        after it; when the clock restarted, all later times move by the same amount.
        """
        if pts is not None:
            pts += self._rebase
            pts = pts if abs(pts) < FARTHEST else None
        if self.pts:
            last = self.pts[-1]
            if pts is None:
                # AVI reports 1 tick for every frame, however many ticks a frame has.
                step = self.durations[-1] if self.durations[-1] * 4 > self.nominal else self.nominal
                pts, self.repaired = last + step, self.repaired + 1
            elif pts <= last:
                self.repaired += 1
                if (last - pts) * self.time_base > JUMP_SECONDS:
                    self._rebase += last + self.nominal - pts
                    pts = last + self.nominal
                else:
                    pts = last + 1
        elif pts is None:
            pts, self.repaired = 0, self.repaired + 1
        self.pts.append(pts)
        known = duration is not None and 0 < duration < LONGEST
        self.durations.append(duration if known and duration else self.nominal)
        return len(self.pts) - 1

    def at(self, index: int) -> int:
        """Ticks at which frame `index` is shown; a negative index continues the first interval
        backwards (decoding times of encoders that reorder frames)."""
        if index >= 0:
            return self.pts[index]
        step = self.pts[1] - self.pts[0] if len(self.pts) > 1 else self.nominal
        return self.pts[0] + index * step

    def after_hole(self, index: int) -> bool:
        """Whether frame `index` comes `STANDSTILL` seconds and many frames after the one before.

        Frames there must not be decoded before those in front of the hole: they would wait for
        longer than an mp4 can say.
        """
        if not 0 < index < len(self.pts):
            return False
        gap = self.pts[index] - self.pts[index - 1]
        seconds = gap * self.time_base
        return seconds > LONG or (gap > 16 * self.nominal and seconds > STANDSTILL)

    def seconds(self, index: int) -> Fraction:
        """The same as `at`, in seconds."""
        return self.at(index) * self.time_base

    @property
    def variable(self) -> bool:
        """Whether neighbouring frames are ever more than one tick off an even spacing."""
        if len(self.pts) < 3:
            return False
        even = Fraction(self.pts[-1] - self.pts[0], len(self.pts) - 1)
        return any(abs(p - self.pts[0] - k * even) > 1 for k, p in enumerate(self.pts))

    def to_json(self) -> dict[str, Any]:
        """Plain data for a manifest; `from_json` returns an equal table."""
        return {
            "time_base": str(self.time_base),
            "nominal": self.nominal,
            "pts": list(self.pts),
            "durations": list(self.durations),
            "repaired": self.repaired,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Timeline:
        """The inverse of `to_json`."""
        return cls(
            Fraction(data["time_base"]),
            int(data["nominal"]),
            ticks(data["pts"]),
            ticks(data["durations"]),
            int(data["repaired"]),
        )


def missing_frames(line: Timeline, breaks: Sequence[Fraction] = ()) -> int:
    """How many frames fit into the gaps, when at least 9 of 10 intervals are alike.

    breaks: seconds at which recordings are joined; the gaps before them hold no frames.

    >>> even = Timeline(Fraction(1, 25), 1, pts=ticks([*range(20), *range(23, 40)]))
    >>> missing_frames(even)
    3
    """
    steps = np.diff(np.asarray(line.pts))
    if len(steps) < 10:
        return 0
    usual = int(np.sort(steps)[len(steps) // 2])
    for at in breaks:
        behind = int(np.searchsorted(np.asarray(line.pts), float(at / line.time_base) - usual / 2))
        steps[max(0, behind - 1) : behind] = usual
    gaps = steps[steps > 1.8 * usual]
    alike = int((np.abs(steps - usual) <= max(1, usual // 20)).sum())
    if not len(gaps) or 10 * alike < 9 * len(steps):
        return 0
    return sum(round(int(s) / usual) - 1 for s in gaps)
