"""Gain from a clean frame in eight: does the network use what other frames of the clip show?

Twelve clips, filmed and damaged as in training, are restored twice: as they are, and with every
eighth frame nearly clean (shrunk, with nothing else done to it). The other frames are the same in
both; their Y-PSNR is compared. A tool that looks at single frames gains nothing.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from judges.cases import Case, Scores
from judges.damaged import damaged, packaged, shrunk
from oasis_cli.evaluation.metrics import pixels

PICTURES = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/motorcycle_left.png"),
    ("skimage", "data/rocket.jpg"),
    ("skimage", "data/brick.png"),
    ("skimage", "data/grass.png"),
    ("skimage", "data/gravel.png"),
)
EVERY = 8
BORDER = 8
"""Pixels on each side that are not compared."""


@dataclass(frozen=True, slots=True)
class Gain:
    """The judge."""

    clips: int = 12
    frames: int = 17
    seed: int = 21
    side: int = 192
    name: str = "gain"

    def cases(self) -> Sequence[Case]:
        cases = []
        pictures = packaged(*PICTURES)
        made = damaged(pictures, self.clips, self.frames, self.seed, self.side)
        for number, clip in enumerate(made):
            helped = clip.low.clone()
            helped[::EVERY] = shrunk(clip.clean[::EVERY])
            for kind, low in (("without", clip.low), ("with", helped)):
                cases.append(Case(name=f"gain-{number:02}-{kind}", low=low, truth=clip.clean))
        return cases

    def score(self, case: Case, out: Tensor) -> Scores:
        others = [t for t in range(len(out)) if t % EVERY]
        a, b = (pixels.crop(x[others], BORDER) for x in (out, case.truth))
        return {"psnr": pixels.psnr_luma(a, b).mean().item()}

    def sum_up(self, rows: Mapping[str, Scores]) -> Scores:
        kinds = {
            kind: [row["psnr"] for name, row in rows.items() if name.endswith(f"-{kind}")]
            for kind in ("without", "with")
        }
        without, helped = (sum(found) / len(found) for found in kinds.values())
        return {"without": without, "gain": helped - without}
