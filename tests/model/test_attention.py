"""The routed patterns against plain masked attention, in float64."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from oasis_cli.model.attention import (
    RoutedAttention,
    geometry,
    global_attention,
    intra_attention,
    window_attention,
)

WINDOW = (3, 5, 5)
CPU = torch.device("cpu")
GRIDS = [(1, 7, 9), (2, 3, 4), (5, 9, 11), (7, 23, 16)]


def coordinates(grid):
    return torch.tensor(list(itertools.product(*map(range, grid))))


def window_allows(grid, window=WINDOW):
    """(L, L) bool, straight from the definition."""
    at = coordinates(grid)
    radius = torch.tensor(window) // 2
    return ((at[:, None] - at[None]).abs() <= radius).all(-1)


def masked(q, k, v, mask=None):
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask).transpose(1, 2)


def random_qkv(grid, batch=2, heads=2, width=8):
    torch.manual_seed(0)
    length = grid[0] * grid[1] * grid[2]
    return torch.randn(3, batch, length, heads, width, dtype=torch.float64).unbind()


@pytest.mark.parametrize("grid", GRIDS)
def test_every_pattern_equals_masked_dense_attention(grid):
    q, k, v = random_qkv(grid, batch=1 if grid[0] == 7 else 2, heads=1)
    geo = geometry(grid, WINDOW, 12, windowed=True, device=CPU)
    frame = coordinates(grid)[:, 0]

    for got, mask in (
        (global_attention(q, k, v), None),
        (intra_attention(q, k, v, grid[0]), frame[:, None] == frame[None]),
        (window_attention(q, k, v, geo.window), window_allows(grid)),
    ):
        torch.testing.assert_close(got, masked(q, k, v, mask), atol=1e-12, rtol=0)


@pytest.mark.parametrize("length", [1, 255, 600])
def test_sixteen_bits_on_a_cpu_cost_half_a_percent(length):
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, length, 3, 32).bfloat16().unbind()
    exact = masked(q.double(), k.double(), v.double())
    with torch.inference_mode():
        found = global_attention(q, k, v)
    assert found.shape == q.shape and found.dtype == torch.bfloat16
    assert (found - exact).square().mean().sqrt() <= 0.006 * exact.square().mean().sqrt()


@pytest.mark.parametrize("grid", [(5, 9, 11), (9, 17, 12)])
def test_so_do_windows(grid):
    q, k, v = (x.bfloat16() for x in random_qkv(grid, width=32))
    tiles = geometry(grid, WINDOW, 32, windowed=True, device=CPU).window
    exact = masked(q.double(), k.double(), v.double(), window_allows(grid))
    with torch.inference_mode():
        found = window_attention(q, k, v, tiles)
    assert (found - exact).square().mean().sqrt() <= 0.006 * exact.square().mean().sqrt()


@pytest.mark.parametrize(("token", "keys"), [((0, 0, 0), 18), ((2, 4, 5), 75), ((4, 8, 10), 18)])
def test_a_query_sees_exactly_its_truncated_window(token, keys):
    """Values are one-hot, so what comes out names the keys that went in."""
    grid = (5, 9, 11)
    length = 5 * 9 * 11
    q = k = torch.zeros(1, length, 1, length, dtype=torch.float64)
    v = torch.eye(length, dtype=torch.float64)[None, :, None]
    geo = geometry(grid, WINDOW, 12, windowed=True, device=CPU)
    number = (token[0] * 9 + token[1]) * 11 + token[2]

    weights = window_attention(q, k, v, geo.window)[0, number, 0]

    assert (weights > 0).sum() == keys
    torch.testing.assert_close(weights[weights > 0], torch.full((keys,), 1 / keys).double())
    assert torch.equal(weights > 0, window_allows(grid)[number])


@pytest.mark.parametrize("window", [(1, 3, 3), (3, 7, 7), (5, 5, 5)])
def test_other_window_sizes(window):
    grid = (4, 6, 10)
    q, k, v = random_qkv(grid)
    geo = geometry(grid, window, 12, windowed=True, device=CPU)
    expected = masked(q, k, v, window_allows(grid, window))
    torch.testing.assert_close(window_attention(q, k, v, geo.window), expected, atol=1e-12, rtol=0)


def test_window_attention_has_the_gradients_of_masked_attention():
    grid = (2, 5, 6)
    inputs = [x.requires_grad_() for x in random_qkv(grid)]
    geo = geometry(grid, WINDOW, 12, windowed=True, device=CPU)
    got = torch.autograd.grad(window_attention(*inputs, geo.window).square().sum(), inputs)
    dense = masked(*inputs, window_allows(grid)).square().sum()
    for one, other in zip(got, torch.autograd.grad(dense, inputs), strict=True):
        torch.testing.assert_close(one, other, atol=1e-11, rtol=0)


@pytest.mark.parametrize("groups", ["gggg", "wgiw", "iiii", "wwgi"])
def test_a_routed_layer_equals_one_mask_for_each_head(groups):
    grid = (3, 6, 5)
    layer = RoutedAttention(48, 4, 1e-6).double()
    torch.nn.init.normal_(layer.q_norm)
    torch.nn.init.normal_(layer.k_norm)
    geo = geometry(grid, WINDOW, 12, windowed=True, device=CPU)
    frame = coordinates(grid)[:, 0]
    masks = {
        "g": torch.ones(90, 90, dtype=torch.bool),
        "i": frame[:, None] == frame[None],
        "w": window_allows(grid),
    }
    x = torch.randn(2, 90, 48, dtype=torch.float64)
    q, k, v = layer.project(x, geo)
    mask = torch.stack([masks[letter] for letter in groups])
    expected = layer.out(masked(q, k, v, mask).flatten(2))

    layer.route(groups)

    torch.testing.assert_close(layer(x, geo), expected, atol=1e-12, rtol=0)
