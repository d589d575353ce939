"""The transformer: its tokens, its feed-forward part, its context."""

from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange
from toy_networks import toy

from oasis_cli.model.dit import DiT, DiTConfig


@pytest.mark.parametrize("at_once", [1, 5, 12, 1000])
def test_a_feed_forward_part_in_parts_gives_the_same(at_once):
    options = {"width": 32, "layers": 2, "heads": 2, "ffn": 64, "latent_channels": 8, "gate": 0.5}
    dit = DiT(DiTConfig(**options)).eval().requires_grad_(False)
    latent = torch.randn(2, 8, 3, 4, 6)
    torch.testing.assert_close(dit(latent, at_once), dit(latent))


@pytest.mark.parametrize("patch", [1, 2])
def test_a_token_is_a_patch_of_latents(patch):
    """Tokens of a frame, and which of them one latent position reaches before attention."""
    model = toy(patch=patch).double().dit
    latent = torch.randn(2, 8, 3, 4, 6, dtype=torch.float64)
    assert model.geometry(latent).grid == (3, 4 // patch, 6 // patch)
    assert model(latent).shape == latent.shape
    tokens = []
    model.patch.register_forward_hook(lambda _, args, out: tokens.append(out))
    model(latent)
    latent[:, :, 1, 3, 5] += 1
    model(latent)
    moved = (tokens[0] != tokens[1]).any(-1)[0].nonzero().flatten().tolist()
    assert moved == [2 * (4 // patch) * (6 // patch) - 1]


def test_a_patch_that_tokens_cannot_have_is_refused():
    with pytest.raises(ValueError, match="1 or 2"):
        DiTConfig(patch=3)


def test_a_zero_head_has_no_velocity_and_learns():
    model = toy(zero_head=True).dit
    latent = torch.randn(1, 8, 2, 4, 4)
    assert not model(latent).any()
    (model(latent) - latent).square().mean().backward()
    assert model.head.weight.grad.any()


def test_the_cross_attention_of_two_rows_equals_all_rows():
    config = DiTConfig(width=48, layers=1, heads=4, ffn=64, latent_channels=8, context_rows=512)
    from oasis_cli.model.dit import CrossAttention

    torch.manual_seed(0)
    cross = CrossAttention(config)
    x, context = torch.randn(1, 7, 48), torch.randn(2, 48)
    rows = torch.cat([context[1:], context[:1].expand(511, -1)])
    full = CrossAttention(replace(config, context_rows=2))
    full.load_state_dict(cross.state_dict())
    q, k, v = full.q(full.norm(x)), full.k(rows)[None], full.v(rows)[None]
    q = F.rms_norm(q, (48,), eps=1e-6)
    k = F.rms_norm(k, (48,), eps=1e-6)
    q, k, v = (y.unflatten(-1, (4, 12)).transpose(1, 2) for y in (q, k, v))
    out = full.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(cross(cross.norm(x), context), out, atol=1e-5, rtol=0)


def test_a_feed_forward_kernel_reads_the_tokens_around_in_their_own_frame():
    """Against the convolution written down, one token and its neighbours at a time."""
    torch.manual_seed(0)
    config = DiTConfig(width=8, layers=1, heads=2, ffn=12, latent_channels=4, ffn_kernel=3)
    block = DiT(config).blocks[0].double()
    grid = (2, 3, 4)
    x = torch.randn(2, 24, 8, dtype=torch.float64)
    padded = F.pad(rearrange(x, "b (t h w) m -> b t h w m", t=2, h=3), (0, 0, 1, 1, 1, 1))
    first, last = block.ffn[0], block.ffn[2]
    with torch.inference_mode():
        found = rearrange(block.feed(x, grid), "b (t h w) m -> b t h w m", t=2, h=3)
        for t, row, col in product(range(2), range(3), range(4)):
            seen = padded[:, t, row : row + 3, col : col + 3]
            hidden = torch.einsum("byxm,nmyx->bn", seen, first.weight) + first.bias
            expected = last(F.gelu(hidden, approximate="tanh"))
            torch.testing.assert_close(found[:, t, row, col], expected)
