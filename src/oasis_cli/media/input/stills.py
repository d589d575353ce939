"""Pictures as input: folders, patterns, single files and animated WebP."""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice
from pathlib import Path

import av
import numpy as np

from oasis_cli.errors import MediaError
from oasis_cli.media.input.limits import check_size
from oasis_cli.media.input.pipes import SeekableFile
from oasis_cli.media.input.source import open_input

PICTURES = {
    ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".exr", ".ppm", ".pgm", ".dpx",
}  # fmt: skip
_SIGNS = re.compile(
    rb"\x89PNG|\xff\xd8|RIFF....WEBP|II[*+]\0|MM\0[*+]|BM|\x76\x2f\x31\x01|P[1-7]\s|SDPX|XPDS"
    rb"|....ftyp|GIF8",
    re.DOTALL,
)
"""How the files begin that picture programs write, whatever suffix they give them."""
SAMPLE = 1000
"""Frames of an animation whose durations tell its usual rate."""
BLOCK = 256
"""Pixels of a side that a decoder may add, since it works in blocks."""
_PATTERN = re.compile(r"%0?(\d*)d")


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sort f2 before f10.

    >>> sorted(["f10.png", "f2.png", "F1.png"], key=natural_key)
    ['F1.png', 'f2.png', 'f10.png']
    """
    parts = re.findall(r"\d+|\D+", name.lower())
    return [(0, int(p), "") if p.isdigit() else (1, 0, p) for p in parts]


def is_pattern(path: str | Path) -> bool:
    """Whether the path names a numbered sequence, such as f_%05d.png."""
    return _PATTERN.search(Path(path).name) is not None


def numbered(pattern: str, number: int) -> str:
    """The name of one picture of a sequence.

    >>> numbered("100%_f_%03d.png", 7)
    '100%_f_007.png'
    """
    return _PATTERN.sub(lambda m: str(number).zfill(int(m[1] or 1)), pattern)


def list_pictures(path: str | Path) -> list[Path]:
    """The pictures that a folder or pattern means, in natural order; [] for anything else.

    A missing number is no error: the sequence goes on with the next one. What else lies in a folder
    is left out: see `left_out`.
    """
    path = Path(path)
    if path.is_dir():
        found = [p for p in path.iterdir() if _named_as_picture(p)]
        suffixes = {p.suffix.lower() for p in found}
        if len(suffixes) > 1:
            raise MediaError(
                f"{path} mixes {' and '.join(sorted(suffixes))} pictures",
                hint="give a pattern such as FOLDER/f_%05d.png",
            )
    elif is_pattern(path) and not path.exists():
        expression = _PATTERN.sub(lambda m: r"\\d+", re.escape(path.name).replace("\\%", "%"))
        match = re.compile(expression.replace("\\\\d", "\\d"))
        folder = path.parent if path.parent.is_dir() else None
        found = [p for p in folder.iterdir() if match.fullmatch(p.name)] if folder else []
    else:
        return []
    return sorted(found, key=lambda p: natural_key(p.name))


def left_out(path: str | Path, files: Sequence[Path]) -> list[str]:
    """Names of the files in a folder of pictures that are not in `files`, in natural order."""
    path, used = Path(path), {p.name for p in files}
    if not path.is_dir():
        return []
    names = [p.name for p in path.iterdir() if p.name not in used and not p.is_dir()]
    return sorted(names, key=natural_key)


def _named_as_picture(path: Path) -> bool:
    """Not the "._x.png" that macOS puts beside x.png on foreign disks."""
    named = path.suffix.lower() in PICTURES and not path.name.startswith(".")
    return named and path.is_file()


def check_pictures(files: Sequence[Path]) -> None:
    """Refuse files that do not begin as any picture does, before hours are spent on the others."""
    for path in files:
        with path.open("rb") as file:
            if path.suffix.lower() in PICTURES and not _SIGNS.match(file.read(12)):
                raise MediaError(
                    f"{path} is named as a picture and is none", hint="move it away, or mend it"
                )


def decode_picture(path: Path) -> av.VideoFrame:
    """The one frame of a picture file."""
    try:
        with open_input(path) as container:
            for frame in container.decode(video=0):
                return frame
    except (av.FFmpegError, OSError) as error:
        raise MediaError(f"the picture {path} cannot be decoded") from error
    raise MediaError(f"the picture {path} holds no frame")


class AnimatedWebp:
    """Frames of an animated WebP, drawn on its canvas: FFmpeg reads single pictures only.

    Each ANMF chunk holds the chunks of an ordinary WebP picture, so each is wrapped as one and
    decoded, then placed as the container specification says (offset, blending, disposal).
    """

    def __init__(self, path: str | Path, canvas: tuple[int, int]) -> None:
        self._file = SeekableFile(path)
        self.width, self.height = canvas
        usual = sorted(place.duration for place in islice(_animation_frames(self._file), SAMPLE))
        if not usual:
            raise MediaError(f"{path} is an animated WebP without frames")
        self.rate = Fraction(1000, max(usual[len(usual) // 2], 1))

    def __enter__(self) -> AnimatedWebp:
        return self

    def __exit__(self, *raised: object) -> None:
        self._file.close()

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """RGBA frames with `pts` and `duration` in milliseconds."""
        canvas = np.zeros((self.height, self.width, 4), np.uint8)
        clock = 0
        for place in _animation_frames(self._file):
            if place.x + place.width > self.width or place.y + place.height > self.height:
                raise MediaError("a frame of the animated WebP lies outside of its canvas")
            area = np.s_[place.y : place.y + place.height, place.x : place.x + place.width]
            self._file.seek(place.start)
            chunks = self._file.read(place.stop - place.start)
            patch = _decode_chunks(chunks, place.width, place.height)
            canvas[area] = _over(patch, canvas[area]) if place.blend else patch
            frame = av.VideoFrame.from_ndarray(canvas, format="rgba")
            frame.pts, frame.duration = clock, place.duration
            frame.time_base = Fraction(1, 1000)
            yield frame
            clock += place.duration
            if place.dispose:
                canvas[area] = 0


def webp_profile(path: str | Path) -> bytes:
    """The colour profile of an animated WebP; its frames are decoded without one."""
    with closing(SeekableFile(path)) as file:
        for name, start, end in _chunks(file):
            if name == b"ICCP":
                file.seek(start)
                return file.read(end - start)
    return b""


def _over(patch: np.ndarray, below: np.ndarray) -> np.ndarray:
    """A picture with alpha on another: (rows, columns, 4) uint8."""
    over = patch[..., 3:].astype(np.float32) / 255
    under = below[..., 3:].astype(np.float32) / 255 * (1 - over)
    total = over + under
    colors = (patch[..., :3] * over + below[..., :3] * under) / np.where(total > 0, total, 1)
    return np.rint(np.concatenate([colors, total * 255], axis=-1)).astype(np.uint8)


def animated_webp(path: str | Path) -> AnimatedWebp | None:
    """The animation in `path`, or None when it is no animated WebP."""
    with Path(path).open("rb") as file:
        head = file.read(30)
        if len(head) < 30 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or not head[20] & 2:
            return None
    canvas = (int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1)
    check_size(path, *canvas)
    return AnimatedWebp(path, canvas)


def _chunks(file: SeekableFile) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte, last byte + 1) of each whole chunk of a RIFF file's body."""
    start, end = 12, file.seek(0, os.SEEK_END)
    while start + 8 <= end:
        file.seek(start)
        head = file.read(8)
        size = int.from_bytes(head[4:], "little")
        if start + 8 + size > end:
            return
        yield head[:4], start + 8, start + 8 + size
        start += 8 + size + (size & 1)


@dataclass(frozen=True, slots=True)
class _Place:
    """A frame of an animation: where it is drawn, for how long, and where its chunks lie."""

    x: int
    y: int
    width: int
    height: int
    duration: int
    """Milliseconds."""
    blend: bool
    dispose: bool
    """Whether the area is cleared afterwards."""
    start: int
    stop: int


def _animation_frames(file: SeekableFile) -> Iterator[_Place]:
    for name, start, end in _chunks(file):
        if name != b"ANMF" or end - start < 16:
            continue
        file.seek(start)
        head = file.read(16)
        x, y, width, height, duration = (
            int.from_bytes(head[i : i + 3], "little") for i in range(0, 15, 3)
        )
        flags = head[15]
        yield _Place(
            x * 2, y * 2, width + 1, height + 1, duration or 100, not flags & 2, bool(flags & 1),
            start + 16, end,
        )  # fmt: skip


def _decode_chunks(chunks: bytes, width: int, height: int) -> np.ndarray:
    """One frame's chunks (ALPH, VP8 or VP8L) -> (height, width, 4) uint8."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    alpha = 0x10 if chunks[:4] == b"ALPH" else 0
    body = chunks
    if alpha:
        body = b"VP8X" + struct.pack("<I", 10) + bytes([alpha, 0, 0, 0]) + size + chunks
    picture = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    context = av.CodecContext.create("webp", "r")
    context.options = {"max_pixels": str((width + BLOCK) * (height + BLOCK))}
    try:
        frames = context.decode(av.Packet(picture)) + context.decode(None)
    except av.FFmpegError as error:
        raise MediaError("a frame of the animated WebP is damaged") from error
    if not frames or (frames[0].width, frames[0].height) != (width, height):
        raise MediaError("a frame of the animated WebP is damaged")
    return frames[0].reformat(format="rgba").to_ndarray()
