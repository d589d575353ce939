"""What makes a loaded network faster must not make another network of it."""

import pytest
import torch

from oasis_cli.model.dit import DiT, DiTConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.inference import (
    Float8Linear,
    fuse_ffn,
    prepare_for_inference,
    quantize_fp8,
    to_fp8,
)
from oasis_cli.runtime.devices import supports_fp8

CUDA = torch.device("cuda")


def toy(**changes):
    torch.manual_seed(0)
    options = {"width": 64, "layers": 2, "heads": 4, "ffn": 128, "latent_channels": 8, "gate": 0.5}
    dit = DiT(DiTConfig(**options | {"context_rows": 7} | changes)).eval().requires_grad_(False)
    dit.context.normal_()
    dit.route(HeadTable.repeat("giww", 2))
    return dit, torch.randn(1, 8, 2, 6, 8)


def relative(one, other):
    return ((one - other).norm() / other.norm()).item()


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_fused_gelu_is_the_same_network(kernel):
    dit, latent = toy(ffn_kernel=kernel)
    before = dit(latent)
    fuse_ffn(dit)
    torch.testing.assert_close(dit(latent), before)


@pytest.mark.parametrize("kernel", [1, 3])
def test_eight_bits_are_near_and_are_used(kernel):
    dit, latent = toy(ffn_kernel=kernel)
    before = dit(latent)
    quantize_fp8(dit)
    changed = [module for module in dit.modules() if isinstance(module, Float8Linear)]
    assert len(changed) == 2 * (5 if kernel == 1 else 4)  # qkv, out, cross.q, ffn (twice or once)
    assert 1e-4 < relative(dit(latent), before) < 0.05


def test_a_row_uses_the_whole_range_and_zeros_stay_zeros():
    x = torch.tensor([[1e-3, -4e-3, 2e-3], [300.0, -1e5, 0.0], [0.0, 0.0, 0.0]])
    rows, scale = to_fp8(x)
    assert rows.float().abs().amax(1).tolist() == [448.0, 448.0, 0.0]
    torch.testing.assert_close(rows.float() * scale, x, rtol=2**-4, atol=1e-9)


def test_a_fixed_context_is_the_same_network():
    dit, latent = toy()
    before = dit(latent)
    prepare_for_inference(dit)
    dit.context.zero_()  # nobody looks at it any more
    torch.testing.assert_close(dit(latent), before)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_on_a_gpu_both_equal_the_plain_network():
    dit, latent = toy(width=256, ffn=512)
    exact = dit(latent)
    dit, latent = dit.to(CUDA, torch.bfloat16), latent.to(CUDA, torch.bfloat16)
    with torch.no_grad():
        fuse_ffn(dit)
        assert relative(dit(latent).cpu().float(), exact) < 0.02
        if supports_fp8(CUDA):
            dit, _ = toy(width=256, ffn=512)
            dit = dit.to(CUDA, torch.bfloat16)
            quantize_fp8(dit)
            assert relative(dit(latent).cpu().float(), exact) < 0.06
