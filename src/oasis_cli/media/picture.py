"""How pixels are laid out and what their numbers mean. Pure data: no torch, no PyAV."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

import numpy as np

Planes = tuple[np.ndarray, ...]
"""A picture as codecs have it: each plane (rows, columns) of uint8 or uint16."""

Family = Literal["yuv", "rgb", "gray"]
Siting = Literal["left", "center", "topleft"]

_PLANAR = re.compile(
    r"(?P<name>yuv[aj]?(?P<sub>4\d\d)p|gbra?p|gray)(?P<depth>9|10|12|14|16)?(le)?$"
)
_SUBSAMPLING = {
    "444": (0, 0), "422": (1, 0), "420": (1, 1), "440": (0, 1), "411": (2, 0), "410": (2, 2),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class PixelLayout:
    """What a planar pixel format's name says."""

    family: Family
    depth: int
    """Bits per sample."""
    sub: tuple[int, int]
    """log2 of the chroma subsampling, horizontal and vertical."""
    alpha: bool


def parse_pix_fmt(name: str) -> PixelLayout | None:
    """Read the name of a planar, little-endian integer format; None for any other.

    >>> parse_pix_fmt("yuv420p10le")
    PixelLayout(family='yuv', depth=10, sub=(1, 1), alpha=False)
    >>> parse_pix_fmt("gbrap").family, parse_pix_fmt("nv12")
    ('rgb', None)
    """
    match = _PLANAR.match(name)
    if match is None or (match["sub"] is not None and match["sub"] not in _SUBSAMPLING):
        return None
    head = match["name"]
    family: Family = "gray" if head == "gray" else "rgb" if head[0] == "g" else "yuv"
    return PixelLayout(
        family=family,
        depth=int(match["depth"] or 8),
        sub=_SUBSAMPLING[match["sub"]] if match["sub"] else (0, 0),
        alpha=head.startswith(("yuva", "gbra")),
    )


def planar_name(family: Family, depth: int, sub: tuple[int, int], alpha: bool) -> str:
    """The format with these properties; the inverse of `parse_pix_fmt`.

    >>> planar_name("yuv", 10, (1, 0), False), planar_name("rgb", 8, (0, 0), True)
    ('yuv422p10le', 'gbrap')
    """
    if family == "yuv":
        digits = next(k for k, v in _SUBSAMPLING.items() if v == sub)
        head = f"yuv{'a' if alpha else ''}{digits}p"
    elif family == "rgb":
        head = "gbrap" if alpha else "gbrp"
    else:
        head = "gray"
    return head if depth == 8 else f"{head}{depth}le"


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureSpec:
    """Everything needed to go between planes and RGB."""

    width: int
    height: int
    """Size of the first plane, in pixels (even where an encoder demands it)."""
    pix_fmt: str
    """Planar format of the planes, such as yuv420p10le, gbrp or gray."""
    matrix: str = "bt709"
    """Which YCbCr: bt601, bt709, bt2020, fcc, smpte240m, ycgco, or rgb."""
    full_range: bool = False
    siting: Siting = "left"
    """Where 4:2:0 chroma samples lie: H.264's default is left."""
    orientation: tuple[int, bool] = (0, False)
    """Quarter turns clockwise and whether the picture is mirrored afterwards, applied to RGB."""
    dither: bool = False
    """Spread the rounding error: set when the source has more bits than this picture."""

    @property
    def layout(self) -> PixelLayout:
        """The parts of the pixel format."""
        layout = parse_pix_fmt(self.pix_fmt)
        if layout is None:
            raise ValueError(f"{self.pix_fmt} is not a planar format")
        return layout

    @property
    def display_size(self) -> tuple[int, int]:
        """(width, height) after the orientation is applied."""
        turned = self.orientation[0] % 2 == 1
        return (self.height, self.width) if turned else (self.width, self.height)

    def plane_shapes(self) -> list[tuple[int, int]]:
        """(rows, columns) of each plane, alpha last."""
        layout = self.layout
        w, h = self.width, self.height
        shapes = [(h, w)]
        if layout.family != "gray":
            chroma = (-(-h >> layout.sub[1]), -(-w >> layout.sub[0]))  # rounded up
            shapes += [chroma, chroma]
        return [*shapes, (h, w)] if layout.alpha else shapes


def matrix_name(tag: int, *, width: int, height: int, family: Family) -> str:
    """The matrix for a `colorspace` tag (ISO/IEC 23091-4 numbers); untagged goes by size.

    >>> matrix_name(2, width=1280, height=720, family="yuv")
    'bt709'
    """
    if family == "rgb":
        return "rgb"
    named = {
        1: "bt709", 4: "fcc", 5: "bt601", 6: "bt601", 7: "smpte240m", 8: "ycgco",
        9: "bt2020", 10: "bt2020",
    }  # fmt: skip
    if tag in named:
        return named[tag]
    return "bt709" if width >= 1280 or height > 576 else "bt601"


MATRIX_TAGS = {
    "rgb": 0, "bt709": 1, "fcc": 4, "bt601": 6, "smpte240m": 7, "ycgco": 8, "bt2020": 9,
}  # fmt: skip
