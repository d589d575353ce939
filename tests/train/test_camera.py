"""The camera that films photographs: shutter, focus, depth and paths."""

import numpy as np
import pytest
import torch

from oasis_cli.train.camera import (
    Lens,
    bend,
    camera_paths,
    clip_grid,
    positions,
    shoot,
)


def lens(exposure=0.0, rolling=0.0, frames=3):
    focus = np.zeros((1, frames))
    return Lens(np.array([exposure]), np.array([rolling]), 1 + focus, focus)


def test_a_still_camera_returns_the_photograph_exactly():
    source = torch.rand(1, 3, 512, 512)
    path = torch.eye(2, 3).expand(1, 3, 2, 3).clone()
    path[:, 1, 0, 2] = 7  # seven pixels to the right in the second frame
    clip = shoot(source, positions(path, 48), lens())
    middle = slice(232, 280)
    torch.testing.assert_close(clip[:, 0], source[..., middle, middle], atol=1e-4, rtol=0)
    torch.testing.assert_close(clip[:, 1], source[..., middle, 239:287], atol=1e-4, rtol=0)
    assert clip_grid(48)[0].tolist() == [-23.5, -23.5, 1.0]


def stripes():
    """A source of vertical stripes, 16 pixels wide, with sharp edges."""
    x = torch.arange(512) // 16 % 2 * 255.0
    return x.expand(1, 3, 512, 512).contiguous()


def moving_right(pixels, frames=3):
    path = torch.eye(2, 3).repeat(1, frames, 1, 1)
    path[0, :, 0, 2] = pixels * torch.arange(frames)
    return path


def test_an_open_shutter_blurs_along_the_motion_and_only_there():
    at = positions(moving_right(8.0), 48)
    sharp, blurred = (shoot(stripes(), at.clone(), lens(exposure=e))[0, 1, 0] for e in (0.0, 1.0))
    assert sharp.diff(dim=1).abs().max() == pytest.approx(255, abs=1)
    assert blurred.diff(dim=1).abs().max() < 80
    assert blurred.diff(dim=0).abs().max() < 1e-2
    still = positions(moving_right(0.0), 48)
    clips = [shoot(stripes(), still.clone(), lens(exposure=e)) for e in (0.0, 1.0)]
    assert (clips[0] - clips[1]).abs().max() < 0.6


def test_a_rolling_shutter_leans_upright_edges_of_what_moves():
    at = positions(moving_right(8.0), 48)
    clip = shoot(stripes(), at, lens(rolling=1.0))[0, 1, 0]
    edges = (clip[:, :24].diff(dim=1).abs() > 60).float().argmax(1)
    assert 5 <= abs(int(edges[0]) - int(edges[-1])) <= 9


def test_focus_that_is_lost_in_one_frame_softens_that_frame():
    focus = np.array([[0.0, 1.0, 0.0]])
    soft = Lens(np.zeros(1), np.zeros(1), 1 + 0 * focus, focus)
    clip = shoot(stripes(), positions(moving_right(0.0), 48), soft)
    steps = clip.diff(dim=-1).abs().amax((0, 2, 3, 4))
    assert steps[0] == steps[2] > 250 and steps[1] < 120


def test_near_parts_of_a_photograph_move_further_than_far_ones():
    kind, rng = np.full(40, 0.5), np.random.default_rng(0)
    flat = positions(torch.eye(2, 3).expand(40, 9, 2, 3), 48)
    bent = bend(flat.clone(), kind, rng) - flat
    travelled = (bent[:, -1] - bent[:, 0]).norm(dim=-1).flatten(1)
    deep = travelled.amax(1) > 1
    assert 0.2 < deep.float().mean() < 0.7  # the others stay flat
    assert (travelled.amax(1) - travelled.amin(1))[deep].median() > 1
    # Smooth: no place is torn or folded, which is a step of one pixel from pixel to pixel.
    assert bent.diff(dim=2).abs().max() < 0.8 and bent.diff(dim=3).abs().max() < 0.8
    assert torch.equal(bend(flat.clone(), np.full(40, 0.2), rng), flat)


def test_camera_paths_stay_on_the_photograph():
    rng = np.random.default_rng(0)
    paths = camera_paths(rng.random(200), 9, 288, rng)
    corners = torch.tensor([[x, y, 1.0] for x in (-144, 144) for y in (-144, 144)])
    assert torch.einsum("ntij,pj->ntpi", paths, corners).abs().max() < 330
    still = (paths.diff(dim=1).abs().amax((1, 2, 3)) == 0).float().mean()
    assert 0.03 < still < 0.25
