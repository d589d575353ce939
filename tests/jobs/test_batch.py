import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from toys import nearest
from typer.testing import CliRunner

from oasis_cli.cli.main import app
from oasis_cli.errors import Interrupted, MediaError, OasisError, UsageError
from oasis_cli.jobs.batch import batch, check_results, watch
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.jobs.folders import FolderOptions, find_items
from oasis_cli.jobs.items import BatchOptions, untold, with_model
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.model.cuda_graph import CudaGraphModel
from oasis_cli.pipeline.plan import Options
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.torch_backend import TorchBackend
from oasis_cli.pipeline.windows import WindowOptions


def options(parallel=1, upscale=None, settle=0.0, **folders):
    return BatchOptions(
        folders=FolderOptions(**folders),
        upscale=upscale or Options(scale=1),
        jobs=JobOptions(),
        parallel=parallel,
        settle=settle,
    )


def go(source, target, wanted=None, events=None, model=nearest, stop=None):
    report = events.append if events is not None else lambda event: None
    return batch(source, target, wanted or options(), report, stop or Stop(), lambda plan: model)


def statuses(results):
    return {Path(r.source).name: r.status for r in results}


def tree(folder):
    return sorted(
        str(p.relative_to(folder))
        for p in folder.rglob("*")
        if p.is_file() and ".oasis-batch" not in p.parts
    )


@pytest.fixture
def folder(make_clip, tmp_path):
    """SRC with two clips, a nested one, a text and a hidden file."""
    source = tmp_path / "src"
    (source / "deep" / "er").mkdir(parents=True)
    clip = make_clip(frames=3)
    for name in ("a.mp4", "b.mkv", "deep/er/c.mov"):
        shutil.copy(clip, source / name)
    (source / "notes.txt").write_text("no video")
    (source / ".hidden.mp4").write_bytes(b"no")
    return source


def test_a_folder_is_mirrored(folder, tmp_path, look):
    target = tmp_path / "dst"
    results = go(folder, target, options(recursive=True, suffix="-x1"))

    assert tree(target) == ["a-x1.mp4", "b-x1.mkv", "deep/er/c-x1.mov"]
    assert set(statuses(results).values()) == {"done"}
    assert len(look.frames(target / "a-x1.mp4")) == 3


def test_not_recursive_unless_asked(folder, tmp_path):
    go(folder, tmp_path / "dst")
    assert tree(tmp_path / "dst") == ["a.mp4", "b.mkv"]


@pytest.mark.parametrize(("globs", "found"), [
    ({"include": ("*.mkv",)}, ["b.mkv"]),
    ({"exclude": ("deep/*",)}, ["a.mp4", "b.mkv"]),
    ({"include": ("*.txt",)}, ["notes.txt"]),
    ({"extension": ".mkv"}, ["a.mp4", "b.mkv", "deep/er/c.mov"]),
])  # fmt: skip
def test_globs(folder, tmp_path, globs, found):
    items, problems = find_items(folder, tmp_path / "dst", FolderOptions(recursive=True, **globs))
    assert [str(i.source.relative_to(folder)) for i in items] == found
    assert problems == []


def test_what_is_done_and_valid_is_skipped(folder, tmp_path):
    target = tmp_path / "dst"
    go(folder, target)
    before = (target / "a.mp4").stat().st_mtime_ns

    def fail(low, size, tile=None):
        raise AssertionError("nothing is left to do")

    assert statuses(go(folder, target, model=fail)) == {"a.mp4": "skipped", "b.mkv": "skipped"}
    assert (target / "a.mp4").stat().st_mtime_ns == before


def test_of_a_file_whose_process_died_only_what_was_made_is_told(folder, tmp_path):
    target, wanted = tmp_path / "dst", with_model(options())
    [item, other], _ = find_items(folder, target, wanted.folders)
    assert untold(item, target, wanted) is None
    made, *_ = go(folder, target, wanted)
    assert untold(item, target, wanted) == made and made.frames == 3
    later = untold(item, target, replace(wanted, run="another"))
    assert (later.status, later.frames) == ("skipped", 0)
    other.target.unlink()
    assert untold(other, target, wanted) is None


def test_what_changed_is_done_again(folder, make_clip, tmp_path):
    target = tmp_path / "dst"
    go(folder, target)
    shutil.copy(make_clip("new.mp4", frames=5), folder / "a.mp4")
    assert statuses(go(folder, target)) == {"a.mp4": "done", "b.mkv": "skipped"}

    (target / "b.mkv").unlink()
    assert statuses(go(folder, target)) == {"a.mp4": "skipped", "b.mkv": "done"}

    other = options(upscale=Options(scale=2))
    assert statuses(go(folder, target, other)) == {"a.mp4": "done", "b.mkv": "done"}


def test_a_file_that_is_not_ours_is_kept(folder, tmp_path):
    target = tmp_path / "dst"
    target.mkdir()
    (target / "a.mp4").write_bytes(b"precious")
    results = go(folder, target)
    assert statuses(results) == {"a.mp4": "failed", "b.mkv": "done"}
    assert "already there" in results[0].error
    assert (target / "a.mp4").read_bytes() == b"precious"

    overwrite = Options(scale=1, encode=EncodeOptions(overwrite=True))
    assert statuses(go(folder, target, options(upscale=overwrite)))["a.mp4"] == "done"


@pytest.mark.parametrize("parallel", [1, 3])
def test_one_bad_file_never_stops_the_rest(folder, make_clip, tmp_path, parallel):
    (folder / "0-empty.mp4").touch()
    (folder / "1-text.mp4").write_text("no video, whatever its name says" * 9)
    (folder / "2-gone.mp4").symlink_to(folder / "nowhere.mp4")
    shutil.copy(make_clip("cut.mp4", frames=4), folder / "3-cut.mp4")
    data = (folder / "3-cut.mp4").read_bytes()
    (folder / "3-cut.mp4").write_bytes(data[: len(data) // 2])
    events = []

    results = go(folder, tmp_path / "dst", options(parallel), events)

    found = statuses(results)
    assert [found[name] for name in ("a.mp4", "b.mkv")] == ["done", "done"]
    bad = [r for r in results if r.status == "failed"]
    assert len(bad) >= 3
    assert all(r.error for r in bad)
    assert sum(e["event"] == "file" for e in events) == len(results)
    assert [n for n in tree(tmp_path / "dst") if "part" in n or n[0] in "0123"] == []


def test_a_bug_in_one_file_is_named_and_the_rest_goes_on(folder, tmp_path):
    calls = []

    def model(low, size, tile=None):
        calls.append(1)
        if len(calls) == 1:
            raise ZeroDivisionError("oops")
        return nearest(low, size)

    results = go(folder, tmp_path / "dst", model=model)
    assert statuses(results) == {"a.mp4": "failed", "b.mkv": "done"}
    assert results[0].error == "ZeroDivisionError: oops"


def test_a_file_whose_thread_could_not_even_tell_is_a_failure(folder, tmp_path):
    """The reader of --json went away, say, while one of the files was told of."""

    def report(event):
        if event["event"] == "file" and event["source"].endswith("a.mp4"):
            raise BrokenPipeError(32, "Broken pipe")

    results = batch(folder, tmp_path / "dst", options(2), report, Stop(), lambda plan: nearest)
    assert statuses(results) == {"a.mp4": "failed", "b.mkv": "done"}
    assert "BrokenPipeError" in results[0].error
    with pytest.raises(MediaError, match="1 of 2 files failed"):
        check_results(results)


def test_files_at_a_time_that_share_a_graph_keep_their_own_pictures(tmp_path, make_clip, look):
    """A stand-in for a captured graph: one place for the input, one for the output."""

    class Graph:
        def __init__(self, network, low, size, tile):
            self.network, self.size, self.low = network, size, low.clone()

        def __call__(self, low):
            self.low.copy_(low)
            time.sleep(0.002)
            self.high = self.network(self.low, self.size)
            time.sleep(0.002)
            return self.high.clone()

    class Nearest(torch.nn.Module):
        def forward(self, low, size, tile=None):
            return nearest(low, size)

    source = tmp_path / "src"
    source.mkdir()
    for number in range(2):  # scenes 0 and 1 have different colours
        clip = make_clip(f"{number}.mkv", frames=60, cuts=(1,) * number, sound=False)
        clip.rename(source / clip.name)
    lossless = EncodeOptions(codec="ffv1")
    wanted = Options(scale=1, windows=WindowOptions(frames=5, overlap=0), encode=lossless)
    for name, parallel in (("one", 1), ("two", 2)):
        model = CudaGraphModel(Nearest(), Graph)
        go(source, tmp_path / name, options(parallel, wanted), model=model)
    for number in range(2):
        alone, beside = (look.frames(tmp_path / name / f"{number}.mkv") for name in ("one", "two"))
        assert all(np.array_equal(a, b) for a, b in zip(alone, beside, strict=True))


def test_the_model_is_loaded_once_for_all_files(folder, tmp_path, tiny_weights, monkeypatch):
    loads, load = [], TorchBackend.load
    monkeypatch.setattr(
        TorchBackend, "load", lambda self, spec: loads.append(spec) or load(self, spec)
    )
    wanted = options(2, Options(scale=1, model=str(tiny_weights), device="cpu"), recursive=True)
    results = batch(folder, tmp_path / "dst", wanted, lambda event: None, Stop())
    assert set(statuses(results).values()) == {"done"} and len(results) == 3
    assert len(loads) == 1


def test_names_that_collide_keep_their_old_ones(make_clip, tmp_path):
    source, clip = tmp_path / "src", make_clip()
    source.mkdir()
    for name in ("a.avi", "a.flv", "A.mpg", "b.avi"):
        shutil.copy(clip, source / name)
    items, _ = find_items(source, tmp_path / "dst", FolderOptions())
    names = [i.target.name for i in items]
    assert names == ["A.mpg.mkv", "a.avi.mkv", "a.flv.mkv", "b.mkv"]
    assert len({name.casefold() for name in names}) == 4


def test_a_loop_of_links_is_walked_once(folder, tmp_path):
    (folder / "deep" / "up").symlink_to(folder)
    (folder / "self").symlink_to(folder / "self")
    items, _ = find_items(folder, tmp_path / "dst", FolderOptions(recursive=True))
    assert sorted(i.source.name for i in items) == ["a.mp4", "b.mkv", "c.mov"]


def test_outputs_inside_the_source_are_not_inputs(folder):
    target = folder / "large"
    go(folder, target, options(recursive=True))
    items, _ = find_items(folder, target, FolderOptions(recursive=True))
    assert len(items) == 3
    assert set(statuses(go(folder, target, options(recursive=True))).values()) == {"skipped"}


def test_folders_that_make_no_sense(folder, tmp_path):
    file = tmp_path / "file"
    file.touch()
    for source, target in [
        (folder, folder),
        (tmp_path / "no", tmp_path / "dst"),
        (file, tmp_path / "dst"),
        (folder, file),
        (folder, tmp_path / "no" / "dst"),
    ]:
        with pytest.raises(UsageError):
            find_items(source, target, FolderOptions())


def test_a_folder_that_cannot_be_listed_is_named(folder, tmp_path, monkeypatch):
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("er"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    results = go(folder, tmp_path / "dst", options(recursive=True))
    assert results[0].status == "failed"
    assert "cannot be listed: Permission denied" in results[0].error
    assert len(results) == 3


def test_shards_share_the_files(folder, tmp_path):
    names = []
    for first in (1, 2):
        shard = FolderOptions(recursive=True, shard=(first, 2))
        names.append([i.source.name for i in find_items(folder, tmp_path / "d", shard)[0]])
    assert sorted(names[0] + names[1]) == ["a.mp4", "b.mkv", "c.mov"]
    assert not set(names[0]) & set(names[1])


def test_a_signal_stops_the_batch(folder, tmp_path):
    stop = Stop()

    def model(low, size, tile=None):
        stop.set(Interrupted(signal.SIGTERM))
        return nearest(low, size)

    with pytest.raises(Interrupted):
        go(folder, tmp_path / "dst", model=model, stop=stop)
    assert tree(tmp_path / "dst") == []


def test_watching_takes_what_appears_when_it_is_whole(folder, make_clip, tmp_path):
    stop, events = Stop(), []
    late = make_clip("late.mp4", frames=4).read_bytes()
    growing = folder / "late.mp4"

    def report(event):
        events.append(event)
        files = [e for e in events if e["event"] == "file"]
        if event["event"] == "file" and len(files) == 2:
            growing.write_bytes(late)
        if event["event"] == "file" and len(files) == 3:
            stop.set(Interrupted(signal.SIGTERM))

    with pytest.raises(Interrupted):
        watch(folder, tmp_path / "dst", replace(options(settle=0.2)), report, stop,
              lambda plan: nearest)  # fmt: skip
    done = [Path(e["source"]).name for e in events if e["event"] == "file"]
    assert done == ["a.mp4", "b.mkv", "late.mp4"]
    assert all(e["status"] == "done" for e in events if e["event"] == "file")


def test_a_watched_folder_that_goes_away_is_no_spelling_mistake(folder, tmp_path):
    def report(event):
        if event["event"] == "file" and folder.exists():
            folder.rename(tmp_path / "elsewhere")

    with pytest.raises(OasisError, match="src went away"):
        watch(folder, tmp_path / "dst", options(), report, Stop(), lambda plan: nearest)


# The command


def invoke(*args):
    return CliRunner().invoke(app, [str(arg) for arg in args])


@pytest.mark.parametrize("wrong", [
    ["--shard", "3/2"], ["--shard", "x"], ["--extension", "m/v"], ["--suffix", "/../../x"],
    ["--watch", "--report", "r.json"],
])  # fmt: skip
def test_wrong_options_are_refused_before_work(folder, tmp_path, wrong, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tree(tmp_path)
    assert invoke("batch", folder, tmp_path / "dst", *wrong).exit_code == 2
    assert tree(tmp_path) == before


def test_a_report_that_cannot_be_written_is_a_sentence(folder, tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()

    def work(*given):
        (tmp_path / "gone").rmdir()
        return []

    monkeypatch.setattr("oasis_cli.jobs.batch.batch", work)
    result = invoke("batch", folder, tmp_path / "dst", "--report", tmp_path / "gone" / "r.json")
    assert result.exit_code == 1 and "r.json cannot be written" in result.stderr


def test_watching_ends_cleanly_on_sigterm(folder, tiny_weights, tmp_path):
    command = [
        sys.executable, "-m", "oasis_cli", "batch", str(folder), str(tmp_path / "dst"),
        "--watch", "--settle", "0", "--json", "--scale", "1", "--model", str(tiny_weights),
    ]  # fmt: skip
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    done = 0
    for line in process.stderr:
        done += json.loads(line)["event"] == "file"
        if done == 2:
            break
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    rest = process.communicate(timeout=30)[1]
    assert process.returncode == 143
    assert time.monotonic() - began < 10
    assert "Traceback" not in rest
    assert tree(tmp_path / "dst") == ["a.mp4", "b.mkv"]


def test_a_decoder_that_the_model_has_not_is_refused_before_any_file(folder, tmp_path):
    wanted = options(2)
    wanted = replace(wanted, upscale=replace(wanted.upscale, decoder="wan"))
    with pytest.raises(UsageError, match="no decoder called 'wan'"):
        batch(folder, tmp_path / "dst", wanted, lambda event: None, Stop())
    assert not (tmp_path / "dst").exists()
