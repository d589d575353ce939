"""Losses: zero for equal clips, and each hears what it is for."""

import math

import pytest
import torch

from oasis_cli.evaluation.metrics.vgg import VggFeatures
from oasis_cli.train import losses


def test_losses_are_zero_for_equal_clips_and_follow_their_formulas():
    a, b = torch.rand(2, 4, 3, 16, 16), torch.rand(2, 4, 3, 16, 16)
    for loss in (losses.charbonnier, losses.frame_difference, losses.frequency):
        assert loss(a, a) <= 1e-3 + 1e-6 < loss(a, b)
    steady = a + 0.3  # a constant error does not flicker
    assert losses.frame_difference(steady, a) < 1e-6
    assert losses.charbonnier(steady, a) == pytest.approx(0.3, abs=1e-4)
    assert losses.frame_difference(a[:, :1], b[:, :1]) == 0
    assert losses.log_error(steady, a, floor=0.0) == pytest.approx(math.log(0.09), abs=1e-3)
    assert losses.log_error(a, a) == pytest.approx(math.log(1e-3), abs=1e-3)
    assert losses.structure(a[0], a[0]) < 1e-6 < 0.5 < losses.structure(a[0], b[0])


def test_lattice_hears_a_mesh_and_little_else():
    torch.manual_seed(0)
    clean = torch.rand(2, 9, 3, 64, 64)
    mesh = torch.zeros(64, 64)
    mesh[::4, ::4] = 0.02
    error = 0.02 * torch.randn(clean.shape)
    assert losses.lattice(clean, clean) == 0
    assert losses.lattice(clean + 0.3, clean) < 1e-6  # another brightness is no mesh
    faint = losses.lattice(clean + mesh, clean)
    assert losses.charbonnier(clean + mesh, clean) < 0.2 * losses.charbonnier(clean + error, clean)
    assert losses.lattice(clean + error, clean) < faint


def test_excess_hears_a_weave_on_a_wall_and_forgives_missing_texture():
    torch.manual_seed(0)
    wall = torch.zeros(1, 3, 64, 64)
    texture = 0.2 * torch.randn(1, 3, 64, 64)
    edge = (torch.arange(64) > 31).float().expand(1, 3, 64, 64)
    weave = torch.zeros(64, 64)
    weave[::2, ::2], weave[1::2, 1::2] = 0.1, 0.1
    assert losses.excess(wall, wall) == losses.excess(edge, edge) == 0
    assert losses.excess(wall, texture) == 0  # a smooth answer to a rough question
    assert losses.excess(wall + 0.3, wall) < 1e-4  # brightness is another loss's business
    heard = losses.excess(wall + weave, wall)
    assert 0.03 < heard < 0.1
    assert losses.excess(texture + weave, texture) < heard / 3


def test_hatching_hears_a_faint_weave_in_the_grain_of_a_wall_that_the_input_shows_flat():
    torch.manual_seed(0)
    flat = torch.zeros(1, 3, 64, 64)
    grain, noise = 0.01 * torch.randn(2, 1, 3, 64, 64)
    weave = torch.zeros(64, 64)
    weave[::2, ::2], weave[1::2, 1::2] = 0.005, 0.005
    heard = losses.hatching(weave.expand_as(grain), grain, flat)
    assert heard > 0.001
    assert losses.excess(weave.expand_as(grain), grain) < heard / 100  # fainter than the grain
    assert losses.hatching(flat, grain, flat) < 1e-6  # a smooth answer
    assert losses.hatching(0.5 * grain, grain, flat) < heard / 20  # the target's own grain
    assert losses.hatching(grain + 0.3, grain, flat) < heard / 20  # brightness
    assert losses.hatching(weave + grain, grain, 20 * noise) < heard / 10  # a rough input


def test_colour_sees_a_tint_and_no_detail():
    torch.manual_seed(0)
    clean, noise = torch.rand(1, 3, 64, 64), 0.1 * torch.randn(1, 3, 64, 64)
    assert losses.colour(clean + 0.1, clean) == pytest.approx(0.1, abs=1e-4)
    assert losses.colour(clean + noise, clean) < 0.01


def test_artifact_weighs_invented_texture_more_than_a_blurred_edge():
    torch.manual_seed(0)
    clean = (torch.arange(64) > 31).float().expand(1, 3, 64, 64)
    tint, grain = clean + 0.1, clean + 0.1 * torch.randn(1, 1, 64, 64).sign()
    assert losses.charbonnier(tint, clean) == pytest.approx(losses.charbonnier(grain, clean))
    assert losses.artifact(tint, clean) < 0.01 * losses.artifact(grain, clean)


def test_the_vgg_loss_weighs_layers_and_sees_the_same_place(vgg_file):
    vgg = VggFeatures(vgg_file)
    one, other = (torch.rand(2, 3, 32, 32) for _ in range(2))
    layers = (("conv3_3", 2.0), ("conv1_2", 0.5))
    expected = sum(
        weight * (a - b).abs().mean()
        for weight, a, b in zip(
            (0.5, 2.0), *(vgg.taps(x, ["conv1_2", "conv3_3"]) for x in (one, other)), strict=True
        )
    )
    found = losses.vgg_distance(vgg, one, other, layers, False)
    torch.testing.assert_close(found, expected)
    assert losses.vgg_distance(vgg, one, other, layers, True) > found  # ReLU hides differences
    torch.manual_seed(0)
    part, same = losses.cuts([one, one + 1], 16)
    assert part.shape == (2, 3, 16, 16)
    torch.testing.assert_close(same, part + 1)
    assert losses.cuts([one], 0)[0] is one


@pytest.mark.parametrize("seed", range(6))
def test_the_perceptual_loss_sees_the_same_places_of_both_clips_in_one_size(seed):
    torch.manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    where = torch.stack([y, x, 100 * torch.ones_like(x)]).expand(2, 5, 3, 64, 64)
    where = where + torch.arange(5.0).view(5, 1, 1, 1) * torch.tensor([0.0, 0, 1]).view(3, 1, 1)
    one, other = losses.views(losses.pick([where, where + 7], 2))
    assert one.shape == other.shape == (4, 3, 56, 56)
    torch.testing.assert_close(other, one + 7, atol=1e-3, rtol=0)
    steps = one[:, 0].diff(dim=1)[:, 4:-4]  # of the row number: 1 as it is, 3/4 enlarged
    assert torch.allclose(steps, torch.ones(()), atol=1e-4) or torch.allclose(
        steps, torch.tensor(0.75), atol=0.1
    )
    assert len(one[:, 2].round().unique()) == 2  # two frames


def test_flow_error_counts_what_is_known_inside_the_picture():
    motion = torch.full((1, 2, 2, 16, 16), 8.0)  # pixels: a position of the flow
    right = torch.ones(1, 2, 2, 8, 8)
    assert losses.flow_error(right, motion) < 0.02
    assert losses.flow_error(right + 3, motion).item() == pytest.approx(18**0.5, rel=1e-3)
    assert losses.flow_error(right + 300, motion).item() == pytest.approx(losses.FAR)
    finer = 2 * torch.ones(1, 2, 2, 16, 16)  # on a grid twice as fine
    assert losses.flow_error(finer, motion) < 0.02
    assert losses.flow_error(finer + 6, motion).item() == pytest.approx(18**0.5, rel=1e-3)
    motion[:, 1] = 1e4  # nobody knows
    right[:, 1] = -300
    right[:, :, :, :, -1] = -300  # leads out of the picture
    assert losses.flow_error(right, motion) < 0.02
