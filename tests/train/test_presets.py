"""Presets and files that change them."""

import pytest

from oasis_cli.errors import UsageError
from oasis_cli.train.presets import PRESETS, read_config


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("seed = 'x'", "seed is int"),
        ("sead = 1", "no setting called 'sead'"),
        ("[data]\nbatchsize = 3", "data: there is no setting called 'batchsize'"),
        ("preset = 'paper'\ncore = 2", "cannot look at 16 pixels"),
        ("preset = 'huge'", "starts from 'huge'"),
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


def test_presets_are_complete():
    assert read_config("small") is PRESETS["small"]
    with pytest.raises(UsageError, match="no preset"):
        read_config("nothing")
