"""Presets and files that change them."""

from dataclasses import replace

import pytest

from oasis_cli.errors import UsageError
from oasis_cli.model.fusion import FusionConfig
from oasis_cli.train.presets import PRESETS, read_config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed = 'x'", "seed is int"),
        ("sead = 1", "no setting called 'sead'"),
        ("[data]\nbatchsize = 3", "data: there is no setting called 'batchsize'"),
        ("preset = 'paper'\ncore = 2", "cannot look at 16 pixels"),
        ("preset = 'huge'", "starts from 'huge'"),
        ("[model.fusion]\nheads = 5", "fusion: 48 channels do not split into 5"),
        ("seed = ", "not a TOML file"),
        ("[[stages]]\nname = 'a'\nshare = 0.5", "do not add up to 1"),
    ],
)
def test_a_wrong_configuration_is_one_sentence(tmp_path, text, sentence):
    path = tmp_path / "run.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=sentence):
        read_config(str(path))


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
