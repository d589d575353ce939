"""Flicker on real clips, against the input enlarged by bicubic."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from judges.cases import Case, Scores, bicubic, mean
from oasis_cli.evaluation.metrics.flicker import flicker


@dataclass(frozen=True, slots=True)
class Flicker:
    """The judge."""

    cases_: Sequence[Case]
    name: str = "flicker"

    def cases(self) -> Sequence[Case]:
        return self.cases_

    def score(self, case: Case, out: Tensor) -> Scores:
        return {"flicker": flicker(out, bicubic(case)).nanmean().item()}

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        return mean(rows)
