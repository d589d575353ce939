"""What an input may reach beside itself: nothing, unless the user names a protocol."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

import av

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.faults import shown
from oasis_cli.media.input.pipes import HEAD

_ALWAYS = ("crypto", "data")
"""Carried by what they belong to: encrypted parts, and parts inside the playlist itself."""
PROTOCOLS: dict[str, tuple[str, ...]] = {
    "file": ("file", *_ALWAYS),
    "http": ("http", "httpproxy", "tcp", *_ALWAYS),
    "https": ("https", "httpproxy", "tls", "tcp", *_ALWAYS),
    "rtp": ("rtp", "udp"),
    "tcp": ("tcp",),
    "udp": ("udp",),
}
"""What --allow-protocols takes, and what FFmpeg needs for each."""
REACHING = {
    "hls": "an HLS playlist", "concat": "a list of files", "dash": "a DASH manifest",
    "sdp": "a description of a network stream", "rtp": "a network stream",
    "rtsp": "a network stream", "sap": "a network stream", "vobsub": "an index of subtitles",
}  # fmt: skip
"""Formats that are made of other files or addresses."""
_SIGNS = {
    "hls": re.compile(rb"\s*#EXTM3U"),
    "concat": re.compile(rb"\s*ffconcat version"),
    "dash": re.compile(rb"\s*<(?:\?xml|MPD)[^\0]*<?MPD[\s>]"),
    "sdp": re.compile(rb"(?:[a-z]=[^\0\n]*\n)*c=IN IP"),
    "vobsub": re.compile(rb"# VobSub index file"),
}
NO_FILE = 1
"""Of a format's flags: it opens its input by itself, a device."""


def whitelist(protocols: Sequence[str]) -> str:
    """FFmpeg's names of the protocols that may be opened. Raises UsageError for an unknown one."""
    for name in protocols:
        if name not in PROTOCOLS:
            raise UsageError(
                f"--allow-protocols {name} is not possible",
                hint=f"choose from {', '.join(PROTOCOLS)}; several with commas",
            )
    found = dict.fromkeys(part for name in protocols for part in PROTOCOLS[name])
    return ",".join(found) or "none"


def check_format(name: str | None, protocols: Sequence[str]) -> None:
    """Refuse an --input-format that is unknown, reads a device or reaches what it may not."""
    if name is None:
        return
    if name not in av.formats_available:
        raise UsageError(f"there is no input format called {name}")
    if name in REACHING:
        if not protocols:
            raise _refused(name, "the input", UsageError)
        return
    try:
        flags = av.ContainerFormat(name, "r").flags
    except ValueError as error:
        raise UsageError(f"{name} is a format to write, not to read") from error
    if flags & NO_FILE or name == "lavfi":
        raise UsageError(f"--input-format {name} reads a device, not a file")


def playlist_kind(head: bytes) -> str | None:
    """The name of a format in `REACHING` that the beginning of a file is of, or None.

    >>> playlist_kind(b"#EXTM3U a.ts"), playlist_kind(b"RIFF")
    ('hls', None)
    """
    head = head.removeprefix(b"\xef\xbb\xbf")
    return next((name for name, sign in _SIGNS.items() if sign.match(head)), None)


def check_reach(path: str | Path, head: bytes, protocols: Sequence[str]) -> None:
    """Refuse a playlist that may reach nothing, or that names playlists without an end.

    Raises MediaError.
    """
    kind = playlist_kind(head)
    if kind is None:
        return
    if not protocols:
        raise _refused(kind, shown(path), MediaError)
    if "file" in protocols and _head(Path(path)):
        _check_end(Path(path), kind, nested=False)


def _check_end(path: Path, kind: str, *, nested: bool) -> None:
    """Refuse lists that name lists, but for the streams that a master list offers."""
    for part, offered in _parts(path, kind):
        inner = playlist_kind(_head(part))
        if inner is None:
            continue
        if nested or not offered:
            raise MediaError(
                f"{path} is {REACHING[kind]} that names another, {part}",
                hint="such lists may never end: name the other one itself",
            )
        _check_end(part, inner, nested=True)


def _refused(kind: str, what: str, error: type[MediaError] | type[UsageError]) -> Exception:
    return error(
        f"{what} is {REACHING[kind]}: it names other files or addresses, and no input may open any",
        hint="--allow-protocols file lets it open files, --allow-protocols http,https addresses",
    )


def _parts(path: Path, kind: str) -> Iterator[tuple[Path, bool]]:
    """(a file that a list may name, whether it is one of the streams to choose from)."""
    text, offered = path.read_text(errors="replace"), False
    if kind == "dash":
        for word in re.findall(r"[^\s\"'<>]+", html.unescape(text)):
            yield path.parent / word.removeprefix("file:"), False
        return
    for line in map(str.strip, text.splitlines()):
        if kind == "concat":
            if line.startswith("file"):
                yield path.parent / _unquoted(line[4:]).removeprefix("file:"), False
        elif line.startswith("#"):
            offered = line.startswith("#EXT-X-STREAM-INF")
            for name in re.findall(r'URI="([^"]*)"', line):
                yield path.parent / re.sub(r"^file:(//)?", "", name), True
        elif line:
            yield path.parent / re.sub(r"^file:(//)?", "", line), offered
            offered = False


def _unquoted(text: str) -> str:
    """The name in a line of a list for concat, quoted as in a shell or not."""
    try:
        return " ".join(shlex.split(text))
    except ValueError:
        return text.strip()


def _head(path: Path) -> bytes:
    """The beginning of a local file; nothing of what is none, such as an address."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as file:
            return file.read(HEAD)
    except (OSError, ValueError):
        return b""
