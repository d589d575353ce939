"""Which stage a run is in, and its learning rate; pure functions of the progress from 0 to 1."""

import math
from collections.abc import Sequence

from oasis_cli.train.presets import Stage


def stage_at(stages: Sequence[Stage], progress: float) -> int:
    """The number of the stage at `progress`; shares count relative to their sum.

    >>> two = [Stage(name="a", share=0.2), Stage(name="b", share=0.6)]
    >>> [stage_at(two, progress) for progress in (0.0, 0.24, 0.26, 1.0)]
    [0, 0, 1, 1]
    """
    done, total = 0.0, sum(stage.share for stage in stages)
    for number, stage in enumerate(stages):
        done += stage.share / total
        if progress < done:
            return number
    return len(stages) - 1


def rate_at(
    stages: Sequence[Stage], number: int, progress: float, steps_in: int, warm_up: int
) -> float:
    """Learning rate: a short rise, then a cosine from the stage's first to its last rate.

    progress: of the whole run; steps_in: steps since the stage began; warm_up: steps of rise.
    """
    total = sum(stage.share for stage in stages)
    begin = sum(stage.share for stage in stages[:number]) / total
    share = min(1.0, max(0.0, (progress - begin) / (stages[number].share / total)))
    high, low = stages[number].rate
    rise = min(1.0, (steps_in + 1) / max(1, warm_up))
    return rise * (low + (high - low) * (1 + math.cos(math.pi * share)) / 2)
