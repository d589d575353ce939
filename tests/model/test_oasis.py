"""The whole network: shapes, what it is before training, streaming and tiling."""

import pytest
import torch
import torch.nn.functional as F
from toy_networks import toy, trained

from oasis_cli.errors import WeightsError
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import PAPER, SMALL, Oasis, OasisConfig


@pytest.mark.parametrize("frames", [1, 2, 4, 5, 6])
@pytest.mark.parametrize(("size", "target"), [((16, 16), (16, 16)), ((10, 17), (37, 50))])
def test_any_length_and_size_comes_out_exactly(frames, size, target):
    model = trained(toy())
    low = torch.rand(2, frames, 3, *size) * 2 - 1
    with torch.inference_mode():
        high = model(low, target)
    assert high.shape == (2, frames, 3, *target)
    assert high.isfinite().all()


@pytest.mark.parametrize("low_frames", [0, 1, 3])
@pytest.mark.parametrize("target", [(32, 48), (33, 50), (64, 96)])  # as it is, padded, larger
def test_inference_computes_what_training_does_and_leaves_its_input(target, low_frames):
    model = trained(toy(low_frames=low_frames))
    low = torch.rand(2, 5, 3, 32, 48) * 2 - 1
    given = low.clone()
    with torch.inference_mode():
        high = model(low, target)
    assert torch.equal(low, given)
    torch.testing.assert_close(high, model(low, target).detach(), atol=1e-6, rtol=0)


def test_an_untrained_network_returns_bicubic_exactly():
    low = torch.rand(1, 3, 3, 20, 24) * 2 - 1
    with torch.inference_mode():
        high = toy()(low, (80, 96))
    assert torch.equal(high[0], F.interpolate(low[0], size=(80, 96), mode="bicubic"))


def test_clips_of_a_batch_do_not_touch_each_other():
    model = trained(toy()).double()
    low = torch.rand(2, 5, 3, 8, 8, dtype=torch.float64)
    with torch.inference_mode():
        both = model(low, (32, 32))
        alone = torch.cat([model(low[:1], (32, 32)), model(low[1:], (32, 32))])
    torch.testing.assert_close(both, alone, atol=1e-12, rtol=0)


def test_an_all_global_table_equals_plain_attention(monkeypatch):
    """Against torch's own attention layer, given the same projections."""
    model = trained(toy()).double()
    low = torch.rand(1, 9, 3, 12, 12, dtype=torch.float64)
    expected = model(low, (48, 48))

    def plain(q, k, v):
        logits = torch.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1] ** 0.5
        return torch.einsum("bhqk,bkhd->bqhd", logits.softmax(-1), v)

    monkeypatch.setattr("oasis_cli.model.attention.global_attention", plain)
    torch.testing.assert_close(model(low, (48, 48)), expected, atol=1e-12, rtol=0)


def test_routing_survives_a_checkpoint_bit_for_bit():
    model = trained(toy())
    dense = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    low = torch.rand(1, 5, 3, 16, 16)
    table = HeadTable(("wgiw", "igwg"))
    model.dit.route(table)
    state = model.checkpoint_state()
    for name, tensor in dense.items():
        assert torch.equal(state[name], tensor), name

    again = Oasis.from_checkpoint(model.config, state, table)

    assert again.dit.table == table
    assert torch.equal(again(low, (32, 32)), model(low, (32, 32)))


@pytest.mark.parametrize("low_frames", [0, 1, 5])
@pytest.mark.parametrize("tile", [32, 72])
def test_tiled_decoding_equals_untiled(tile, low_frames):
    model = trained(toy(low_frames=low_frames)).double()
    clip = torch.rand(1, 5, 3, 128, 144, dtype=torch.float64)
    latent = torch.randn(1, 8, 2, 16, 18, dtype=torch.float64)
    torch.testing.assert_close(
        model.decode(latent, clip, tile), model.decode(latent, clip), atol=1e-13, rtol=0
    )


def _fields(config):
    return {name: getattr(config, name) for name in config.__slots__}


def test_the_paper_size_differs_by_config_alone():
    with torch.device("meta"):
        model = Oasis(PAPER)
    block = sum(p.numel() for p in model.dit.blocks[0].parameters())
    assert block == 9_446_400 + 9_446_400 + 3_072 + 27_535_616 + 6 * 1536
    fp16_megabytes = 2e-6 * sum(p.numel() for p in Oasis(SMALL).parameters())
    assert fp16_megabytes < 45


def test_a_config_survives_and_an_unknown_version_is_refused():
    assert OasisConfig.from_dict(SMALL.to_dict()) == SMALL
    with pytest.raises(WeightsError, match="version 9"):
        OasisConfig.from_dict(SMALL.to_dict() | {"version": 9})
    with pytest.raises(WeightsError, match="cannot be read"):
        OasisConfig.from_dict(SMALL.to_dict() | {"colour": "blue"})


def test_a_checkpoint_of_before_these_options_loads_as_it_was():
    model = trained(toy())
    data = model.config.to_dict()
    newer = {
        "dit": ("patch", "zero_head", "ffn_kernel"),
        "decoder": ("frame_channels", "low_frames"),
    }
    for part, new in newer.items():
        for name in new:
            del data[part][name]
    config = OasisConfig.from_dict(data)
    assert config == model.config
    assert (config.dit.patch, config.dit.ffn_kernel) == (2, 1)
    assert (config.decoder.frame_channels, config.decoder.low_frames) == (64, 1)
    again = Oasis.from_checkpoint(config, model.checkpoint_state(), model.dit.table)
    low = torch.rand(1, 5, 3, 16, 16)
    assert torch.equal(again(low, (32, 32)), model(low, (32, 32)))
