"""Clips for measuring: read side by side, as pixels."""

import torch

from oasis_cli.pipeline.clips import Clip, lockstep, to_pixels


def test_lockstep_can_end_with_the_shortest():
    frames = torch.rand(6, 3, 24, 32)
    clips = [Clip.of("a", frames), Clip.of("b", frames[:4])]
    assert len(list(lockstep(clips, strict=False))) == 4


def test_pixels_are_rounded_and_clamped():
    frame = torch.tensor([-2.0, -1.0, 0.0, 1.5]).view(1, 2, 2).expand(3, 2, 2)
    assert to_pixels(frame)[..., 0].tolist() == [[0, 0], [128, 255]]
