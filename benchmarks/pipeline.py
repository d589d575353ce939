"""What everything around the model costs: throughput and memory with a stand-in for the model.

    python benchmarks/pipeline.py [--frames 250] [--codec libx264] [--preset veryfast] [--json FILE]

The stand-in repeats pixels four times each way. Every stage runs alone, then all together. Two
ceilings are named: the slowest stage alone, and what this machine's cores can do when all stages
share them (the stages' CPU seconds, divided by the cores). On a machine with cores to spare the
first one binds, on a small one the second. Memory is measured in processes of their own; a run and
writing alone both hold one window of the stand-in, which is taken away.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.output import EncodeOptions, OutputPlan, plan_output
from oasis_cli.media.probe import probe
from oasis_cli.media.reader import Frame, Reader
from oasis_cli.media.testclip import write_test_clip
from oasis_cli.media.writer import Planes, Writer
from oasis_cli.upscale import Options, upscale
from oasis_cli.windows import WindowOptions

SCALE = 4


def identity(low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
    """The stand-in: (B, T, 3, h, w) -> (B, T, 3, H, W)."""
    batch, frames = low.shape[:2]
    return F.interpolate(low.flatten(0, 1), size).unflatten(0, (batch, frames))


@dataclass
class Bench:
    """One clip and how it is encoded."""

    source: Path
    size: tuple[int, int]
    """(width, height) of the input."""
    encode: EncodeOptions

    def __post_init__(self) -> None:
        self.info = probe(self.source)
        self.target = self.source.with_name("out.mkv")

    @property
    def large(self) -> tuple[int, int]:
        """(width, height) of the output."""
        return self.size[0] * SCALE, self.size[1] * SCALE

    def plan(self) -> OutputPlan:
        """How the output is written."""
        return plan_output(self.info, self.target, self.large, self.encode)

    def read(self) -> int:
        """Decode everything. Returns the frames done, as the others do."""
        with Reader(self.info) as reader:
            return sum(1 for _ in reader)

    def window(self) -> tuple[list[Frame], Tensor]:
        """The first window's frames, and what the stand-in makes of it."""
        with Reader(self.info) as reader:
            most = range(WindowOptions().frames)
            frames = [frame for _, frame in zip(most, reader, strict=False)]
        high = identity(frames_to_clip(frames, reader.spec)[None], self.large[::-1])
        return frames, high[0]

    def convert(self, count: int) -> int:
        """Planes to RGB, the stand-in, RGB to planes: what the main thread does."""
        frames, _ = self.window()
        stride = WindowOptions().stride  # an overlap is enlarged twice and written once
        spec, source = self.plan().spec, self.plan().source_spec
        windows = max(1, count // stride)
        for _ in range(windows):
            high = identity(frames_to_clip(frames, source)[None], self.large[::-1])[0]
            for frame in high[:stride]:
                clip_to_planes(frame[None], spec)
        return windows * stride

    def write(self, count: int) -> int:
        """Encode the first window's frames again and again."""
        plan = self.plan()
        planes: list[Planes] = [clip_to_planes(f[None], plan.spec)[0] for f in self.window()[1]]
        with Reader(self.info) as timing:
            for _ in zip(range(count), timing, strict=False):
                pass
        with Writer(plan, self.info, timing.timeline, timing.relay) as writer:
            for number in range(count):
                writer.write(planes[number % len(planes)])
            writer.close()
        return count

    def whole(self) -> int:
        """A run as users have it."""
        options = Options(scale=SCALE, device="cpu", encode=self.encode)
        return upscale(self.source, self.target, options, model=identity).frames


def clock(work: Callable[[], int]) -> tuple[float, float]:
    """Frames a second of `work`, and CPU seconds a frame."""
    began, cpu = time.perf_counter(), time.process_time()
    frames = work()
    return frames / (time.perf_counter() - began), (time.process_time() - cpu) / frames


def peak(bench: Bench, what: str, count: int) -> float:
    """Peak MiB of a process that does `what` ("whole", "write", "model" or "nothing")."""
    call = [sys.executable, __file__, "--only", what, "--source", str(bench.source)]
    call += ["--frames", str(count), "--size", "x".join(map(str, bench.size))]
    call += ["--codec", str(bench.encode.codec), "--preset", str(bench.encode.preset)]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def only(bench: Bench, what: str, count: int) -> None:
    """Do one thing and print this process's peak memory, MiB."""
    torch.set_num_threads(1)
    if what == "model":
        bench.window()
    elif what == "write":
        bench.write(count)
    elif what == "whole":
        bench.whole()
    print(peak_of_this_process())


def peak_of_this_process() -> float:
    """MiB. Not from getrusage where there is /proc: that starts from the parent's peak."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(w for w in status.read_text().splitlines() if w.startswith("VmHWM"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(bench: Bench, count: int, repeat: int) -> dict[str, object]:
    """Print one line per stage, then the whole and its memory."""
    torch.set_num_threads(1)
    stages: dict[str, Callable[[], int]] = {
        "reading": bench.read,
        "converting": lambda: bench.convert(count),
        "writing": lambda: bench.write(count),
        "together": bench.whole,
    }
    runs: list[dict[str, tuple[float, float]]] = [
        {name: clock(work) for name, work in stages.items()} for _ in range(repeat)
    ]
    speed = {name: statistics.median(run[name][0] for run in runs) for name in stages}
    cpu = {name: statistics.median(run[name][1] for run in runs) for name in stages}
    for name in stages:
        print(f"{name:12} {speed[name]:8.1f} frames/s, {1000 * cpu[name]:6.1f} ms CPU a frame")
    slowest = min(speed[name] for name in list(stages)[:-1])
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = (cores or 1) / sum(cpu[name] for name in list(stages)[:-1])
    against = {"of the slowest stage": slowest, f"of what {cores} cores allow": share}
    for name, ceiling in against.items():
        print(f"{'':12} {100 * speed['together'] / ceiling:8.0f} % {name} ({ceiling:.1f} frames/s)")
    memory = {what: peak(bench, what, count) for what in ("nothing", "model", "write", "whole")}
    base = memory["nothing"]
    model, write, whole = (memory[k] - base for k in ("model", "write", "whole"))
    print(
        f"{'memory':12} {whole - model:8.0f} MiB for a run beyond one window of the stand-in "
        f"({model:.0f}); {write - model:.0f} for writing alone"
    )
    return {
        "frames_per_second": speed,
        "cpu_seconds_per_frame": cpu,
        "memory_mib": memory,
        "of_slowest": speed["together"] / slowest,
        "of_cores": speed["together"] / share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--size", default="320x180", help="WxH of the input")
    parser.add_argument("--codec", default="libx264")
    parser.add_argument("--preset", default="veryfast")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    encode = EncodeOptions(codec=given.codec, preset=given.preset, overwrite=True)
    if given.only:
        only(Bench(given.source, (width, height), encode), given.only, given.frames)
        return
    with tempfile.TemporaryDirectory(prefix="oasis-pipeline-") as folder:
        source = write_test_clip(Path(folder) / "in.mp4", (width, height), given.frames)
        result = measure(Bench(source, (width, height), encode), given.frames, given.repeat)
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
