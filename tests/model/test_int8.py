"""8-bit products of a CPU against the plain ones."""

import pytest
import torch
from torch import nn

from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.int8 import Int8Conv, Int8Linear, gains, to_uint8, use_int8
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.runtime.devices import cpu_has_int8

UNITS = pytest.mark.skipif(not cpu_has_int8(), reason="this CPU has no units for bytes")


def as_int8(layer):
    layer.__class__ = Int8Conv if isinstance(layer, nn.Conv2d) else Int8Linear
    layer.pack()
    return layer


def network():
    torch.manual_seed(0)
    dit = DiTConfig(width=64, layers=2, heads=2, ffn=64, ffn_kernel=3, latent_channels=8)
    decoder = DecoderConfig(latent_channels=8, low_width=64, low_blocks=2, high_blocks=1)
    model = Oasis(OasisConfig(dit=dit, decoder=decoder)).eval().requires_grad_(False)
    nn.init.normal_(model.decoder.last.weight, std=0.02)  # it starts at zero
    return model.bfloat16()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shift", [-9.0, -0.2, 0.0, 3.0])
@pytest.mark.parametrize("size", [0.0, 1e-9, 1.0, 1e4])
def test_a_byte_is_less_than_a_step_away_and_nothing_is_cut_off(size, shift, dtype):
    torch.manual_seed(0)
    x = (size * (torch.randn(3, 5, 7, 2) + shift)).to(dtype)
    numbers, step, zero = to_uint8(x)
    back = (numbers.float() - zero) * step
    assert numbers.dtype == torch.uint8 and 0 <= zero <= 255
    assert (back - x.float()).abs().max() <= 0.8 * step
    assert ((numbers == zero) | (x != 0)).all()  # the zeros around a picture stay zeros


@UNITS
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_the_result_is_nearly_the_plain_one(bias, dtype):
    torch.manual_seed(0)
    conv = nn.Conv2d(64, 80, 3, padding=1, bias=bias, dtype=dtype).requires_grad_(False)
    linear = nn.Linear(48, 96, bias=bias, dtype=dtype).requires_grad_(False)
    picture = torch.randn(2, 64, 9, 14).to(dtype)
    cases = [
        (conv, picture),
        (conv, picture.contiguous(memory_format=torch.channels_last)),
        (linear, torch.randn(2, 33, 48).to(dtype)),
    ]
    for layer, x in cases:
        expected = layer.float()(x.float())
        found = as_int8(layer.to(dtype))(x)
        layer.__class__ = type(layer).__base__
        assert found.shape == expected.shape and found.dtype == dtype
        assert (found.float() - expected).norm() / expected.norm() < 0.02


@UNITS
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_passed_on(bad):
    x = torch.zeros(1, 64, 5, 5)
    x[0, 0, 2, 2] = bad
    out = as_int8(nn.Conv2d(64, 64, 3, padding=1).requires_grad_(False))(x)
    assert not out[0, :, 2, 2].isfinite().any() and out[0, :, 0, 4].isfinite().all()


def test_only_wide_plain_convolutions_are_done_so():
    kinds = {
        "wide": nn.Conv2d(64, 160, 3, padding=1),
        "narrow": nn.Conv2d(64, 48, 3, padding=1),
        "a point": nn.Conv2d(128, 128, 1),
        "strided": nn.Conv2d(128, 128, 3, padding=1, stride=2),
        "grouped": nn.Conv2d(128, 128, 3, padding=1, groups=2),
        "reflecting": nn.Conv2d(128, 128, 3, padding=1, padding_mode="reflect"),
    }
    assert [name for name, layer in kinds.items() if gains(layer)] == ["wide"]


@UNITS
def test_a_networks_frames_are_nearly_the_same_and_equal_for_any_number_of_threads():
    plain, fast = network(), network()
    use_int8(fast)
    kinds = [type(layer) for layer in fast.modules()]
    assert kinds.count(Int8Conv) == 2 + 2 * 3 and kinds.count(Int8Linear) == 2 * 3
    low = torch.rand(1, 5, 3, 24, 40) * 2 - 1
    threads = torch.get_num_threads()
    try:
        with torch.inference_mode():
            expected = plain(low, (96, 160))
            torch.set_num_threads(1)
            one = fast(low, (96, 160))
            torch.set_num_threads(3)
            assert torch.equal(fast(low, (96, 160)), one)
    finally:
        torch.set_num_threads(threads)
    correction = expected - bicubic_upsample(low, (96, 160))
    assert 0 < (one - expected).norm() / correction.norm() < 0.03
