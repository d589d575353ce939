"""Hours in minutes: `python benchmarks/soak.py long` and `python benchmarks/soak.py many`.

long   a 30-minute 320x180 clip through a stand-in model: memory at minute 3 of the video and at its
       end, which must lie within 5 %, and every frame accounted for
many   200 files of mixed kinds, a fifth of them broken, through `batch`: every good one must come
       out whole and every bad one be named
"""

import json
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.batch import BatchOptions, batch
from oasis_cli.folders import FolderOptions
from oasis_cli.media.output import EncodeOptions
from oasis_cli.media.probe import probe
from oasis_cli.media.reader import Reader
from oasis_cli.plan import Options
from oasis_cli.segmented import JobOptions
from oasis_cli.stages import Stop
from oasis_cli.upscale import upscale
from oasis_cli.windows import WindowOptions

RATE = 25
FAST = EncodeOptions(codec="libx264", preset="ultrafast")


def stand_in(low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
    """Nearest-neighbour enlargement: a model that costs nothing."""
    return F.interpolate(low[0], size=size)[None]


def resident() -> float:
    """MiB of memory in use now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * 4096 / 2**20


def clip(path: Path, frames: int, size: tuple[int, int], codec: str = "libx264") -> Path:
    """Noise that drifts over a gradient, with a cut every ten seconds."""
    width, height = size
    texture = np.random.default_rng(1).integers(0, 40, (height, 2 * width, 3), np.uint8)
    options = {"preset": "ultrafast"} if codec == "libx264" else {}
    with av.open(str(path), "w") as out:
        video = out.add_stream(codec, rate=RATE, options=options)
        assert isinstance(video, av.VideoStream)
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            base = 60 + 90 * (number // (10 * RATE) % 2)
            at = number % width
            picture = np.ascontiguousarray(texture[:, at : at + width] + np.uint8(base))
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
    return path


def long(folder: Path) -> dict[str, Any]:
    """Memory over a 30-minute clip."""
    minutes = 30
    source = clip(folder / "long.mp4", minutes * 60 * RATE, (320, 180))
    memory: dict[int, float] = {}

    def watch(event: Mapping[str, Any]) -> None:
        if event["event"] == "progress":
            memory[event["frames"] // (60 * RATE)] = resident()

    options = Options(scale=1, windows=WindowOptions(frames=17, overlap=4), encode=FAST)
    began = time.monotonic()
    result = upscale(source, folder / "out.mp4", options, report=watch, model=stand_in)
    early, late = memory[3], memory[max(memory)]
    return {
        "frames": result.frames,
        "expected": minutes * 60 * RATE,
        "seconds": round(time.monotonic() - began, 1),
        "MiB at minute 3": round(early, 1),
        "MiB at the end": round(late, 1),
        "growth": round(late / early - 1, 4),
        "ok": result.frames == minutes * 60 * RATE and late <= 1.05 * early,
    }


def many(folder: Path) -> dict[str, Any]:
    """200 files, 40 of them broken."""
    source, chance = folder / "in", random.Random(7)
    source.mkdir()
    kinds = [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("mov", "libx264"),
             ("webm", "libvpx-vp9"), ("ts", "libx264"), ("mkv", "ffv1")]  # fmt: skip
    masters = [clip(folder / f"{n}.{k[0]}", 20 + n, (64, 48), k[1]) for n, k in enumerate(kinds)]
    bad, lengths = set(), {}
    for number in range(200):
        kind = number % len(masters)
        path = source / f"{number:03d}{masters[kind].suffix}"
        data, fault = masters[kind].read_bytes(), number % 25
        if fault == 1:
            path.symlink_to(folder / "missing")
        elif fault == 2:
            path.touch()
        elif fault == 3:
            path.write_bytes(chance.randbytes(len(data)))
        elif fault == 4:
            path.write_bytes(data[: chance.randrange(64)])
        elif fault == 5:
            path.mkdir()  # a folder with the name of a video
            continue
        else:
            path.write_bytes(data)
            lengths[path.name] = 20 + kind
            continue
        bad.add(path.name)
    options = BatchOptions(
        folders=FolderOptions(extension=".mkv"),
        upscale=Options(scale=1, windows=WindowOptions(frames=9, overlap=2), encode=FAST),
        jobs=JobOptions(),
        parallel=2,
    )
    results = batch(source, folder / "out", options, lambda e: None, Stop(), lambda plan: stand_in)
    failed = {Path(r.source).name for r in results if r.status == "failed"}
    done = {Path(r.source).name: Path(r.target) for r in results if r.status == "done"}
    whole = sum(_frames(done[name]) == count for name, count in lengths.items() if name in done)
    return {
        "files": len(results),
        **Counter(r.status for r in results),
        "whole": whole,
        "errors": sorted({r.error.rsplit(":", 1)[-1].strip() for r in results if r.error})[:6],
        "ok": failed == bad and set(done) == set(lengths) and whole == len(lengths),
    }


def _frames(path: Path) -> int:
    with Reader(probe(path)) as reader:
        return sum(1 for _ in reader)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        found = {"long": long, "many": many}[sys.argv[1]](Path(name))
    print(json.dumps(found, indent=2))
    sys.exit(not found["ok"])
