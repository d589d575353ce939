"""What reading an input found out, for the summary and for scripts."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from fractions import Fraction
from typing import Any

from oasis_cli.errors import MediaError


@dataclass
class ReadReport:
    """What went wrong while reading. Nothing here ended the run."""

    frames: int = 0
    bad_packets: int = 0
    corrupt_frames: int = 0
    missing_frames: int = 0
    """As many as would fill the gaps of an otherwise even clock."""
    size_changes: int = 0
    shape_changes: int = 0
    """How often the picture's width to height, as shown, became another one."""
    joins: int = 0
    """Places where the container's clock broke and was mended, or its tracks changed."""
    restarts: int = 0
    """Places where the clock starts anew and could not be mended."""
    repaired_times: int = 0
    interlaced_frames: int = 0
    ended_at: float | None = None
    """Seconds, when the file ended well before the length it claims."""
    warnings: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)

    def tell_counts(self) -> None:
        """Add a sentence for each kind of thing that was counted."""
        for count, what in (
            (self.missing_frames, "frames seem to be missing: the clock is even but for gaps"),
            (self.bad_packets, "damaged packets were skipped"),
            (self.corrupt_frames, "frames are damaged and were kept"),
            (self.size_changes, "frames of another size were scaled to the first one's"),
            (self.restarts, "times the clock starts anew: frames behind that come a tick apart"),
            (self.repaired_times, "missing or repeated timestamps were mended"),
        ):
            if count:
                self.warnings.append(f"{count} {what}")


def nothing_read(path: str, start: Fraction | None, latest: Fraction | None) -> MediaError:
    """What to raise when no frame was chosen. latest: seconds from `start` to the last one that was
    read; None when none was."""
    if latest is None or not start:
        return MediaError(f"no frame of {path} could be read")
    if latest < 0:
        where = f"its last one is at {float(start + latest):.2f} s"
        sentence = f"no frame of {path} lies behind --start {float(start):g}: {where}"
        return MediaError(sentence, hint="choose an earlier --start")
    return MediaError(
        f"no frame of {path} lies between --start and --end", hint="choose a later --end"
    )
