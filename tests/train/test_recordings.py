"""Damage of recordings: night, tape, bad deinterlacing, lost slices."""

import numpy as np
import pytest
import torch

from oasis_cli.train.degrade import (
    YCC,
)
from oasis_cli.train.draws import (
    shown_frames,
)
from oasis_cli.train.recordings import deinterlaced, few_colours, frozen, night, tape


def generator():
    return torch.Generator().manual_seed(3)


def test_noise_of_the_night_is_coloured_new_in_each_frame_and_strongest_in_shadows():
    x = torch.full((4, 3, 3, 64, 64), 20.0)
    x[..., 32:] = 220
    noise = night(x, generator()) - x
    assert noise[..., :32].std() > 1.7 * noise[..., 32:].std()
    colour = (noise[:, :, 0] - noise[:, :, 2]).std()
    assert colour > noise.std()
    both = torch.stack([noise[:, 0].flatten(), noise[:, 1].flatten()])
    assert torch.corrcoef(both)[0, 1].abs() < 0.05


def test_bad_deinterlacing_harms_what_moves_and_little_else():
    still = torch.rand(1, 1, 3, 32, 32).expand(12, 5, 3, 32, 32) * 0
    still[..., 8:16] = 200
    moving = torch.stack([still[0, 0].roll(3 * t, -1) for t in range(5)]).expand(12, 5, 3, 32, 32)
    assert torch.equal(deinterlaced(still, generator()), still)
    out = deinterlaced(moving, generator())
    rows = (out[..., 1::2, :] - out[..., ::2, :]).abs().amax((1, 2, 3, 4))
    assert 3 <= (rows > 50).sum() <= 9  # combs; the rest is doubled or halved
    assert torch.equal(out[:, -1], moving[:, -1])  # no later field


def test_a_tape_keeps_brightness_and_smears_colour_to_the_right():
    x = torch.zeros(6, 4, 3, 64, 64)
    x[..., 32:] = 100.0
    x[:, :, 0, :, 32:] = 200.0  # a red half
    out = tape(x, generator())
    assert out.mean() == pytest.approx(x.mean().item(), rel=0.1)
    red = (out[:, :, 0] - out[:, :, 1]).mean((0, 1, 2))
    assert (red.diff() > 1).sum() >= 6  # the edge of colour is wide
    assert red[31:34].mean() < 50  # and late
    bright = out.mean(2)[..., 4:28].amax((1, 2, 3))
    assert (bright > 60).any()  # dropouts


def test_coarse_colours_leave_brightness_alone():
    x = torch.rand(2, 3, 3, 17, 17) * 255
    out = few_colours(x)
    weights = torch.tensor(YCC[0])[:, None, None]
    torch.testing.assert_close((out * weights).sum(2), (x * weights).sum(2), atol=1e-2, rtol=0)
    chroma = (out - (out * weights).sum(2, keepdim=True))[..., :16, :16]
    torch.testing.assert_close(chroma[..., ::2, ::2], chroma[..., 1::2, 1::2], atol=1e-2, rtol=0)


def test_a_lost_slice_shows_the_frame_before_it():
    x = torch.arange(5.0)[None, :, None, None, None].expand(2, 5, 3, 10, 4)
    lost = np.array([[2, 3, 0.2, 0.5], [0, 3, 0.2, 0.5]])
    out = frozen(x, torch.from_numpy(shown_frames(lost, 5, 10)))
    assert out[0, :, 0, 3, 0].tolist() == [0, 1, 1, 1, 4]
    assert out[0, :, 0, 6, 0].tolist() == [0, 1, 2, 3, 4]
    assert torch.equal(out[1], x[1])  # loses none
