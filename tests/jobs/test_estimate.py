"""What a run will need is told before it starts, by its own first window."""

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import av
import pytest
from toys import nearest

from oasis_cli.cli.formatting import plan_lines
from oasis_cli.errors import MediaError
from oasis_cli.jobs.estimate import (
    Estimate,
    check_space,
    encoder_counts,
    estimate,
    processes_each,
    worth_starting,
)
from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.media.output.trial import encode_for_size
from oasis_cli.pipeline import plan as planning
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.devices import capabilities

SMALL = WindowOptions(frames=5, overlap=1)


def slow(low, size, tile=None):
    time.sleep(0.1)
    return nearest(low, size)


def planned(source, target, **options):
    return make_plan(probe(source), str(target), Options(scale=2, windows=SMALL, **options))


def runner(plan, model):
    return WindowRunner(model, plan.size[::-1], plan.options.windows)


@pytest.fixture
def no_space(monkeypatch):
    """Every disk has 1000 bytes left."""
    real = shutil.disk_usage
    monkeypatch.setattr(shutil, "disk_usage", lambda path: real(path)._replace(free=1000))


@pytest.mark.parametrize(
    ("free", "tile", "sentence"),
    [
        (1 << 40, None, None),
        (669 << 20, 512, "tiles of 512 pixels, the picture is the same"),
        (569 << 20, 128, "tiles of 128 pixels"),
        (1 << 20, 128, "even that may be too much: choose a smaller --window"),
    ],
)
def test_tiles_fit_the_memory_that_is_free(make_clip, tmp_path, monkeypatch, free, tile, sentence):
    monkeypatch.setattr(planning, "free_memory", lambda device: free)
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda pid: range(1)
    )  # the encoder's memory depends on them
    source = make_clip(frames=5, size=(640, 360))

    plan = planned(source, tmp_path / "o.mkv", precision="fp32")

    assert plan.options.tile == tile
    notes = [note for note in plan.notes if "MiB are free" in note]
    assert len(notes) == (sentence is not None)
    if tile:
        assert (plan.memory <= free or free == 1 << 20) and sentence in notes[0]
        asked = planned(source, tmp_path / "o.mkv", tile=128)
        assert asked.options.tile == 128
        if free == 1 << 20:
            (note,) = (note for note in asked.notes if "MiB are free" in note)
            assert note.endswith("free: choose a smaller --window, --tile or --scale")


@pytest.mark.parametrize(("free", "frames", "tile"), [
    (1129, 17, None), (1009, 13, None), (879, 9, None), (829, 9, 256), (730, 5, None),
    (581, 5, 128), (99, 5, 128),
])  # fmt: skip
def test_windows_nobody_asked_for_get_shorter(make_clip, tmp_path, monkeypatch, free, frames, tile):
    monkeypatch.setattr(planning, "free_memory", lambda device: free << 20)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(1))
    info = probe(make_clip(frames=5, size=(640, 360)))

    options = Options(scale=2, precision="fp32", fit_windows=True)
    plan = make_plan(info, str(tmp_path / "o.mkv"), options)
    assert (plan.options.windows.frames, plan.options.tile) == (frames, tile)
    assert plan.options.windows.overlap == min(4, frames // 2)
    assert (frames != 17) == any("--window 17 insists" in note for note in plan.notes)
    assert (free == 99) == any("much: choose a smaller --scale" in note for note in plan.notes)

    asked = make_plan(info, str(tmp_path / "o.mkv"), Options(scale=2))
    assert asked.options.windows.frames == 17


def test_time_comes_from_the_first_window(make_clip, tmp_path):
    plan = planned(make_clip(frames=101, size=(64, 48)), tmp_path / "o.mkv")

    found = estimate(plan, runner(plan, slow), Stop())

    assert found.seconds == pytest.approx(0.1 / 4 * 101, rel=0.5)  # 4 new frames in each window
    assert found.memory > 2**20


@pytest.mark.parametrize(("frames", "windows"), [(100, 1), (100_000, 3)])
def test_a_short_run_on_a_gpu_makes_its_first_window_once(
    make_clip, tmp_path, monkeypatch, frames, windows
):
    plan = replace(planned(make_clip(frames=6, size=(64, 48)), tmp_path / "o.mkv"), frames=frames)
    gpu = replace(capabilities("cpu"), kind="cuda")
    monkeypatch.setattr("oasis_cli.jobs.estimate.capabilities", lambda device: gpu)
    made = []

    def model(low, size, tile=None):
        made.append(len(low))
        return slow(low, size, tile)

    estimate(plan, runner(plan, model), Stop())

    assert len(made) == windows


@pytest.mark.parametrize("codec", ["libx264", "libx265", "ffv1", "libsvtav1"])
def test_disk_comes_from_the_encoder(make_clip, tmp_path, codec):
    source, target = make_clip(frames=120, size=(160, 120)), tmp_path / "o.mkv"
    preset = {"ffv1": None, "libsvtav1": "10"}.get(codec, "veryfast")
    encode = EncodeOptions(codec=codec, preset=preset)
    plan = make_plan(probe(source), str(target), Options(scale=2, encode=encode))

    found = estimate(plan, runner(plan, nearest), Stop(), thorough=True)
    carry_out(plan, JobOptions(), lambda event: None, Stop(), lambda plan: nearest)

    with av.open(str(target)) as made:
        picture = sum(packet.size for packet in made.demux(video=0))
    assert 0.5 < found.disk / picture < 2


@pytest.mark.parametrize(("frames", "encoded"), [(120, [5]), (700, [5, 15]), (90_000, [5, 30])])
def test_a_longer_run_tries_its_encoder_longer(make_clip, tmp_path, monkeypatch, frames, encoded):
    plan = planned(make_clip(frames=20, size=(160, 120)), tmp_path / "o.mkv")
    plan, trials = replace(plan, frames=frames), []

    def encode(output, pictures):
        trials.append(encode_for_size(output, pictures))
        return trials[-1]

    monkeypatch.setattr("oasis_cli.jobs.estimate.encode_for_size", encode)
    found = estimate(plan, runner(plan, nearest), Stop(), thorough=True)

    assert [trial.frames for trial in trials] == encoded
    assert found.seconds > trials[-1].seconds / trials[-1].frames * frames
    once = trials[0]
    assert 1 < found.disk / (frames * (once.bytes - once.first) / 4) < 1.2


def test_a_run_that_does_not_fit_is_refused_before_it_starts(make_clip, tmp_path, no_space):
    source, target = make_clip(frames=30, size=(160, 120)), tmp_path / "o.mkv"
    plan, asked = planned(source, target), []

    def model(low, size, tile=None):
        asked.append(low)
        return nearest(low, size)

    for jobs in (JobOptions(), JobOptions(resume=True), JobOptions(resume=True, workers=2)):
        with pytest.raises(MediaError, match=r"MiB are needed at .*MiB are free"):
            carry_out(plan, jobs, lambda event: None, Stop(), lambda plan: model)
    assert len(asked) == 3  # a first window each
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4"]


def test_folders_on_one_disk_are_added_up(tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)._replace(free=100)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)
    check_space({tmp_path: 60, tmp_path / "not" / "yet": 40})
    with pytest.raises(MediaError, match="are needed"):
        check_space({tmp_path: 60, tmp_path / "not" / "yet": 41})


def test_the_estimate_says_what_is_left(make_clip, tmp_path, monkeypatch):
    monkeypatch.setattr("oasis_cli.jobs.policy.WORTH_KNOWING", 0)
    monkeypatch.setattr("oasis_cli.jobs.execute.weights_hash", lambda plan: "")
    source, target, told = make_clip(frames=40, size=(64, 48)), tmp_path / "o.mkv", []
    plan, jobs = planned(source, target), JobOptions(resume=True, segment_frames=10)
    calls = 0

    def dies(low, size, tile=None):
        nonlocal calls
        calls += 1
        if calls > 8:
            raise KeyboardInterrupt
        return slow(low, size)

    def report(event):
        if event["event"] == "estimate":
            told.append(event)

    with pytest.raises(KeyboardInterrupt):
        carry_out(plan, jobs, report, Stop(), lambda plan: dies)
    carry_out(plan, jobs, report, Stop(), lambda plan: slow)

    first, second = (int(event["text"].split(" frames")[0].split()[-1]) for event in told)
    assert first == 40 and second in (10, 20, 30)
    assert told[0]["text"].count("MiB") == 2 and told[0]["memory_bytes"] and told[0]["disk_bytes"]
    assert not Path(tmp_path / ".o.mkv.oasis").exists()


@pytest.mark.parametrize(("name", "why"), [
    ("o.gif", "gif cannot be joined"), ("f_%04d.png", "one by one"), ("-", "only once"),
    ("o.mp4", ""),
])  # fmt: skip
def test_what_cannot_be_continued_says_so(make_clip, tmp_path, monkeypatch, capfd, name, why):
    source = make_clip(frames=6, size=(64, 48))
    encode = EncodeOptions(format="nut" if name == "-" else None)
    target = name if name == "-" else tmp_path / name
    plan, said = planned(source, target, encode=encode), []

    def report(event):
        said.append(event.get("text", ""))

    lines = [line for line in plan_lines(plan) if line.startswith("resume:")]
    assert (why in lines[0]) if why else not lines
    monkeypatch.setattr("oasis_cli.jobs.execute.weights_hash", lambda plan: "")
    carry_out(plan, JobOptions(resume=True), report, Stop(), lambda plan: nearest)
    assert any("begins anew" in text and why in text for text in said) == bool(why)


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
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(processors))
    assert processes_each(plan, needs, 1.0) == each


@pytest.mark.parametrize(
    ("device", "seconds", "counts"),
    [("cuda:0", 43, True), ("cuda:0", 5, False), ("cpu", 43, False), ("cpu", 100, True)],
)
def test_a_fast_gpu_may_wait_for_its_encoder(clip, tmp_path, device, seconds, counts):
    plan = make_plan(probe(clip), str(tmp_path / "o.mp4"), Options(scale=2, device="cpu"))
    assert encoder_counts(replace(plan, devices=(device,)), seconds) == counts


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
