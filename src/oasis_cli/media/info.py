"""What `probe` finds out about an input: plain data, printable and JSON-able."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from oasis_cli.media.picture import PictureSpec, PixelLayout, Siting, matrix_name, parse_pix_fmt

if TYPE_CHECKING:
    from oasis_cli.media.input.raw import RawInput
    from oasis_cli.media.input.source import LiveInput

StreamKind = Literal["video", "audio", "subtitle", "data", "attachment", "cover", "unknown"]
UNTAGGED = 2
SLOWEST, FASTEST = Fraction(1, 86400), Fraction(1000)
"""Frames per second beyond which a rate is damage."""
LATEST = 10**8
"""Seconds, three years: a chapter or a cut that lies farther away is damage or a slip."""
SHOWN_NAMES = 5
"""Of a list that a sentence names."""
PQ, HLG = 16, 18
"""Transfer characteristics of HDR pictures."""
TAGS = {
    "primaries": {1: "BT.709", 5: "BT.601 625", 6: "BT.601 525", 9: "BT.2020", 12: "Display P3"},
    "transfer": {1: "BT.709", 6: "BT.601", 13: "sRGB", 14: "BT.2020", PQ: "PQ", HLG: "HLG"},
    "matrix": {0: "RGB", 1: "BT.709", 5: "BT.601", 6: "BT.601", 9: "BT.2020"},
    "range": {1: "limited", 2: "full"},
}
"""ISO/IEC 23091-2 numbers in words."""


def some(names: Sequence[str]) -> str:
    """The first names of a list, and how many more there are.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    more = len(names) - SHOWN_NAMES
    return ", ".join(names[:SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def chapter_base(chapter: Mapping[str, Any]) -> Fraction:
    """Seconds of a tick of a chapter that PyAV gives; a millisecond where it does not say."""
    base: Fraction | None = chapter["time_base"]
    return base or Fraction(1, 1000)


def left_out(behind: Mapping[int, Sequence[str]]) -> str:
    """The sentence about what nothing takes of the files behind the first one in a file.

    behind: byte at which one begins -> what that is.
    """
    names = [f"{what} (byte {at})" for at, found in behind.items() for what in found]
    return f"left out of the files behind the first: {some(names)}"


def usual_rate(rate: Fraction) -> Fraction:
    """A rate that a container claims, within what is possible.

    >>> usual_rate(Fraction(1, 10)), usual_rate(Fraction(90000))
    (Fraction(1, 10), Fraction(1000, 1))
    """
    return min(max(rate, SLOWEST), FASTEST)


def rate_text(rate: Fraction) -> str:
    """Frames per second, short.

    >>> rate_text(Fraction(25)), rate_text(Fraction(30000, 1001)), rate_text(Fraction(1, 60))
    ('25', '29.97', '0.0167')
    """
    return f"{float(rate):.3f}".rstrip("0").rstrip(".") if rate >= 1 else f"{float(rate):.3g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamInfo:
    """One stream of a file, as its container describes it."""

    index: int
    kind: StreamKind
    codec: str
    """Decoder's name, or the container's tag when nothing here decodes it."""
    decodable: bool
    time_base: Fraction
    start: Fraction | None
    """Seconds of the first timestamp."""
    duration: float | None
    language: str | None
    disposition: int
    metadata: dict[str, str]
    detail: str
    """Such as "48000 Hz stereo"."""
    tag: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Color:
    """Tags as ISO/IEC 23091-2 numbers; 2 (0 for the range) means untagged."""

    primaries: int = UNTAGGED
    transfer: int = UNTAGGED
    matrix: int = UNTAGGED
    range: int = 0
    """1 limited, 2 full."""

    def names(self) -> dict[str, str]:
        """What is tagged, in words; a number where there is no word for it.

        >>> Color(primaries=9, transfer=16, range=1).names()
        {'primaries': 'BT.2020', 'transfer': 'PQ', 'range': 'limited'}
        """
        tags = {kind: getattr(self, kind) for kind in TAGS}
        missing = {"range": 0}
        return {
            kind: TAGS[kind].get(tag, str(tag))
            for kind, tag in tags.items()
            if tag != missing.get(kind, UNTAGGED)
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Hdr:
    """Static HDR metadata: SMPTE ST 2086 mastering display and CTA-861.3 light levels."""

    display: tuple[Fraction, ...] = ()
    """Red, green, blue and white point x, y, then the least and greatest luminance in cd/m2."""
    max_content: int | None = None
    max_average: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoInfo:
    """The stream that will be enlarged."""

    index: int
    codec: str
    width: int
    height: int
    pix_fmt: str
    """As decoded; a packed format is unpacked to `planar` when read."""
    planar: str
    rate: Fraction
    """Nominal frames per second, one a day to 1000: see `usual_rate`."""
    time_base: Fraction
    sar: Fraction | None
    """Sample aspect ratio, when it is not square or unknown."""
    color: Color
    siting: Siting
    rotation: int
    """Degrees the container asks players to turn the picture, counterclockwise."""
    matrix: tuple[int, ...] | None
    """The container's display matrix, when it is not the identity."""
    interlaced: bool
    hdr: Hdr | None = None
    dolby_vision: bool = False
    hdr10_plus: bool = False
    captions: bool = False
    second_view: bool = False
    """Pictures for the other eye in the same stream (MV-HEVC)."""
    icc: bytes = field(default=b"", repr=False)
    """The colour profile that comes with a picture; empty without one."""
    claimed_frames: int = 0
    """What the container says, or the packets of a small file that does not say it; 0 when nobody
    knows. Only decoding tells."""
    decoder: str | None = None
    """The decoder to use when it is not the default one (VP9 with alpha)."""

    @property
    def layout(self) -> PixelLayout:
        """Depth, subsampling and alpha of the frames that the reader gives."""
        layout = parse_pix_fmt(self.planar)
        assert layout is not None
        return layout

    @property
    def is_hdr(self) -> bool:
        """Whether the transfer curve is PQ or HLG."""
        return self.color.transfer in (PQ, HLG)

    @property
    def orientation(self) -> tuple[int, bool]:
        """(quarter turns clockwise, mirrored afterwards) that show the picture upright."""
        if self.matrix is None:
            return (0, False)
        a, b, _, c, d = self.matrix[:5]
        signs = tuple((v > 0) - (v < 0) for v in (a, b, c, d))
        # FFmpeg's display matrix: x' = ax + cy, y' = bx + dy.
        turns: dict[tuple[int, ...], tuple[int, bool]] = {
            (1, 0, 0, 1): (0, False), (0, 1, -1, 0): (1, False), (-1, 0, 0, -1): (2, False),
            (0, -1, 1, 0): (3, False), (-1, 0, 0, 1): (0, True), (0, 1, 1, 0): (1, True),
            (1, 0, 0, -1): (2, True), (0, -1, -1, 0): (3, True),
        }  # fmt: skip
        return turns.get(signs, (0, False))

    def size(self, *, bake_rotation: bool = False) -> tuple[int, int]:
        """(width, height) of the pictures the model sees."""
        turned = bake_rotation and self.orientation[0] % 2 == 1
        return (self.height, self.width) if turned else (self.width, self.height)

    def spec(self, *, bake_rotation: bool = False) -> PictureSpec:
        """How to turn the reader's planes into RGB."""
        layout = self.layout
        full = self.color.range == 2 or layout.family == "rgb" or self.pix_fmt.startswith("yuvj")
        full = full or (layout.family == "gray" and self.color.range == 0)  # as swscale has it
        return PictureSpec(
            width=self.width,
            height=self.height,
            pix_fmt=self.planar,
            matrix=matrix_name(
                self.color.matrix, width=self.width, height=self.height, family=layout.family
            ),
            full_range=full,
            siting=self.siting,
            orientation=self.orientation if bake_rotation else (0, False),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MediaInfo:
    """An input, described. For a pipe it also holds the open pipe (`live`)."""

    path: str
    """As given: a file, a folder, a pattern such as f_%05d.png, or `-`."""
    format: str
    """FFmpeg's name of the container, `images` for a sequence, `webp` for an animated one."""
    streams: tuple[StreamInfo, ...]
    video: VideoInfo
    chapters: tuple[dict[str, Any], ...]
    metadata: dict[str, str]
    duration: float | None
    """Seconds, when the container says."""
    start: Fraction
    """Seconds at which the container's clock starts (MPEG-TS rarely starts at 0)."""
    odd_chapters: int = 0
    """Chapters that were left out: their times are impossible."""
    parts: int = 1
    """Files written one behind the other: they are read as one film."""
    left_behind: dict[int, list[str]] = field(default_factory=dict)
    """Byte at which a file behind the first begins -> what of it nothing takes: tracks of another
    kind, and chapters whose place is not sure."""
    missing: int = 0
    """Bytes at its end that the file tells of and that are not there: it is cut off."""
    unread_at: int = 0
    """Byte of the file at which another film begins that nothing reads; 0 without one."""
    files: tuple[Path, ...] = ()
    """The pictures of a sequence, in order."""
    other_files: tuple[str, ...] = ()
    """Names of what else lies in their folder."""
    raw: RawInput | None = None
    """What the user said about a headerless input."""
    joined: dict[int, int] = field(default_factory=dict)
    """Streams left out of `streams`: they continue another one, and their packets are its."""
    changed: dict[int, int] = field(default_factory=dict)
    """Streams that begin where one of their kind ends, but of another codec -> that one."""
    live: LiveInput | None = field(default=None, compare=False, repr=False)

    @property
    def is_pipe(self) -> bool:
        """Whether the input can be read only once."""
        return self.live is not None

    @property
    def is_still(self) -> bool:
        """Whether the input is one picture in a picture format."""
        return self.format in STILL_FORMATS and len(self.files) <= 1

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        data = {
            name: plain(getattr(self, name))
            for name in ("path", "format", "streams", "video", "chapters", "metadata", "duration",
                         "start", "parts")
        }  # fmt: skip
        data["files"] = len(self.files)
        return data


STILL_FORMATS = {
    "images", "png_pipe", "jpeg_pipe", "webp_pipe", "tiff_pipe", "bmp_pipe", "image2", "exr_pipe",
    "jpegxl_pipe", "ppm_pipe", "pgm_pipe", "dpx_pipe", "j2k_pipe", "qoi_pipe", "sgi_pipe",
    "psd_pipe", "hdr_pipe", "pam_pipe", "pbm_pipe",
}  # fmt: skip


def plain(value: Any) -> Any:
    """Fractions as strings, bytes as their number, dataclasses as dicts, tuples as lists: all of
    them, however deep."""
    if isinstance(value, Fraction):
        return str(value)
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "__dataclass_fields__"):
        return plain(asdict(value))
    return value
