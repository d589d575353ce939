"""The command as a user runs it: real processes, real files."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import av
import pytest
from toys import invoke

from oasis_cli.jobs.estimate import Estimate

FAST = ["--window", "5", "--overlap", "2"]


def oasis(*args, **options):
    """Run the command in a process of its own."""
    command = [sys.executable, "-m", "oasis_cli", *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "100"}
    return subprocess.run(
        command, capture_output=True, text=True, timeout=120, env=environment, **options
    )


@pytest.mark.parametrize("given", [None, "ACTIVE"])
def test_threads_that_wait_leave_the_processor_to_others_unless_told(given, monkeypatch):
    monkeypatch.setenv("OMP_WAIT_POLICY", given or "")
    if given is None:
        monkeypatch.delenv("OMP_WAIT_POLICY")
    invoke("--version")
    assert os.environ["OMP_WAIT_POLICY"] == (given or "PASSIVE")


LEAVING = """
import atexit, sys
class Module:
    def __del__(self): print('taken apart')
kept = Module()
if 'earlier' in sys.argv:
    atexit.register(print, 'an earlier tool is told')
from oasis_cli.cli import main
def app():
    import logging.handlers, multiprocessing, tempfile, threading, time
    kept.folder = tempfile.TemporaryDirectory()
    kept.lock = multiprocessing.get_context('spawn').Semaphore()
    log = kept.log = logging.handlers.MemoryHandler(9, target=logging.StreamHandler(sys.stdout))
    log.emit(logging.makeLogRecord({'msg': 'a late log', 'levelno': 20}))
    atexit.register(print, 'a later tool is told')
    threading.Thread(target=lambda: (time.sleep(.1), print('a thread is done'))).start()
    print(kept.folder.name)
    if 'bug' in sys.argv:
        raise ValueError('a bug')
    sys.exit(3)
main.app = app
if 'library' in sys.argv:
    try:
        main.app()
    except SystemExit:
        sys.exit(5)
main.command()
"""


@pytest.mark.parametrize(
    ("words", "status", "at_once"),
    [
        (["upscale"], 3, True),
        (["upscale", "bug"], 1, True),
        (["upscale", "earlier"], 3, False),
        (["upscale", "library"], 5, False),
        (["train"], 3, False),
    ],
)
def test_the_process_ends_at_once_and_loses_nothing(words, status, at_once):
    done = subprocess.run(
        [sys.executable, "-c", LEAVING, *words], capture_output=True, text=True, check=False
    )
    folder, *told = done.stdout.splitlines()
    assert done.returncode == status
    assert set(told) - {"taken apart", "an earlier tool is told"} == {
        *("a late log", "a later tool is told", "a thread is done")
    }
    assert ("taken apart" in told) != at_once
    assert ("an earlier tool is told" in told) == ("earlier" in words)
    assert not Path(folder).exists()
    assert ("ValueError: a bug" in done.stderr) == ("bug" in words)
    assert "leaked" not in done.stderr and ("bug" in words or not done.stderr)


def test_the_options_are_in_panels():
    text = invoke("upscale", "--help").stdout
    for panel in ("Picture", "Speed and memory", "Encoding", "Run"):
        assert panel in text


@pytest.mark.parametrize(("words", "number", "expected"), [
    ("oasis upscale a b --preview --codec lib", 6, "libx264"),
    ("oasis ups", 1, "upscale"),
    ("oasis upscale --model oasis-t", 3, "oasis-tiny"),
    ("oasis upscale --codec lib", 3, "libx264"),
    ("oasis upscale --decoder ", 3, "tiny"),
])  # fmt: skip
def test_shell_completion(words, number, expected):
    asked = {"_OASIS_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(number)}
    code = (
        "import sys; sys.argv = ['oasis']\n"
        "from oasis_cli.cli.main import app; app(prog_name='oasis')"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | asked
    )
    assert expected in result.stdout.split()


def test_no_arguments_print_the_help():
    result = invoke()
    assert "Usage:" in result.output
    assert "error" not in result.stderr


def test_a_clip_comes_out_larger_with_its_sound(make_clip, tiny_weights, tmp_path, look):
    source, target = make_clip(frames=12, cuts=(7,)), tmp_path / "out.mp4"

    result = oasis("upscale", source, target, "--scale", 2, "--model", tiny_weights, *FAST)

    assert result.returncode == 0, result.stderr
    assert result.stdout == ""
    assert "12 frames of 64x48" in result.stderr
    assert look.frames(target)[0].shape == (48, 64, 3)
    assert look.times(target) == look.times(source)
    assert look.audio(target) == look.audio(source)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_json_is_one_object_a_line(make_clip, tiny_weights, tmp_path, capfd):
    result = invoke("upscale", make_clip(), tmp_path / "out.mp4", "--json", "--scale", 2,
                   "--model", tiny_weights)  # fmt: skip
    events = [json.loads(line) for line in result.stderr.splitlines()]
    assert capfd.readouterr() == ("", "")  # nor does a library write between the lines
    assert events[-1]["event"] == "done"
    assert events[-1]["frames"] == 8
    assert any(event["event"] == "progress" for event in events)


def test_quiet_prints_nothing(tiny_clip, tiny_weights, tmp_path):
    result = oasis("upscale", tiny_clip, tmp_path / "out.mp4", "-q", "--scale", 2,
                   "--model", tiny_weights)  # fmt: skip
    assert (result.returncode, result.stdout, result.stderr) == (0, "", "")


def test_a_dry_run_prints_the_plan_and_writes_nothing(tiny_clip, tiny_weights, tmp_path):
    command = ["upscale", tiny_clip, tmp_path / "out.mp4", "--dry-run", "--model", tiny_weights]
    result = invoke(*command)
    assert result.exit_code == 0
    for word in ("libx264", "128x96", "audio aac: copied", "memory:", "time:", "windows of 17"):
        assert word in result.stdout
    assert not (tmp_path / "out.mp4").exists()

    facts = json.loads(invoke(*command, "--json").stdout)
    assert facts["size"] == [128, 96]
    assert facts["estimate"]["seconds"] > 0
    assert facts["estimate"]["disk"] > 0 and facts["estimate"]["memory"] > 0


def test_a_dry_run_on_a_slow_cpu_names_the_tiny_model(
    tiny_clip, tiny_weights, tmp_path, monkeypatch
):
    needs = Estimate(seconds=7200, frame_seconds=1, encoding=0, memory=0, disk=None)
    monkeypatch.setattr("oasis_cli.upscaler.estimate", lambda *plan, **how: needs)
    monkeypatch.setattr("torch.get_num_threads", lambda: 2)
    command = ["upscale", tiny_clip, tmp_path / "out.mp4", "--dry-run", "--device", "cpu"]
    command += ["--model", tiny_weights]
    lines = invoke(*command).stdout.splitlines()
    (line,) = (line for line in lines if "oasis-tiny" in line)
    assert line.startswith("note: `--model oasis-tiny` is 2.6 times as fast")
    assert line.removeprefix("note: ") in json.loads(invoke(*command, "--json").stdout)["notes"]


def test_weights_show_describes_a_file(tiny_weights):
    about = json.loads(invoke("weights", "show", tiny_weights).stdout)
    assert about["name"] == "tiny"
    assert about["config"]["dit"]["width"] == 32


BAD = {
    "missing": 2,
    "directory": 2,
    "text": 1,
    "empty": 1,
    "sound": 1,
    "no folder": 2,
    "exists": 1,
    "same": 2,
    "codec": 2,
    "scale": 2,
    "scale and size": 2,
    "size": 2,
    "window": 2,
    "overlap": 2,
    "tile": 2,
    "device": 2,
    "precision": 2,
    "model": 2,
    "not a model": 1,
    "time": 2,
    "backwards": 2,
    "suffix": 2,
    "not a number": 2,
    "unknown option": 2,
    "no target": 2,
    "unknown command": 2,
}


def bad_command(case, clip, folder):
    """The arguments of one wrong command."""
    target = folder / "out.mp4"
    text, empty, sound = folder / "text.mp4", folder / "empty.mp4", folder / "sound.wav"
    text.write_text("this is not a video, whatever its name says\n" * 20)
    empty.touch()
    if case == "sound":
        with av.open(str(sound), "w") as out:
            stream = out.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame(format="s16", layout="mono", samples=800)
            frame.planes[0].update(bytes(1600))
            frame.sample_rate, frame.pts = 8000, 0
            out.mux([*stream.encode(frame), *stream.encode(None)])
    if case == "exists":
        target.write_bytes(b"precious")
    extra = {
        "codec": ["--codec", "divx"],
        "scale": ["--scale", "7"],
        "scale and size": ["--scale", "2", "--size", "64x48"],
        "size": ["--size", "large"],
        "window": ["--window", "16"],
        "overlap": ["--overlap", "12"],
        "tile": ["--tile", "5"],
        "device": ["--device", "tpu"],
        "precision": ["--precision", "fp17"],
        "model": ["--model", "nonesuch"],
        "not a model": ["--model", str(text)],
        "time": ["--start", "noon"],
        "backwards": ["--start", "3", "--end", "2"],
        "not a number": ["--crf", "good"],
        "unknown option": ["--frobnicate"],
    }.get(case, [])
    source = {
        "missing": folder / "missing.mp4",
        "directory": folder,
        "text": text,
        "empty": empty,
        "sound": sound,
    }.get(case, clip)
    target = {
        "no folder": folder / "no" / "out.mp4",
        "same": clip,
        "suffix": folder / "out.xyz",
    }.get(case, target)
    if case == "no target":
        return ["upscale", source]
    if case == "unknown command":
        return ["upscal", source, target]
    return ["upscale", source, target, *extra]


@pytest.mark.parametrize("case", BAD)
def test_what_is_wrong_is_said_in_two_lines(case, make_clip, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    clip = shutil.copy(make_clip(), folder / "clip.mp4")
    command = bad_command(case, Path(clip), folder)
    before = sorted(p.name for p in folder.iterdir())

    result = invoke(*command)

    assert result.exit_code == BAD[case], result.stderr
    lines = result.stderr.splitlines()
    assert lines[0].startswith("error: ")
    assert all(line.startswith("hint:  ") for line in lines[1:])
    assert len(lines) <= 2
    assert "Traceback" not in result.output
    assert sorted(p.name for p in folder.iterdir()) == before
    if case == "exists":
        assert (folder / "out.mp4").read_bytes() == b"precious"


def test_a_file_that_may_not_be_read(tiny_clip, tmp_path):
    from oasis_cli.errors import UsageError
    from oasis_cli.media.input.probe import probe

    tiny_clip.chmod(0)
    root = os.geteuid() == 0  # root reads everything: be nobody for a moment
    if root:
        for folder in (tmp_path, *list(tmp_path.parents)[:2]):
            folder.chmod(0o755)
        os.seteuid(65534)
    try:
        with pytest.raises(UsageError, match="may not be read"):
            probe(tiny_clip)
    finally:
        if root:
            os.seteuid(0)


def test_errors_as_json(tmp_path):
    result = invoke("upscale", tmp_path / "missing.mp4", tmp_path / "o.mp4", "--json")
    event = json.loads(result.stderr.splitlines()[-1])
    assert (event["event"], event["exit_code"], result.exit_code) == ("error", 2, 2)
    assert "does not exist" in event["message"]


def start(*args):
    command = [sys.executable, "-m", "oasis_cli", *map(str, args)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
def test_a_signal_ends_the_process_and_leaves_the_target_as_it_was(
    name, make_clip, tiny_weights, tmp_path
):
    import signal

    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    process = start("upscale", make_clip(frames=600, size=(64, 48)), target, "-y", "--json",
                    "--model", tiny_weights, *FAST)  # fmt: skip
    for line in process.stderr:
        if json.loads(line)["event"] == "progress":
            break
    process.send_signal(getattr(signal, name))
    rest = process.communicate(timeout=60)[1]

    assert process.returncode == 128 + getattr(signal, name)
    assert "Traceback" not in rest
    assert target.read_bytes() == b"precious"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["in.mp4", "out.mp4"]


def test_a_damaged_packet_costs_its_frames_and_not_the_run(make_clip, tiny_weights, tmp_path, look):
    source, target = (
        make_clip(name="in.mkv", frames=60, sound=False, size=(64, 48)),
        tmp_path / "out.mkv",
    )
    with av.open(str(source)) as container:
        payload = [bytes(p) for p in container.demux(video=0) if p.size][30]
    damaged = b"\xff" * len(payload)
    source.write_bytes(source.read_bytes().replace(payload, damaged, 1))

    result = invoke("upscale", source, target, "--scale", 1, "--model", tiny_weights, *FAST)

    assert result.exit_code == 0, result.stderr
    assert "warning:" in result.stderr
    assert 30 < len(look.frames(target)) <= 60


@pytest.mark.parametrize("is_pipe", [False, True])
def test_a_full_disk_ends_clearly(make_clip, tiny_weights, tmp_path, is_pipe):
    """A file is refused before it starts; a pipe, whose length nobody knows, when it is full."""
    small = tmp_path / "small"
    small.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(small)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        clip = make_clip("in.mkv", frames=60, size=(64, 48))
        words = [small / "out.mkv", "--codec", "ffv1", "--model", tiny_weights, *FAST]
        if is_pipe:
            with clip.open("rb") as stream:
                result = oasis("upscale", "-", *words, stdin=stream)
            code = result.returncode
        else:
            result = invoke("upscale", clip, *words)
            code = result.exit_code
        assert code == 1
        assert ("the disk is full" if is_pipe else "MiB are needed at") in result.stderr
        assert ("are needed" in result.stderr) != is_pipe
        assert list(small.iterdir()) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_a_reader_that_goes_away_ends_the_command_quietly(make_clip, tiny_weights):
    command = [sys.executable, "-m", "oasis_cli", "upscale", str(make_clip(frames=200)), "-",
               "--format", "nut", "--model", str(tiny_weights), *FAST]  # fmt: skip
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.read(100)
        process.stdout.close()
        said = process.stderr.read().decode()
        assert process.wait(timeout=60) == 141
    assert "error" not in said and "Traceback" not in said


def test_a_video_track_is_chosen_by_its_number(tiny_clip, tiny_weights, tmp_path):
    command = ["upscale", tiny_clip, tmp_path / "out.mp4", "--model", tiny_weights, "--dry-run"]
    assert "stream 0, video h264: enlarged" in invoke(*command, "--video-track", 0).output
    refused = invoke(*command, "--video-track", 1)
    assert refused.exit_code == 2
    assert "stream 1 of" in refused.stderr and "its video tracks: 0" in refused.stderr
