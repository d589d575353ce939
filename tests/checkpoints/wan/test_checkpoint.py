"""What the import makes, against the networks of diffusers it came from."""

import copy
import json

import pytest
import torch
from safetensors import safe_open
from typer.testing import CliRunner

from oasis_cli.checkpoints.format import describe, load_model, networks
from oasis_cli.cli.main import app
from oasis_cli.errors import UsageError
from oasis_cli.model.attention import geometry
from oasis_cli.model.decoders.tiny import TinyDecoder
from oasis_cli.model.decoders.wan import WanDecoder
from oasis_cli.model.dit import modulate
from oasis_cli.model.folding import fold
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.model.oasis import PAPER
from oasis_cli.train.latents import Encoder

TIME = 400.0
LAYOUTS = ("diffusers", "original")


def oasis(*args):
    return CliRunner().invoke(app, [str(a) for a in args])


def imported(source, out, *args):
    """Import and load. Returns the network, all of its parameters writable."""
    result = oasis("weights", "import", source, "-o", out, *args)
    assert result.exit_code == 0, result.output
    return load_model(str(out))


@pytest.fixture(scope="module")
def ours(published, tmp_path_factory):
    """The network imported from either layout, and the file."""
    folder = tmp_path_factory.mktemp("imported")
    files = {name: folder / f"{name}.safetensors" for name in LAYOUTS}
    models = {
        name: imported(getattr(published, name), file, "--eos", published.end)
        for name, file in files.items()
    }
    return models, files


def close(got, expected, atol):
    torch.testing.assert_close(got, expected, atol=atol, rtol=0)


def context(wan, rows=512, end=True):
    """The encoded empty prompt as Wan2.1's own program makes it: one row, then zeros."""
    text = torch.zeros(1, rows, wan.end.shape[0])
    if end:
        text[0, 0] = wan.end
    return text


def velocity(wan, latent, text):
    """What diffusers computes, step by step as published."""
    time = torch.full(latent.shape[:1], TIME)
    return wan.transformer(latent, time, text.expand(len(latent), -1, -1)).sample


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_transformer_equals_diffusers_with_all_512_rows(wan, ours, layout):
    latent = torch.randn(2, 16, 3, 6, 10)
    expected = velocity(wan, latent, context(wan))
    assert expected.std() > 0.3
    close(ours[0][layout].dit(latent), expected, 1e-5)


def test_without_the_end_of_sentence_the_prompt_is_zeros(wan, published, tmp_path):
    model = imported(published.diffusers, tmp_path / "out.safetensors")
    latent = torch.randn(1, 16, 2, 4, 6)
    close(model.dit(latent), velocity(wan, latent, context(wan, end=False)), 1e-5)
    with_end = velocity(wan, latent, context(wan))
    assert (with_end - velocity(wan, latent, context(wan, end=False))).abs().max() > 1e-4


def test_both_layouts_give_the_same_tensors(ours):
    _, files = ours
    with safe_open(files["diffusers"], "pt") as one, safe_open(files["original"], "pt") as other:
        assert set(one.keys()) == set(other.keys())
        for name in one.keys():  # noqa: SIM118
            assert torch.equal(one.get_tensor(name), other.get_tensor(name)), name


def test_an_all_global_block_equals_diffusers_whatever_the_order_of_heads(wan, ours):
    """On a grid that every window and frame covers, each routing is plain attention, permuted."""
    model = copy.deepcopy(ours[0]["original"])
    grid = (1, 3, 3)
    geo = geometry(grid, PAPER.dit.window, 12, windowed=True, device=torch.device("cpu"))
    x = torch.randn(2, 9, 48)
    theirs = wan.transformer
    rotary = theirs.rope(torch.zeros(1, 16, 1, 6, 6))
    _, shared, text, _ = theirs.condition_embedder(torch.tensor([TIME]), context(wan), None)
    shared, text = shared.unflatten(1, (6, -1)).expand(2, -1, -1), text.expand(2, -1, -1)
    for groups in ("gggg", "wgiw", "igwg"):
        model.dit.route(HeadTable((groups, groups)))
        for ours_, theirs_ in zip(model.dit.blocks, theirs.blocks, strict=True):
            shift, scale = ours_.modulation[:2]
            h = modulate(x, shift, 1 + scale, 1e-6)
            found, _ = ours_(x, h, geo, model.dit.context, model.dit.modulation)
            close(found, theirs_(x, text, shared, rotary), 1e-5)


def time_embedding(wan, time):
    """The published MLPs in float32 on waves made in float64: for the head and for the blocks."""
    rates = 10000 ** (-torch.arange(128, dtype=torch.float64) / 128)
    waves = torch.cat([(time * rates).cos(), (time * rates).sin()]).float()
    theirs = wan.transformer.condition_embedder
    embedded = theirs.time_embedder(waves)
    return embedded, theirs.time_proj(theirs.act_fn(embedded)).view(6, -1)


def test_the_constant_modulation_equals_the_time_mlp(wan, ours):
    theirs, dit = wan.transformer, ours[0]["diffusers"].dit
    embedded, shared = time_embedding(wan, TIME)
    # The waves of diffusers are made in float32, a little off at this time.
    close(theirs.condition_embedder(torch.tensor([TIME]), context(wan), None)[0][0], embedded, 1e-5)
    for ours_, theirs_ in zip(dit.blocks, theirs.blocks, strict=True):
        close(ours_.modulation, theirs_.scale_shift_table[0] + shared, 1e-6)
    close(dit.modulation, theirs.scale_shift_table[0] + embedded, 1e-6)


def test_rope_equals_diffusers(wan):
    cos, sin = wan.transformer.rope(torch.zeros(1, 16, 3, 8, 10))
    geo = geometry((3, 4, 5), PAPER.dit.window, 12, windowed=False, device=torch.device("cpu"))
    for ours, theirs in ((geo.cos, cos), (geo.sin, sin)):
        close(ours.repeat_interleave(2, dim=-1), theirs.flatten(0, 2), 2e-7)


@pytest.mark.parametrize("groups", ["gggg", "wgiw"])
def test_the_folded_network_computes_the_same(ours, groups):
    model = copy.deepcopy(ours[0]["diffusers"])
    model.dit.route(HeadTable((groups, groups)))
    latent = torch.randn(1, 16, 3, 8, 12)
    before = model.dit(latent)
    fold(model)
    assert not model.dit.modulation.any()
    for block in model.dit.blocks:
        assert block.modulation.sum(1).tolist() == [0, 0, 48, 0, 0, 48]
        assert torch.equal(block.cross.norm.weight, torch.ones(48))
    assert (model.dit(latent) - before).norm() <= 1e-4 * before.norm()


def test_folding_writes_a_checkpoint_of_the_same_network(ours, tmp_path):
    _, files = ours
    out = tmp_path / "folded.safetensors"
    result = oasis(
        "weights", "fold", "--model", files["original"], "-o", out, "--precision", "fp32"
    )
    assert result.exit_code == 0, result.output
    assert describe(str(out))["provenance"]["folded"]
    latent = torch.randn(1, 16, 1, 4, 4)
    plain, folded = (load_model(str(file)).dit(latent) for file in (files["original"], out))
    assert (folded - plain).norm() <= 1e-4 * plain.norm()


@pytest.mark.parametrize("name", ["x", "auto", "fp8"])  # 8 bits are made when a model is loaded
def test_folding_to_a_precision_that_no_file_holds_is_refused(ours, tmp_path, name):
    out = tmp_path / "folded.safetensors"
    result = oasis(
        "weights", "fold", "--model", ours[1]["original"], "-o", out, "--precision", name
    )
    assert result.exit_code == 2 and f"no tensors of precision '{name}'" in result.output
    assert "fp32, fp16, bf16" in result.output
    assert not out.exists()


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_decoder_equals_diffusers(wan, ours, layout):
    decoder = ours[0][layout].decoder
    latent = torch.randn(1, 16, 3, 2, 4)
    expected = wan.vae.decode(latent * decoder.std + decoder.mean).sample.transpose(1, 2)
    assert isinstance(decoder, WanDecoder) and expected.std() > 0.01
    close(decoder.decode(latent).clamp(-1, 1), expected, 1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_encoder_lies_beside_the_network(wan, ours, layout):
    encoder = Encoder(ours[1][layout], torch.device("cpu"))
    clip = torch.rand(1, 5, 3, 16, 24) * 2 - 1
    mean, std = encoder.net.mean, encoder.net.std
    expected = (wan.vae.encode(clip.transpose(1, 2)).latent_dist.mean - mean) / std
    close(encoder(clip), expected, 1e-5)


def test_the_file_says_what_it_is(ours, published):
    about = describe(str(ours[1]["original"]))
    sources = about["provenance"]["sources"]
    assert about["name"] == "wan2.1-start"
    assert about["config"]["sigma"] == 0.4 and about["config"]["dit"]["context_rows"] == 512
    assert sources["transformer"]["layout"] == sources["autoencoder"]["layout"] == "original"
    assert sources["transformer"]["from"] == str(published.original)
    assert set(sources["autoencoder"]["sha256"]) == {"Wan2.1_VAE.pth"}
    assert set(sources) == {"transformer", "autoencoder", "end of sentence"}


def test_a_tiny_decoder_beside_the_autoencoders(ours, published, tmp_path):
    out = tmp_path / "out.safetensors"
    model = imported(published.diffusers, out, "--eos", published.end, "--tiny-decoder",
                     published.tiny)  # fmt: skip
    assert isinstance(model.decoder, WanDecoder)
    for name, tensor in ours[0]["diffusers"].state_dict().items():
        if not name.startswith("to_latent"):
            assert torch.equal(model.state_dict()[name], tensor)

    other = load_model(str(out), decoder="tiny")
    raw = torch.load(published.tiny, weights_only=True)
    assert isinstance(other.decoder, TinyDecoder)
    assert other.decoder.config.widths == (12, 8, 6, 4)
    for name, tensor in other.decoder.state_dict().items():
        assert torch.equal(tensor, raw[name.replace("layers.", "decoder.", 1)])
    for name, tensor in other.dit.state_dict().items():
        assert torch.equal(tensor, model.dit.state_dict()[name])
    Encoder(out, torch.device("cpu"))  # the autoencoder's, for training

    folded = tmp_path / "folded.safetensors"
    assert oasis("weights", "fold", "-o", folded, "--model", out).exit_code == 0
    for file in (out, folded):
        assert list(networks(str(file))) == ["wan", "tiny"]
    shown = json.loads(oasis("weights", "show", folded).stdout)
    assert shown["config"]["decoder"]["kind"] == "wan"
    assert shown["decoders"]["tiny"]["widths"] == [12, 8, 6, 4]


def test_a_tiny_decoder_alone(published, tmp_path):
    source = published.diffusers / "transformer"
    model = imported(source, tmp_path / "out.safetensors", "--tiny-decoder", published.tiny)
    assert isinstance(model.decoder, TinyDecoder)
    with pytest.raises(UsageError, match="no decoder called 'wan'") as refused:
        load_model(str(tmp_path / "out.safetensors"), decoder="wan")
    assert refused.value.hint == "it has tiny"


def test_a_tiny_decoder_that_makes_more_frames_keeps_the_last(published, tmp_path):
    raw = torch.load(published.tiny, weights_only=True)
    more = {**raw, "decoder.7.conv.weight": torch.randn(24, 12, 1, 1)}
    torch.save(more, tmp_path / "tiny.pth")
    model = imported(
        published.diffusers / "transformer",
        tmp_path / "out.safetensors",
        "--tiny-decoder",
        tmp_path / "tiny.pth",
    )
    assert torch.equal(model.decoder.layers[7].conv.weight, more["decoder.7.conv.weight"][12:])


def test_without_an_autoencoder_the_decoder_is_new(published, tmp_path):
    source = published.diffusers / "transformer"
    model = imported(source, tmp_path / "out.safetensors")
    low = torch.rand(1, 2, 3, 8, 8) * 2 - 1
    assert model.config.decoder == PAPER.decoder
    assert torch.equal(model(low, (16, 16)), bicubic_upsample(low, (16, 16)))
    again = imported(source, tmp_path / "again.safetensors")
    for name, tensor in model.state_dict().items():
        assert torch.equal(again.state_dict()[name], tensor)


def test_another_sigma_is_another_time(wan, published, tmp_path):
    model = imported(published.original, tmp_path / "out.safetensors", "--sigma", 0.7)
    embedded, _ = time_embedding(wan, 700.0)
    close(model.dit.modulation, wan.transformer.scale_shift_table[0] + embedded, 1e-6)
    assert model.config.sigma == 0.7
    assert (
        "700 of 1000"
        in oasis(
            "weights",
            "import",
            published.original,
            "-o",
            tmp_path / "b.safetensors",
            "--sigma",
            0.7,
        ).output
    )


def test_imported_weights_do_not_upscale_and_the_import_says_so(
    ours, published, tiny_clip, tmp_path
):
    out = tmp_path / "out.safetensors"
    said = oasis("weights", "import", published.original, "-o", out).output
    assert "They do not upscale" in said and f"--start-from {out} --encoder {out}" in said
    for command in (
        ["upscale", tiny_clip, tmp_path / "x.mp4"],
        ["batch", tmp_path, tmp_path / "o"],
    ):
        result = oasis(*command, "--model", out)
        assert result.exit_code == 1, result.output
        assert "does not upscale" in " ".join(result.output.split())
    shown = json.loads(oasis("weights", "show", out).stdout)
    assert shown["provenance"]["upscales"] is False
