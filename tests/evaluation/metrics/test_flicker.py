"""Flicker: what changes from frame to frame and was not in the input."""

import torch
import torch.nn.functional as F

from oasis_cli.evaluation.metrics.flicker import flicker


def noise(like, steps, seed=1):
    """Grain of `steps` 8-bit steps."""
    return steps * torch.randn(like.shape, generator=torch.Generator().manual_seed(seed)) / 127.5


def moving(frames=4):
    """A clip of soft blobs under a camera that pans by 2 pixels a frame, enlarged and clean."""
    generator = torch.Generator().manual_seed(2)
    rough = torch.randn(1, 3, 24, 30, generator=generator)
    wide = F.interpolate(0.3 * rough, scale_factor=8.0, mode="bicubic")
    return torch.cat([wide[..., 16:176, 2 * t : 2 * t + 200] for t in range(frames)])


def test_a_steady_clip_does_not_flicker_however_sharp_it_is():
    base = moving()
    assert flicker(base, base).max() < 0.2
    assert flicker((2.5 * base).clamp(-1, 1), base).max() < 0.6


def test_noise_of_the_input_is_not_the_restorers_flicker():
    clean = moving()
    noisy = clean + F.avg_pool2d(noise(clean, 12), 5, 1, 2)
    assert flicker(noisy, noisy).max() < 0.3
    assert flicker(clean, noisy).max() < 0.5


def test_detail_that_changes_from_frame_to_frame_is_flicker():
    base = moving()
    steady, busy = flicker(base, base).mean(), flicker(base + noise(base, 4), base).mean()
    assert busy > 5 * steady and busy > 2
