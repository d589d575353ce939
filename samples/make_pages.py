"""Print pages of signs and small type, as training data: python samples/make_pages.py FOLDER

Photographs hold little text, and a network that has seen none turns blurred letters into stripes.
A page is a wall of signs in all sizes, colours and directions, in the fonts that come with
matplotlib (DejaVu, STIX and Computer Modern, all free to use); the words mean nothing. Equal seeds
make equal pages. Needs the `[dev]` extra.
"""

import argparse
import math
from pathlib import Path

import numpy as np
from matplotlib import get_data_path
from PIL import Image, ImageDraw, ImageFilter, ImageFont

SIZE = (1024, 768)
SYLLABLES = ["ba", "cen", "dor", "el", "fi", "gra", "hu", "ist", "jo", "kar", "lin", "mo", "ner"]
SYLLABLES += ["ost", "pre", "qua", "ri", "stu", "ta", "ver", "wy", "zen"]
MARKS = "0123456789 0123456789 .,:;!?&%$()/-+"
Colour = tuple[int, int, int]


def fonts() -> list[Path]:
    """Text fonts; those of symbols alone are left out."""
    folder = Path(get_data_path()) / "fonts" / "ttf"
    names = (
        "DejaVuSans",
        "DejaVuSerif",
        "DejaVuSansMono",
        "STIXGeneral",
        "cmr10",
        "cmss10",
        "cmtt10",
    )
    return sorted(p for p in folder.glob("*.ttf") if p.stem.split("-")[0].startswith(names))


def words(rng: np.random.Generator, count: int) -> str:
    """Words, some of them numbers, in one way of using capitals."""
    made = []
    for _ in range(count):
        if rng.random() < 0.2:
            made.append("".join(rng.choice(list(MARKS), rng.integers(2, 7))))
        else:
            made.append("".join(rng.choice(SYLLABLES, rng.integers(1, 4))))
    text = " ".join(made)
    return [text, text.upper(), text.title(), text.capitalize()][rng.integers(4)]


def ground(rng: np.random.Generator, size: tuple[int, int], light: bool) -> Image.Image:
    """A wall: a slope between two near colours, with some grain."""
    low, high = (150, 256) if light else (0, 110)
    ends = rng.uniform(low, high, (2, 1, 1, 3))
    ends[1] += (ends[0] - ends[1]) * rng.uniform(0, 1)
    slope = np.linspace(0, 1, size[0])[None, :, None]
    grain = rng.normal(0, rng.choice([0, 2, 6]), (size[1], size[0], 1))
    pixels = ends[0] * (1 - slope) + ends[1] * slope + grain
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def ink(rng: np.random.Generator, light: bool) -> Colour:
    """A colour that can be read on a light or a dark ground."""
    low, high = (0, 90) if light else (170, 256)
    red, green, blue = (int(value) for value in rng.integers(low, high, 3))
    return red, green, blue


def sign(rng: np.random.Generator, faces: list[Path]) -> Image.Image:
    """A sign, 60 to 700 pixels wide: lines of text of one font, a frame or a rule at times."""
    height = int(math.exp(rng.uniform(math.log(10), math.log(90))))
    font = ImageFont.truetype(str(faces[rng.integers(len(faces))]), height)
    lines = int(rng.integers(1, 3 if height > 40 else 9))
    text = "\n".join(
        words(rng, int(rng.integers(1, 3 if height > 40 else 7))) for _ in range(lines)
    )
    space = int(height * rng.uniform(0.1, 0.5))
    box = ImageDraw.Draw(Image.new("L", (1, 1))).multiline_textbbox(
        (0, 0), text, font, spacing=space
    )
    pad = int(height * rng.uniform(0.3, 1)) + 4
    light = bool(rng.random() < 0.6)
    size = (max(60, min(700, int(box[2]) + 2 * pad)), int(box[3]) + 2 * pad)
    board, colour = ground(rng, size, light), ink(rng, light)
    draw = ImageDraw.Draw(board)
    draw.multiline_text((pad, pad), text, colour, font, spacing=space)
    if rng.random() < 0.4:
        inset = pad // 3
        corner = (size[0] - 1 - inset, size[1] - 1 - inset)
        draw.rectangle(((inset, inset), corner), outline=colour, width=max(1, height // 12))
    return board


def page(rng: np.random.Generator, faces: list[Path]) -> Image.Image:
    """Signs over each other, a third of them turned, on a wall with a soft pattern."""
    wall = ground(rng, SIZE, bool(rng.random() < 0.5))
    for _ in range(int(rng.integers(14, 30))):
        board = sign(rng, faces)
        left, top = (int(rng.integers(-60, side - 40)) for side in SIZE)
        angle = float(rng.normal(0, 8)) if rng.random() < 0.3 else 0.0
        mask = Image.new("L", board.size, 255).rotate(angle, Image.Resampling.BICUBIC, expand=True)
        turned = board.rotate(angle, Image.Resampling.BICUBIC, expand=True)
        wall.paste(turned, (left, top), mask)
    return wall.filter(ImageFilter.GaussianBlur(float(rng.uniform(0, 0.5))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    faces = fonts()
    for number in range(given.count):
        rng = np.random.default_rng([given.seed, number])
        page(rng, faces).save(given.folder / f"page-{number:03}.webp", quality=92)


if __name__ == "__main__":
    main()
