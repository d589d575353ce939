"""What everything around the model costs: throughput and memory with a stand-in for the model.

    python benchmarks/pipeline.py [--frames 250] [--codec libx264] [--preset veryfast]

The stand-in repeats pixels four times each way. Every stage runs alone, then all together; the
whole is compared with the slowest stage, and its peak memory with the process before it began.
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.output import EncodeOptions, plan_output
from oasis_cli.media.probe import probe
from oasis_cli.media.reader import Frame, Reader
from oasis_cli.media.testclip import write_test_clip
from oasis_cli.media.writer import Planes, Writer
from oasis_cli.upscale import Options, upscale
from oasis_cli.windows import WindowOptions

SIZE, SCALE = (320, 180), 4


def identity(low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
    """The stand-in: (B, T, 3, h, w) -> (B, T, 3, H, W)."""
    batch, frames = low.shape[:2]
    return F.interpolate(low.flatten(0, 1), size).unflatten(0, (batch, frames))


def clock(work: Callable[[], int]) -> float:
    """Frames a second of `work`, which returns how many it did."""
    began = time.perf_counter()
    return work() / (time.perf_counter() - began)


def resident() -> float:
    """Peak memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=250)
    parser.add_argument("--codec", default="libx264")
    parser.add_argument("--preset", default="veryfast")
    given = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), given.frames, given.codec, given.preset)


def measure(folder: Path, count: int, codec: str, preset: str) -> None:
    """Print one line per stage, then the whole."""
    source, target = folder / "in.mp4", folder / "out.mp4"
    write_test_clip(source, frames=count, size=SIZE)
    info = probe(source)
    size = (SIZE[0] * SCALE, SIZE[1] * SCALE)
    encode = EncodeOptions(codec=codec, preset=preset, overwrite=True)
    plan = plan_output(info, target, size, encode)

    def read() -> int:
        with Reader(info) as reader:
            return sum(1 for _ in reader)

    with Reader(info) as reader:
        frames: list[Frame] = [
            f for f, _ in zip(reader, range(WindowOptions().frames), strict=False)
        ]
        planes: list[Planes] = []

    stride = WindowOptions().stride  # a window's overlap is enlarged twice and written once

    def convert() -> int:
        windows = max(1, count // stride)
        for _ in range(windows):
            clip = frames_to_clip(frames, reader.spec)
            high = identity(clip[None], (size[1], size[0]))[0, :stride]
            planes[:] = [p for frame in high for p in clip_to_planes(frame[None], plan.spec)]
        return windows * stride

    def write() -> int:
        with Reader(info) as timing:
            total = sum(1 for _ in timing)
            with Writer(plan, info, timing.timeline, timing.relay) as writer:
                for number in range(total):
                    writer.write(planes[number % len(planes)])
                writer.close()
        return total

    alone = {"reading": clock(read), "converting": clock(convert), "writing": clock(write)}
    for name, fps in alone.items():
        print(f"{name:12} {fps:8.1f} frames/s alone")
    before = resident()
    options = Options(scale=SCALE, device="cpu", encode=encode)
    whole = clock(lambda: upscale(source, target, options, model=identity).frames)
    slowest = min(alone.values())
    print(
        f"{'together':12} {whole:8.1f} frames/s, {100 * whole / slowest:.0f} % of the slowest stage"
    )
    print(f"{'memory':12} {resident() - before:8.1f} MiB above the process before")


if __name__ == "__main__":
    main()
