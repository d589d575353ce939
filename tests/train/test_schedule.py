"""Rates over a run."""

import pytest

from oasis_cli.train.presets import Stage
from oasis_cli.train.schedule import rate_at, stage_at


def test_the_schedule_ends_every_stage_at_its_own_rate():
    stages = [
        Stage(name="a", share=0.25, rate=(1.0, 0.5)),
        Stage(name="b", share=0.75, rate=(0.4, 0.0)),
    ]
    assert [stage_at(stages, p) for p in (0, 0.2499, 0.25, 0.99, 1)] == [0, 0, 1, 1, 1]
    assert rate_at(stages, 0, 0.0, 100, 10) == 1.0
    assert rate_at(stages, 0, 0.2499999, 100, 10) == pytest.approx(0.5)
    assert rate_at(stages, 1, 0.25, 4, 10) == pytest.approx(0.2)  # half-way up the rise
    assert rate_at(stages, 1, 1.0, 100, 10) == 0.0
