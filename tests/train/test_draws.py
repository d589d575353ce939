"""Parameters of damage: their shares, and how they move through a clip."""

import numpy as np
import pytest
import torch

from oasis_cli.train.degrade import (
    blur_kernels,
)
from oasis_cli.train.draws import (
    Draws,
    draw_rare,
)

CPU = torch.device("cpu")


def test_rare_damage_has_its_shares_and_every_kind_of_unevenness():
    shares = dict.fromkeys(("night", "deinterlaced", "tape", "few_colours", "starved"), 0.05)
    rare = draw_rare(4000, 13, np.random.default_rng(0), 0.2, halo=0.1, **shares)
    assert (rare.halo > 0).mean() == pytest.approx(0.1, abs=0.02)
    assert rare.tape.mean() == pytest.approx(0.05, abs=0.015)
    kinds = rare.keyed, rare.waxing, rare.lost[:, 0] > 0
    assert [k.mean() for k in kinds] == pytest.approx([0.11, 0.06, 0.03], abs=0.02)
    assert not (kinds[0] & kinds[1]).any()
    keys = (rare.good[rare.keyed] > 0).sum(1)
    assert keys.min() >= 1 and keys.max() <= 4
    assert np.median(np.ptp(rare.soft[rare.waxing], axis=1)) > 0.6


def test_blur_that_comes_and_goes_overrides_what_a_clip_has():
    soft = np.array([[0.0, 1.0, 0.5], [-1.0, -1.0, -1.0]])
    draw = Draws(2, 3, [1], 0.0, CPU).low_pass(0.0, soft)
    widths = blur_kernels(draw).amax((1, 2))
    assert widths[1] < widths[2] < widths[0] and widths[1] < 0.05
    assert widths[3:].tolist() == [1.0, 1.0, 1.0]


def test_consistent_clips_hold_every_parameter_and_varying_ones_do_not():
    held = Draws(8, 9, [3], 0.0, CPU).uniform(0, 1, 0.1)
    assert (held == held[:, :1]).all() and len(np.unique(held)) == 8
    moved = Draws(60, 9, [3], 1.0, CPU)
    values = moved.uniform(0, 1, 0.1)
    changes = (np.diff(values, axis=1) != 0).sum(1)
    # A walk rests where it meets the end of its range.
    for mode, least, most in ((1, 3, 8), (2, 8, 8), (3, 1, 2)):
        some = changes[moved.modes == mode]
        assert len(some) and some.min() >= least and some.max() <= most
    assert np.abs(np.diff(values[moved.modes == 1], axis=1)).max() <= 0.1 + 1e-9


def test_equal_seeds_draw_equal_parameters():
    one, other, third = (Draws(4, 3, [s], 1.0, CPU).blur(3.0).sigma_x for s in (5, 5, 6))
    assert torch.equal(one, other) and not torch.equal(one, third)
