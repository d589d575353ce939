import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from toys import nearest

from oasis_cli.errors import Interrupted, OasisError, UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.media.output.writer import Writer
from oasis_cli.pipeline.plan import make_plan
from oasis_cli.pipeline.run import Options, ProgressMeter, upscale
from oasis_cli.pipeline.threads import Stop, stop_on_signals
from oasis_cli.pipeline.windows import WindowOptions

SMALL = WindowOptions(frames=5, overlap=2)
LOSSLESS = EncodeOptions(codec="ffv1")


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("frames", [1, 2, 5, 8, 23])
def test_as_many_frames_out_as_in_at_the_same_times(make_clip, tmp_path, frames, look):
    source, target = make_clip(frames=frames, cuts=(7,)), tmp_path / "out.mp4"

    result = upscale(source, target, Options(scale=2, windows=SMALL), model=nearest)

    assert result.frames == frames
    assert look.times(target) == look.times(source)
    assert [f.shape for f in look.frames(target)] == [(48, 64, 3)] * frames
    assert look.audio(target) == look.audio(source)


def test_the_picture_is_the_models(make_clip, tmp_path, look):
    source, target = make_clip(frames=12, cuts=(5,), size=(64, 48)), tmp_path / "out.mkv"

    upscale(source, target, Options(scale=2, windows=SMALL, encode=LOSSLESS), model=nearest)

    pairs = zip(look.frames(source), look.frames(target), strict=True)
    for before, after in pairs:
        expected = before.repeat(2, 0).repeat(2, 1).astype(int)
        assert np.abs(expected - after.astype(int)).mean() < 3


def test_windows_do_not_change_a_model_without_memory(make_clip, tmp_path, look):
    source = make_clip(frames=30, cuts=(11, 13))
    outputs = []
    for number, windows in enumerate([SMALL, WindowOptions(frames=17, overlap=4)]):
        target = tmp_path / f"{number}.mkv"
        options = Options(scale=2, windows=windows, encode=LOSSLESS)
        upscale(source, target, options, model=nearest)
        outputs.append(look.frames(target))
    worst = max(np.abs(a.astype(int) - b).max() for a, b in zip(*outputs, strict=True))
    assert worst <= 3  # a rounding in YCbCr is up to three in RGB


def test_no_window_sees_two_scenes(make_clip, tmp_path):
    seen = []

    def spy(low, size, tile=None):
        means = low[0].mean(dim=(1, 2, 3))
        seen.append(float(means.max() - means.min()))
        return nearest(low, size)

    upscale(make_clip(frames=24, cuts=(9, 14)), tmp_path / "o.mp4",
            Options(scale=1, windows=SMALL), model=spy)  # fmt: skip
    assert max(seen) < 0.1


def test_start_and_end(make_clip, tmp_path, look):
    source, target = make_clip(frames=50), tmp_path / "out.mp4"
    read = ReadOptions(start=Fraction(1, 2), end=Fraction(1))

    assert upscale(source, target, Options(scale=1, read=read), model=nearest).frames in (12, 13)
    assert look.times(target)[0] < Fraction(1, 25)


def test_a_failing_model_leaves_nothing_behind(tiny_clip, tmp_path):
    def broken(low, size, tile=None):
        raise OasisError("broken")

    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    before = listing(tmp_path)
    options = Options(scale=2, encode=EncodeOptions(overwrite=True))
    with pytest.raises(OasisError, match="broken"):
        upscale(tiny_clip, target, options, model=broken)
    assert listing(tmp_path) == before
    assert target.read_bytes() == b"precious"


def test_a_model_of_another_size_is_noticed(tiny_clip, tmp_path):
    def cropped(low, size, tile=None):
        return nearest(low, size)[:, :-1]

    with pytest.raises(ValueError, match="frames went in"):
        upscale(tiny_clip, tmp_path / "out.mp4", Options(scale=2), model=cropped)
    assert listing(tmp_path) == ["in.mp4"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_and_leaves_nothing(make_clip, tmp_path, number):
    source, calls = make_clip(frames=60), []

    def model(low, size, tile=None):
        calls.append(1)
        if len(calls) == 4:
            os.kill(os.getpid(), number)
        return nearest(low, size)

    with pytest.raises(Interrupted) as caught, stop_on_signals() as stop:
        upscale(source, tmp_path / "out.mp4", Options(scale=2, windows=SMALL),
                stop=stop, model=model)  # fmt: skip
    assert caught.value.exit_code == 128 + number
    assert listing(tmp_path) == ["in.mp4"]


def test_events_tell_the_story(make_clip, tmp_path):
    events = []
    result = upscale(make_clip(frames=40), tmp_path / "out.mp4", Options(scale=2, windows=SMALL),
                     report=events.append, model=nearest)  # fmt: skip
    last = [e for e in events if e["event"] == "progress"][-1]
    assert (last["frames"], last["total"]) == (40, 40)
    assert last["fps"] > 0 and last["limiting"] in ("reading", "model", "writing")
    assert result.to_json()["event"] == "done"


def test_a_run_out_of_memory_goes_on(make_clip, tmp_path, look):
    events = []

    def hungry(low, size, tile=None):
        if low.shape[1] > 5:
            raise torch.OutOfMemoryError("out of memory")
        return nearest(low, size)

    result = upscale(make_clip(frames=20), tmp_path / "out.mp4", Options(scale=4),
                     report=events.append, model=hungry)  # fmt: skip
    assert result.frames == 20 == len(look.frames(tmp_path / "out.mp4"))
    assert any("going on with 5 frames" in e.get("text", "") for e in events)


def test_another_shape_keeps_the_look(make_clip, tmp_path):
    import av

    upscale(make_clip(size=(64, 48)), tmp_path / "out.mp4", Options(size=(192, 96)), model=nearest)
    with av.open(str(tmp_path / "out.mp4")) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(2, 3)


def test_one_failure_does_not_poison_a_stop(tiny_clip, tmp_path):
    stop = Stop()
    with pytest.raises(UsageError):
        upscale(tmp_path / "missing.mp4", tmp_path / "a.mp4", stop=stop, model=nearest)
    assert upscale(tiny_clip, tmp_path / "b.mp4", stop=stop, model=nearest).frames == 8


def test_no_stage_waits_while_another_works(make_clip, tmp_path, monkeypatch):
    """A model that takes as long for a window as writing takes for its frames: both at once."""
    windows, a_frame = WindowOptions(frames=17, overlap=4), 0.01
    write, times = Writer.write, {"model": [], "writing": []}

    @contextmanager
    def work(stage, seconds):
        began = time.monotonic()
        time.sleep(seconds)
        yield
        times[stage].append((began, time.monotonic()))

    def slow_write(self, planes):
        with work("writing", a_frame):
            write(self, planes)

    def slow_model(low, size, tile=None):
        with work("model", a_frame * windows.stride):
            return nearest(low, size)

    def at_once():
        """The share of the shorter work's time that both were at work."""
        for spans in times.values():
            spans.clear()
        target = tmp_path / f"{len(shares)}.mkv"
        upscale(source, target, Options(scale=1, windows=windows), model=slow_model)
        both = sum(
            max(0.0, min(model[1], writing[1]) - max(model[0], writing[0]))
            for model in times["model"]
            for writing in times["writing"]
        )
        return both / min(sum(end - began for began, end in spans) for spans in times.values())

    monkeypatch.setattr(Writer, "write", slow_write)
    source = make_clip(frames=17 + 12 * windows.stride)
    shares = []
    while not shares or (shares[-1] < 0.5 and len(shares) < 3):  # a busy machine stops either
        shares.append(at_once())
    assert max(shares) > 0.5, shares


def slices(packet: bytes) -> int:
    """Coded slices in one picture of H.264 with four-byte lengths."""
    found, place = 0, 0
    while place < len(packet):
        found += packet[place + 4] & 31 in (1, 5)
        place += 4 + int.from_bytes(packet[place : place + 4], "big")
    return found


def test_threads_of_the_encoder_do_not_cut_the_picture(make_clip, tmp_path):
    """Slices for each thread would cost bytes, and more of them on a larger machine."""
    source, target = make_clip(frames=6, size=(160, 120)), tmp_path / "o.mp4"
    encode = EncodeOptions(codec="libx264", preset="ultrafast")

    upscale(source, target, Options(scale=4, windows=SMALL, encode=encode), model=nearest)

    with av.open(str(target)) as made:
        assert [slices(bytes(p)) for p in made.demux(video=0) if p.size] == [1] * 6


def test_no_time_left_is_told_before_a_window_is_whole(make_clip, tmp_path):
    """Frames come in bursts: after the first of a burst the rate is a seventeenth of the truth."""
    plan = make_plan(probe(make_clip(frames=20)), str(tmp_path / "o.mkv"), Options(windows=SMALL))
    events = []
    meter = ProgressMeter(plan, events.append)
    for _ in range(4):
        meter.tick("model")
        meter.progress("model")
    assert [event["eta"] is None for event in events] == [True, True, False, False]


def test_a_run_loads_no_compiler(tiny_clip, tiny_weights, tmp_path):
    """It takes a second and more, and compiles nothing here."""
    code = (
        "import sys; from oasis_cli.pipeline.run import Options, upscale; "
        "upscale(*sys.argv[1:3], Options(scale=2, model=sys.argv[3])); "
        "print('torch._dynamo' in sys.modules)"
    )
    words = [sys.executable, "-c", code, tiny_clip, tmp_path / "out.mp4", tiny_weights]
    assert subprocess.check_output(words, text=True).strip() == "False"
