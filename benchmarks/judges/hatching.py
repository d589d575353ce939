"""Hatching on the smooth places of real clips, against that of the input enlarged by bicubic."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from judges.cases import Case, Missing, Scores, bicubic, eight_bits, read
from oasis_cli.evaluation.metrics.hatching import hatching

FEWEST = 4
"""Smooth places that a clip must have."""


@dataclass(frozen=True, slots=True)
class Hatching:
    """The judge. Real clips, of which `frames` frames and at most `most` pixels are looked at."""

    cases_: Sequence[Case]
    name: str = "hatching"

    def cases(self) -> Sequence[Case]:
        return self.cases_

    def score(self, case: Case, out: Tensor) -> Scores:
        peaks, energy = hatching(out, bicubic(case), FEWEST)
        return {"hatching": peaks, "energy": energy}

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        """Geometric means, since scores are ratios."""
        means = {}
        for key in ("hatching", "energy"):
            logs = [math.log(row[key]) for row in rows.values() if not math.isnan(row[key])]
            if not logs:
                raise Missing("no clip has smooth places")
            means[key] = math.exp(sum(logs) / len(logs))
        return means


def real_clips(
    folder: Path, frames: int, first: int = 8, most: tuple[int, int] = (160, 120)
) -> list[Case]:
    """The middle of each clip in a folder: `frames` frames of at most `most` = (w, h) pixels."""
    paths = sorted(p for p in folder.iterdir() if p.is_file()) if folder.is_dir() else []
    if not paths:
        raise Missing(f"there are no clips in {folder}")
    cases = []
    for path in paths:
        low = read(path, first + frames)[-frames:]  # of a short clip the last ones
        height, width = low.shape[-2:]
        top, left = max(0, height - most[1]) // 2, max(0, width - most[0]) // 2
        part = low[..., top : top + most[1], left : left + most[0]]
        cases.append(Case(name=f"real-{path.stem}", low=eight_bits(part)))
    return cases
