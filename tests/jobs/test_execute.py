"""Long jobs: whatever ends them, the same command finishes them with the same result."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from fractions import Fraction

import av
import pytest
from job_runs import IN_SEGMENTS, SMALL, begin, digest, go, load_tiny
from toys import Killed, dies_after, invoke, sharpen

from oasis_cli.errors import MediaError, OasisError, UsageError
from oasis_cli.jobs import execute as segmented
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.jobs.job import Job, Segment, file_identity, folder_for, locked, split
from oasis_cli.media.atomic import temporary_beside
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.model.decoders.kinds import to_dict
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.model.oasis import OasisConfig
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.windows import WindowOptions

pytestmark = pytest.mark.usefixtures("known_weights")


def x264_threads(path):
    """What x264 wrote into the stream about itself."""
    return set(re.findall(rb" threads=(\d+)", path.read_bytes()))


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
    ({"scale": 3}, r"size \(128x96 then, 192x144 now\)"),
    ({"windows": WindowOptions(frames=9, overlap=2)}, "frames"),
    ({"encode": EncodeOptions(crf=30)}, "crf"),
    ({"encode": EncodeOptions(codec="libx265")}, "codec"),
    ({"read": ReadOptions(end=1)}, r"end \(none then, 1 now\)"),
    ({"weights": "oasis-small-dense"}, "model .oasis-small then"),
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


def test_a_dry_run_says_what_becomes_of_the_job_that_was_begun(clip, tmp_path, tiny_weights):
    target = tmp_path / "out.mp4"
    words = ["upscale", clip, target, "--model", tiny_weights, "--scale", 2, "--crf", 20]
    words += ["--device", "cpu", "--window", 5, "--overlap", 2]
    begin(clip, target, weights=tiny_weights, device="cpu", encode=EncodeOptions(crf=20))
    kept = sorted(path.name for path in folder_for(str(target), None).iterdir())

    goes_on = invoke(*words, "--dry-run").stdout
    assert "job: goes on at 52%: 3 of 5 segments are in" in goes_on
    assert "for what is left, by the first window" in goes_on
    facts = json.loads(invoke(*words, "--dry-run", "--json").stdout)
    assert (facts["job"]["segments_done"], facts["job"]["frames"]) == (3, 40)
    assert "job: starts over, and deletes" in invoke(*words, "--dry-run", "--no-resume").stdout

    refused = [invoke(*words, "--crf", 30, *more) for more in (["--dry-run"], [])]
    assert [result.exit_code for result in refused] == [1, 1]
    assert refused[0].stderr == refused[1].stderr
    assert "unfinished job with another crf (20 then, 30 now)" in refused[0].stderr
    assert sorted(path.name for path in folder_for(str(target), None).iterdir()) == kept
    assert "job:" not in invoke(*words[:2], tmp_path / "new.mp4", *words[3:], "--dry-run").stdout


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
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: range(2)
    )  # the encoder's memory depends on them
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
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(6))
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    go(clip, whole)
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(5))

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(64))
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


def test_a_job_is_left_alone_from_the_moment_a_run_goes_on_with_it(clip, tmp_path):
    target = tmp_path / "out.mp4"
    begin(clip, target)
    said = []

    def cleans(low, size, tile=None):
        said.append(said or invoke("jobs", "clean", tmp_path).stdout)
        return sharpen(low, size)

    assert go(clip, target, model=cleans).frames == 40
    assert "running, left alone" in said[0] and "removed" not in said[0]


def test_segments_that_lie_there_without_their_job_are_not_taken(clip, tmp_path, look):
    coarse = {"encode": EncodeOptions(crf=45)}
    whole, target = tmp_path / "whole.mp4", tmp_path / "out.mp4"
    go(clip, whole, **coarse)
    folder = begin(clip, target)
    (folder / "manifest.json").unlink()  # as when a run is killed that was removing them
    assert list(folder.glob("*.mkv"))
    go(clip, target, **coarse)
    assert digest(look, target) == digest(look, whole)


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


KILLS = int(os.environ.get("OASIS_TEST_KILLS", "0"))
"""Of each encoder's run; without a number there is one, of the first encoder."""


@pytest.mark.parametrize(("codec", "suffix", "more"), CODECS, ids=[c[0] for c in CODECS])
def test_every_encoder_goes_on_behind_what_a_killed_run_left(
    codec, suffix, more, clip, tmp_path, look
):
    whole, target = tmp_path / f"whole.{suffix}", tmp_path / f"out.{suffix}"
    encode = EncodeOptions(codec=codec, preset=more[1] if more else None)
    go(clip, whole, encode=encode)
    folder = begin(clip, target, calls=9, encode=encode)
    done = sorted(folder.glob("*.mkv"))
    assert len(done) > 1
    torn = temporary_beside(done[0])
    torn.write_bytes(done[0].read_bytes()[:-100])
    done[0].unlink()  # what is missing lies before and behind what is there
    go(clip, target, encode=encode)
    assert digest(look, target) == digest(look, whole)
    assert look.times(target) == look.times(whole)
    assert look.audio(target) == look.audio(clip)
    assert not folder.exists()


@pytest.mark.parametrize(("codec", "suffix", "more"), CODECS if KILLS else CODECS[:1])
def test_kill_minus_9_and_the_same_command_again(
    codec, suffix, more, make_clip, tiny_weights, tmp_path, look, monkeypatch
):
    kills = KILLS or 1
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
        words = command(source, target, tiny_weights, *options)[3:]
        result = invoke(*words)
        assert result.exit_code == 0, result.stderr
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


def test_the_window_made_for_the_estimate_counts_as_time_spent(make_clip, tmp_path):
    def slow(low, size, tile=None):
        time.sleep(0.5)
        return sharpen(low, size)

    short = make_clip(frames=SMALL.frames)
    result = go(short, tmp_path / "o.mp4", JobOptions(), model=slow)
    assert result.seconds >= 0.5
    assert result.fps <= 2 * SMALL.frames


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


@pytest.mark.parametrize("suffix", ["mkv", "mp4"])
def test_chapters_of_later_files_are_the_same_behind_a_killed_run(
    make_clip, tmp_path, look, suffix
):
    plain = make_clip("plain.mkv", frames=14)
    marked = tmp_path / "marked.mkv"
    with av.open(str(plain)) as box, av.open(str(marked), "w") as out:
        streams = [out.add_stream_from_template(s, opaque=True) for s in box.streams]
        out.set_chapters([{"id": 1, "start": 0, "end": 560, "time_base": Fraction(1, 1000),
                           "metadata": {"title": "Second"}}])  # fmt: skip
        for packet in box.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                out.mux(packet)
    source, target = tmp_path / "in.mkv", tmp_path / f"out.{suffix}"
    source.write_bytes(plain.read_bytes() + marked.read_bytes())
    begin(source, target)
    go(source, target)
    with av.open(str(target)) as box:
        starts = [c["start"] * c["time_base"] for c in box.chapters() if c["metadata"]["title"]]
    assert starts == [pytest.approx(look.times(target)[14], abs=0.02)]
