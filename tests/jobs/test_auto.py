"""`--model auto` over time: what was begun with a model goes on with it."""

import json
from dataclasses import asdict, replace
from hashlib import sha256

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from oasis_cli import JobOptions, Options, Upscaler
from oasis_cli.checkpoints import registry
from oasis_cli.checkpoints.format import load_model, save_model
from oasis_cli.cli.main import app
from oasis_cli.errors import OasisError, WeightsError
from oasis_cli.jobs.batch import batch
from oasis_cli.jobs.folders import FolderOptions, Item
from oasis_cli.jobs.items import BatchOptions, Record
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.pipeline import model_choice
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.devices import capabilities

GB = 10**9


@pytest.fixture
def card(monkeypatch, tmp_path, tiny_weights):
    """A small and a base model, and a card whose free bytes the test sets, where the run itself is
    on the CPU."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv(registry.FOLDER, str(folder))
    entries = {}
    for number, role in enumerate(("small", "base")):
        network = load_model(str(tiny_weights))
        for weight in network.parameters():
            weight.data += 0.02 * number * torch.randn_like(weight)
        save_model(network, folder / role, name=role, provenance={})
        usual = registry.entry_of(registry.DEFAULT)
        digest = registry.sha256(folder / role)
        entry = replace(usual, name=f"toy-{role}", role=role, file=f"{role}.st", sha256=digest)
        (folder / role).rename(folder / entry.fetched_name)
        entries[entry.name] = entry
    monkeypatch.setattr(registry, "_ENTRIES", entries)
    free = {"bytes": 5 * GB}
    cuda = replace(capabilities("cpu"), large_models=True)
    monkeypatch.setattr("oasis_cli.pipeline.run.PROGRESS_EVERY", 0)  # `stopped_early` waits for it
    monkeypatch.setattr(model_choice, "capabilities", lambda device: cuda)
    monkeypatch.setattr(model_choice, "free_memory", lambda device: free["bytes"])
    return free


OPTIONS = Options(
    scale=1, device="cpu", precision="fp32", encode=EncodeOptions(codec="ffv1"),
    windows=WindowOptions(frames=5, overlap=2),
)  # fmt: skip
JOBS = JobOptions(resume=True, segment_frames=6, workers=1)


def stopped_early(source, target):
    """Begin a job and stop it when something was made."""
    stop = Stop()

    def report(event):
        if event["event"] == "progress" and event["frames"]:
            stop.set(OasisError("stopped"))

    with pytest.raises(OasisError, match="stopped"):
        Upscaler(OPTIONS, report=report).file(source, target, jobs=JOBS, stop=stop)


def same(look, one, other):
    frames = look.frames(one), look.frames(other)
    return all(np.array_equal(a, b) for a, b in zip(*frames, strict=True))


def test_a_begun_job_keeps_its_model_whatever_auto_would_choose_now(
    card, make_clip, tmp_path, look
):
    source, target = make_clip(frames=24), tmp_path / "out.mkv"
    Upscaler(OPTIONS).file(source, tmp_path / "base.mkv")
    stopped_early(source, target)
    card["bytes"] = 1 * GB
    Upscaler(OPTIONS).file(source, tmp_path / "small.mkv")
    assert not same(look, tmp_path / "base.mkv", tmp_path / "small.mkv")

    again = Upscaler(OPTIONS).plan(source, target)
    assert again.options.model == "toy-base" and again.model_why == "this run was begun with it"
    afresh = Upscaler(OPTIONS).plan(source, target, JobOptions(resume=False))
    assert afresh.options.model == "toy-small"
    with pytest.raises(OasisError, match=r"another model \(toy-base then, toy-small now\)"):
        Upscaler(OPTIONS).file(source, target, model="toy-small")
    Upscaler(OPTIONS).file(source, target)
    assert same(look, target, tmp_path / "base.mkv")


def test_a_begun_job_whose_model_is_gone_says_how_to_get_it(card, make_clip, tmp_path):
    source, target = make_clip(frames=24), tmp_path / "out.mkv"
    stopped_early(source, target)
    registry.find("toy-base").unlink()
    with pytest.raises(WeightsError, match="toy-base are not on this machine"):
        Upscaler(OPTIONS).file(source, target)


def test_one_upscaler_stays_with_its_first_choice(card, make_clip, tmp_path):
    source, ours = make_clip(frames=3), Upscaler(OPTIONS)
    assert ours.plan(source, tmp_path / "a.mkv").options.model == "toy-base"
    card["bytes"] = 1 * GB  # the model itself takes memory
    assert ours.plan(source, tmp_path / "b.mkv").options.model == "toy-base"
    assert ours.plan(source, tmp_path / "b.mkv", model="toy-small").options.model == "toy-small"
    assert Upscaler(OPTIONS).plan(source, tmp_path / "b.mkv").options.model == "toy-small"


def test_a_batch_makes_nothing_anew_because_memory_changed(card, make_clip, tmp_path):
    (tmp_path / "in").mkdir()
    make_clip("in/a.mp4", frames=3)

    def status(model="auto"):
        options = BatchOptions(
            folders=FolderOptions(), upscale=replace(OPTIONS, model=model), jobs=JobOptions()
        )
        (found,) = batch(tmp_path / "in", tmp_path / "out", options, lambda event: None, Stop())
        return found.status

    assert [status(), status()] == ["done", "skipped"]
    card["bytes"] = 1 * GB
    assert status() == "skipped"
    assert [status("toy-small"), status("toy-small"), status()] == ["done", "skipped", "skipped"]


def test_records_from_before_there_were_looks_stay_valid(card, make_clip, tmp_path):
    named = replace(OPTIONS, model="toy-small")
    before = asdict(replace(named, encode=replace(named.encode, overwrite=False)))
    del before["look"]
    item = Item(make_clip(frames=3), tmp_path / "out.mkv")
    record = Record(tmp_path, item, named, "toy-small")
    made_with = record._facts("toy-small")["options"]
    assert made_with == sha256(json.dumps(before, default=str).encode()).hexdigest()
    sharp = Record(tmp_path, item, replace(named, look="sharp"), "toy-small")
    assert sharp._facts("toy-small")["options"] != made_with


def test_the_plan_says_which_model_and_why(card, tiny_clip, tmp_path):
    def dry_run(*more):
        words = ["upscale", tiny_clip, tmp_path / "out.mkv", "--dry-run", "--device", "cpu", *more]
        return CliRunner().invoke(app, [*map(str, words)]).stdout

    assert "auto: toy-base (5.0 GB of the card's memory are free)" in dry_run()
    assert "auto:" not in dry_run("--model", "toy-small")
    card["bytes"] = 1 * GB
    printed = dry_run()
    assert "auto: toy-small (1.0 GB of the card's memory are free, and toy-base takes 4)" in printed
    assert "note: toy-small is used" in printed
    facts = json.loads(dry_run("--json"))
    assert facts["model"] == "toy-small" and facts["model_why"].startswith("1.0 GB")
