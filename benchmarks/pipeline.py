"""What everything around the model costs: throughput and memory with a stand-in for the model.

    python benchmarks/pipeline.py [--frames 250] [--codec libx264] [--preset veryfast] [--json FILE]

The stand-in repeats pixels four times each way. Every stage runs alone, then all together, each
with one thread of its own (`--threads` gives the encoder more): then the slowest stage alone is
what the whole can reach, if there is a core for the two busy ones. Where there is not, or where
others use the cores, look at the share of its time that the busiest stage works: the rest of it,
but for waits for a core, it waits for the other stages.

Memory is what a process of its own gains after everything is loaded. A run is split into one window
of the stand-in, the encoder writing alone, and the rest: what the pipeline adds.
"""

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.nn import functional as F

from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Frame, Reader
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.media.output.writer import Writer
from oasis_cli.media.picture import Planes
from oasis_cli.media.testclip import write_test_clip
from oasis_cli.pipeline.plan import Options, Plan, make_plan
from oasis_cli.pipeline.run import Seen, make_runner, restore, run, to_planes
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions

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
    threads: int = 1
    """Of the encoder; 0 lets it choose."""

    def __post_init__(self) -> None:
        self.info = probe(self.source)
        self.target = self.source.with_name("out.mkv")

    @property
    def large(self) -> tuple[int, int]:
        """(width, height) of the output."""
        return self.size[0] * SCALE, self.size[1] * SCALE

    def plan(self) -> Plan:
        """How a run does it, the encoder with as many threads as asked for."""
        options = Options(scale=SCALE, device="cpu", encode=self.encode)
        plan = make_plan(self.info, str(self.target), options)
        if not self.threads:
            return plan
        count = {"threads": str(self.threads)}
        if plan.output.codec == "libx265":
            count = {"x265-params": f"{dict(plan.output.options)['x265-params']}:pools=none"}
        output = replace(plan.output, options=dict(plan.output.options) | count)
        return replace(plan, output=output)

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
        """All that the main thread does, on frames that are there: to RGB, model, blend, planes."""
        plan = self.plan()
        with Reader(self.info) as reader:
            frames = [Seen(frame, cut=False) for frame in islice(reader, count)]
        runner = make_runner(plan, identity, lambda event: None)
        pictures = restore(frames, plan, reader.spec, runner, Stop())
        return sum(1 for _ in to_planes(pictures, plan))

    def planes(self, count: int) -> list[Planes]:
        """The first frames as the encoder gets them."""
        plan = self.plan().output
        with Reader(self.info) as reader:
            low = (frames_to_clip([f], plan.source_spec)[None] for f in islice(reader, count))
            high = (identity(clip, self.large[::-1])[0] for clip in low)
            return [clip_to_planes(clip, plan.spec)[0] for clip in high]

    def write(self, count: int, planes: list[Planes]) -> int:
        """Encode `count` frames, of `planes` again and again."""
        plan = self.plan().output
        with Reader(self.info) as timing:
            for _ in zip(range(count), timing, strict=False):
                pass
        began = memory()
        with Writer(plan, self.info, timing.timeline, timing.relay) as writer:
            for number in range(count):
                writer.write(planes[number % len(planes)])
            writer.close()
        self.held = memory(peak=True) - began
        return count

    def whole(self) -> int:
        """A run as users have it."""
        plan, quiet = self.plan(), lambda event: None
        return run(plan, make_runner(plan, identity, quiet), quiet, Stop()).frames


class Threads:
    """What the threads of this process did meanwhile: {id: (seconds worked, waited for a core)}.

    On a machine with other work the clock tells nothing; this does (Linux).
    """

    def __init__(self) -> None:
        self.seconds: dict[str, tuple[float, float]] = {}
        self._over = threading.Event()
        self._before = self._now()
        self._poll = threading.Thread(target=self._watch, daemon=True)

    def _now(self) -> dict[str, tuple[float, float]]:
        found = {}
        for path in Path("/proc/self/task").iterdir():
            with suppress(OSError):
                worked, waited, _ = (path / "schedstat").read_text().split()
                found[path.name] = (int(worked) / 1e9, int(waited) / 1e9)
        return found

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            for name, (worked, waited) in self._now().items():
                before = self._before.get(name, (0.0, 0.0))
                self.seconds[name] = (worked - before[0], waited - before[1])

    def __enter__(self) -> "Threads":
        self._began = time.perf_counter()
        self._poll.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall = time.perf_counter() - self._began
        self._over.set()
        self._poll.join()

    def busy(self) -> float:
        """Share of the time in which a core was to be had that the busiest thread worked."""
        worked, waited = max(self.seconds.values())
        return worked / (self.wall - waited)


def busiest(bench: Bench) -> float:
    """Share of a run in which its busiest stage works, as far as a core is to be had.

    Writing is timed by its calls: its flush at the end is another thread's.
    """
    writing, calls = 0.0, (Writer.write, Writer.close)

    def timed(call: Callable[..., None]) -> Callable[..., None]:
        def timed_call(*given: Any) -> None:
            nonlocal writing
            began = time.perf_counter()
            call(*given)
            writing += time.perf_counter() - began

        return timed_call

    with (
        patch.object(Writer, "write", timed(calls[0])),
        patch.object(Writer, "close", timed(calls[1])),
        Threads() as threads,
    ):
        bench.whole()
    return max(threads.busy(), writing / threads.wall)


def clock(work: Callable[[], int]) -> tuple[float, float]:
    """Frames a second of `work`, and CPU seconds a frame."""
    began, cpu = time.perf_counter(), time.process_time()
    frames = work()
    return frames / (time.perf_counter() - began), (time.process_time() - cpu) / frames


def peak(bench: Bench, what: str, count: int) -> float:
    """MiB that a process gains by doing `what`: "whole", "write" or "model"."""
    call = [sys.executable, __file__, "--only", what, "--source", str(bench.source)]
    call += ["--frames", str(count), "--size", "x".join(map(str, bench.size))]
    call += ["--codec", str(bench.encode.codec), "--preset", str(bench.encode.preset)]
    call += ["--threads", str(bench.threads)]
    done = subprocess.run(call, check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def only(bench: Bench, what: str, count: int) -> None:
    """Do one thing and print what this process gained by it, MiB."""
    torch.set_num_threads(1)
    clip_to_planes(identity(torch.zeros(1, 1, 3, 32, 32), (64, 64))[0], bench.plan().output.spec)
    began = memory()
    if what == "write":
        bench.write(count, bench.planes(4))
        print(bench.held)
        return
    if what == "model":
        bench.window()
    else:
        bench.whole()
    print(memory(peak=True) - began)


def memory(*, peak: bool = False) -> float:
    """MiB of this process now, where a new peak begins, or the peak since then. Linux alone."""
    if not peak:
        ctypes.CDLL(None).malloc_trim(0)  # or what was freed before would be filled unnoticed
        Path("/proc/self/clear_refs").write_text("5")
    status = Path("/proc/self/status").read_text().splitlines()
    wanted = "VmHWM" if peak else "VmRSS"
    return int(next(line for line in status if line.startswith(wanted)).split()[1]) / 1024


def measure(bench: Bench, count: int, repeat: int) -> dict[str, object]:
    """Print one line per stage, then the whole and its memory."""
    torch.set_num_threads(1)
    planes = bench.planes(count)
    stages: dict[str, Callable[[], int]] = {
        "reading": bench.read,
        "converting": lambda: bench.convert(count),
        "writing": lambda: bench.write(count, planes),
        "together": bench.whole,
    }
    runs: list[dict[str, tuple[float, float]]] = [
        {name: clock(work) for name, work in stages.items()} for _ in range(repeat)
    ]
    busy = statistics.median(busiest(bench) for _ in range(repeat))
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
    print(f"{'':12} {100 * busy:8.0f} % of its time the busiest stage works, waits for cores aside")
    gained = {what: peak(bench, what, count) for what in ("model", "write", "whole")}
    own = gained["whole"] - gained["model"] - gained["write"]
    print(
        f"{'memory':12} {own:8.0f} MiB added by the pipeline: a run gains {gained['whole']:.0f}, "
        f"{gained['model']:.0f} for a window and {gained['write']:.0f} for the encoder"
    )
    return {
        "frames_per_second": speed,
        "cpu_seconds_per_frame": cpu,
        "memory_mib": gained | {"pipeline": own},
        "busiest_stage_works": busy,
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
    parser.add_argument("--threads", type=int, default=1, help="of the encoder; 0: its choice")
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--only", help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    encode = EncodeOptions(codec=given.codec, preset=given.preset, overwrite=True)
    if given.only:
        only(Bench(given.source, (width, height), encode, given.threads), given.only, given.frames)
        return
    with tempfile.TemporaryDirectory(prefix="oasis-pipeline-") as folder:
        source = write_test_clip(Path(folder) / "in.mp4", (width, height), given.frames)
        result = measure(
            Bench(source, (width, height), encode, given.threads), given.frames, given.repeat
        )
    if given.json:
        given.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
