"""How large pictures may be: checked before memory is taken for them, in every reader."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

from oasis_cli.errors import MediaError
from oasis_cli.media.input.pipes import SeekableFile

LARGEST = 32768
"""Longest side accepted, in pixels: more is a damaged header."""
MOST_PIXELS = 1 << 27
"""Pixels of a picture at most: 16K video has 132,710,400."""
ORDINARY_PIXELS = 1 << 25
"""Pixels that any file may claim: 8K video has 33,177,600."""
PIXELS_A_BYTE = 10_000
"""Pixels that a byte of a file may stand for. PNG and GIF of one colour need a byte for 1,300."""
MOST_TEXT = 1 << 24
"""Bytes that the compressed texts of a PNG may have."""

PNG = b"\x89PNG\r\n\x1a\n"


def most_pixels(size: int | None) -> int:
    """Pixels that one picture of a file of `size` bytes may have; None: of a pipe.

    >>> most_pixels(6000), most_pixels(10**9)
    (60000000, 134217728)
    """
    if size is None:
        return MOST_PIXELS
    return min(MOST_PIXELS, max(ORDINARY_PIXELS, size * PIXELS_A_BYTE))


def file_size(path: str | Path) -> int | None:
    """Bytes of a regular file, None for anything else."""
    path = Path(path)
    return path.stat().st_size if path.is_file() else None


def check_size(path: str | Path, width: int, height: int) -> None:
    """Refuse pictures that no memory should be asked for. Raises MediaError."""
    if max(width, height) > LARGEST or width * height > most_pixels(file_size(path)):
        raise MediaError(
            f"{path} claims to be {width}x{height} pixels large: its header is damaged, or made "
            "to fill the memory"
        )


def check_png(path: str | Path, file: SeekableFile) -> None:
    """Refuse a PNG whose compressed texts or profile are made to fill the memory: FFmpeg unpacks
    them without a limit. Leaves `file` at its beginning. Raises MediaError."""
    try:
        if file.read(len(PNG)) != PNG:
            return
        for name, size in _png_chunks(file):
            if name not in (b"zTXt", b"iTXt", b"iCCP"):
                continue
            if _unpacked(file.read(min(size, MOST_TEXT))) > MOST_TEXT:
                raise MediaError(f"a text in {path} unpacks to more than {MOST_TEXT >> 20} MiB")
    finally:
        file.seek(0)


def _png_chunks(file: SeekableFile) -> Iterator[tuple[bytes, int]]:
    """(name, size of the data) of each chunk; the file is at the data."""
    while len(head := file.read(8)) == 8:
        size, start = int.from_bytes(head[:4], "big"), file.tell()
        yield head[4:], size
        file.seek(start + size + 4)  # behind the check sum


def _unpacked(data: bytes) -> int:
    """Bytes that a text chunk unpacks to, at most one more than MOST_TEXT; 0 for plain text."""
    start = data.find(b"\0") + 2  # keyword, 0, method
    found = [_inflated(data[start:])]
    if len(data) > start and data[start - 1] == 1:  # iTXt: 1, method, language, 0, keyword, 0
        rest = data[start + 1 :].split(b"\0", 2)
        found.append(_inflated(rest[2] if len(rest) == 3 else b""))
    return max(found)


def _inflated(data: bytes) -> int:
    try:
        return len(zlib.decompressobj().decompress(data, MOST_TEXT + 1))
    except zlib.error:
        return 0
