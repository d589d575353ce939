"""Pairs: how near the restored clip comes to the clean one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from quality import scores
from torch import Tensor

from judges.cases import Case, Missing, Scores, bicubic, mean, read
from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips
from oasis_cli.evaluation.metrics.vgg import VggFeatures


@dataclass(frozen=True, slots=True)
class Pairs:
    """The judge. NAME.lr.mkv and NAME.hr.mkv in a folder, as for `quality.py`."""

    folder: Path
    lpips: SqueezeLpips | None
    vgg: VggFeatures | None
    name: str = "pairs"

    def cases(self) -> Sequence[Case]:
        found = sorted(self.folder.glob("*.hr.mkv"))
        if not found:
            raise Missing(f"there is no *.hr.mkv in {self.folder}")
        cases = []
        for path in found:
            name = path.name.removesuffix(".hr.mkv")
            low = read(path.with_name(f"{name}.lr.mkv"))
            cases.append(Case(name=f"pair-{name}", low=low, truth=read(path)))
        return cases

    def score(self, case: Case, out: Tensor) -> Scores:
        return scores(out, case.truth, bicubic(case), self.lpips, self.vgg)

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        return mean(rows)
