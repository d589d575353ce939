import pytest
import torch
from safetensors.torch import save_file

from oasis_cli.evaluation.metrics.vgg import COMPARED, LAYERS, VggFeatures

WIDTHS = dict(zip(LAYERS, (6, 6, 8, 8, 10, 10, 10, 12, 12, 12), strict=True))


def tensors():
    generator = torch.Generator().manual_seed(0)
    made, inside = {}, 3
    for name, width in WIDTHS.items():
        spread = (2 / (9 * inside)) ** 0.5
        made[f"{name}.weight"] = spread * torch.randn(width, inside, 3, 3, generator=generator)
        made[f"{name}.bias"] = 0.1 * torch.randn(width, generator=generator)
        inside = width
    return made


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A narrow VGG-16 with random numbers in it."""
    path = tmp_path_factory.mktemp("vgg") / "features.safetensors"
    save_file({name: tensor.half() for name, tensor in tensors().items()}, path)
    return VggFeatures(path)


def pictures(count=2, height=48, width=40):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_taps_have_the_layers_widths_and_come_finest_first(features):
    shapes = [tuple(tap.shape) for tap in features.taps(pictures(), COMPARED[::-1])]
    assert shapes == [(2, 6, 48, 40), (2, 8, 24, 20), (2, 10, 12, 10), (2, 12, 6, 5)]


def test_the_relu_can_be_left_out_of_a_tap_and_only_of_the_tap(features):
    before = features.taps(pictures(), before_relu=True)
    after = features.taps(pictures())
    for raw, map_ in zip(before, after, strict=True):
        assert raw.min() < 0
        assert torch.equal(raw.relu(), map_)


def test_a_layer_that_does_not_exist_is_refused(features):
    for names in (("conv5_1",), ()):
        with pytest.raises(ValueError, match="no layer"):
            features.taps(pictures(), names)


def test_distance_is_zero_for_equals_and_grows_with_damage(features):
    a = pictures()
    noise = torch.randn(a.shape, generator=torch.Generator().manual_seed(2))
    assert features(a, a).abs().max() == 0
    near, far = features(a, a + 0.05 * noise), features(a, a + 0.3 * noise)
    assert near.shape == (2,)
    assert ((near > 0) & (far > near)).all()


def test_the_finest_taps_see_a_weave_of_two_pixels(features):
    flat = torch.zeros(1, 3, 32, 32)
    weave = flat.clone()
    weave[..., ::2, ::2] = 0.1
    weave -= weave.mean()
    finest = (features.taps(flat)[0] - features.taps(weave)[0]).abs().mean()
    assert finest > 1e-3


def test_it_can_be_a_training_loss_and_leaves_nothing_in_a_checkpoint(features):
    a = pictures(1).requires_grad_()
    features(a, torch.ones(1, 3, 48, 40)).sum().backward()
    assert a.grad is not None and a.grad.abs().sum() > 0
    assert not list(features.parameters())
    assert not features.state_dict()
    assert all(buffer.dtype == torch.float32 for buffer in features.buffers())


def test_it_runs_at_half_precision_under_autocast(features):
    a, b = pictures(), pictures() * 0.5
    with torch.autocast("cpu", torch.bfloat16):
        taps, distance = features.taps(a), features(a, b)
    assert {tap.dtype for tap in taps} == {torch.bfloat16}
    assert distance.dtype == torch.float32
    torch.testing.assert_close(distance, features(a, b), rtol=0.03, atol=0)


def test_the_graph_is_captured_whole_for_compilers(features):
    compiled = torch.compile(features, backend="eager", fullgraph=True)
    a, b = pictures(), pictures() * 0.5
    torch.testing.assert_close(compiled(a, b), features(a, b))


def test_another_file_is_refused(tmp_path):
    other = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(1)}, other)
    with pytest.raises(ValueError, match="no VGG-16 features"):
        VggFeatures(other)
    save_file(tensors() | {"conv3_2.weight": torch.zeros(10, 9, 3, 3)}, other)
    with pytest.raises(ValueError, match="conv3_2"):
        VggFeatures(other)
    other.write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="cannot be read"):
        VggFeatures(other)
