"""A file that ends the process reading it costs the batch that one file."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from toys import invoke

from oasis_cli.errors import Interrupted, MediaError
from oasis_cli.jobs import ahead
from oasis_cli.jobs.batch import batch
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.jobs.folders import FolderOptions
from oasis_cli.jobs.items import BatchOptions
from oasis_cli.jobs.scout import Died, Elsewhere
from oasis_cli.pipeline.plan import Options
from oasis_cli.pipeline.threads import Stop


def test_a_call_elsewhere_returns_what_the_function_returns():
    elsewhere = Elsewhere(os.path.basename)
    assert elsewhere("a/b.mp4", stop=Stop()) == "b.mp4"


def test_the_process_is_kept_between_calls():
    elsewhere = Elsewhere(os.getpid)
    numbers = {elsewhere(stop=Stop()) for _ in range(3)}
    assert len(numbers) == 1
    assert numbers != {os.getpid()}


def test_relative_paths_mean_the_same_elsewhere(tmp_path, monkeypatch):
    elsewhere = Elsewhere(os.listdir)
    for name in ("one", "other"):
        (tmp_path / name / "in").mkdir(parents=True)
        (tmp_path / name / "in" / name).touch()
        monkeypatch.chdir(tmp_path / name)
        assert elsewhere("in", stop=Stop()) == [name]


def test_an_error_elsewhere_is_raised_here_with_its_trace():
    with pytest.raises(FileNotFoundError, match="nowhere") as caught:
        Elsewhere(os.listdir)("nowhere", stop=Stop())
    assert "Traceback" in str(caught.value.__cause__)


def test_words_and_hints_of_our_errors_survive_the_way():
    import pickle

    there = pickle.loads(pickle.dumps(MediaError("bad", hint="try this")))
    assert (str(there), there.hint) == ("bad", "try this")


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGSEGV, signal.SIGKILL])
def test_a_death_is_named_and_the_next_call_has_a_new_process(number):
    elsewhere = Elsewhere(signal.raise_signal)
    with pytest.raises(Died, match=number.name):
        elsewhere(number, stop=Stop())
    assert elsewhere(signal.SIGCONT, stop=Stop()) is None


def test_a_process_started_ahead_is_the_one_that_works_and_ends_when_nobody_wants_it():
    with ahead.started_ahead():
        [(unused, _)] = ahead._waiting
        assert unused.is_alive()
    assert unused.exitcode is not None

    with ahead.started_ahead():
        [(first, _)] = ahead._waiting
        taken, _ = ahead.child()
    assert taken is first and taken.is_alive()
    taken.kill()
    taken.join()


def test_a_process_is_started_ahead_of_all_heavy_imports():
    code = "import sys, oasis_cli.cli.jobs, oasis_cli.jobs.ahead; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_exit_codes_are_named():
    with pytest.raises(Died, match="exit code 7"):
        Elsewhere(os._exit)(7, stop=Stop())


def test_a_call_that_hangs_ends_when_asked_to():
    stop = Stop()
    threading.Timer(1.0, stop.set, [Interrupted(signal.SIGTERM)]).start()
    began = time.monotonic()
    with pytest.raises(Interrupted):
        Elsewhere(time.sleep)(60, stop=stop)
    assert time.monotonic() - began < 10


@pytest.mark.parametrize("name", ["script.py", "<stdin>"])
def test_a_script_without_a_guard_does_not_run_there_once_more(name, tmp_path, monkeypatch):
    (tmp_path / "script.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    main = sys.modules["__main__"]
    monkeypatch.setattr(main, "__file__", str(tmp_path / name), raising=False)
    monkeypatch.setattr(main, "__spec__", None)
    assert Elsewhere(os.path.basename)("a/b.mp4", stop=Stop()) == "b.mp4"
    assert not (tmp_path / "ran").exists()
    assert main.__file__ == str(tmp_path / name)


def hang(*given):
    """In place of the life of a batch's process."""
    time.sleep(60)


def test_a_batch_that_is_stopped_while_its_process_starts_ends_at_once(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # for the child to find this file
    monkeypatch.setattr(ahead, "_serve", hang)
    stop = Stop()
    stop.set(Interrupted(signal.SIGINT))
    options = BatchOptions(
        folders=FolderOptions(), upscale=Options(), jobs=JobOptions(), apart=True
    )
    began = time.monotonic()
    with pytest.raises(Interrupted):
        batch(tmp_path, tmp_path / "out", options, lambda event: None, stop)
    assert time.monotonic() - began < 5


# What reads "deadly.mp4" dies as FFmpeg's libraries die: at once, without an exception. What
# decodes "mortal.mp4" does so at its second frame, when the batch has begun with it, and "a.mp4" is
# made but not told of yet. Until then the others wait in the middle.
DEADLY = """
import os, signal, time
def is_there(name):
    return os.path.exists(os.path.join(os.environ["EVENTS"], name))
def note(name):
    open(os.path.join(os.environ["EVENTS"], name), "w").close()
try:
    import oasis_cli.media.input.source as source
    from oasis_cli.media.input import reader
    from oasis_cli.jobs.items import Record
except ImportError:
    source = None
def deadly(path, *rest, real=source and source.open_input, **more):
    if "deadly" in str(path):
        os.abort()
    return real(path, *rest, **more)
def take(self, frame, *rest, real=source and reader.Reader._take):
    name = os.path.basename(self.info.path)
    awaited = {"a.mp4": "", "mortal.mp4": "made"}.get(name, "died")
    while len(self.timeline) and not is_there(awaited):
        time.sleep(.001)
    if name == "mortal.mp4" and len(self.timeline):
        note("died")
        os.kill(os.getpid(), signal.SIGSEGV)
    return real(self, frame, *rest)
def finish(self, *rest, real=source and Record.finish):
    real(self, *rest)
    if self._path.name == "a.mp4.json":
        note("made")
        time.sleep(60)
if source:
    source.open_input, reader.Reader._take, Record.finish = deadly, take, finish
"""


def test_a_batch_goes_on_behind_files_that_kill_and_sums_up(make_clip, tiny_weights, tmp_path):
    folder, target = tmp_path / "src", tmp_path / "dst"
    folder.mkdir()
    clip = make_clip()
    (folder / "deep").mkdir()
    for name in ("a.mp4", "deadly.mp4", "mortal.mp4", "deep/z.mp4"):
        (folder / name).write_bytes(Path(clip).read_bytes())
    (tmp_path / "patch").mkdir()
    (tmp_path / "patch" / "sitecustomize.py").write_text(DEADLY)
    path = os.pathsep.join([str(tmp_path / "patch"), os.environ.get("PYTHONPATH", "")])
    report = tmp_path / "report.json"
    more = {"PYTHONPATH": path, "EVENTS": str(tmp_path / "patch"), "COLUMNS": "300"}
    command = [
        sys.executable, "-m", "oasis_cli", "batch", folder, target, "--scale", "1",
        "--model", tiny_weights, "--report", report, "--jobs", 3, "-r",
    ]  # fmt: skip

    done = subprocess.run(
        list(map(str, command)), env={**os.environ, **more},
        capture_output=True, text=True, check=False,
    )  # fmt: skip

    assert done.returncode == 1, done.stderr[-2000:]
    found = {Path(r["source"]).name: r for r in json.loads(report.read_text())}
    assert {n: r["status"] for n, r in found.items()} == {
        "a.mp4": "done", "deadly.mp4": "failed", "mortal.mp4": "failed", "z.mp4": "done",
    }  # fmt: skip
    for name, signal_name in (("deadly.mp4", "SIGABRT"), ("mortal.mp4", "SIGSEGV")):
        assert signal_name in found[name]["error"] and name in found[name]["error"]
    assert found["a.mp4"]["frames"] == found["z.mp4"]["frames"] > 0
    assert 0 < found["a.mp4"]["seconds"] < 60
    assert "2 done, 0 skipped, 2 failed" in done.stdout
    assert "mortal.mp4" in done.stdout
    assert "error: 2 of 4 files failed" in done.stderr
    assert "Traceback" not in done.stderr
    assert sorted(p.name for p in target.iterdir()) == [".oasis-batch", "a.mp4", "deep"]

    for name in ("deadly.mp4", "mortal.mp4"):
        (folder / name).unlink()
    again = invoke(  # which takes folders too
        "upscale", folder, target, "--scale", "1", "--model", tiny_weights
    )
    assert again.exit_code == 0, again.stderr
    assert "0 done, 1 skipped, 0 failed" in again.stdout
