"""Presets and files that change them."""

from dataclasses import replace

import pytest

from oasis_cli.errors import UsageError
from oasis_cli.model.fusion import FusionConfig
from oasis_cli.train.presets import PRESETS, read_config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("sead = 1", "there is no setting called sead"),
        ("[data]\nbatchsize = 3", r"there is no setting called data\.batchsize"),
        ("preset = 'paper'\ncore = 2", "cannot look at 16 pixels"),
        ("preset = 'huge'", "preset cannot be 'huge'"),
        ("preset = ['small']", r"preset cannot be \['small'\]"),
        ("seed = " + "[" * 3000, "not a TOML file"),
        ("seed = 0 # \udcff", "not a TOML file"),
        ("[model.fusion]\nheads = 5", "fusion: 48 channels do not split into 5"),
        ("seed = ", "not a TOML file"),
        ("[[stages]]\nname = 'a'\nshare = 0.5", "do not add up to 1"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "run.toml"
    path.write_text(text, errors="surrogateescape")
    with pytest.raises(UsageError, match=sentence):
        read_config(str(path))


VALUES = {
    "whole": "3",
    "number": "0.5",
    "infinite": "inf",
    "no number": "nan",
    "huge": "1" + 400 * "0",
    "text": "'x'",
    "truth": "true",
    "date": "2026-01-01",
    "list": "[]",
    "list of lists": "[['x', [1]]]",
    "list of tables": "[{ name = 'a' }]",
    "table": "{ x = 3 }",
}
NUMBERS = {"whole", "number", "infinite"}
FITTING = {
    "seed": {"whole"},
    "ema": NUMBERS,
    "muon": {"truth"},
    "name": {"text"},
    "stages": {"list"},
    "betas": set(),
    "vgg_layers": {"list"},
    "data": set(),
    "data.batch": {"whole"},
    "data.scales": {"list"},
    "data.often": {"list"},
    "model": set(),
    "model.decoder": set(),
    "model.fusion": set(),
    "model.dit.window": set(),
    "model.sigma": NUMBERS,
    "rule.proportion": set(),
}


@pytest.mark.parametrize("key", FITTING)
def test_a_value_that_is_none_for_its_key_is_one_sentence_with_a_hint(tmp_path, key):
    path, written = tmp_path / "run.toml", []
    for kind in VALUES.keys() - FITTING[key]:
        path.write_text(f"{key} = {VALUES[kind]}")
        with pytest.raises(UsageError, match=rf"run\.toml: .*\b{key}") as caught:
            read_config(str(path))
        written.append(caught.value)
    assert all(len(str(error)) < len(str(path)) + 100 and error.hint for error in written)
    for kind in FITTING[key] - {"list"}:
        path.write_text(f"{key} = {VALUES[kind]}")
        read_config(str(path))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[[data]]\nbatch = 3", "data cannot be"),
        ("[stages]\nshare = 1.0", "stages cannot be"),
        ("stages = [3]", r"stages\[0\] cannot be 3"),
        ("[[stages]]\nshare = 1.0", r"stages\[0\] has no name"),
        ("[[stages]]\nname = 'a'\nshare = 1\nlosses = 3", r"stages\[0\]\.losses cannot be 3"),
        ("[[stages]]\nname = 'a'\nshare = 1\nrate = [1]", r"stages\[0\]\.rate cannot be \[1\]"),
        ("[data]\nscales = [[4, 'x']]", r"data\.scales\[0\]\[1\] cannot be 'x'"),
        ("[data]\nscales = [4, 1.0]", r"data\.scales\[0\] cannot be 4"),
        ("[model.fusion]\nheads = 0", "fusion: 48 channels do not split into 0"),
        ("[model.dit]\nheads = 0", "dit: width .* does not split into 0"),
        ("[model.dit.window]\nx = 1", r"model\.dit\.window cannot be"),
    ],
)
def test_tables_and_lists_in_the_wrong_place_are_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_config(str(path))


def test_whole_numbers_count_as_numbers_in_lists_too(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("ema = 1\nbetas = [0, 1]\n[data]\nscales = [[4, 1]]")
    config = read_config(str(path))
    assert repr((config.ema, config.betas, config.data.scales)) == "(1.0, (0.0, 1.0), ((4, 1.0),))"


def test_the_sharp_decoder_lies_beside_that_of_the_base_model():
    sharp, base = PRESETS["sharp"], PRESETS["base"]
    assert sharp.model == base.model  # what --start-from brings is not grown, and its latents stay
    assert sharp.only_decoder and sharp.look == "sharp"


def test_a_table_gives_a_model_a_fusion(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("preset = 'base'\n[model.fusion]\nwidth = 32")
    config = read_config(str(path))
    assert PRESETS["base"].model.fusion is None
    assert config.model == replace(PRESETS["base"].model, fusion=FusionConfig(width=32))


def test_presets_are_complete():
    assert read_config("small") is PRESETS["small"]
    with pytest.raises(UsageError, match="no preset"):
        read_config("nothing")
