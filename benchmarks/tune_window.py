"""Try every cut of the window kernel's forward pass on this GPU and print the best.

    python benchmarks/tune_window.py [--width 128] [--workers 12] [--json out.json]

Kernels are compiled by several processes first, then timed one after the other: medians of
CUDA-event times of a captured graph of ten launches. What the winner is goes into `FORWARD` of
window_kernel.py. TRITON_INTERPRET=1 with --toy runs the same on a CPU, for correctness.
"""

import argparse
import json
import math
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oasis_cli.model.attention import Grid, window_attention, window_tiles
from oasis_cli.model.kernels.window import FORWARD, Shape, run_forward

WINDOW = (3, 5, 5)
GRIDS: tuple[Grid, ...] = ((9, 45, 80), (9, 68, 120))
BARS = (0.20, 0.45)

CANDIDATES: tuple[tuple[Grid, int, tuple[int, ...]], ...] = (
    ((4, 4, 4), 4, (1, 2, 3, 4)),
    ((2, 8, 4), 4, (1, 2)),
    ((2, 4, 8), 4, (1, 2)),
    ((8, 4, 4), 8, (1, 2, 3, 4)),
    ((4, 8, 4), 8, (1, 2)),
    ((4, 4, 8), 8, (1, 2)),
    ((16, 4, 4), 8, (1, 2)),
    ((2, 8, 8), 8, (1,)),
    ((1, 8, 8), 4, (1,)),
    ((8, 4, 4), 4, (1,)),
)
"""(tile, warps, stages): cuts whose registers and shared memory fit, or nearly."""


def shapes() -> list[Shape]:
    """Everything worth a try."""
    return [Shape(tile, 0, warps, s) for tile, warps, stages in CANDIDATES for s in stages]


def inputs(grid: Grid, width: int, device: torch.device) -> list[Tensor]:
    """q, k, v and out (1, L, 4, D) as the layer has them: slices of 12 heads."""
    length = math.prod(grid)
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    torch.manual_seed(0)
    q, k, out = torch.randn(3, 1, length, 12, width, device=device).to(dtype)
    fused = torch.randn(1, length, 3, 12, width, device=device).to(dtype)
    return [x[:, :, 8:] for x in (q, k, fused[:, :, 2], out)]


def compile_one(shape: Shape, width: int) -> str:
    """Fill the compiler's cache, in a process of its own. Returns what went wrong, if anything."""
    try:
        torch.set_num_threads(1)
        q, k, v, out = inputs((3, 8, 8), width, torch.device("cuda"))
        run_forward(q, k, v, out, [3, 8, 8], list(WINDOW), shape=shape)
        torch.cuda.synchronize()
    except Exception as error:  # too much shared memory, for one
        return f"{type(error).__name__}: {str(error)[:80]}"
    return ""


def milliseconds(shape: Shape, tensors: list[Tensor], grid: Grid) -> float:
    """Median time of one launch."""
    q, k, v, out = tensors

    def run() -> None:
        run_forward(q, k, v, out, list(grid), list(WINDOW), shape=shape)

    run()
    if not q.is_cuda:
        return math.nan
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(10):
            run()
    times = []
    for _ in range(7):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        graph.replay()
        end.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 10)
    return statistics.median(times)


def tune(args: argparse.Namespace) -> dict[str, Any]:
    """All shapes on all grids, best first by the sum of time over bar."""
    device = torch.device("cpu" if args.toy else "cuda")
    grids: tuple[Grid, ...] = ((2, 3, 5),) if args.toy else GRIDS
    tried = [FORWARD, *(shape for shape in shapes() if shape != FORWARD)]
    tried = tried[: args.most]
    wrong = {}
    if not args.toy:
        with ProcessPoolExecutor(args.workers, mp_context=get_context("spawn")) as pool:
            faults = pool.map(compile_one, tried, [args.width] * len(tried))
            wrong = {s: fault for s, fault in zip(tried, faults, strict=True) if fault}
    rows: dict[Shape, dict[str, Any]] = {s: {"ms": []} for s in tried if s not in wrong}
    for grid in grids:
        tensors = inputs(grid, args.width, device)
        q, k, v, out = tensors
        tiles = window_tiles(grid, WINDOW, device)
        exact = window_attention(q.float(), k.float(), v.float(), tiles)
        for shape, row in list(rows.items()):
            try:
                out.fill_(torch.nan)
                row["ms"].append(milliseconds(shape, tensors, grid))
                error = (out.float() - exact).abs().max().item()
                row["error"] = max(error, row.get("error", 0.0))
                if not error < 0.05:
                    raise ValueError(f"wrong by {error}")
            except Exception as error:  # the others are still worth timing
                wrong[shape] = f"{type(error).__name__}: {str(error)[:80]}"
                del rows[shape]
    ranked = sorted(
        rows.items(), key=lambda item: sum(t / b for t, b in zip(item[1]["ms"], BARS, strict=False))
    )
    return {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "width": args.width,
        "ranked": [asdict(shape) | row for shape, row in ranked],
        "failed": [asdict(shape) | {"why": why} for shape, why in wrong.items()],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--width", type=int, default=128, help="of a head")
    parser.add_argument("--workers", type=int, default=12)
    parser.add_argument("--toy", action="store_true")
    parser.add_argument("--most", type=int, default=1000, help="try only this many")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    with torch.no_grad():
        result = tune(args)
    print(f"{result['device']}, head width {args.width}; bars {BARS} ms")
    for row in result["ranked"][:20]:
        times = "  ".join(f"{t:.4f}" for t in row["ms"])
        print(f"{row['tile']} warps {row['warps']} stages {row['stages']}: {times} ms", end="")
        print(f"  (error {row['error']:.1e})")
    print(f"{len(result['failed'])} cannot run here:")
    for row in result["failed"]:
        print(f"{row['tile']} warps {row['warps']} stages {row['stages']}: {row['why']}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
