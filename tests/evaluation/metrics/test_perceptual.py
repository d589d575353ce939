import pytest
import torch
from safetensors.torch import save_file

from oasis_cli.evaluation.metrics.perceptual import SqueezeLpips

CHANNELS = (64, 128, 256, 384, 384, 512, 512)
FIRES = {3: (64, 16, 64), 4: (128, 16, 64), 6: (128, 32, 128), 7: (256, 32, 128)}
FIRES |= {9: (256, 48, 192), 10: (384, 48, 192), 11: (384, 64, 256), 12: (512, 64, 256)}


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A file of SqueezeNet's shapes with random numbers in it."""
    generator = torch.Generator().manual_seed(0)

    def conv(out, inside, side):
        return 0.2 * torch.randn(out, inside, side, side, generator=generator)

    tensors = {"features.0.weight": conv(64, 3, 3), "features.0.bias": torch.zeros(64)}
    for number, (inside, squeeze, expand) in FIRES.items():
        name = f"features.{number}"
        tensors[f"{name}.squeeze.weight"] = conv(squeeze, inside, 1)
        tensors[f"{name}.expand1x1.weight"] = conv(expand, squeeze, 1)
        tensors[f"{name}.expand3x3.weight"] = conv(expand, squeeze, 3)
        for part, width in (("squeeze", squeeze), ("expand1x1", expand), ("expand3x3", expand)):
            tensors[f"{name}.{part}.bias"] = torch.zeros(width)
    tensors |= {f"lin{i}.weight": torch.ones(1, c, 1, 1) for i, c in enumerate(CHANNELS)}
    path = tmp_path_factory.mktemp("lpips") / "features.safetensors"
    save_file(tensors, path)
    return path


def test_distance_is_zero_for_equals_and_grows_with_damage(features):
    lpips = SqueezeLpips(features)
    generator = torch.Generator().manual_seed(1)
    a = torch.rand(2, 3, 48, 40, generator=generator) * 2 - 1
    noise = torch.randn(a.shape, generator=generator)
    assert lpips(a, a).abs().max() == 0
    near, far = lpips(a, a + 0.05 * noise), lpips(a, a + 0.3 * noise)
    assert ((near > 0) & (far > near)).all()


def test_it_can_be_a_training_loss(features):
    lpips = SqueezeLpips(features)
    a = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(1)).requires_grad_()
    lpips(a, torch.ones(1, 3, 32, 32)).sum().backward()
    assert a.grad is not None and a.grad.abs().sum() > 0
    assert not list(lpips.parameters())


def test_another_file_is_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="no SqueezeNet features"):
        SqueezeLpips(other)
    other.write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        SqueezeLpips(other)
