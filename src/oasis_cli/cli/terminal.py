"""Pictures in terminals that can show them: kitty's protocol, iTerm2's, and sixels."""

import base64
from collections.abc import Mapping
from typing import Literal

import numpy as np
from numpy.typing import NDArray

Protocol = Literal["kitty", "iterm", "sixel"]
Picture = NDArray[np.uint8]

SIXEL_PROGRAMS = ("foot", "mlterm", "contour", "yaft", "xterm-sixel")
WIDEST_SIXEL = 960
KITTY_CHUNK = 4096
LEVELS = 6
"""Sixels here use a cube of LEVELS^3 colours with an ordered dither."""


def protocol(environment: Mapping[str, str]) -> Protocol | None:
    """How the terminal shows pictures, by what it says of itself; None when it does not say.

    >>> protocol({"TERM": "xterm-kitty"}), protocol({"TERM_PROGRAM": "iTerm.app"})
    ('kitty', 'iterm')
    >>> protocol({"TERM": "foot"}), protocol({"TERM": "xterm-256color"})
    ('sixel', None)
    """
    term, program = environment.get("TERM", ""), environment.get("TERM_PROGRAM", "")
    if environment.get("TMUX") or term.startswith(("screen", "tmux")):
        return None  # they swallow all three
    if "kitty" in term or environment.get("KITTY_WINDOW_ID") or program == "ghostty":
        return "kitty"
    if program in ("iTerm.app", "WezTerm", "mintty"):
        return "iterm"
    if term.startswith(SIXEL_PROGRAMS) or "sixel" in term:
        return "sixel"
    return None


def encode(how: Protocol, picture: Picture, png: bytes) -> bytes:
    """What to write to the terminal. picture: (H, W, 3), the same as the `png` file."""
    if how == "kitty":
        return _kitty(png)
    if how == "iterm":
        head = f"\x1b]1337;File=inline=1;width=100%;size={len(png)}:".encode()
        return head + base64.b64encode(png) + b"\x07\n"
    return sixels(picture)


def _kitty(png: bytes) -> bytes:
    data = base64.b64encode(png)
    out = []
    for start in range(0, len(data), KITTY_CHUNK):
        more = int(start + KITTY_CHUNK < len(data))
        keys = f"a=T,f=100,m={more}" if start == 0 else f"m={more}"
        out.append(b"\x1b_G" + keys.encode() + b";" + data[start : start + KITTY_CHUNK] + b"\x1b\\")
    return b"".join(out) + b"\n"


def sixels(picture: Picture) -> bytes:
    """Encode as DEC sixels: bands of six rows, one pass for each colour in the band."""
    step = -(-picture.shape[1] // WIDEST_SIXEL)
    index = _quantized(picture[::step, ::step])
    height, width = index.shape
    out = [f'\x1bPq"1;1;{width};{height}']
    for colour in np.unique(index):
        r, g, b = (int(colour) // LEVELS**k % LEVELS * 100 // (LEVELS - 1) for k in (2, 1, 0))
        out.append(f"#{colour};2;{r};{g};{b}")
    weights = (1 << np.arange(6))[:, None]
    for top in range(0, height, 6):
        band = index[top : top + 6]
        for colour in np.unique(band):
            bits = ((band == colour) * weights[: len(band)]).sum(axis=0)
            out.append(f"#{colour}" + _runs(bits + 63) + "$")
        out.append("-")
    return ("".join(out) + "\x1b\\\n").encode()


def _quantized(picture: Picture) -> NDArray[np.int64]:
    """Number of the nearest colour of the cube, with a 4x4 ordered dither: (H, W)."""
    bayer = np.array([[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]]) / 16 - 0.47
    height, width, _ = picture.shape
    noise = np.tile(bayer, (height // 4 + 1, width // 4 + 1))[:height, :width, None]
    level = np.clip(np.rint(picture / 255 * (LEVELS - 1) + noise), 0, LEVELS - 1).astype(np.int64)
    return np.asarray(level @ np.array([LEVELS**2, LEVELS, 1]))


def _runs(codes: NDArray[np.int64]) -> str:
    """Run-length encoding: "!12?" stands for twelve question marks."""
    change = np.flatnonzero(np.diff(codes)) + 1
    starts = np.concatenate([[0], change])
    lengths = np.diff(np.concatenate([starts, [len(codes)]]))
    return "".join(
        chr(int(codes[at])) * int(n) if n < 4 else f"!{n}{chr(int(codes[at]))}"
        for at, n in zip(starts, lengths, strict=True)
    )
