"""Endurance: `python benchmarks/soak.py long [MINUTES]` and `python benchmarks/soak.py many`.

long   a 30-minute 320x180 clip through a toy network: the most memory in minute 3 of the video and
       in its last, which must lie within 5 %, and every frame accounted for; an hour of one core
many   200 files of mixed kinds through `batch`, a quarter of them broken, unreadable or bound for a
       full disk, and four more whose worker is killed: every good one must come out whole and
       every bad one be named. The small disk is mounted, which takes root; and root can read
       everything unless it lets go of that:
       setpriv --bounding-set=-dac_override,-dac_read_search python benchmarks/soak.py many
"""

import json
import os
import random
import re
import signal
import subprocess
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

from oasis_cli.checkpoints.format import save_model
from oasis_cli.jobs.batch import batch
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.jobs.folders import FolderOptions
from oasis_cli.jobs.items import BatchOptions
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader
from oasis_cli.media.output.plan import EncodeOptions
from oasis_cli.model.decoders.fast import DecoderConfig
from oasis_cli.model.dit import DiTConfig
from oasis_cli.model.oasis import Oasis, OasisConfig
from oasis_cli.pipeline.plan import Options
from oasis_cli.pipeline.run import upscale
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions

RATE = 25
FAULTS = range(1, 6)
"""Of 25 files: missing, empty, noise, cut off, a folder."""

LARGE = EncodeOptions(codec="ffv1")
"""So large that nothing fits onto the small disk."""

FAST = EncodeOptions(codec="libx264", preset="ultrafast")


def stand_in(low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
    """Nearest-neighbour enlargement: a model that costs nothing."""
    return F.interpolate(low[0], size=size)[None]


def toy() -> Oasis:
    """A network of every part, as small as may be, not trained."""
    dit = DiTConfig(width=32, layers=1, heads=2, ffn=32, latent_channels=4)
    return Oasis(OasisConfig(dit=dit, decoder=DecoderConfig(latent_channels=4)))


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


def long(folder: Path, minutes: int = 30) -> dict[str, Any]:
    """Memory over a long clip, through a toy network."""
    source = clip(folder / "long.mp4", minutes * 60 * RATE, (320, 180))
    memory: dict[int, float] = {}

    def watch(event: Mapping[str, Any]) -> None:
        if event["event"] == "progress":
            minute = event["frames"] // (60 * RATE)
            memory[minute] = max(memory.get(minute, 0.0), resident())

    options = Options(scale=1, windows=WindowOptions(frames=17, overlap=4), encode=FAST)
    began = time.monotonic()
    result = upscale(source, folder / "out.mp4", options, report=watch, model=toy().eval())
    early, late = memory[3], memory[minutes - 1]
    return {
        "frames": result.frames,
        "expected": minutes * 60 * RATE,
        "seconds": round(time.monotonic() - began, 1),
        "MiB at minute 3": round(early, 1),
        "MiB at the end": round(late, 1),
        "growth": round(late / early - 1, 4),
        "ok": result.frames == minutes * 60 * RATE and abs(late / early - 1) <= 0.05,
    }


def many(folder: Path) -> dict[str, Any]:
    """200 files with faults, then a worker that dies."""
    small = folder / "out" / "small"
    small.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=777", "tmpfs", str(small)]
    full = os.geteuid() == 0 and not subprocess.run(mount, capture_output=True).returncode
    try:
        result = _many(folder, full)
        result["worker killed"] = killed_worker(folder)
        result["ok"] = result["ok"] and result["worker killed"]["ok"]
    finally:
        if full:
            subprocess.run(["umount", str(small)], check=True)
    return result


def write_faulty(path: Path, data: bytes, fault: int, chance: random.Random) -> bool:
    """Write one input; returns whether it is whole."""
    if fault == 1:
        path.symlink_to(path.parent / "missing")
    elif fault == 2:
        path.touch()
    elif fault == 3:
        path.write_bytes(chance.randbytes(len(data)))
    elif fault == 4:
        path.write_bytes(data[: chance.randrange(64)])
    elif fault == 5:
        path.mkdir()  # a folder with the name of a video
    else:
        path.write_bytes(data)
        if fault == 6:
            path.chmod(0)
            return os.access(path, os.R_OK)  # root may
    return fault not in FAULTS


def _many(folder: Path, full: bool) -> dict[str, Any]:
    source, chance = folder / "in", random.Random(7)
    (source / "small").mkdir(parents=True)
    kinds = [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("mov", "libx264"),
             ("webm", "libvpx-vp9"), ("ts", "libx264"), ("mkv", "ffv1")]  # fmt: skip
    masters = [clip(folder / f"{n}.{k[0]}", 20 + n, (64, 48), k[1]) for n, k in enumerate(kinds)]
    bad, lengths = set(), {}
    for number in range(200):
        kind, fault = number % len(masters), number % 25
        on_full_disk = fault == 7 and full
        path = source / ("small" if on_full_disk else "") / f"{number:03d}{masters[kind].suffix}"
        data = masters[kind].read_bytes()
        if write_faulty(path, data, fault, chance) and not on_full_disk:
            lengths[path.name] = 20 + kind
        elif fault != 5:
            bad.add(path.name)
    options = BatchOptions(
        folders=FolderOptions(extension=".mkv", recursive=True),
        upscale=Options(scale=4, windows=WindowOptions(frames=9, overlap=2), encode=LARGE),
        jobs=JobOptions(),
        parallel=2,
    )
    results = batch(source, folder / "out", options, lambda e: None, Stop(), lambda plan: stand_in)
    failed = {Path(r.source).name for r in results if r.status == "failed"}
    done = {Path(r.source).name: Path(r.target) for r in results if r.status == "done"}
    whole = sum(_frames(done[name]) == count for name, count in lengths.items() if name in done)
    errors = [r.error for r in results if r.error]
    return {
        "files": len(results),
        **Counter(r.status for r in results),
        "whole": whole,
        "disk full": full,
        "errors": Counter(re.sub(r"\S*/\S*|[\d.]+ MiB", "...", e) for e in errors),
        "ok": failed == bad and set(done) == set(lengths) and whole == len(lengths),
    }


def killed_worker(folder: Path) -> dict[str, Any]:
    """Four files in segments by two processes, one of which is killed in each."""
    source, target, tiny = folder / "in2", folder / "out2", folder / "tiny.safetensors"
    source.mkdir()
    for number in range(4):
        clip(source / f"{number}.mp4", 60, (64, 48))
    save_model(toy(), tiny, name="tiny", provenance={"trained": "not at all"})
    workers: list[int] = []
    killed = 0

    def kill(event: Mapping[str, Any]) -> None:
        nonlocal killed
        if event["event"] == "worker":
            workers.append(event["pid"])
        elif event["event"] == "progress" and len(workers) == 2:  # a third is the replacement
            os.kill(workers[0], signal.SIGKILL)
            killed += 1
            workers.append(0)
        elif event["event"] == "file":
            workers.clear()

    options = BatchOptions(
        folders=FolderOptions(),
        upscale=Options(scale=1, model=str(tiny), windows=WindowOptions(frames=5, overlap=2)),
        jobs=JobOptions(resume=True, workers=2, segment_frames=10),
    )
    results = batch(source, target, options, kill, Stop())
    whole = sum(_frames(Path(r.target)) == 60 for r in results if r.status == "done")
    return {"killed": killed, "whole": whole, "ok": whole == 4 and killed == 4}


def _frames(path: Path) -> int:
    with Reader(probe(path)) as reader:
        return sum(1 for _ in reader)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        if sys.argv[1] == "long":
            found = long(Path(name), int(sys.argv[2]) if len(sys.argv) > 2 else 30)
        else:
            found = many(Path(name))
    print(json.dumps(found, indent=2))
    sys.exit(not found["ok"])
