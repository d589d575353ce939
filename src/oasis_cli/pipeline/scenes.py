"""Find scene cuts while frames stream by.

A cut changes the picture (mean absolute difference) and its brightness distribution (histogram).
Asking for both keeps camera motion, noise and one-frame inversions from counting as cuts.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

THUMBNAIL_ROWS = 60
MIN_DIFFERENCE = 0.10
MIN_HISTOGRAM_DISTANCE = 0.25
HISTOGRAM_BINS = 32

Thumbnail = NDArray[np.float32]


def thumbnail(luma: NDArray[np.generic], peak: float) -> Thumbnail:
    """A small picture to compare: every n-th pixel of `luma` (H, W), divided by `peak`.

    Returns about 60 rows, values in [0, 1]. Costs O(4000) pixels whatever the size of the video.
    """
    step = max(1, luma.shape[0] // THUMBNAIL_ROWS)
    return np.asarray(luma[::step, ::step], dtype=np.float32) / np.float32(peak)


class CutDetector:
    """Told each frame's thumbnail in order, says whether a scene starts with it.

    >>> dark, light = np.full((60, 80), 0.1, np.float32), np.full((60, 80), 0.9, np.float32)
    >>> find_cuts([dark, dark, light, light])
    [0, 2]
    """

    def __init__(self) -> None:
        self._before: Thumbnail | None = None
        self._histogram: NDArray[np.float64] | None = None

    def __call__(self, picture: Thumbnail) -> bool:
        """picture: (rows, columns) in [0, 1]. The first picture opens a scene, it is no cut."""
        bins = np.minimum(picture * HISTOGRAM_BINS, HISTOGRAM_BINS - 1).astype(np.intp)
        histogram = np.bincount(bins.ravel(), minlength=HISTOGRAM_BINS) / picture.size
        before, self._before = self._before, picture
        old, self._histogram = self._histogram, histogram
        if before is None or old is None:
            return False
        if before.shape != picture.shape:
            return True
        difference = float(np.abs(picture - before).mean())
        distance = 0.5 * float(np.abs(histogram - old).sum())
        return difference > MIN_DIFFERENCE and distance > MIN_HISTOGRAM_DISTANCE


def find_cuts(pictures: Iterable[Thumbnail]) -> list[int]:
    """The number of the first frame of every scene, beginning with 0."""
    detector = CutDetector()
    return [n for n, picture in enumerate(pictures) if detector(picture) or n == 0]
