"""File to file with the real network: how close to its slowest part, on one device and on several.

    python benchmarks/end_to_end.py [--device cuda] [--frames 1000] [--json FILE]
    python benchmarks/end_to_end.py --devices cuda:0,cuda:1 --frames 12000      # one against two
    python benchmarks/end_to_end.py --devices cuda:0,cuda:1 --model 1.4b --size 480x270
    python benchmarks/end_to_end.py --cap 0.02 --scale 4 --size 640x360         # memory is short

The first reads, computes and writes alone, then all three together. The second makes the same clip
in segments on the first device, then on all; how often one beats the other is the speed-up. 1.4b
is a network of the paper's size with FastDecoder and random weights. With --cap, the process may
use that share of the card, and the run has to end whole all the same: once as planned for it, once
with whole pictures in windows of 17 frames, so that it steps down on the way. Everything is made
and removed in a temporary folder.
"""

import argparse
import faulthandler
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from gpu_rig import ROUTED  # the folder of this script is on the path
from pipeline import Bench, clock

from oasis_cli.checkpoints.format import save_model
from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.errors import OasisError
from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.input.reader import Reader
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.media.output.segments import SegmentWriter, encoder_threads
from oasis_cli.media.picture import Planes
from oasis_cli.media.testclip import write_test_clip
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import PAPER, Oasis
from oasis_cli.pipeline.plan import Options, Plan, make_plan
from oasis_cli.pipeline.run import load, make_runner, run
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import window_spans
from oasis_cli.runtime.devices import choose_devices


@dataclass
class Task(Bench):
    """A clip and how it is enlarged, by a network instead of the stand-in."""

    options: Options = field(default_factory=Options)
    frames: int = 0

    def plan(self, name: str = "out.mkv", **changes: Any) -> Plan:
        """The run that writes `name` beside the source."""
        options = replace(self.options, **changes)
        return make_plan(self.info, str(self.source.with_name(name)), options)


def quiet(event: dict[str, Any]) -> None:
    """Reports go nowhere."""


def first_window(plan: Plan, runner: WindowRunner) -> tuple[torch.Tensor, list[Planes]]:
    """The first window's clip on the device, and its result as the encoder gets it."""
    with Reader(plan.info) as reader:
        seen = list(islice(reader, plan.options.windows.frames))
        low = frames_to_clip(seen, reader.spec, plan.device)
    return low, [clip_to_planes(frame[None], plan.output.spec)[0] for frame in runner(low)]


def alone(task: Task) -> dict[str, float]:
    """Reading, the network and writing, each alone, and all together; frames a second."""
    plan = task.plan()
    runner = make_runner(plan, load(plan), quiet)
    low, planes = first_window(plan, runner)  # warms up, too

    def network() -> int:
        windows = len(window_spans(0, task.frames, plan.options.windows))
        for _ in range(windows):
            high = runner(low)
        high.flatten()[0].item()  # waits for the device
        return task.frames

    works: dict[str, Callable[[], int]] = {
        "reading": task.read,
        "network": network,
        "writing": lambda: task.write(task.frames, planes),
        "together": lambda: run(plan, runner, quiet, Stop()).frames,
    }
    runs = [{name: clock(work)[0] for name, work in works.items()} for _ in range(3)]
    found = {name: statistics.median(r[name] for r in runs) for name in works}
    slowest = min(found["reading"], found["network"], found["writing"])
    return found | {"of_slowest": found["together"] / slowest}


def write_segment(plan: Plan, planes: list[Planes], count: int = 500) -> int:
    """Encode `count` frames as a segment; its encoder has fewer threads than a whole run's."""
    with SegmentWriter(plan.output, Path(plan.target), encoder_threads()) as writer:
        for number in range(count):
            writer.write(planes[number % len(planes)])
        writer.close()
    return count


def write_segments(plan: Plan, planes: list[Planes], count: int) -> int:
    """Encode `count` segments at a time."""
    targets = [replace(plan, target=f"{plan.target}.{n}.mkv") for n in range(count)]
    with ThreadPoolExecutor(count) as pool:
        return sum(pool.map(write_segment, targets, [planes] * count))


def several(task: Task, devices: str, workers: int | None) -> dict[str, float]:
    """The same clip in segments on the first device, and on all of `devices`.

    Frames a second are counted from the first segment on: starting processes takes as long for a
    clip of any length.
    """
    names = devices.split(",")
    part = task.plan("part.mkv", device=names[0])
    _, planes = first_window(part, make_runner(part, load(part), quiet))
    found = {
        "writing a segment, frames/s": clock(lambda: write_segment(part, planes))[0],
        "writing one for each device, frames/s": clock(
            lambda: write_segments(part, planes, len(names))
        )[0],
    }
    for name, where, count in (("one", names[0], 1), ("all", devices, workers or len(names))):
        jobs = JobOptions(resume=True, workers=count)
        plan = task.plan(f"{name}.mkv", device=where)
        seen: list[tuple[float, int]] = []

        def note(event: dict[str, Any], seen: list[tuple[float, int]] = seen) -> None:
            if event["event"] == "progress" and event["frames"]:
                seen.append((time.perf_counter(), event["frames"]))

        began = time.perf_counter()
        result = carry_out(plan, jobs, note, Stop())
        found[f"{name}, seconds"] = time.perf_counter() - began
        (first, before), (last, after) = seen[0], seen[-1]
        found[f"{name}, frames/s"] = (after - before) / max(1e-9, last - first)
        if result.frames != task.frames:
            raise SystemExit(f"{result.frames} of {task.frames} frames came out on {where}")
    return found | {
        "speed_up": found["all, frames/s"] / found["one, frames/s"],
        "speed_up, whole": found["one, seconds"] / found["all, seconds"],
    }


def short_of_memory(task: Task, *, planned: bool) -> dict[str, Any]:
    """A run on a card with little memory: what it said, and whether every frame came.

    It is slow where the allocator has to give memory back again and again: what it says appears
    with its time, and after each minute where it is.
    """
    faulthandler.dump_traceback_later(60, repeat=True)
    began, said = time.perf_counter(), list[str]()

    def note(event: dict[str, Any]) -> None:
        if event["event"] in ("note", "progress"):
            print(f"{time.perf_counter() - began:6.1f} s {event}", file=sys.stderr, flush=True)
        if event["event"] == "note":
            said.append(event["text"])

    plan = task.plan("short.mkv", fit_windows=True)
    if not planned:  # the whole picture at once, which will not fit
        plan = task.plan("short.mkv", fit_windows=False, tile=max(plan.size))
    said += plan.notes
    try:
        result = run(plan, make_runner(plan, load(plan), note), note, Stop())
    except OasisError as error:
        told = "\n".join([*said, str(error), str(error.__cause__)])
        raise SystemExit(f"{told}\n{torch.cuda.memory_summary(abbreviated=True)}") from error
    if result.frames != task.frames:
        raise SystemExit(f"{result.frames} of {task.frames} frames came out")
    return {
        "frames": result.frames,
        "windows": plan.options.windows.frames,
        "tile": plan.options.tile,
        "seconds": time.perf_counter() - began,
        "said": said,
    }


def random_weights(folder: Path, device: torch.device) -> Path:
    """A checkpoint of the paper's size that nobody trained: 2.8 GB, drawn on the device."""
    torch.manual_seed(0)
    with device:
        model = Oasis(PAPER)
    model.dit.route(HeadTable((ROUTED,) * PAPER.dit.layers))
    path = folder / "random.safetensors"
    save_model(model, path, name="random", provenance={})
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT, help="a name, a path, or 1.4b")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--devices", help="several, with commas: one against all")
    parser.add_argument("--workers", type=int, help="processes for --devices, else one each")
    parser.add_argument("--cap", type=float, help="share of the card that may be used")
    parser.add_argument("--size", default="320x180", help="WxH of the input")
    parser.add_argument("--scale", type=float, default=4)
    parser.add_argument("--frames", type=int, default=1000)
    parser.add_argument("--codec", default="libx264")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    given = parser.parse_args()
    encode = EncodeOptions(codec=given.codec, preset=given.preset, overwrite=True)
    options = Options(scale=given.scale, model=given.model, device=given.device, encode=encode)
    width, height = map(int, given.size.split("x"))
    found: dict[str, Any] = {"torch": torch.__version__, "frames": given.frames}
    with tempfile.TemporaryDirectory(prefix="oasis-end-to-end-") as folder:
        if given.model == "1.4b":
            first = choose_devices(given.devices or given.device)[0]
            options = replace(options, model=str(random_weights(Path(folder), first)))
        source = write_test_clip(Path(folder) / "in.mp4", (width, height), given.frames)
        task = Task(source, (width, height), encode, 0, options, given.frames)
        if given.cap:
            torch.cuda.set_per_process_memory_fraction(given.cap)
            for planned in (True, False):
                name = "planned" if planned else "stepping down"
                found[f"short of memory, {name}"] = short_of_memory(task, planned=planned)
        elif given.devices:
            found["several"] = several(task, given.devices, given.workers)
        else:
            found["alone"] = alone(task)
    print(json.dumps(found, indent=2))
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
