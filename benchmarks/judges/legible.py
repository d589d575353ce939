"""Legibility: how many words does a machine still read?

Pages of signs and small type (samples/make_pages.py, with seeds that no network was trained on) are
filmed and damaged as in training. A reader (rapidocr) finds the lines of the clean middle frame and
reads them: those are the words, of three characters or more. Then it reads the same places of the
restored frame. A word counts when it stands in its line again, whatever its capitals and spaces.
"""

import importlib
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from judges.cases import Case, Missing, Scores
from judges.damaged import Pixels, damaged

SAMPLES = Path(__file__).parents[2] / "samples"
PAGES = 8
PAGE_SEED = 9_021
"""No network's pages had it: they are made with seeds below 100."""
SHORTEST = 3
"""Characters of a word that counts."""
SURE = 0.9
"""How sure the reader must be of a clean line."""
MARGIN = 2
"""Pixels around a line that are read with it."""


@dataclass(frozen=True, slots=True)
class Words:
    """A line of text: where it is, and what it says."""

    corners: np.ndarray
    """(4, 2): x, y of the corners, clockwise from the upper left."""
    words: tuple[str, ...]


@lru_cache
def reader() -> Any:
    """The OCR engine. Raises Missing without the extra `[judge]`."""
    try:
        engine = importlib.import_module("rapidocr")
    except ImportError as error:
        raise Missing(f"{error}: pip install 'oasis-cli[judge]'") from error
    return engine.RapidOCR(params={"Global.log_level": "error"})


def pages(count: int, seed: int) -> list[Pixels]:
    """Held-out pages."""
    sys.path.insert(0, str(SAMPLES))
    try:
        maker = importlib.import_module("make_pages")
    finally:
        sys.path.remove(str(SAMPLES))
    faces = maker.fonts()
    made = (maker.page(np.random.default_rng([seed, number]), faces) for number in range(count))
    return [np.asarray(page.convert("RGB")) for page in made]


def as_pixels(frame: Tensor) -> Pixels:
    """(3, H, W) in [-1, 1] to (H, W, 3)."""
    return ((frame.clamp(-1, 1) + 1) * 127.5).round().byte().permute(1, 2, 0).numpy()


def find_words(frame: Tensor) -> list[Words]:
    """What stands on a clean frame (3, H, W)."""
    picture = as_pixels(frame)
    boxes = reader()(picture[..., ::-1].copy(), use_det=True, use_cls=False, use_rec=False).boxes
    found = []
    for corners in boxes if boxes is not None else ():
        text, sure = read_line(picture, corners)
        words = tuple(word for word in text.split() if len(_plain(word)) >= SHORTEST)
        if sure >= SURE and words:
            found.append(Words(corners, words))
    return found


def read_line(picture: Pixels, corners: np.ndarray) -> tuple[str, float]:
    """The text between four corners, and how sure the reader is of it."""
    cv2 = importlib.import_module("cv2")
    width = float(np.linalg.norm(corners[1] - corners[0])) + 2 * MARGIN
    height = float(np.linalg.norm(corners[3] - corners[0])) + 2 * MARGIN
    right, bottom = width - MARGIN, height - MARGIN
    to = np.array([(MARGIN, MARGIN), (right, MARGIN), (right, bottom), (MARGIN, bottom)])
    turn = cv2.getPerspectiveTransform(corners.astype(np.float32), to.astype(np.float32))
    size = (max(round(width), 8), max(round(height), 8))
    line = cv2.warpPerspective(picture, turn, size, borderMode=cv2.BORDER_REPLICATE)
    read = reader()(line[..., ::-1].copy(), use_det=False, use_cls=False, use_rec=True)
    return (read.txts[0], float(read.scores[0])) if read.txts else ("", 0.0)


def _plain(text: str) -> str:
    """Without capitals, spaces and wide forms of letters."""
    return "".join(unicodedata.normalize("NFKC", text).casefold().split())


def count_right(frame: Tensor, lines: Sequence[Words]) -> tuple[int, int]:
    """Words read right, and all words. frame: (3, H, W)."""
    picture, right = as_pixels(frame), 0
    for line in lines:
        text = _plain(read_line(picture, line.corners)[0])
        for word in map(_plain, line.words):
            right += word in text
            text = text.replace(word, " ", 1)
    return right, sum(len(line.words) for line in lines)


@dataclass(frozen=True, slots=True)
class Legibility:
    """The judge."""

    clips: int = 12
    frames: int = 5
    seed: int = 22
    name: str = "legibility"

    def cases(self) -> Sequence[Case]:
        reader()
        cases = []
        for number, clip in enumerate(
            damaged(pages(PAGES, PAGE_SEED), self.clips, self.frames, self.seed)
        ):
            lines = find_words(clip.clean[self.frames // 2])
            if lines:
                cases.append(Case(name=f"page-{number:02}", low=clip.low, truth=lines))
        return cases

    def score(self, case: Case, out: Tensor) -> Scores:
        right, words = count_right(out[len(out) // 2], case.truth)
        return {"right": right, "words": words}

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        right, words = (sum(row[key] for row in rows.values()) for key in ("right", "words"))
        return {"words read": right / words}
