"""Processes that render: they make the same, are replaced, and end with the run."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from job_runs import SMALL, digest, go, linux, load_tiny, until

from oasis_cli.errors import Interrupted, MediaError
from oasis_cli.jobs import execute as segmented
from oasis_cli.jobs import processes as workers
from oasis_cli.jobs import render
from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.jobs.job import Job, folder_for, runs
from oasis_cli.media import atomic
from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions

pytestmark = pytest.mark.usefixtures("known_weights")


def test_workers_make_the_same_and_a_dead_one_is_replaced(
    make_clip, tiny_weights, tmp_path, look, monkeypatch
):
    monkeypatch.undo()  # the real hash: workers load the file
    source = make_clip(frames=60, cuts=(22,), size=(64, 48))
    encode = EncodeOptions(preset="veryfast")
    common = {"weights": tiny_weights, "encode": encode}
    plan = {"resume": True, "segment_frames": 10}
    go(source, tmp_path / "one.mp4", JobOptions(**plan), model=load_tiny(tiny_weights), **common)

    events, pids = [], []

    def report(event):
        events.append(event)
        if event["event"] == "worker":
            pids.append(event["pid"])
        if event["event"] == "progress" and event["frames"] >= 5 and len(pids) == 2:
            with suppress(ProcessLookupError):
                os.kill(pids[0], signal.SIGKILL)

    jobs = JobOptions(**plan, workers=2)
    model = load_tiny(tiny_weights)  # for the estimate: the workers load their own
    result = go(source, tmp_path / "two.mp4", jobs, model=model, report=report, **common)

    assert result.frames == 60
    assert len(pids) == 3
    assert digest(look, tmp_path / "two.mp4") == digest(look, tmp_path / "one.mp4")
    assert not folder_for(str(tmp_path / "two.mp4"), None).exists()


def test_where_they_are_worth_it_processes_render(make_clip, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.setattr(segmented, "processes_each", lambda *given: 2)
    source, events = make_clip(frames=30, size=(64, 48)), []
    jobs, model = JobOptions(resume=True, segment_frames=6), load_tiny(tiny_weights)
    given = {"model": model, "weights": tiny_weights, "report": events.append}
    assert go(source, tmp_path / "two.mp4", jobs, **given).frames == 30
    assert sum(event["event"] == "worker" for event in events) == 2
    assert any("2 processes encode at once" in event.get("text", "") for event in events)

    monkeypatch.setattr(workers, "work", dies_at_once)
    monkeypatch.setattr(workers, "TRIES", 2)
    assert go(source, tmp_path / "alone.mp4", jobs, **given).frames == 30
    assert any("going on with fewer processes" in event.get("text", "") for event in events)
    with pytest.raises(MediaError, match="before it could start"):
        go(source, tmp_path / "asked.mp4", replace(jobs, workers=2), **given)

    events.clear()
    assert go(source, tmp_path / "one.mp4", replace(jobs, workers=1), **given).frames == 30
    assert not any(event["event"] == "worker" for event in events)


def test_workers_go_on_with_neighbours(make_clip, tiny_weights, tmp_path, monkeypatch):
    """Two workers, two halves: what they share is one border, as if there were two segments."""
    monkeypatch.undo()
    source, given = make_clip(frames=60, size=(64, 48)), []
    give = workers._Worker.give

    def noted(self, segment):
        given.append((self.number, segment))
        give(self, segment)

    monkeypatch.setattr(workers._Worker, "give", noted)
    plan = make_plan(probe(source), str(tmp_path / "o.mp4"), Options(
        scale=2, windows=SMALL, model=str(tiny_weights)))  # fmt: skip
    jobs = JobOptions(resume=True, segment_frames=6, workers=2)
    assert carry_out(plan, jobs, lambda event: None, Stop()).frames == 60

    assert sorted(s.start for _, s in given if s is not None) == list(range(0, 60, 6))
    of_worker = [[s for who, s in given if who == worker and s is not None] for worker in (0, 1)]
    assert sum(len(runs(segments)) for segments in of_worker) <= 4  # one each, or a rest shared


def work_with_a_bad_frame(*given):
    """A worker whose input cannot be read at frame 20."""
    whole = render.frames_from

    def frames_from(job, plan, first):
        for number, frame in enumerate(whole(job, plan, first), first):
            if number == 20:
                raise MediaError("frame 20 is bad")
            yield frame

    render.frames_from = frames_from  # in this process, a child
    workers.work(*given)


def test_a_segment_is_not_blamed_for_its_neighbour(make_clip, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.undo()
    monkeypatch.syspath_prepend(Path(__file__).parents[2])  # for the children to find this file
    monkeypatch.setattr(workers, "work", work_with_a_bad_frame)
    source, target = make_clip(frames=60, size=(64, 48)), tmp_path / "o.mp4"
    windows = WindowOptions(frames=9, overlap=2)
    plan = make_plan(probe(source), str(target), Options(
        scale=2, windows=windows, model=str(tiny_weights)))  # fmt: skip
    jobs = JobOptions(resume=True, segment_frames=14, workers=2)
    with pytest.raises(MediaError, match="frames 14 to 28 failed 3 times: frame 20"):
        carry_out(plan, jobs, lambda event: None, Stop())
    assert (folder_for(str(target), None) / "0000000-0000014.mkv").exists()


def test_a_segment_that_never_works_ends_the_run_and_keeps_the_rest(
    make_clip, tiny_weights, tmp_path, monkeypatch
):
    monkeypatch.undo()
    source, target = make_clip(frames=40, size=(64, 48)), tmp_path / "out.mp4"
    pids = []

    def report(event):
        if event["event"] == "worker":
            pids.append(event["pid"])
        if event["event"] == "progress" and event["frames"] > 12:
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)

    jobs = JobOptions(resume=True, segment_frames=10, workers=2)
    monkeypatch.setattr("oasis_cli.pipeline.run.PROGRESS_EVERY", 0)
    monkeypatch.setattr("oasis_cli.jobs.processes.TRIES", 2)
    plan = make_plan(probe(source), str(target), Options(
        scale=2, windows=SMALL, model=str(tiny_weights)))  # fmt: skip
    with pytest.raises(MediaError, match="failed 2 times|died"):
        carry_out(plan, jobs, report, Stop())
    assert not target.exists()
    assert Job.load(folder_for(str(target), None)) is not None


def test_stopping_ends_the_workers(make_clip, tiny_weights, tmp_path, monkeypatch):
    monkeypatch.undo()
    stop, pids = Stop(), []

    def report(event):
        if event["event"] == "worker":
            pids.append(event["pid"])
        if event["event"] == "progress":
            stop.set(Interrupted(signal.SIGINT))

    plan = make_plan(probe(make_clip(frames=60, size=(64, 48))), str(tmp_path / "o.mp4"),
                     Options(scale=2, windows=SMALL, model=str(tiny_weights)))  # fmt: skip
    with pytest.raises(Interrupted):
        carry_out(plan, JobOptions(workers=2, segment_frames=10), report, stop)
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


@linux
def test_workers_end_with_their_parent_at_once(make_clip, tiny_weights, tmp_path):
    """Whatever they are doing: here they wait for something else than their parent."""
    script = Path(__file__).with_name("worker_child.py")
    source, target = make_clip(frames=30), tmp_path / "out.mp4"
    words = [sys.executable, script, source, target, tiny_weights]
    with subprocess.Popen([*map(str, words)]) as parent:
        try:
            until(lambda: len(list(tmp_path.glob("*.pid"))) == 2)
        finally:
            parent.kill()
    pids = [path.stem for path in tmp_path.glob("*.pid")]
    until(lambda: not any(map(alive, pids)), 10)


def test_a_dying_worker_leaves_the_new_runs_part_alone(clip, tmp_path):
    from oasis_cli.media.output.segments import SegmentWriter

    plan = make_plan(probe(clip), str(tmp_path / "o.mp4"), Options(scale=1)).output
    segment = tmp_path / "0000000-0000007.mkv"
    orphan, new = (SegmentWriter(plan, segment, 4) for _ in range(2))
    parts = atomic.leftovers(tmp_path)
    orphan.discard()
    assert len(parts) == 2 and len(atomic.leftovers(tmp_path)) == 1
    new.discard()
    assert atomic.leftovers(tmp_path) == []


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def dies_at_once(*given):
    """A worker on a card that takes no second process."""
    os._exit(1)
