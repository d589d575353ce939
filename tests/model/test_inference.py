"""What makes a loaded network faster must not make another network of it."""

import pytest
import torch

from oasis_cli.model.dit import DiT, DiTConfig
from oasis_cli.model.inference import (
    Float8Linear,
    Replay,
    fuse_ffn,
    prepare,
    quantize_fp8,
    supports_fp8,
    to_fp8,
)
from oasis_cli.model.routing import HeadTable

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
    prepare(dit)
    dit.context.zero_()  # nobody looks at it any more
    torch.testing.assert_close(dit(latent), before)


class Network(torch.nn.Module):
    """Counts how often it is launched."""

    def __init__(self):
        super().__init__()
        self.calls = 0

    def forward(self, low, size, tile=None):
        self.calls += 1
        return torch.nn.functional.interpolate(low[0], size=size)[None] * 2


def out_of_memory(low, size, tile=None):
    raise torch.OutOfMemoryError("CUDA out of memory")


@pytest.mark.skipif(torch.cuda.is_available(), reason="a capture would work")
def test_a_network_that_cannot_be_captured_runs_as_ever():
    network = Network()
    replay, low = Replay(network), torch.rand(1, 2, 3, 4, 5)
    for _ in range(3):
        assert torch.equal(replay(low, (8, 10)), Network()(low, (8, 10)))
    assert network.calls == 3


def test_once_memory_was_short_nothing_is_captured_any_more(monkeypatch):
    network, low = Network(), torch.rand(1, 2, 3, 4, 5)
    replay = Replay(network)
    with monkeypatch.context() as short:
        short.setattr(network, "forward", out_of_memory)
        with pytest.raises(torch.OutOfMemoryError):
            replay(low, (8, 10))
    monkeypatch.setattr(replay, "_capture", lambda *args: pytest.fail("captured"))
    for _ in range(3):
        assert torch.equal(replay(low, (8, 10)), Network()(low, (8, 10)))
    assert network.calls == 3


def test_the_memory_of_a_graph_is_given_up_before_anything_is_made_smaller(monkeypatch):
    network, low = Network(), torch.rand(1, 2, 3, 4, 5)
    replay = Replay(network)
    replay._graph = object()  # it has the memory that is missing
    monkeypatch.setattr(
        replay, "_run", lambda *args: out_of_memory(*args) if replay._graph else network(*args)
    )
    for _ in range(2):
        assert torch.equal(replay(low, (8, 10)), Network()(low, (8, 10)))
    assert replay._graph is None and network.calls == 2


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_replayed_launches_give_what_launching_gives_and_keep_nothing():
    network = Network()
    replay = Replay(network)
    clips = [torch.rand(1, 2, 3, 4, 5, device=CUDA) for _ in range(5)]
    with torch.inference_mode():
        found = [replay(clip, (8, 10)) for clip in clips]
        other = replay(clips[0][:, :1], (8, 10))
    assert network.calls == 3  # one launched, one captured, and one of another shape
    for clip, high in zip([*clips, clips[0][:, :1]], [*found, other], strict=True):
        assert torch.equal(high, Network()(clip, (8, 10)))


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
