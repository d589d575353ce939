import pytest
import torch

from oasis_cli.pipeline.clips import Clip


@pytest.fixture
def clips():
    """A soft clip, a sharp one of twice the size, and the sharp one with a bright patch: 8 frames.

    Frame 5 starts a second scene.
    """
    generator = torch.Generator().manual_seed(0)
    wide = torch.rand(2, 3, 12, 20, generator=generator) * torch.tensor([0.5, 1.9]).view(2, 1, 1, 1)
    wide = torch.nn.functional.interpolate(wide, size=(48, 80), mode="bicubic") - 1
    sharp = torch.stack([wide[int(t >= 5), ..., t : t + 64] for t in range(8)]).clamp(-1, 1)
    soft = torch.nn.functional.avg_pool2d(sharp, 2)
    patched = sharp.clone()
    patched[3, :, 20:32, 40:52] = 1
    return [Clip.of("soft.mp4", soft), Clip.of("sharp.mp4", sharp), Clip.of("patch.mp4", patched)]
