"""Pictures as input: folders, patterns, single files and animated WebP."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from types import TracebackType

import av
import numpy as np

from oasis_cli.errors import MediaError
from oasis_cli.media.source import open_input

PICTURES = {
    ".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".exr", ".ppm", ".pgm", ".dpx",
}  # fmt: skip
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


def list_pictures(path: str | Path) -> list[Path]:
    """The pictures that a folder or pattern means, in natural order; [] for anything else.

    A missing number is no error: the sequence goes on with the next one.
    """
    path = Path(path)
    if path.is_dir():
        found = [p for p in path.iterdir() if p.suffix.lower() in PICTURES and p.is_file()]
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

    def __init__(self, data: bytes, canvas: tuple[int, int]) -> None:
        self._data = data
        self.width, self.height = canvas
        self.frames = list(_animation_frames(data))
        usual = sorted([f[4] for f in self.frames] or [100])[len(self.frames) // 2]
        self.rate = Fraction(1000, max(usual, 1))

    def __enter__(self) -> AnimatedWebp:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._data = b""

    def __iter__(self) -> Iterator[av.VideoFrame]:
        """RGBA frames with `pts` and `duration` in milliseconds."""
        canvas = np.zeros((self.height, self.width, 4), np.float32)
        clock = 0
        for x, y, width, height, duration, blend, dispose, chunks in self.frames:
            area = np.s_[y : y + height, x : x + width]
            patch = _decode_chunks(chunks, width, height)[: self.height - y, : self.width - x]
            if blend:
                over, under = patch[..., 3:] / 255, canvas[area]
                below = under[..., 3:] / 255 * (1 - over)
                total = over + below
                mixed = patch[..., :3] * over + under[..., :3] * below
                colors = mixed / np.where(total > 0, total, 1)
                canvas[area] = np.concatenate([colors, total * 255], axis=-1)
            else:
                canvas[area] = patch
            frame = av.VideoFrame.from_ndarray(np.rint(canvas).astype(np.uint8), format="rgba")
            frame.pts, frame.duration, frame.time_base = clock, duration, Fraction(1, 1000)
            yield frame
            clock += duration
            if dispose:
                canvas[area] = 0


def animated_webp(path: str | Path) -> AnimatedWebp | None:
    """The animation in `path`, or None when it is no animated WebP."""
    with Path(path).open("rb") as file:
        head = file.read(30)
        if len(head) < 30 or head[:4] != b"RIFF" or head[8:16] != b"WEBPVP8X" or not head[20] & 2:
            return None
        data = head + file.read()
    canvas = (int.from_bytes(head[24:27], "little") + 1, int.from_bytes(head[27:30], "little") + 1)
    animation = AnimatedWebp(data, canvas)
    if not animation.frames:
        raise MediaError(f"{path} is an animated WebP without frames")
    return animation


def _chunks(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, first byte, last byte + 1) of each chunk of a RIFF body."""
    while start + 8 <= end:
        size = int.from_bytes(data[start + 4 : start + 8], "little")
        if start + 8 + size > end:
            return
        yield data[start : start + 4], start + 8, start + 8 + size
        start += 8 + size + (size & 1)


def _animation_frames(
    data: bytes,
) -> Iterator[tuple[int, int, int, int, int, bool, bool, bytes]]:
    """x, y, width, height, milliseconds, blended?, cleared afterwards?, picture chunks."""
    for name, start, end in _chunks(data, 12, len(data)):
        if name != b"ANMF" or end - start < 16:
            continue
        numbers = [
            int.from_bytes(data[start + i : start + i + 3], "little") for i in range(0, 15, 3)
        ]
        flags = data[start + 15]
        x, y, width, height, duration = numbers
        yield (
            x * 2, y * 2, width + 1, height + 1, duration or 100, not flags & 2, bool(flags & 1),
            data[start + 16 : end],
        )  # fmt: skip


def _decode_chunks(chunks: bytes, width: int, height: int) -> np.ndarray:
    """One frame's chunks (ALPH, VP8 or VP8L) -> (height, width, 4) float32, 0 to 255."""
    size = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    alpha = 0x10 if chunks[:4] == b"ALPH" else 0
    body = chunks
    if alpha:
        body = b"VP8X" + struct.pack("<I", 10) + bytes([alpha, 0, 0, 0]) + size + chunks
    picture = b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
    context = av.CodecContext.create("webp", "r")
    try:
        frames = context.decode(av.Packet(picture)) + context.decode(None)
    except av.FFmpegError as error:
        raise MediaError("a frame of the animated WebP is damaged") from error
    if not frames:
        raise MediaError("a frame of the animated WebP is damaged")
    array: np.ndarray = frames[0].reformat(format="rgba").to_ndarray()
    return array.astype(np.float32)
