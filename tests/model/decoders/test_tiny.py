"""The tiny decoder, and the contract that all decoders share."""

import json

import pytest
import torch
import torch.nn.functional as F

from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.decoders.tiny import TinyConfig, TinyDecoder
from oasis_cli.model.decoders.wan import WanVAEConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.oasis import Oasis, OasisConfig

TINY = TinyConfig(widths=(12, 8, 6, 4), blocks=2)
DECODERS = {
    "fast": DecoderConfig(
        latent_channels=16, low_width=8, low_blocks=1, high_width=8, high_blocks=1
    ),
    "tiny": TINY,
    "wan": WanVAEConfig(width=4),
}


def network(kind):
    torch.manual_seed(0)
    dit = DiTConfig(width=24, layers=1, heads=2, ffn=24, latent_channels=16)
    model = Oasis(OasisConfig(dit=dit, decoder=DECODERS[kind])).double().eval()
    if kind == "fast":
        torch.nn.init.normal_(model.decoder.last.weight, std=0.1)
    return model.requires_grad_(False)


def close(got, expected, atol=1e-12):
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


def plain_tiny(decoder, latent):
    """taew2_1's decoder as its layers are listed, one frame at a time. latent: (1, C, T, h, w)."""
    frames = [3 * torch.tanh(x / 3) for x in latent[0].transpose(0, 1).split(1)]
    for layer in decoder.layers:
        kind = type(layer).__name__
        if kind == "MemoryBlock":
            before = [torch.zeros_like(frames[0]), *frames[:-1]]
            a, b, c = layer.conv[0], layer.conv[2], layer.conv[4]
            frames = [
                F.relu(c(F.relu(b(F.relu(a(torch.cat([x, past], 1)))))) + x)
                for x, past in zip(frames, before, strict=True)
            ]
        elif kind == "Grow":
            frames = [part for x in frames for part in layer.conv(x).chunk(layer.times, 1)]
        else:
            frames = [layer(x) for x in frames]
    return 2 * torch.stack(frames, 1)[:, 3:] - 1


def test_the_tiny_decoder_equals_its_layers_one_frame_at_a_time():
    torch.manual_seed(0)
    decoder = TinyDecoder(TINY).double()
    latent = torch.randn(1, 16, 4, 3, 5, dtype=torch.float64)
    whole, _ = decoder.stream(latent)
    assert whole.shape == (1, 13, 3, 24, 40)
    close(whole, plain_tiny(decoder, latent))


@pytest.mark.parametrize("cut", [[1, 3], [2, 1, 1]])
def test_the_tiny_decoder_streams(cut):
    torch.manual_seed(0)
    decoder = TinyDecoder(TINY).double()
    latent = torch.randn(2, 16, 4, 3, 2, dtype=torch.float64)
    state, parts = None, []
    for some in latent.split(cut, dim=2):
        part, state = decoder.stream(some, state)
        parts.append(part)
    close(torch.cat(parts, dim=1), decoder.stream(latent)[0])


def test_the_tiny_decoder_has_the_published_size():
    with torch.device("meta"):
        decoder = TinyDecoder(TinyConfig())
    assert sum(p.numel() for p in decoder.parameters()) == 9_844_611


@pytest.mark.parametrize("kind", DECODERS)
def test_a_decoder_streams_tiles_and_crops_inside_the_network(kind):
    model = network(kind)
    low = torch.rand(1, 6, 3, 5, 6, dtype=torch.float64) * 2 - 1
    whole = model(low, (20, 24))
    assert whole.shape == (1, 6, 3, 20, 24)
    close(model(low, (20, 24), tile=16), whole)


@pytest.mark.parametrize("kind", DECODERS)
def test_tiles_with_the_halo_equal_the_whole(kind):
    model = network(kind)
    side = model.decoder.halo + 3
    latent = torch.randn(1, 16, 2, 1, 2 * side, dtype=torch.float64)
    clip = torch.rand(1, 5, 3, 8, 16 * side, dtype=torch.float64)
    close(model.decode(latent, clip, tile=8 * side), model.decode(latent, clip))


@pytest.mark.parametrize("kind", ["tiny", "wan"])
def test_a_decoder_of_its_own_pictures_does_not_see_the_bicubic_clip(kind):
    model = network(kind)
    latent = torch.randn(1, 16, 2, 2, 2, dtype=torch.float64)
    clips = torch.rand(2, 1, 5, 3, 16, 16, dtype=torch.float64)
    one, other = (clip + model.decode(latent, clip) for clip in clips)
    close(one, other)
    close(one, model.decoder.stream(latent)[0])


@pytest.mark.parametrize("kind", DECODERS)
def test_the_config_names_the_decoder(kind):
    config = network(kind).config
    assert OasisConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
