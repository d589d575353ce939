"""Peak memory of a whole run for a short and a long clip: it must not grow with the length.

    python benchmarks/memory.py [--model NAME|PATH] [--short 10] [--long 60] [--json out.json]

Each run is a process of its own, so that its peak is its own. Small pictures keep this quick; what
is measured is whether anything is kept per frame.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from oasis_cli.cli.options import MODEL
from oasis_cli.media.testclip import write_test_clip

SIZE = (96, 64)
RATE = 25

RUN = """
import resource, sys
import torch
from oasis_cli.pipeline.run import Options, upscale
torch.set_num_threads(1)
source, target, model, scale = sys.argv[1:]
result = upscale(source, target, Options(model=model, scale=float(scale), device="cpu"))
print(result.frames, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def peak(source: Path, model: str, scale: float) -> tuple[int, int]:
    """Frames made and peak bytes of a run in its own process."""
    target = source.with_suffix(".out.mp4")
    command = [sys.executable, "-c", RUN, str(source), str(target), model, str(scale)]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    frames, size = out.split()
    return int(frames), int(size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--short", type=float, default=10, help="seconds")
    parser.add_argument("--long", type=float, default=60, help="seconds")
    parser.add_argument("--scale", type=float, default=2)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    result = {}
    with tempfile.TemporaryDirectory(prefix="oasis-memory-") as folder:
        for name in ("short", "long"):
            seconds = getattr(args, name)
            path = write_test_clip(Path(folder) / f"{name}.mp4", SIZE, round(seconds * RATE), RATE)
            frames, size = peak(path, args.model, args.scale)
            result[name] = {"seconds": seconds, "frames": frames, "peak_mb": size / 1e6}
            print(f"{seconds:6.0f} s of video, {frames:5} frames: peak {size / 1e6:7.1f} MB")
    growth = result["long"]["peak_mb"] / result["short"]["peak_mb"] - 1
    print(f"growth {100 * growth:.1f} %")
    if args.json:
        args.json.write_text(json.dumps(result | {"growth": growth}, indent=2) + "\n")


if __name__ == "__main__":
    main()
