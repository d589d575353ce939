"""`oasis calibrate-heads`: the same command gives the same file; bad input gets one sentence."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from oasis_cli.checkpoints.format import describe, save_model
from oasis_cli.checkpoints.registry import find, registry, sha256
from oasis_cli.cli.main import app
from oasis_cli.errors import UsageError, WeightsError
from oasis_cli.evaluation.calibrate import CalibrateOptions, calibrate, crop_middle
from oasis_cli.evaluation.head_pictures import (
    decision,
    group_grid,
    kl_grid,
    regions,
    to_html,
    to_png,
)
from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.heads.assignment import Rule, choose_groups
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.heads.table_file import SEAL, dump, load_table, read_document, seal
from oasis_cli.model.oasis import Oasis, OasisConfig


def silent(event):
    pass


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    """A checkpoint with strong enough attention that heads differ."""
    return write_model(tmp_path_factory.mktemp("dense") / "dense.safetensors")


def write_model(path, *, heads=3, window=(3, 5, 5), table=None, provenance=None):
    torch.manual_seed(0)
    dit = DiTConfig(
        width=24 * heads, layers=2, heads=heads, ffn=32, latent_channels=4, gate=1, window=window
    )
    small = {"low_width": 8, "low_blocks": 1, "high_width": 8, "high_blocks": 1}
    model = Oasis(OasisConfig(dit=dit, decoder=DecoderConfig(latent_channels=4, **small)))
    for attention in model.dit.attentions:
        torch.nn.init.normal_(attention.q_norm, 1.5)
        torch.nn.init.normal_(attention.k_norm, 1.5)
    if table:
        model.dit.route(HeadTable.repeat(table, 2))
    save_model(model, path, name=path.stem, provenance=provenance or {})
    return path


def options(dense, **changes):
    return CalibrateOptions(
        **{"model": str(dense), "frames": 9, "queries": 32, "resamples": 50}
        | {"rule": Rule(budget=0.7)}
        | changes
    )


@pytest.fixture
def document(dense, make_clip):
    return calibrate([make_clip(frames=20)], options(dense, parts=2), silent)


def run(*arguments):
    return CliRunner().invoke(app, ["calibrate-heads", *(str(argument) for argument in arguments)])


def test_the_command_writes_the_same_bytes_every_time(dense, make_clip, tmp_path):
    clip = make_clip(frames=20)
    common = [clip, "--model", dense, "--frames", 9, "--parts", 2, "--budget", 0.7]
    common += ["--resamples", 50, "--queries", 32, "--device", "cpu"]
    threads = torch.get_num_threads()
    results = []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            results.append(run(*common, "-o", tmp_path / f"{number}.json"))
    finally:
        torch.set_num_threads(threads)
    assert [result.exit_code for result in results] == [0, 0], results[0].output
    first, second = ((tmp_path / f"{number}.json").read_bytes() for number in (1, 2))
    assert first == second
    table = load_table(tmp_path / "1.json", describe(str(dense)), sha256(dense))
    assert len(table.layers) == 2
    assert "layer" in results[0].stdout
    assert "rule budget" in results[0].stdout


def test_a_document_says_what_it_was_made_from(document, dense):
    assert document["schema"] == "asr-table/1"
    assert document["model"]["sha256"] == sha256(dense)
    assert [clip["first_frame"] for clip in document["clips"]] == [0, 9]
    assert document["clips"][0]["size"] == [128, 96]
    assert document["grid"] == [3, 6, 8]
    assert document["cost"]["grid"] == [3, 32, 32]
    assert document[SEAL] == seal(document)
    for row in document["layers"]:
        for name in ("group", "kl_intra", "kl_window", "mass_intra", "mass_window", "p_same"):
            assert len(row[name]) == 3
        for (low, high), kl in zip(row["ci_intra"], row["kl_intra"], strict=True):
            assert low <= kl <= high
        assert min(row["kl_intra"] + row["kl_window"]) >= 0
    assert json.loads(dump(document)) == document


def test_another_seed_looks_at_other_tokens(dense, make_clip):
    clip = make_clip(frames=9)
    one, two = (calibrate([clip], options(dense, seed=seed), silent) for seed in (0, 1))
    assert one["layers"][0]["kl_intra"] != two["layers"][0]["kl_intra"]


def test_without_clips_the_sample_is_used(dense):
    said = []
    document = calibrate([], options(dense, scale=1, queries=8, resamples=5), said.append)
    assert [clip["id"] for clip in document["clips"]] == ["demo.mp4"] * 3
    assert "better" in said[0]["text"]


def test_a_routed_model_is_measured_with_a_warning(tmp_path, make_clip):
    routed = write_model(tmp_path / "routed.safetensors", table="giw")
    said = []
    calibrate([make_clip(frames=9)], options(routed), said.append)
    assert any("routed heads" in event["text"] for event in said)


def test_large_pictures_are_looked_at_in_the_middle():
    low = torch.arange(400.0).expand(1, 1, 300, 400)
    assert crop_middle(low, 4).shape[-2:] == (180, 320)
    assert crop_middle(low, 4)[0, 0, 0, 0] == 40
    assert crop_middle(low.transpose(-1, -2), 4).shape[-2:] == (320, 180)
    assert crop_middle(low, 1).shape == low.shape


# Tables and the checkpoints they fit ---------------------------------------------------------


@pytest.fixture
def table_file(document, tmp_path):
    path = tmp_path / "heads.json"
    path.write_text(dump(document))
    return path


def load_for(path, checkpoint):
    return load_table(path, describe(str(checkpoint)), sha256(checkpoint))


def test_a_table_fits_its_model_and_what_descends_from_it(table_file, dense, tmp_path):
    child = write_model(
        tmp_path / "child.safetensors",
        table="giw",
        provenance={"stages": [{"dense": sha256(dense)}]},
    )
    assert load_for(table_file, child) == load_for(table_file, dense)


def test_a_table_can_name_a_model_that_does_not_tell_where_it_is_from(dense, tmp_path, make_clip):
    child = write_model(tmp_path / "child.safetensors", table="giw", provenance={"seed": 7})
    document = calibrate([make_clip(frames=9)], options(dense, also_for=(str(child),)), silent)
    (tmp_path / "heads.json").write_text(dump(document))
    assert load_for(tmp_path / "heads.json", child) == load_for(tmp_path / "heads.json", dense)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"provenance": {"seed": 7}}, "was measured on dense .* does not descend from it"),
        ({"window": (3, 3, 3)}, "windows of 3x5x5 tokens; other has windows of 3x3x3"),
        ({"heads": 2}, "2 layers of 3 heads; other has 2 layers of 2"),
    ],
)
def test_a_table_for_another_model_is_refused(table_file, tmp_path, changes, message):
    other = write_model(tmp_path / "other.safetensors", **changes)
    with pytest.raises(WeightsError, match=message):
        load_for(table_file, other)


def test_a_changed_table_is_refused_unless_its_seal_is_taken_out(document, dense, tmp_path):
    path = tmp_path / "heads.json"
    document["layers"][0]["group"] = ["g", "i", "w"]
    path.write_text(dump(document))
    with pytest.raises(WeightsError, match="was changed after it was written"):
        load_for(path, dense)
    del document[SEAL]
    path.write_text(dump(document))
    assert load_for(path, dense).layers[0] == "giw"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is not a head table"),
        ("", "is not a head table"),
        ("[]", "schema None"),
        ('{"schema": "asr-table/2"}', "schema 'asr-table/2'"),
        ('{"schema": "asr-table/1"}', "damaged head table"),
        ('{"schema": "asr-table/1", "model": 3, "window": 1, "layers": []}', "damaged head table"),
    ],
)
def test_a_corrupt_table_gets_one_sentence(text, message, dense, tmp_path):
    path = tmp_path / "heads.json"
    path.write_text(text)
    with pytest.raises(WeightsError, match=message):
        load_for(path, dense)


SHIPPED = sorted((Path(__file__).parents[1] / "weights" / "heads").glob("*.json"))


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_shipped_tables_are_whole_and_fit_the_bundled_models(path):
    document = read_document(path)
    assert SEAL in document
    assert dump(document) == path.read_text()
    known = registry()
    for name in {document["model"]["name"], path.stem} & known.keys():
        if known[name].path.is_file():
            assert load_table(path, describe(name), sha256(find(name)))


def test_a_missing_table_is_wrong_usage(dense, tmp_path):
    with pytest.raises(UsageError, match="there is no head table"):
        load_for(tmp_path / "none.json", dense)


# Pictures ------------------------------------------------------------------------------------


def text_of(grid):
    from rich.console import Console

    console = Console(width=200, record=True, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file:
        console.print(grid)
    return console.export_text()


def test_pictures_are_drawn_from_the_document_alone(document):
    read = json.loads(dump(document))
    assert to_png(read).startswith(b"\x89PNG")
    page = to_html(read)
    assert page.count("<td") == 6
    assert page.count("<circle") == 6
    assert "http" not in page
    assert "<script" not in page
    shown = text_of(kl_grid(read))
    assert "head 2" in shown
    assert f"{read['layers'][1]['kl_window'][2]:.1f}" in shown
    assert text_of(group_grid(["giw"])).split()[-3:] == ["g", "i", "w"]


@pytest.mark.parametrize("rule", ["budget", "threshold", "argmin"])
def test_the_borders_drawn_are_those_of_the_rule(rule, document, dense, make_clip):
    wanted = Rule(name=rule, budget=0.7, min_global=0)
    drawn = calibrate([make_clip(frames=9)], options(dense, rule=wanted), silent)
    decide = decision(drawn)
    for row in drawn["layers"]:
        cells = zip(row["kl_intra"], row["kl_window"], row["group_before_fallback"], strict=True)
        assert all(decide(intra, window) == group for intra, window, group in cells)
    if rule != "budget":
        kl = torch.rand(2, 50, 1) * 3
        groups = choose_groups(kl[None], (1.0, 0.2, 0.1), wanted)[0].flatten().tolist()
        assert [decide(*pair) for pair in kl[..., 0].T.tolist()] == ["giw"[g] for g in groups]
    assert len(regions(drawn)[2]) == 60


def test_a_proportion_has_no_borders(dense, make_clip):
    rule = Rule(name="proportion", proportion=(1, 1, 1))
    drawn = calibrate([make_clip(frames=9)], options(dense, rule=rule), silent)
    assert decision(drawn) is None
    assert to_png(drawn)
    assert "<svg" in to_html(drawn)


def test_the_command_draws_what_is_asked_for(dense, make_clip, tmp_path):
    target = tmp_path / "heads.json"
    arguments = [make_clip(frames=9), "--model", dense, "-o", target, "--budget", 0.7]
    arguments += ["--queries", 8, "--resamples", 5, "--plot", tmp_path / "heads.png", "--html"]
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.output
    assert {path.name for path in tmp_path.iterdir()} >= {"heads.json", "heads.png", "heads.html"}
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert events[-1]["event"] == "done"
    again = run(*arguments)
    assert again.exit_code == 1
    assert "is already there" in again.stderr
    assert not list(tmp_path.glob(".*.part"))


# Bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.mp4"], 2, "none.mp4 does not exist"),
        (["."], 2, "is a directory"),
        (["short.mp4"], 2, "short.mp4 has 3 frames; calibration needs 5"),
        (["text.mp4"], 1, "is not a video"),
        (["good.mp4", "--frames", "4"], 2, "clips of 4 frames are too short"),
        (["good.mp4", "--rule", "best"], 2, "there is no rule 'best'"),
        (["good.mp4", "--budget", "2"], 2, "a budget is a share"),
        (["good.mp4", "--budget", "0.01"], 2, "a budget of 1% cannot be met"),
        (["good.mp4", "--rule", "proportion", "--proportion", "1,2"], 2, "is not a proportion"),
        (["good.mp4", "--rule", "proportion", "--proportion", "1,1,9"], 2, "does not add up"),
        (["good.mp4", "--scale", "9"], 2, "a scale of 9 is not possible"),
        (["good.mp4", "--model", "nobody"], 2, "there is no model called 'nobody'"),
        (["good.mp4", "-o", "no/where.json"], 2, "the folder no does not exist"),
        (["good.mp4", "-o", "."], 2, "is a directory"),
        (["good.mp4", "--device", "tpu"], 2, "'tpu' is not a device"),
    ],
)
def test_bad_input_gets_one_sentence(
    arguments, code, message, dense, make_clip, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_clip("good.mp4", frames=9)
    make_clip("short.mp4", frames=3)
    Path("text.mp4").write_text("not a video")
    defaults = [] if "--model" in arguments else ["--model", dense]
    result = run(*arguments, *defaults, "--queries", 8, "--resamples", 5)
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.count("error:") == 1
    assert "Traceback" not in result.stderr
    assert not Path("heads.json").exists()


def test_pictures_without_matplotlib_say_what_to_install(dense, make_clip, tmp_path, monkeypatch):
    monkeypatch.setattr("oasis_cli.evaluation.head_pictures.find_spec", lambda name: None)
    result = run(make_clip(frames=9), "--model", dense, "--plot", tmp_path / "heads.png")
    assert result.exit_code == 1
    assert "matplotlib" in result.stderr


def test_the_command_imports_nothing_heavy():
    code = (
        "import sys, oasis_cli.cli.heads; sys.exit('torch' in sys.modules or 'av' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_upscale_uses_another_table(table_file, dense, tmp_path, make_clip):
    from oasis_cli.pipeline.run import Options, upscale

    clip = make_clip(frames=5)
    same = Options(scale=2, model=str(dense), heads=str(table_file), device="cpu")
    assert upscale(clip, tmp_path / "out.mp4", same).frames == 5
    other = write_model(tmp_path / "other.safetensors", provenance={"seed": 7})
    wrong = Options(scale=2, model=str(other), heads=str(table_file), device="cpu")
    with pytest.raises(WeightsError, match="does not descend"):
        upscale(clip, tmp_path / "never.mp4", wrong)
    assert not (tmp_path / "never.mp4").exists()
