"""Measuring heads: against dense float64, and on heads built to be local."""

import math

import pytest
import torch
from toy_networks import built_heads, clips, routed_toy

from oasis_cli.errors import UsageError
from oasis_cli.model.heads import calibration
from oasis_cli.model.heads.assignment import Rule, assign_heads
from oasis_cli.model.heads.calibration import (
    attend,
    measure_heads,
    measure_layer,
    neighbours,
    sample_tokens,
    uniform_kl,
)
from oasis_cli.model.heads.routing import HeadTable

WINDOW = (3, 5, 5)
GRIDS = [(1, 3, 4), (2, 3, 4), (3, 7, 6), (5, 9, 11)]


def dense(q, k, v, out, grid):
    """KL and output error of every head for every query, from whole maps in float64."""
    q, k, v, out = (x.double() for x in (q, k, v, out))
    length, heads, width = q.shape
    logits = torch.einsum("qhd,khd->hqk", q, k) / math.sqrt(width)
    everything = logits.softmax(-1)
    place = torch.cartesian_prod(*(torch.arange(n) for n in grid)).view(length, 3)
    away = (place[:, None] - place).abs()
    sets = [away[..., 0] == 0, (away <= torch.tensor(WINDOW) // 2).all(-1)]
    kl, error = [], []
    output = out.unflatten(1, (heads, width))
    for inside in sets:
        local = logits.masked_fill(~inside, -math.inf).softmax(-1)
        kl.append(torch.where(inside, local * (local / everything).log(), 0).sum(-1))
        change = torch.einsum("hqk,khd->hqd", local - everything, v)
        error.append(torch.einsum("hqd,chd->hqc", change, output).square().sum((1, 2)))
    size = torch.einsum("hqk,khd,chd->hqc", everything, v, output).square().sum((1, 2))
    return torch.stack(kl).transpose(1, 2), torch.stack(error), size


@pytest.mark.parametrize("grid", GRIDS, ids=str)
@pytest.mark.parametrize("chunk", [5, 4096])
def test_streaming_equals_dense_float64(grid, chunk, monkeypatch):
    monkeypatch.setattr(attend, "__defaults__", (chunk,))
    monkeypatch.setattr(calibration, "QUERY_CHUNK", 7)
    torch.manual_seed(0)
    tokens, heads = math.prod(grid), 3
    q, k, v = 2 * torch.randn(3, tokens, heads, 12)
    out = torch.randn(20, heads * 12)

    found = measure_layer(q, k, v, out, grid, WINDOW, torch.arange(tokens))

    kl, error, size = dense(q, k, v, out, grid)
    assert (found.kl - kl).abs().max() <= 1e-5
    assert found.kl.min() >= 0
    torch.testing.assert_close(found.error.double(), error, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(found.norm.double(), size, rtol=1e-4, atol=1e-6)


def test_one_frame_makes_intra_and_global_the_same():
    q, k, v = torch.randn(3, 12, 2, 8)
    found = measure_layer(q, k, v, torch.randn(16, 16), (1, 3, 4), WINDOW, torch.arange(12))
    assert found.kl[0].max() < 1e-6


def test_neighbours_are_cut_off_at_the_borders():
    grid = (5, 9, 11)
    centre = 2 * 99 + 4 * 11 + 5
    near, inside = neighbours(grid, WINDOW, torch.tensor([0, centre]))
    assert inside.sum(1).tolist() == [18, 75]
    assert near[0][inside[0]].max() == 99 + 2 * 11 + 2


def test_queries_are_spread_evenly_over_frames():
    index = sample_tokens((3, 4, 5), 10, torch.Generator().manual_seed(0))
    assert index.tolist() == sorted(index.tolist(), key=lambda token: token // 20)
    assert torch.bincount(index // 20).tolist() == [4, 3, 3]


def test_a_uniform_head_has_the_kl_of_a_uniform_head():
    statistics = measure_heads(built_heads(), clips(1), queries=6000)
    intra, window = uniform_kl(statistics.grid, WINDOW)
    assert statistics.mean_kl[0, 0, 0] == pytest.approx(intra, abs=1e-4)
    assert statistics.mean_kl[1, 0, 0] == pytest.approx(window, abs=0.02)
    assert statistics.mass[0, 0, 0] == pytest.approx(1 / 3, abs=1e-4)


def test_permuting_heads_permutes_the_statistics_and_the_table():
    model = routed_toy().double()
    before = measure_heads(model, clips(), queries=40)
    # Routing to groups and calling the result dense again leaves the heads in another order.
    for attention in model.dit.attentions:
        attention.route("wgig")
        attention.groups = "gggg"
    after = measure_heads(model, clips(), queries=40)
    order = [1, 3, 2, 0]
    torch.testing.assert_close(after.kl, before.kl[..., order])
    torch.testing.assert_close(after.output_error, before.output_error[..., order])
    rule = Rule(budget=0.7)
    moved = assign_heads(after, rule, resamples=50).table.layers
    plain = assign_heads(before, rule, resamples=50).table.layers
    assert moved == tuple("".join(row[head] for head in order) for row in plain)


def test_a_routed_model_is_measured_dense_and_put_back():
    model = routed_toy()
    expected = measure_heads(model, clips(), queries=16)
    table = HeadTable.repeat("gwiw", 2)
    model.dit.route(table)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}

    found = measure_heads(model, clips(), queries=16)

    torch.testing.assert_close(found.kl, expected.kl)
    assert model.dit.table == table
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert not any(attention._forward_pre_hooks for attention in model.dit.attentions)


def test_wide_clips_are_measured_on_the_tiles_the_network_sees():
    model = routed_toy(dit_tile=8)
    statistics = measure_heads(model, clips(1, size=(64, 200)), queries=10, tiles=2)
    assert statistics.kl.shape == (2, 1, 10, 2, 4)
    assert statistics.grid == (3, 4, 4)
    again = measure_heads(model, clips(1, size=(64, 200)), queries=10, tiles=2)
    assert torch.equal(statistics.kl, again.kl)
    other = measure_heads(model, clips(1, size=(64, 200)), queries=10, tiles=2, seed=1)
    assert not torch.equal(statistics.kl, other.kl)


@pytest.mark.parametrize(("patch", "side"), [(1, 8), (2, 4)])
def test_heads_are_measured_and_priced_on_the_token_grid(patch, side):
    """A tile of 8x8 latent positions; the clip's own are 8x5, padded to 8x6."""
    statistics = measure_heads(
        routed_toy(dit_tile=8, patch=patch), clips(1, size=(64, 40)), queries=10
    )
    assert statistics.kl.shape == (2, 1, 10, 2, 4)
    assert statistics.grid == (3, 8 // patch, 6 // patch)
    assert statistics.cost_grid == (3, side, side)
    assert assign_heads(statistics, Rule(budget=0.6)).table.layers


def test_training_goes_on_after_measuring():
    model = routed_toy().train()
    model.dit.route(HeadTable.repeat("gwiw", 2))
    measure_heads(model, clips(1), queries=8)
    model(clips(1)[0][None, :, :, :16, :16], (32, 32)).square().mean().backward()
    assert all(parameter.requires_grad for parameter in model.parameters())


def test_autocast_does_not_reach_the_statistics():
    with torch.autocast("cpu", torch.bfloat16):
        statistics = measure_heads(routed_toy(), clips(1), queries=8)
    assert statistics.kl.dtype == torch.float32
    torch.testing.assert_close(
        statistics.mean_kl,
        measure_heads(routed_toy(), clips(1), queries=8).mean_kl,
        atol=0.05,
        rtol=0.05,
    )


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: measure_heads(routed_toy(), []), "no clips"),
        (lambda: measure_heads(routed_toy(), clips(1, frames=4)), "clip 1 has 4 frames"),
        (lambda: measure_heads(routed_toy(), clips(1), queries=0), "at least one query"),
        (lambda: Rule(name="best"), "no rule 'best'"),
        (lambda: Rule(budget=1.5), "share in"),
        (
            lambda: assign_heads(
                measure_heads(routed_toy(), clips(1), queries=4), Rule(budget=0.1)
            ),
            "cannot be met",
        ),
        (
            lambda: assign_heads(
                measure_heads(routed_toy(), clips(1), queries=4),
                Rule(name="proportion", proportion=(1, 1, 1)),
            ),
            "does not add up",
        ),
    ],
)
def test_bad_input_gets_one_sentence(call, message):
    with pytest.raises(UsageError, match=message):
        call()
