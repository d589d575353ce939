"""Checkpoints from anywhere: what they claim is believed within bounds, and numbers are numbers."""

import copy
import json
import os
import random
import time

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from typer.testing import CliRunner

from oasis_cli.checkpoints.format import describe, load_model
from oasis_cli.cli.main import app
from oasis_cli.errors import OasisError, WeightsError
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.model.oasis import PAPER, SMALL, OasisConfig
from oasis_cli.pipeline.plan import Options
from oasis_cli.pipeline.run import upscale

EDITS = int(os.environ.get("OASIS_TEST_EDITS", "120"))
SEED = int(os.environ.get("OASIS_TEST_SEED", "25"))


def opened(path):
    """The tensors and the metadata of a checkpoint."""
    with safe_open(path, "pt") as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118


@pytest.fixture
def changed(tiny_weights, tmp_path):
    """changed(tensors=..., metadata=...): a copy of a toy checkpoint after both were edited."""

    def make(tensors=lambda state: None, metadata=lambda data: None):
        state, data = opened(tiny_weights)
        state = {name: x.float() for name, x in state.items()}
        tensors(state)
        metadata(data)
        path = tmp_path / "changed.safetensors"
        save_file(state, path, data)
        return path

    return make


@pytest.mark.parametrize("number", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_no_numbers_are_refused(changed, tiny_clip, tmp_path, number):
    def spoil(state):
        state["dit.patch.weight"][3, 1] = number

    path, target = changed(spoil), tmp_path / "out.mp4"
    with pytest.raises(WeightsError, match=r"NaN or infinity in dit\.patch\.weight"):
        load_model(str(path))
    words = ["upscale", tiny_clip, target, "--scale", "1", "--model", path]
    result = CliRunner().invoke(app, [*map(str, words)])
    assert result.exit_code != 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["changed.safetensors", "in.mp4"]


def test_weights_that_a_precision_cannot_hold_are_refused_with_that_word(changed):
    def large(state):
        state["dit.patch.weight"][0, 0] = 1e6

    path = changed(large)
    load_model(str(path))
    with pytest.raises(WeightsError, match="too large for float16") as caught:
        load_model(str(path), dtype=torch.float16)
    assert "--precision fp32" in caught.value.hint


@pytest.mark.parametrize("segments", [False, True])
def test_a_first_window_that_is_not_finite_ends_the_run(make_clip, tmp_path, segments):
    from oasis_cli.jobs.execute import carry_out
    from oasis_cli.media.input.probe import probe
    from oasis_cli.pipeline.plan import make_plan
    from oasis_cli.pipeline.threads import Stop

    def black(low, size, tile=None):
        return torch.full((1, low.shape[1], 3, *size), float("nan"))

    source, target = make_clip(frames=30), tmp_path / "out.mp4"
    with pytest.raises(OasisError, match="not finite") as caught:
        if segments:
            plan = make_plan(probe(source), str(target), Options(scale=1))
            jobs = JobOptions(resume=True, segment_frames=10)
            carry_out(plan, jobs, lambda event: None, Stop(), lambda plan: black)
        else:
            upscale(source, target, Options(scale=1), model=black)
    assert caught.value.exit_code == 1 and caught.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_known_configs_come_through_the_checks():
    for config in (SMALL, PAPER, OasisConfig()):
        assert OasisConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("dit", "layers", 10**7),
        ("dit", "layers", -1),
        ("dit", "heads", 0),
        ("dit", "width", 10**12),
        ("dit", "width", "256"),
        ("dit", "window", [3, 5]),
        ("dit", "window", [3, 5, 10**9 + 1]),
        ("dit", "zero_head", 1),
        ("dit", "eps", float("nan")),
        ("dit", "patch", True),
        ("dit", "unknown", 1),
        ("decoder", "low_blocks", 10**7),
        ("decoder", "memory", float("inf")),
        ("decoder", "kind", ["fast"]),
        ("", "dit_tile", -8),
        ("", "dit_overlap", 64),
        ("", "sigma", "0.4"),
        ("", "dit", None),
        ("", "decoder", []),
    ],
)
def test_a_config_out_of_bounds_is_refused_at_once(changed, part, key, value):
    def edit(data):
        config = json.loads(data["config"])
        (config[part] if part else config)[key] = value
        data["config"] = json.dumps(config)

    path = changed(metadata=edit)
    began = time.monotonic()
    with pytest.raises(WeightsError, match="config cannot be read"):
        load_model(str(path))
    assert time.monotonic() - began < 5


VALUES = [
    None, True, 0, 1, -1, 2, 3, 16, 511, 10**7, 1 << 63, 10**30, 0.5, 1e308, float("nan"), "", "x",
    "g", ["g"], [], [[]], {}, {"layers": ["gg"]}, {"kind": "wan"}, {"kind": "tiny"}, [3, 5, 5],
]  # fmt: skip


def places(value, way=()):
    """Every place of a description."""
    yield way
    for key, inside in (
        value.items() if isinstance(value, dict)
        else enumerate(value) if isinstance(value, list) else ()
    ):  # fmt: skip
        yield from places(inside, (*way, key))


def test_no_edit_of_a_description_gives_more_than_a_sentence(tiny_weights, tmp_path):
    """Each edit is refused in a sentence, or makes no difference to what is loaded."""
    draw, path = random.Random(SEED), tmp_path / "edited.safetensors"
    state, data = opened(tiny_weights)
    whole = {key: json.loads(x) if key != "format" else x for key, x in data.items()}
    tiny = {"kind": "tiny", "widths": [8, 8, 8, 8], "blocks": 1, "latent_channels": 4}
    whole["decoders"] = {"tiny": tiny}
    refused = loaded = 0
    for number in range(EDITS):
        about = copy.deepcopy(whole)
        way = draw.choice([place for place in places(about) if place])
        inside = about
        for key in way[:-1]:
            inside = inside[key]
        if draw.random() < 0.15:
            del inside[way[-1]]
        else:
            inside[way[-1]] = draw.choice(VALUES)
        texts = {k: x if k == "format" and isinstance(x, str) else json.dumps(x)
                 for k, x in about.items()}  # fmt: skip
        if number % 10 == 0:
            texts[draw.choice(list(texts))] = draw.choice(["[" * 100_000, "9" * 5000, "{", "\0"])
        save_file(state, path, texts)
        began = time.monotonic()
        try:
            describe(str(path))
            load_model(str(path))
            loaded += 1
        except OasisError as error:
            refused += 1
            assert len(str(error)) < 1000, (number, way)
        assert time.monotonic() - began < 20, (number, way)
    assert refused > EDITS / 2 and loaded, (refused, loaded)


def test_the_largest_config_within_bounds_is_refused_soon(changed):
    """What the bounds allow is still not in the file: that must not take long to find out."""

    def edit(data):
        config = json.loads(data["config"])
        config["dit"] |= {"layers": 512, "width": 1 << 15, "heads": 256, "ffn": 1 << 16}
        data["config"] = json.dumps(config)
        data["heads"] = json.dumps({"layers": ["g" * 256] * 512})

    path = changed(metadata=edit)
    began = time.monotonic()
    with pytest.raises(WeightsError, match="does not fit its own config"):
        load_model(str(path))
    assert time.monotonic() - began < 20


def test_no_part_stays_beside_a_checkpoint_that_cannot_be_written(tiny_weights, tmp_path):
    from oasis_cli.checkpoints.format import save_model

    model, target = load_model(str(tiny_weights)), tmp_path / f"{'x' * 250}.safetensors"
    save_model(model, tmp_path / "ok.safetensors", name="a", provenance={})
    with pytest.raises(WeightsError, match="cannot be written"):
        save_model(model, target, name="a", provenance={})
    assert [path.name for path in tmp_path.iterdir()] == ["ok.safetensors"]
