"""Jobs on disk, and what they share with other runs: names, locks, leftovers and manifests."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from job_runs import IN_SEGMENTS, SMALL, begin, digest, go, linux, names, until
from toys import invoke, sharpen

from oasis_cli.checkpoints.format import load_model, save_model
from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs import batch, items
from oasis_cli.jobs import job as jobs
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.jobs.job import Busy, folder_for, identity, is_locked, locked, remove
from oasis_cli.media import atomic, locks
from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.mux import Muxer
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.run import upscale
from oasis_cli.pipeline.threads import Stop

pytestmark = pytest.mark.usefixtures("known_weights")


TABLE = {"schema": "asr-table/1", "window": [3, 5, 5], "layers": [{"group": ["g", "g"]}]}


def command(source, target, weights, *more):
    return [
        sys.executable, "-m", "oasis_cli", "upscale", str(source), str(target), "--scale", "1",
        "--model", str(weights), "--window", "5", "--overlap", "2", "--json", *map(str, more),
    ]  # fmt: skip


def run_python(code, *words):
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, timeout=300
    )


@pytest.fixture
def clip(make_clip):
    return make_clip(frames=40, cuts=(11, 26), size=(32, 24))


# One target, two runs


def test_two_runs_of_one_process_number_do_not_mix_their_files(make_clip, tmp_path, look):
    source, target = make_clip(frames=20), tmp_path / "out.mp4"
    together, refused = threading.Barrier(2), []

    def slow(low, size, tile=None):
        time.sleep(0.1)
        return sharpen(low, size)

    def run():
        together.wait()
        try:
            upscale(source, target, Options(scale=1, windows=SMALL), model=slow)
        except OasisError as error:
            refused.append(error)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [str(error) for error in refused] == [f"another run is writing {target}"]
    assert len(look.frames(target)) == 20
    assert names(tmp_path) == ["in.mp4", "out.mp4"]


@linux
def test_a_target_in_work_is_refused_to_another_process(make_clip, tiny_weights, tmp_path, look):
    """Also where the second one keeps its segments elsewhere."""
    source, target = make_clip(frames=60), tmp_path / "out.mp4"
    (tmp_path / "w").mkdir()
    words = command(source, target, tiny_weights)
    elsewhere = ["--resume", "--segment-frames", "12", "--work-dir", str(tmp_path / "w")]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as first:
        try:
            lock = tmp_path / f".oasis-{atomic.mark(target)}.lock"
            until(lambda: locks.is_held(lock))
            first.send_signal(signal.SIGSTOP)
            refused = [invoke(*words[3:], *more) for more in ([], elsewhere)]
        finally:
            first.send_signal(signal.SIGCONT)
        said = first.communicate(timeout=300)[1]
    assert first.returncode == 0, said
    assert [second.exit_code for second in refused] == [1, 1]
    assert all("another run is writing" in second.stderr for second in refused)
    assert len(look.frames(target)) == 60
    assert names(tmp_path) == ["in.mp4", "out.mp4", "w"] and names(tmp_path / "w") == []


def test_working_names_are_new_each_time_and_short(tmp_path):
    target = tmp_path / f"{'x' * 250}.mp4"
    parts = [atomic.temporary_beside(target) for _ in range(50)]
    folders = [atomic.temporary_beside(target, folder=True) for _ in range(2)]
    assert len({*parts, *folders}) == 52
    assert all(len(part.name) < 60 and part.suffix == ".mp4" for part in parts)
    assert all(path.is_dir() for path in folders)


@pytest.mark.parametrize("jobs", [JobOptions(), IN_SEGMENTS])
def test_a_target_of_the_longest_name_is_written(clip, tmp_path, look, jobs):
    target = tmp_path / f"{'ä' * 125}x.mp4"
    assert len(os.fsencode(target.name)) == 255
    go(clip, target, jobs)
    assert len(look.frames(target)) == 40
    assert names(tmp_path) == ["in.mp4", target.name]


# What a dead process left

KILLED_WHILE_JOINING = """
import os, signal, sys
from oasis_cli.media.output.mux import Muxer
Muxer.finish = lambda self, check: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = sys.argv[1:]
from oasis_cli.cli.main import app
app()
"""


@pytest.fixture
def killed_while_joining(make_clip, tiny_weights, tmp_path, monkeypatch):
    """The command of a run that was killed then."""
    monkeypatch.undo()  # the real hash
    source, target = make_clip(frames=24), tmp_path / "out.mp4"
    words = command(source, target, tiny_weights, "--resume", "--segment-frames", "12")
    assert run_python(KILLED_WHILE_JOINING, *words[2:]).returncode == -signal.SIGKILL
    assert len(atomic.leftovers(tmp_path)) == 1
    return words


@linux
def test_the_next_run_removes_what_a_killed_one_left_of_its_target(
    killed_while_joining, tmp_path, look
):
    other = atomic.temporary_beside(tmp_path / "other.mp4")
    subprocess.run(killed_while_joining, check=True, capture_output=True)
    assert names(tmp_path) == sorted([other.name, "in.mp4", "out.mp4"])
    assert len(look.frames(tmp_path / "out.mp4")) == 24


@linux
def test_jobs_clean_finds_what_a_killed_run_left(killed_while_joining, tmp_path):
    assert "1 files that runs are writing" in invoke("jobs", "list", tmp_path).stderr
    kept = shutil.copytree(tmp_path, tmp_path.with_name("kept"))
    for place, left_alone in (("", 1), ("out.mp4", 0)):
        shutil.copytree(kept, tmp_path, dirs_exist_ok=True)
        with atomic.in_work(tmp_path / "live.mp4"):
            live = atomic.temporary_beside(tmp_path / "live.mp4")
            text = invoke("jobs", "clean", tmp_path / place).stdout
            assert live.exists()
            assert names(tmp_path) == sorted([live.name, f"{live.name[:19]}.lock", "in.mp4"])
        assert text.count("removed") == 2
        assert text.count("running, left alone") == left_alone
        live.unlink()


def test_what_a_killed_run_left_of_pictures_is_removed(make_clip, tmp_path):
    source, target = make_clip(frames=3), tmp_path / "p_%03d.png"
    left = atomic.temporary_beside(target, folder=True)
    (left / "p_001.png").write_bytes(b"half")
    go(source, target, JobOptions())
    assert names(tmp_path) == ["in.mp4", "p_001.png", "p_002.png", "p_003.png"]


def test_removing_leftovers_follows_no_link(make_clip, tmp_path):
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "file").write_text("here")
    name = f".oasis-{atomic.mark(tmp_path / 'out.mp4')}-{'0' * 16}.part"
    (tmp_path / name).symlink_to(precious)
    go(make_clip(), tmp_path / "out.mp4", JobOptions())
    assert names(precious) == ["file"]
    assert not (tmp_path / name).is_symlink()


# The input


def test_an_input_that_is_replaced_meanwhile_is_noticed(clip, make_clip, tmp_path, look):
    # Lossless: x264 does not promise the same bits on a busy machine.
    target, aside = tmp_path / "out.mkv", tmp_path / "aside.mp4"
    lossless = EncodeOptions(codec="ffv1")
    go(clip, tmp_path / "whole.mkv", encode=lossless)
    other = make_clip("other.mp4", frames=40, size=(32, 24))
    calls = []

    def replaces(low, size, tile=None):
        calls.append(1)
        if len(calls) == 8:
            clip.rename(aside)
            shutil.copy(other, clip)
        return sharpen(low, size)

    with pytest.raises(MediaError, match="was replaced or edited while it was being upscaled"):
        go(clip, target, model=replaces, encode=lossless)
    assert not target.exists()
    aside.replace(clip)  # put back: what is kept is of this input alone
    go(clip, target, encode=lossless)
    assert digest(look, target) == digest(look, tmp_path / "whole.mkv")


@pytest.mark.parametrize("moment", ["opened", "finished"])
def test_an_input_that_is_replaced_while_segments_are_joined_is_noticed(
    clip, make_clip, tmp_path, monkeypatch, moment
):
    other, target = make_clip("other.mp4", frames=40, size=(32, 24)), tmp_path / "out.mp4"
    begin_, finish = Muxer.__init__, Muxer.finish

    def opened(self, *given):
        begin_(self, *given)
        if moment == "opened":
            other.replace(clip)

    def finished(self, check):
        if moment == "finished":
            other.replace(clip)
        finish(self, check)

    monkeypatch.setattr(Muxer, "__init__", opened)
    monkeypatch.setattr(Muxer, "finish", finished)
    with pytest.raises(MediaError, match="was replaced or edited"):
        go(clip, target)
    assert names(tmp_path) == [".out.mp4.oasis", "in.mp4"] + ["other.mp4"] * other.exists()


def test_pictures_become_a_video_in_segments(make_clip, tmp_path, look):
    go(make_clip(frames=20), tmp_path / "p_%03d.png", JobOptions())
    target = tmp_path / "out.mkv"
    go(tmp_path / "p_%03d.png", target)
    assert len(look.frames(target)) == 20


# What identifies a job


def table(path, **changes):
    path.write_text(json.dumps(TABLE | changes))
    return str(path)


def test_a_changed_head_table_is_another_job(clip, tmp_path):
    heads, target = table(tmp_path / "t.json"), tmp_path / "out.mp4"
    begin(clip, target, heads=heads)
    about = os.stat(heads)
    table(tmp_path / "t.json", layers=[{"group": ["g", "i"]}])
    os.utime(heads, ns=(about.st_atime_ns, about.st_mtime_ns))
    with pytest.raises(OasisError, match="another heads"):
        go(clip, target, heads=heads)
    table(tmp_path / "t.json")
    moved = shutil.copy(heads, tmp_path / "moved.json")
    assert go(clip, target, heads=str(moved)).frames == 40


def test_a_job_of_another_version_is_named_and_not_continued(clip, tmp_path, monkeypatch):
    target = tmp_path / "out.mp4"
    monkeypatch.setattr(jobs, "__version__", "0.0.7")
    begin(clip, target)
    monkeypatch.undo()
    monkeypatch.setattr("oasis_cli.jobs.execute.weights_hash", lambda plan: plan.options.model)
    with pytest.raises(
        OasisError, match=r"a job that oasis 0\.0\.7 began; this is oasis"
    ) as caught:
        go(clip, target)
    assert "finish it with oasis 0.0.7" in caught.value.hint
    assert "--no-resume" in caught.value.hint
    assert go(clip, target, JobOptions(resume=False)).frames == 40


def test_the_program_and_the_contents_of_files_identify_a_job(clip, tmp_path):
    heads = table(tmp_path / "t.json")
    plan = make_plan(probe(clip), str(tmp_path / "o.mp4"), Options(scale=1, heads=heads))
    before = identity(plan, "w")
    assert before["version"] == jobs.__version__
    assert before["model"]["heads"] == hashlib.sha256(Path(heads).read_bytes()).hexdigest()
    assert identity(plan, "other") != before


def test_a_batch_makes_anew_what_other_weights_or_heads_made(
    make_clip, tiny_weights, tmp_path, monkeypatch
):
    (tmp_path / "src").mkdir()
    make_clip("src/a.mp4", frames=3)
    weights = Path(shutil.copy(tiny_weights, tmp_path / "w.safetensors"))
    heads = table(tmp_path / "t.json")

    def again(version=items.__version__):
        monkeypatch.setattr(items, "__version__", version)
        options = items.BatchOptions(
            folders=items.FolderOptions(),
            upscale=Options(scale=1, model=str(weights), heads=heads),
            jobs=JobOptions(),
        )
        (found,) = batch.batch(
            tmp_path / "src", tmp_path / "dst", options, lambda e: None, Stop(), lambda p: sharpen
        )
        return found

    assert [again().status, again().status] == ["done", "skipped"]
    network = load_model(str(weights))
    network.to_latent.linear.weight.data[0, 0] += 1
    save_model(network, weights, name="tiny", provenance={"trained": "once more"})
    assert [again().status, again().status] == ["done", "skipped"]
    table(tmp_path / "t.json", layers=[{"group": ["i", "g"]}])
    assert [again().status, again().status] == ["done", "skipped"]
    later = again("9.9")
    assert later.status == "skipped"
    assert f"oasis {jobs.__version__} made it" in items.result_text(later)


# Locks

OVERLAP = """
import os, sys, time
from pathlib import Path
from oasis_cli.jobs.job import Busy, locked, remove
folder, alone = Path(sys.argv[1]), Path(sys.argv[2])
had, end = 0, time.monotonic() + float(sys.argv[3])
while time.monotonic() < end or not had:
    try:
        with locked(folder):
            had += 1
            os.close(os.open(alone, os.O_CREAT | os.O_EXCL))  # fails when two are inside
            (folder / "segment").write_text("x")
            alone.unlink()
            remove(folder)
    except Busy:
        pass
print(had)
"""


def test_nobody_begins_in_a_folder_that_is_being_removed(tmp_path):
    words = [sys.executable, "-c", OVERLAP, tmp_path / "a.oasis", tmp_path / "alone", "1.5"]
    crew = [subprocess.Popen([*map(str, words)], stdout=subprocess.PIPE) for _ in range(3)]
    had = [int(process.communicate(timeout=60)[0]) for process in crew]
    assert [process.returncode for process in crew] == [0, 0, 0]
    assert min(had) > 0 and sum(had) > 100
    assert names(tmp_path) == []


def test_removing_a_job_keeps_its_lock_until_the_folder_is_gone(clip, tmp_path):
    folder = begin(clip, tmp_path / "out.mp4")
    with locked(folder):
        remove(folder)
        assert names(folder) == ["lock"]
        with pytest.raises(Busy), locked(folder):
            pass
    assert not folder.exists()


LOOKS = """
import sys, time
from pathlib import Path
from oasis_cli.jobs.job import is_locked
print("looking", flush=True)
while True:
    is_locked(Path(sys.argv[1]))
    time.sleep(1e-4)  # a core for who works
"""


def test_who_looks_at_a_job_keeps_nobody_from_working_on_it(clip, tmp_path):
    folder = begin(clip, tmp_path / "out.mp4")
    words = [sys.executable, "-c", LOOKS, str(folder)]
    crew = [subprocess.Popen(words, stdout=subprocess.PIPE) for _ in range(2)]
    try:
        assert all(process.stdout.readline() for process in crew)
        for _ in range(100):
            with locked(folder):
                assert is_locked(folder)
    finally:
        for process in crew:
            process.kill()
            process.communicate()
    assert not is_locked(folder)


# Links that wait


@linux
def test_a_link_in_place_of_the_lock_is_refused(clip, tmp_path):
    precious, target = tmp_path / "precious", tmp_path / "out.mp4"
    precious.write_text("here")
    folder = folder_for(str(target), None)
    folder.mkdir()
    (folder / "lock").symlink_to(precious)
    with pytest.raises(MediaError, match="lock is not a plain file"):
        go(clip, target)
    (folder / "lock").unlink()
    os.mkfifo(folder / "lock")
    with pytest.raises(MediaError, match="lock is not a plain file"):
        go(clip, target)
    shutil.rmtree(folder)
    lock = tmp_path / f".oasis-{atomic.mark(target)}.lock"
    lock.symlink_to(precious)
    with pytest.raises(MediaError, match="lock is not a plain file"):
        go(clip, target)
    assert precious.read_text() == "here"


@linux
def test_links_that_wait_in_a_work_folder_are_not_written_through(clip, tmp_path, look):
    precious, target = tmp_path / "precious", tmp_path / "out.mp4"
    precious.write_text("here")
    folder = folder_for(str(target), None)
    folder.mkdir()
    for name in ("manifest.json.part", "0000000-0000007.mkv", "0000000-0000007.mkv.part"):
        (folder / name).symlink_to(precious)
    go(clip, target)
    assert precious.read_text() == "here"
    assert len(look.frames(target)) == 40


@linux
def test_a_link_in_place_of_the_work_folder_is_refused(clip, tmp_path):
    elsewhere, target = tmp_path / "elsewhere", tmp_path / "out.mp4"
    elsewhere.mkdir()
    (elsewhere / "file").touch()
    folder_for(str(target), None).symlink_to(elsewhere)
    for wanted in (IN_SEGMENTS, JobOptions(resume=False)):
        with pytest.raises(MediaError, match="is a link"):
            go(clip, target, wanted)
    assert "removed" not in invoke("jobs", "clean", tmp_path).stdout
    assert names(elsewhere) == ["file"]


# Manifests that somebody edited


# Workers
