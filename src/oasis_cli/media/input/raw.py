"""What an input without a header needs to be told."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from oasis_cli.errors import UsageError
from oasis_cli.media.faults import shown
from oasis_cli.media.info import FASTEST, SLOWEST
from oasis_cli.media.input.limits import LARGEST, MOST_PIXELS

HEADERLESS = frozenset({"rawvideo", "bitpacked", "v210", "v210x"})
"""FFmpeg's formats that are pixels and nothing else."""
RATELESS = frozenset({
    "av1", "obu", "avs2", "avs3", "cavsvideo", "dirac", "dnxhd", "evc", "h261", "h263", "h264",
    "hevc", "ingenient", "m4v", "mjpeg", "mjpeg_2000", "mpegvideo", "vc1", "vvc",
})  # fmt: skip
"""Those that say everything but when a picture is shown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RawInput:
    """What an input needs to be told that its header does not say."""

    format: str | None = None
    """FFmpeg's demuxer name, such as rawvideo, nut, h264."""
    size: str | None = None
    """WxH, for rawvideo."""
    rate: str | None = None
    """Frames per second: for rawvideo, picture sequences and raw streams."""
    pix_fmt: str | None = None
    """For rawvideo; yuv420p when not given."""
    track: int | None = None
    """Number of the video stream to enlarge, where it is not the default one."""
    protocols: tuple[str, ...] = ()
    """What a playlist may open, of `playlists.PROTOCOLS`; every other input opens itself alone."""

    def __post_init__(self) -> None:
        """Refuse what no video can be. Raises UsageError."""
        if self.size is not None:
            _check_size(self.size)
        if self.rate is not None:
            _check_rate(self.rate)
        if self.pix_fmt is not None:
            _check_pix_fmt(self.pix_fmt)

    def options(self) -> dict[str, str]:
        """The demuxer's options. FFmpeg ignores those that it does not have: see `check_used`."""
        if self.format in HEADERLESS and self.size is None:
            raise UsageError(
                "raw video has no header: its size is not known",
                hint="pass --input-size WxH, and --input-rate and --input-pix-fmt",
            )
        told = {
            "video_size": self.size,
            "pixel_format": self.pix_fmt or ("yuv420p" if self.format == "rawvideo" else None),
            "framerate": self.rate,
        }
        return {name: value for name, value in told.items() if value is not None}

    def check_used(self, path: str | Path, format: str) -> None:
        """Refuse what is told of an input that says it itself. Raises UsageError.

        format: FFmpeg's demuxer, "images" for a sequence, "webp" for an animation.
        """
        timed = format not in HEADERLESS | RATELESS | {"images"} and not format.endswith("_pipe")
        unused = ["--input-rate"] if timed and self.rate is not None else []
        if format not in HEADERLESS:
            told = {"--input-size": self.size, "--input-pix-fmt": self.pix_fmt}
            unused += [name for name, value in told.items() if value is not None]
        if unused:
            raise UsageError(
                f"{shown(path)} has a header, so {' and '.join(unused)} would not be used",
                hint="leave it out; for raw pixels add --input-format rawvideo",
            )

    def rate_of(self, path: str | Path, own: Fraction, *, timed: bool) -> Fraction:
        """Frames a second of a stream: its own, or what is told where its frames have no times.

        Raises UsageError where they are `timed` and something else is told.
        """
        told = own if self.rate is None else Fraction(self.rate)
        if timed and abs(told - own) > own / 1000:
            raise UsageError(
                f"the stream in {shown(path)} says itself that it has {float(own):g} frames/s, so "
                f"--input-rate {self.rate} would not be used",
                hint="leave it out",
            )
        return told


def _check_size(text: str) -> None:
    found = re.fullmatch(r"(\d{1,9})[xX](\d{1,9})", text)
    width, height = (int(found[1]), int(found[2])) if found else (0, 0)
    if not 0 < width <= LARGEST or not 0 < height <= LARGEST or width * height > MOST_PIXELS:
        raise UsageError(
            f"--input-size {text} is no size of a picture",
            hint=f"write width x height, such as 640x480; at most {LARGEST} a side and "
            f"{MOST_PIXELS / 1e6:.0f} million pixels",
        )


def _check_rate(text: str) -> None:
    try:
        rate = Fraction(text)
    except (ValueError, ZeroDivisionError):
        rate = Fraction(0)
    if not SLOWEST <= rate <= FASTEST:
        raise UsageError(
            f"--input-rate {text} is no frame rate",
            hint="write frames a second, such as 25, 29.97 or 30000/1001: from one a day to "
            f"{FASTEST}",
        )


def _check_pix_fmt(text: str) -> None:
    try:
        known = bool(av.VideoFormat(text).components)  # pictures on a graphics card have none
    except ValueError:
        known = False
    if not known:
        raise UsageError(
            f"--input-pix-fmt {text} is no pixel format",
            hint="FFmpeg's names: yuv420p, yuv422p10le, nv12, rgb24, gray",
        )
