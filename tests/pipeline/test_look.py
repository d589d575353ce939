"""`--look`: which decoder draws."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from oasis_cli import Options, Upscaler
from oasis_cli.checkpoints.format import load_model, looks, save_model
from oasis_cli.cli.main import app
from oasis_cli.errors import OasisError, UsageError
from oasis_cli.jobs.batch import batch
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.jobs.folders import FolderOptions
from oasis_cli.jobs.items import BatchOptions
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.model.decoders.kinds import build
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.pipeline import plan as planning
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions

OPTIONS = Options(
    scale=1, device="cpu", precision="fp32", encode=EncodeOptions(codec="ffv1"),
    windows=WindowOptions(frames=5, overlap=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def weights(tiny_weights, tmp_path_factory):
    """A checkpoint of two looks, and of another kind of decoder for little memory."""
    torch.manual_seed(1)
    network = load_model(str(tiny_weights))
    sharp = build(network.config.decoder)
    for weight in sharp.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    tiny = build(TinyConfig(latent_channels=network.config.dit.latent_channels))
    path = tmp_path_factory.mktemp("looks") / "looks.safetensors"
    save_model(network, path, name="looks", provenance={}, others={"sharp": sharp, "tiny": tiny})
    return str(path)


@pytest.fixture
def made(weights, make_clip, tmp_path, look):
    """made(name, **options): the frames of a file that was enlarged."""
    source = make_clip(frames=3)

    def make(name, **options):
        Upscaler(replace(OPTIONS, model=weights, **options)).file(source, tmp_path / name)
        return look.frames(tmp_path / name)

    return make


def test_a_look_is_the_decoder_of_its_name(made):
    """The usual one is the faithful one; a decoder that is named decides by itself."""
    usual, faithful = made("a.mkv"), made("b.mkv", look="faithful")
    sharp, named = made("c.mkv", look="sharp"), made("d.mkv", decoder="sharp")
    assert np.array_equal(usual, faithful) and np.array_equal(sharp, named)
    assert np.array_equal(made("e.mkv", decoder="fast"), faithful)
    assert not np.array_equal(faithful, sharp)


def test_a_decoder_for_little_memory_is_no_look(weights):
    assert list(looks(weights)) == ["faithful", "sharp"]
    with pytest.raises(UsageError, match="has no look 'tiny': it has faithful, sharp"):
        planning.known_networks(replace(OPTIONS, model=weights, look="tiny"))


@pytest.mark.parametrize("look, said", [("grainy", "it has faithful, sharp"), ("", "it has")])
@pytest.mark.parametrize("verb", ["upscale", "preview", "batch"])
def test_a_look_that_the_model_lacks_is_refused_before_any_work(
    weights, tiny_clip, tmp_path, verb, look, said
):
    inputs = {"upscale": [tiny_clip, tmp_path / "o.mkv"], "batch": [tmp_path, tmp_path / "out"]}
    words = inputs.get(verb) or [*inputs["upscale"], "--preview"]
    name = "batch" if verb == "batch" else "upscale"
    result = CliRunner().invoke(app, [name, *map(str, words), "--model", weights, "--look", look])
    assert result.exit_code == 2 and said in result.output
    assert len(result.output.splitlines()) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["in.mp4"]


def test_a_hint_names_the_models_that_have_a_look(tiny_clip, tmp_path):
    words = ["upscale", str(tiny_clip), str(tmp_path / "o.mkv"), "--model", "oasis-tiny"]
    for option in ("--look", "--decoder"):
        result = CliRunner().invoke(app, [*words, option, "sharp"])
        assert result.exit_code == 2 and "--model oasis-base has sharp" in result.output
    assert "; --model" not in CliRunner().invoke(app, [*words, "--look", "grainy"]).output


def test_batch_and_preview_draw_the_look(weights, make_clip, tmp_path):
    (tmp_path / "in").mkdir()
    source = make_clip("in/a.mp4", frames=3)
    ours = Upscaler(replace(OPTIONS, model=weights))
    plain, sharp = (
        ours.preview(source, tmp_path / f"{look}.png", look=look).picture
        for look in ("faithful", "sharp")
    )
    assert not torch.equal(plain, sharp)

    def status(look):
        wanted = replace(OPTIONS, model=weights, look=look)
        options = BatchOptions(folders=FolderOptions(), upscale=wanted, jobs=JobOptions())
        (found,) = batch(tmp_path / "in", tmp_path / "out", options, lambda event: None, Stop())
        return found.status

    looks_in_turn = ["faithful", "faithful", "sharp", "sharp"]
    assert [status(look) for look in looks_in_turn] == ["done", "skipped", "done", "skipped"]


def test_the_command_names_the_look(weights, tiny_clip, tmp_path):
    words = [tiny_clip, tmp_path / "o.mkv", "--model", weights, "--look", "sharp", "--dry-run"]
    printed = CliRunner().invoke(app, ["upscale", *map(str, words)]).stdout
    assert "the sharp look" in printed


def test_look_and_decoder_exclude_each_other():
    with pytest.raises(UsageError, match="exclude each other"):
        Options(look="sharp", decoder="tiny")


def test_little_memory_never_changes_the_look(weights, make_clip, tmp_path, monkeypatch):
    monkeypatch.setattr(planning, "free_memory", lambda device: 0)
    source = make_clip(frames=3)
    for look, decoders in {"faithful": {"fast", "tiny"}, "sharp": {"sharp"}}.items():
        options = replace(OPTIONS, model=weights, look=look, fit_windows=True)
        plan = Upscaler(options).plan(source, tmp_path / "out.mkv")
        assert plan.decoder in decoders


@pytest.mark.parametrize("begun, other", [("sharp", "faithful"), ("faithful", "sharp")])
def test_a_begun_job_keeps_its_look(weights, make_clip, tmp_path, monkeypatch, begun, other):
    monkeypatch.setattr("oasis_cli.pipeline.run.PROGRESS_EVERY", 0)
    source, target, stop = make_clip(frames=24), tmp_path / "out.mkv", Stop()
    ours = Upscaler(replace(OPTIONS, model=weights), report=lambda event: stopping(event, stop))
    jobs = JobOptions(resume=True, segment_frames=6, workers=1)
    with pytest.raises(OasisError, match="stopped"):
        ours.file(source, target, jobs=jobs, stop=stop, look=begun)
    with pytest.raises(OasisError, match=r"decoder \((sharp then, fast|fast then, sharp) now\)"):
        ours.file(source, target, look=other)
    assert ours.file(source, target).frames == 24


def stopping(event, stop):
    if event["event"] == "progress" and event["frames"]:
        stop.set(OasisError("stopped"))
