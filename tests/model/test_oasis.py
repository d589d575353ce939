"""The whole network: shapes, what it is before training, streaming and tiling."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from einops import rearrange

from oasis_cli.errors import WeightsError
from oasis_cli.model.decoders import fast as fast_decoder
from oasis_cli.model.decoders.fast import DecoderConfig, FastDecoder
from oasis_cli.model.dit import DiT, DiTConfig
from oasis_cli.model.folding import fold
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.latent import ToLatent, pad
from oasis_cli.model.oasis import PAPER, SMALL, Oasis, OasisConfig
from oasis_cli.model.tiling import blended, spans
from oasis_cli.train.objective import Restorer


def toy(frame_channels=64, low_frames=1, **changes):
    torch.manual_seed(0)
    dit = {"width": 48, "layers": 2, "heads": 4, "ffn": 64, "latent_channels": 8, "gate": 0.5}
    config = OasisConfig(
        dit=DiTConfig(**dit | changes),
        decoder=DecoderConfig(
            latent_channels=8,
            low_width=16,
            low_blocks=2,
            high_width=8,
            high_blocks=2,
            frame_channels=frame_channels,
            low_frames=low_frames,
        ),
    )
    return Oasis(config).eval()


def trained(model):
    """As `model`, but with a decoder that no longer starts at zero."""
    torch.nn.init.normal_(model.decoder.last.weight, std=0.1)
    return model


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


def test_decoding_frame_by_frame_equals_decoding_at_once():
    model = trained(toy()).double()
    clip = torch.rand(2, 9, 3, 32, 48, dtype=torch.float64)
    features = model.decoder.frame_features(torch.randn(2, 8, 3, 4, 6, dtype=torch.float64))
    whole, _ = model.decoder(features, clip)
    state, parts = None, []
    for start, stop in ((0, 1), (1, 3), (3, 9)):
        part, state = model.decoder(features[:, start:stop], clip[:, start:stop], state)
        parts.append(part)
    torch.testing.assert_close(torch.cat(parts, dim=1), whole, atol=1e-13, rtol=0)


@pytest.mark.parametrize("chunk", [1, 2, 3, 4])
@pytest.mark.parametrize("low_frames", [0, 3, 5])
def test_a_clip_in_chunks_sees_the_frames_around_them(chunk, low_frames, monkeypatch):
    """What training computes, at once, is what enlarging computes, cut in time and in space."""
    monkeypatch.setattr(fast_decoder, "CPU_FRAMES", chunk)
    model = trained(toy(frame_channels=5, low_frames=low_frames)).double()
    clip = torch.rand(2, 9, 3, 32, 48, dtype=torch.float64) * 2 - 1
    with torch.inference_mode():
        whole = Restorer(model)(clip)
        torch.testing.assert_close(model(clip, (32, 48)), whole, atol=1e-12, rtol=0)
        torch.testing.assert_close(model(clip, (32, 48), 16), whole, atol=1e-12, rtol=0)


def test_the_frames_around_a_frame_stand_in_order_and_end_with_the_clip():
    """Against the join written down: each input channel's weight on one frame's pixels."""
    model = trained(toy(frame_channels=5, low_frames=5)).double()
    decoder = model.decoder
    joined = []
    decoder.join_low.register_forward_pre_hook(lambda _, args: joined.append(args[0]))
    clip = torch.rand(1, 5, 3, 16, 24, dtype=torch.float64)
    features = torch.randn(1, 5, 5, 2, 3, dtype=torch.float64)
    decoder(features, clip)
    for frame in range(5):
        seen = [min(max(frame + offset, 0), 4) for offset in (-2, -1, 0, 1, 2)]
        parts = [features[0, frame], *(F.pixel_unshuffle(clip[0, n], 8) for n in seen)]
        assert torch.equal(joined[0][frame], torch.cat(parts))


@pytest.mark.parametrize("low_frames", [0, 1, 5])
@pytest.mark.parametrize("tile", [32, 72])
def test_tiled_decoding_equals_untiled(tile, low_frames):
    model = trained(toy(low_frames=low_frames)).double()
    clip = torch.rand(1, 5, 3, 128, 144, dtype=torch.float64)
    latent = torch.randn(1, 8, 2, 16, 18, dtype=torch.float64)
    torch.testing.assert_close(
        model.decode(latent, clip, tile), model.decode(latent, clip), atol=1e-13, rtol=0
    )


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


def test_the_halo_is_the_receptive_field_and_not_more():
    """Move one latent position: nothing changes beyond the halo, something does at the halo."""
    decoder = trained(toy()).decoder.double()
    rows, halo = 2 * decoder.halo + 3, decoder.halo
    clip = torch.rand(1, 3, 3, 8, rows * 8, dtype=torch.float64)
    features = torch.randn(1, 3, 64, 1, rows, dtype=torch.float64)
    base, _ = decoder(features, clip)
    features[..., 0] += 1
    moved = (decoder(features, clip)[0] - base).abs().amax((0, 1, 2, 3)).unflatten(0, (-1, 8))
    reach = int((moved.amax(1) > 0).nonzero().max())
    assert halo - 1 <= reach <= halo


def test_the_past_reaches_the_present_and_the_future_does_not():
    decoder = FastDecoder(DecoderConfig(latent_channels=8, low_width=16, high_width=8)).double()
    torch.nn.init.normal_(decoder.last.weight)
    clip = torch.rand(1, 4, 3, 16, 16, dtype=torch.float64)
    features = torch.randn(1, 4, 64, 2, 2, dtype=torch.float64)
    before, _ = decoder(features, clip)
    changed = features.clone()
    changed[:, 2] += 1
    after, _ = decoder(changed, clip)
    moved = (after - before).abs().amax((0, 2, 3, 4)) > 0
    assert moved.tolist() == [False, False, True, True]


def test_latent_frame_zero_is_the_first_frame_four_times():
    to_latent = ToLatent(3 * 4 * 64)
    to_latent.linear.weight.data = torch.eye(768)
    to_latent.linear.bias.data.zero_()
    clip = torch.rand(1, 5, 3, 16, 16)
    latent = to_latent(clip).detach().unflatten(1, (3, 4, 8, 8))  # colour, frame, row, column
    for frame in range(4):
        assert torch.equal(latent[0, :, frame, 3, 5, 0, 0, 1], clip[0, 0, :, 3, 13])
        assert torch.equal(latent[0, :, frame, 3, 5, 1, 1, 0], clip[0, 1 + frame, :, 11, 5])


def test_padding_repeats_the_last_frame_and_the_edge():
    clip = torch.rand(1, 3, 3, 17, 16)
    padded = pad(clip)
    assert padded.shape == (1, 5, 3, 32, 16)
    assert torch.equal(padded[:, 4], padded[:, 2])
    assert torch.equal(padded[..., 31, :], padded[..., 16, :])


@pytest.mark.parametrize("length", [16, 64, 66, 90, 160, 270, 480])
def test_transformer_tiles_cover_everything_and_are_even(length):
    found = spans(length, 64, 4)
    assert found[0][0] == 0 and found[-1][1] == length
    assert len({stop - start for start, stop in found}) == 1
    assert all(stop - start <= 64 and start % 2 == 0 for start, stop in found)
    for (_, stop), (start, _) in zip(found[:-1], found[1:], strict=True):
        assert stop - start >= 4


def test_blended_tiles_of_a_pointwise_function_equal_the_function():
    x = torch.randn(1, 2, 3, 22, 30, dtype=torch.float64)
    torch.testing.assert_close(blended(torch.sin, x, 12, 4), x.sin(), atol=1e-12, rtol=0)


def test_blended_tiles_may_go_a_few_at_a_time():
    x, sizes = torch.randn(2, 2, 3, 22, 30, dtype=torch.float64), []

    def function(tiles):
        sizes.append(len(tiles))
        return tiles.cos()

    whole, some = blended(function, x, 12, 4), blended(function, x, 12, 4, most=4)
    assert torch.equal(some, whole)
    assert sizes[0] == sum(sizes[1:])
    assert sizes[1:-1] == [8] * (len(sizes) - 2)


def test_the_cross_attention_of_two_rows_equals_all_rows():
    config = DiTConfig(width=48, layers=1, heads=4, ffn=64, latent_channels=8, context_rows=512)
    from oasis_cli.model.dit import CrossAttention

    torch.manual_seed(0)
    cross = CrossAttention(config)
    x, context = torch.randn(1, 7, 48), torch.randn(2, 48)
    rows = torch.cat([context[1:], context[:1].expand(511, -1)])
    full = CrossAttention(DiTConfig(**{**_fields(config), "context_rows": 2}))
    full.load_state_dict(cross.state_dict())
    q, k, v = full.q(full.norm(x)), full.k(rows)[None], full.v(rows)[None]
    q = F.rms_norm(q, (48,), eps=1e-6)
    k = F.rms_norm(k, (48,), eps=1e-6)
    q, k, v = (y.unflatten(-1, (4, 12)).transpose(1, 2) for y in (q, k, v))
    out = full.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    torch.testing.assert_close(cross(cross.norm(x), context), out, atol=1e-5, rtol=0)


def _fields(config):
    return {name: getattr(config, name) for name in config.__slots__}


def test_the_paper_size_differs_by_config_alone():
    with torch.device("meta"):
        model = Oasis(PAPER)
    block = sum(p.numel() for p in model.dit.blocks[0].parameters())
    assert block == 9_446_400 + 9_446_400 + 3_072 + 27_535_616 + 6 * 1536
    fp16_megabytes = 2e-6 * sum(p.numel() for p in Oasis(SMALL).parameters())
    assert fp16_megabytes < 45


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


@pytest.mark.parametrize("changes", [{"ffn_kernel": 3}, {"context_rows": 512}, {}])
def test_folding_the_modulation_changes_nothing(changes):
    model = toy(**changes).double()
    for parameter in model.dit.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.dit.route(HeadTable(("wgiw", "igwg")))
    latent = torch.randn(1, 8, 3, 8, 12, dtype=torch.float64)
    before = model.dit(latent)
    fold(model)
    torch.testing.assert_close(model.dit(latent), before, atol=1e-9, rtol=1e-9)
    for block in model.dit.blocks:
        assert torch.equal(block.modulation[[2, 5]], torch.ones(2, 48, dtype=torch.float64))
        assert not block.modulation[:2].any()


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
