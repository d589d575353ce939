"""Long jobs: whatever ends them, the same command finishes them with the same result."""

import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import replace
from fractions import Fraction
from itertools import islice
from pathlib import Path

import pytest
from toys import Killed, dies_after, sharpen

from oasis_cli.errors import Interrupted, MediaError, OasisError, UsageError
from oasis_cli.jobs import execute as segmented
from oasis_cli.jobs import processes as workers
from oasis_cli.jobs import render
from oasis_cli.jobs.estimate import Estimate, encoder_counts, processes_each, worth_starting
from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.jobs.job import Job, Segment, file_identity, folder_for, locked, runs, split
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.media.output.segments import SegmentWriter
from oasis_cli.model.decoders.kinds import to_dict
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.model.oasis import OasisConfig
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions

SMALL = WindowOptions(frames=5, overlap=2)
IN_SEGMENTS = JobOptions(resume=True, segment_frames=7)


def go(source, target, jobs=IN_SEGMENTS, model=sharpen, report=None, weights=None, **options):
    options = {"scale": 2, "windows": SMALL, **options}
    if weights is not None:
        options["model"] = str(weights)
    plan = make_plan(probe(source), str(target), Options(**options))
    return carry_out(plan, jobs, report or (lambda e: None), Stop(), lambda plan: model)


def digest(look, path):
    """md5 of every decoded frame."""
    return [hashlib.md5(frame.tobytes()).hexdigest() for frame in look.frames(path)]


def x264_threads(path):
    """What x264 wrote into the stream about itself."""
    return set(re.findall(rb" threads=(\d+)", path.read_bytes()))


@pytest.fixture(autouse=True)
def known_weights(monkeypatch):
    """The models of these tests are functions: give them a hash."""
    monkeypatch.setattr("oasis_cli.jobs.execute.weights_hash", lambda plan: plan.options.model)


@pytest.fixture
def clip(make_clip):
    return make_clip(frames=40, cuts=(11, 26), size=(64, 48))


def test_segments_follow_scenes():
    assert split([0], 0, 10, 5) == []
    assert split([0], 12, 10, 5) == [Segment(0, 12)]
    assert [s.stop for s in split([0, 9], 30, 10, 5)] == [9, 19, 30]
    for total in range(1, 60):
        parts = split([0, 13, 14, 40], total, 10, 4)
        assert [s.start for s in parts] == [0, *[s.stop for s in parts[:-1]]]
        assert parts[-1].stop == total
        assert all(s.frames >= min(4, total) for s in parts)


def test_segments_make_the_same_pictures_as_one_go(clip, tmp_path, look):
    encode = EncodeOptions(codec="ffv1")
    go(clip, tmp_path / "one.mkv", JobOptions(), encode=encode)
    go(clip, tmp_path / "many.mkv", IN_SEGMENTS, encode=encode)

    assert digest(look, tmp_path / "many.mkv") == digest(look, tmp_path / "one.mkv")
    assert look.times(tmp_path / "many.mkv") == look.times(tmp_path / "one.mkv")
    assert look.audio(tmp_path / "many.mkv") == look.audio(clip)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "many.mkv", "one.mkv"]


def test_a_short_job_leaves_no_folder(clip, tmp_path):
    go(clip, tmp_path / "out.mp4", JobOptions())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


@pytest.mark.parametrize("calls", [0, 1, 2, 5, 8, 11])
def test_a_job_continues_where_it_was(clip, tmp_path, look, calls):
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    go(clip, whole)
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(calls))
    assert not target.exists()
    folder = folder_for(str(target), None)
    kept = {p.name: p.stat().st_mtime_ns for p in folder.glob("*.mkv")}

    made = []

    def counting(low, size, tile=None):
        made.append(low.shape[1])
        return sharpen(low, size)

    begun = (folder / "manifest.json").exists()
    result = go(clip, target, JobOptions() if begun else IN_SEGMENTS, model=counting)

    assert result.frames == 40
    assert digest(look, target) == digest(look, whole)
    assert look.times(target) == look.times(clip)
    assert not folder.exists()
    if calls > 8:
        assert kept and sum(made) < 40


def test_each_segment_can_be_made_alone(clip, tmp_path, look):
    """Any order, any subset: the segments of a job depend on nothing but their numbers."""
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    go(clip, whole)
    for keep in range(6):
        with pytest.raises(Killed):
            go(clip, target, model=dies_after(99 if keep == 0 else 12))
            raise Killed
        folder = folder_for(str(target), None)
        if folder.exists():
            for number, path in enumerate(sorted(folder.glob("*.mkv"))):
                if number != keep:
                    path.unlink()
            go(clip, target)
        assert digest(look, target) == digest(look, whole)
        target.unlink()


@pytest.mark.parametrize(("change", "word"), [
    ({"scale": 3}, "size"),
    ({"windows": WindowOptions(frames=9, overlap=2)}, "frames"),
    ({"encode": EncodeOptions(crf=30)}, "crf"),
    ({"encode": EncodeOptions(codec="libx265")}, "codec"),
    ({"read": ReadOptions(end=1)}, "end"),
    ({"weights": "oasis-small-dense"}, "weights"),
    ({"strength": 0.5}, "strength"),
])  # fmt: skip
def test_a_changed_option_is_refused_and_no_resume_starts_over(clip, tmp_path, change, word):
    target = tmp_path / "out.mp4"
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(8))
    with pytest.raises(OasisError, match=word) as caught:
        go(clip, target, **change)
    assert "--no-resume" in caught.value.hint
    assert go(clip, target, JobOptions(resume=False), **change).frames > 0
    assert not folder_for(str(target), None).exists()


def test_a_changed_input_is_refused(clip, make_clip, tmp_path):
    target = tmp_path / "out.mp4"
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(8))
    shutil.copy(make_clip("other.mp4", frames=50), clip)
    with pytest.raises(OasisError, match="another input"):
        go(clip, target)


def test_an_input_is_known_by_both_ends(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(bytes(3 << 20))
    os.utime(path, ns=(0, 0))
    before = file_identity(path)
    data = bytearray(path.read_bytes())
    data[-5] = 1
    path.write_bytes(data)
    os.utime(path, ns=(0, 0))
    assert file_identity(path) != before


def test_a_damaged_segment_is_deleted_and_made_again(clip, tmp_path, look):
    target = tmp_path / "out.mp4"
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(10))
    segment = min(folder_for(str(target), None).glob("*.mkv"))
    segment.write_bytes(segment.read_bytes()[:200])
    with pytest.raises(MediaError, match="damaged and was deleted"):
        go(clip, target)
    assert go(clip, target).frames == 40
    assert len(look.frames(target)) == 40


@pytest.mark.parametrize("units", [True, False])
def test_a_job_goes_on_as_it_began_on_a_machine_with_less(clip, tmp_path, look, monkeypatch, units):
    whole, target = tmp_path / "whole.mkv", tmp_path / "out.mkv"
    monkeypatch.setattr(os, "cpu_count", lambda: 2)  # the encoder's memory depends on them
    monkeypatch.setattr("oasis_cli.runtime.devices.cpu_has_bf16", lambda: units)
    usual = {"windows": WindowOptions(frames=9, overlap=2), "fit_windows": True}
    go(clip, whole, **usual)
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(3), **usual)
    monkeypatch.setattr(
        "oasis_cli.pipeline.plan.free_memory", lambda device: (77 if units else 97) << 20
    )
    short = make_plan(probe(clip), str(target), Options(scale=2, **usual))
    assert short.options.windows.frames == 5
    monkeypatch.setattr("oasis_cli.runtime.devices.cpu_has_bf16", lambda: not units)

    began = "bf16" if units else "fp32"
    with pytest.raises(OasisError, match=f"precision.*{began}"):
        go(clip, target, **usual, precision="fp32" if units else "bf16")
    go(clip, target, **usual)
    assert digest(look, target) == digest(look, whole)


def test_a_job_keeps_its_decoder(clip, tmp_path, look, monkeypatch):
    own = OasisConfig()
    tiny = to_dict(TinyConfig(latent_channels=own.dit.latent_channels))
    about = {"config": own.to_dict(), "decoders": {"tiny": tiny}}
    monkeypatch.setattr("oasis_cli.checkpoints.format.describe", lambda name: about)
    target = tmp_path / "out.mp4"
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(5), decoder="tiny")
    with pytest.raises(OasisError, match="decoder .tiny then, fast now"):
        go(clip, target, decoder="fast")
    assert go(clip, target).frames == 40
    with pytest.raises(UsageError, match="no decoder called 'wan'"):
        go(clip, target, decoder="wan")


def test_a_job_keeps_its_encoder_threads_on_a_larger_machine(clip, tmp_path, look, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    go(clip, whole)
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(5))

    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    go(clip, target)
    go(clip, tmp_path / "larger.mp4")

    assert x264_threads(whole) == x264_threads(target) == {b"6"}
    assert x264_threads(tmp_path / "larger.mp4") == {b"16"}
    assert digest(look, target) == digest(look, whole)


def test_a_damaged_manifest_says_so(clip, tmp_path):
    target = tmp_path / "out.mp4"
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(8))
    (folder_for(str(target), None) / "manifest.json").write_text("{}")
    with pytest.raises(MediaError, match="manifest.json cannot be read"):
        go(clip, target)
    assert go(clip, target, JobOptions(resume=False)).frames == 40


def test_two_processes_do_not_work_on_one_job(clip, tmp_path):
    target = tmp_path / "out.mp4"
    with locked(folder_for(str(target), None)), pytest.raises(OasisError, match="another process"):
        go(clip, target)


def test_a_work_dir_holds_the_segments(clip, tmp_path):
    target, work = tmp_path / "out.mp4", tmp_path / "work"
    work.mkdir()
    jobs = JobOptions(resume=True, segment_frames=7, work_dir=str(work))
    with pytest.raises(Killed):
        go(clip, target, jobs, model=dies_after(8))
    assert [p.name for p in work.iterdir()] != []
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "work"]
    go(clip, target, jobs)
    assert list(work.iterdir()) == []


def test_a_full_disk_is_refused_early(clip, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=10)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    with pytest.raises(MediaError, match="MiB are needed"):
        go(clip, tmp_path / "out.mp4", model=dies_after(1))  # the window that is timed
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_start_and_end_in_segments(clip, tmp_path, look):
    read = ReadOptions(start=Fraction(1, 2))
    encode = EncodeOptions(codec="ffv1")
    go(clip, tmp_path / "one.mkv", JobOptions(), read=read, encode=encode)
    go(clip, tmp_path / "many.mkv", read=read, encode=encode)
    assert digest(look, tmp_path / "many.mkv") == digest(look, tmp_path / "one.mkv")


# Real processes


def command(source, target, weights, *more):
    return [
        sys.executable, "-m", "oasis_cli", "upscale", str(source), str(target), "--scale", "2",
        "--model", str(weights), "--window", "5", "--overlap", "2", "--json", *map(str, more),
    ]  # fmt: skip


def run_process(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, env=environment, timeout=600
    )


def start(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command(*arguments), stderr=subprocess.PIPE, text=True, env=environment)


def kill_at(seconds, arguments):
    """Start the command and kill it; returns whether it was still running."""
    process = start(*arguments)
    for line in process.stderr:  # the clock starts with the first frame
        if '"progress"' in line or '"looking"' in line or '"done"' in line:
            break
    time.sleep(seconds)
    running = process.poll() is None
    process.kill()
    process.communicate(timeout=60)
    return running


CODECS = [
    ("libx264", "mp4", ["--preset", "veryfast"]),
    ("libx265", "mp4", ["--preset", "ultrafast"]),
    ("libsvtav1", "mkv", ["--preset", "12"]),
    ("prores_ks", "mov", []),
    ("ffv1", "mkv", []),
]


@pytest.mark.parametrize(("codec", "suffix", "more"), CODECS, ids=[c[0] for c in CODECS])
def test_kill_minus_9_and_the_same_command_again(
    codec, suffix, more, make_clip, tiny_weights, tmp_path, look, monkeypatch
):
    kills = int(os.environ.get("OASIS_TEST_KILLS", "1"))
    source = make_clip(frames=60 * (1 + kills), cuts=(31, 77), size=(64, 48))
    options = ["--codec", codec, *more, "--resume", "--segment-frames", "12"]
    whole, target = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    monkeypatch.undo()  # the real hash
    encode = EncodeOptions(codec=codec, preset=more[1] if more else None)
    jobs = JobOptions(resume=True, segment_frames=12)
    go(source, whole, jobs, model=load_tiny(tiny_weights), weights=tiny_weights, encode=encode)
    moments = random.Random(codec)
    killed = sum(
        kill_at(moments.uniform(0, 0.5), [source, target, tiny_weights, *options])
        for _ in range(kills)
        if not target.exists()
    )
    print(f"{codec}: killed {killed} times")
    if not target.exists():
        result = run_process(source, target, tiny_weights, *options)
        assert result.returncode == 0, result.stderr
    assert digest(look, target) == digest(look, whole)
    assert look.times(target) == look.times(whole)
    assert look.audio(target) == look.audio(source)
    assert not folder_for(str(target), None).exists()


def test_a_signal_keeps_the_finished_segments(make_clip, tiny_weights, tmp_path):
    source, target = make_clip(frames=400, size=(64, 48)), tmp_path / "out.mp4"
    options = ["--resume", "--segment-frames", "12"]
    process = start(source, target, tiny_weights, *options)
    while process.poll() is None and not list(folder_for(str(target), None).glob("*.mkv")):
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    assert "segments are kept" in process.communicate(timeout=60)[1]
    assert process.returncode == 143
    assert not target.exists()
    job = Job.load(folder_for(str(target), None))
    assert 0 < len(job.missing()) < len(job.segments)
    assert list(job.folder.glob("*.part")) == []


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


@pytest.mark.parametrize(
    ("devices", "processors", "encoding", "gib", "seconds", "each"),
    [
        (("cuda:0",), 16, 2.4, 100, 600, 2),
        (("cuda:0",), 32, 3.6, 100, 600, 4),
        (("cuda:0",), 128, 20.0, 100, 600, 4),
        (("cuda:0", "cuda:1"), 32, 3.6, 100, 600, 2),
        (("cuda:0",), 8, 3.6, 100, 600, 1),
        (("cuda:0",), 32, 0.7, 100, 600, 1),
        (("cuda:0",), 32, 3.6, 3, 600, 2),
        (("cuda:0",), 32, 3.6, 100, 60, 1),
        (("cpu",), 32, 3.6, 100, 600, 1),
    ],
)
def test_a_slow_encoder_on_a_gpu_is_worth_more_processes(
    clip, tmp_path, monkeypatch, devices, processors, encoding, gib, seconds, each
):
    plan = make_plan(probe(clip), str(tmp_path / "o.mp4"), Options(scale=2, device="cpu"))
    plan = replace(plan, devices=devices, precision="fp16")
    needs = Estimate(seconds=seconds, frame_seconds=0.01, encoding=encoding, memory=0, disk=None)
    monkeypatch.setattr("oasis_cli.jobs.estimate.free_memory", lambda device: gib << 30)
    monkeypatch.setattr(os, "cpu_count", lambda: processors)
    assert processes_each(plan, needs, 1.0) == each


@pytest.mark.parametrize(
    ("device", "seconds", "counts"),
    [("cuda:0", 43, True), ("cuda:0", 5, False), ("cpu", 43, False), ("cpu", 100, True)],
)
def test_a_fast_gpu_may_wait_for_its_encoder(clip, tmp_path, device, seconds, counts):
    plan = make_plan(probe(clip), str(tmp_path / "o.mp4"), Options(scale=2, device="cpu"))
    assert encoder_counts(replace(plan, devices=(device,)), seconds) == counts


def dies_at_once(*given):
    """A worker on a card that takes no second process."""
    os._exit(1)


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
    assert go(source, tmp_path / "alone.mp4", jobs, **given).frames == 30
    assert any("going on with fewer processes" in event.get("text", "") for event in events)
    with pytest.raises(MediaError, match="before it could start"):
        go(source, tmp_path / "asked.mp4", replace(jobs, workers=2), **given)

    events.clear()
    assert go(source, tmp_path / "one.mp4", replace(jobs, workers=1), **given).frames == 30
    assert not any(event["event"] == "worker" for event in events)


@pytest.mark.parametrize(
    ("devices", "seconds", "share", "worth"),
    [
        (("cuda:0", "cuda:1"), 9, 1.0, False),
        (("cuda:0", "cuda:1"), 11, 1.0, True),
        (("cuda:0", "cuda:1"), 100, 0.05, False),
        (("cuda:0", "cuda:1", "cuda:2"), 6, 1.0, True),
        (("cuda:0", "cuda:0"), 1, 1.0, True),
        (("cpu", "cpu"), 1, 1.0, True),
        (("cuda",), 1, 1.0, True),
    ],
)
def test_more_gpus_are_worth_it_when_they_save_their_start(
    clip, tmp_path, devices, seconds, share, worth
):
    plan = make_plan(probe(clip), str(tmp_path / "o.mp4"), Options(scale=2, device="cpu"))
    needs = Estimate(seconds=seconds, frame_seconds=0.01, encoding=0, memory=0, disk=None)
    assert worth_starting(replace(plan, devices=devices), needs, share) == worth


def test_where_others_would_start_too_late_one_device_renders(
    make_clip, tiny_weights, tmp_path, monkeypatch
):
    monkeypatch.undo()
    monkeypatch.setattr(segmented, "worth_starting", lambda *given: False)
    source, events = make_clip(frames=20, size=(64, 48)), []
    given = {"model": load_tiny(tiny_weights), "weights": tiny_weights, "report": events.append}
    assert go(source, tmp_path / "o.mp4", JobOptions(), device="cpu,cpu", **given).frames == 20
    assert any("on cpu alone" in event.get("text", "") for event in events)
    assert not any(event["event"] == "worker" for event in events)

    jobs = JobOptions(workers=2, segment_frames=6)
    assert go(source, tmp_path / "two.mp4", jobs, device="cpu,cpu", **given).frames == 20
    assert sum(event["event"] == "worker" for event in events) == 2


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


def test_a_shorter_input_than_the_job_began_with_is_named(clip, tmp_path, monkeypatch):
    whole = render.frames_from
    monkeypatch.setattr(render, "frames_from", lambda *a: islice(whole(*a), 20))
    with pytest.raises(MediaError, match="the input ends at frame 20; it had 40"):
        go(clip, tmp_path / "out.mkv")


def test_the_model_goes_on_while_a_segment_is_flushed(clip, tmp_path, monkeypatch):
    """Files appear in order, each while frames of the next ones are made."""
    close, made, at_close = SegmentWriter.close, [], []

    def slow_close(self):
        time.sleep(0.3)
        at_close.append(len(made))
        close(self)

    def counting(low, size, tile=None):
        made.append(low.shape[1])
        return sharpen(low, size)

    monkeypatch.setattr(SegmentWriter, "close", slow_close)
    go(clip, tmp_path / "out.mkv", JobOptions(resume=True, segment_frames=20), model=counting)
    assert at_close == [len(made), len(made)]  # 20 frames are made in less than 0.3 s


def load_tiny(weights):
    from oasis_cli.checkpoints.format import load_model

    return load_model(str(weights))


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
    from oasis_cli.jobs import execute as segmented

    monkeypatch.setattr("oasis_cli.pipeline.run.PROGRESS_EVERY", 0)
    monkeypatch.setattr("oasis_cli.jobs.processes.TRIES", 2)
    plan = make_plan(probe(source), str(target), Options(
        scale=2, windows=SMALL, model=str(tiny_weights)))  # fmt: skip
    with pytest.raises(MediaError, match="failed 2 times|died"):
        segmented.run_segmented(plan, jobs, None, None, report, Stop())
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


def test_the_window_made_for_the_estimate_counts_as_time_spent(make_clip, tmp_path):
    def slow(low, size, tile=None):
        time.sleep(0.5)
        return sharpen(low, size)

    short = make_clip(frames=SMALL.frames)
    result = go(short, tmp_path / "o.mp4", JobOptions(), model=slow)
    assert result.seconds >= 0.5
    assert result.fps <= 2 * SMALL.frames


def test_jobs_list_show_clean(clip, tmp_path):
    from typer.testing import CliRunner

    from oasis_cli.cli.main import app

    def jobs(*args):
        return CliRunner().invoke(app, ["jobs", *map(str, args)])

    target = tmp_path / "out.mp4"
    assert "no unfinished jobs" in jobs("list", tmp_path).stdout
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(10))

    (about,) = json.loads(jobs("list", tmp_path, "--json").stdout)
    assert Path(about["target"]) == target
    assert 0 < about["segments_done"] < about["segments"]
    assert "missing" in jobs("show", target).stdout
    assert jobs("show", tmp_path / "no.mp4").exit_code == 2
    assert "removed" in jobs("clean", target).stdout
    assert not folder_for(str(target), None).exists()
