"""Where the network's time on a CPU goes: a table of its parts, by PyTorch's profiler.

    python benchmarks/cpu_parts.py [--model NAME] [--precision fp32] [--size 320x180] [--frames 17]

The network is that of a run. Seconds are of CPU time with one thread, for a frame; other
programs on the machine blur how they are shared out.
"""

import argparse
import json
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from speed import network, parse_size  # the folder of this script is on the path
from torch.profiler import ProfilerActivity, profile, record_function

from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.model import attention, dit, oasis
from oasis_cli.model.decoders import fast
from oasis_cli.model.latent import ToLatent

PARTS: list[tuple[Any, str, str]] = [
    (oasis, "bicubic_upsample", "bicubic"),
    (ToLatent, "forward", "pixels to latents"),
    (oasis, "blended", "transformer: tiles, first and last layer"),
    (attention.RoutedAttention, "project", "transformer: q, k, v with norms and RoPE"),
    (attention.RoutedAttention, "forward", "transformer: heads joined, output layer"),
    (attention, "global_attention", "transformer: global heads"),
    (attention, "intra_attention", "transformer: intra-frame heads"),
    (attention, "window_attention", "transformer: window heads"),
    (dit.Block, "feed", "transformer: feed-forward part"),
    (dit, "add_norm", "transformer: sums and norms"),
    (fast.FastDecoder, "forward", "decoder: activations, joins, 1x1 convolutions"),
    (fast.FastDecoder, "frame_features", "decoder: activations, joins, 1x1 convolutions"),
    (fast.ResidualBlock, "forward", "decoder: residual blocks"),
]
"""What is wrapped, and the row of the table it counts for."""


PRODUCTS = {f"aten::{name}" for name in ("addmm", "mm", "bmm", "baddbmm")}
PRODUCTS |= {"onednn::qlinear_pointwise"}


def kind(operator: str) -> str:
    """What an operator is, for the table's columns."""
    if "conv" in operator:
        return "convolutions"
    if operator in PRODUCTS:
        return "products"
    if "attention" in operator or "softmax" in operator:
        return "attention"
    if operator in ("aten::copy_", "aten::cat", "aten::index_select"):
        return "copies"
    return "rest"


COLUMNS = ("convolutions", "products", "attention", "copies", "rest")


def labelled(plain: Callable[..., Any], row: str) -> Callable[..., Any]:
    """A function of which the profiler sees when it runs."""

    def run(*args: Any, **options: Any) -> Any:
        with record_function("part: " + row):
            return plain(*args, **options)

    return run


def row_of(event: Any) -> str:
    """The part that an event counts for: the innermost. Intra-frame heads call the global ones."""
    row, above = "", event
    while above is not None:
        if above.name.startswith("part: "):
            found = above.name.removeprefix("part: ")
            if "intra" in found or not row:
                row = found
        above = above.cpu_parent
    return row or "the rest"


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Seconds of CPU time a frame: in all, and of each part by kind of operator."""
    ours = network(args.model, torch.device("cpu"), args.precision)
    height, width = parse_size(args.size)
    clip = torch.rand(1, args.frames, 3, height, width) * 2 - 1
    size = args.scale * height, args.scale * width
    with ExitStack() as stack, torch.inference_mode():
        ours(clip[:, :1], size)
        for owner, name, row in PARTS:
            stack.enter_context(patch.object(owner, name, labelled(getattr(owner, name), row)))
        with profile(activities=[ProfilerActivity.CPU]) as seen:
            began = time.process_time()
            ours(clip, size)
            whole = (time.process_time() - began) / args.frames
    # The profiler counts by the clock, which goes on while others have the core: only shares count.
    events = seen.events()
    share = whole / sum(event.self_cpu_time_total for event in events)
    parts: dict[str, dict[str, float]] = {}
    for event in events:
        cells = parts.setdefault(row_of(event), dict.fromkeys(COLUMNS, 0.0))
        cells[kind(event.name)] += event.self_cpu_time_total * share
    return {"precision": args.precision, "seconds_per_frame": whole, "parts": parts}


def table(result: dict[str, Any]) -> str:
    """Markdown, the largest part first."""
    title = f"{result['precision']}, {result['seconds_per_frame']:.2f} s a frame"
    lines = [
        f"| {title} | all | {' | '.join(COLUMNS)} |",
        "| --- |" + " --- |" * (1 + len(COLUMNS)),
    ]
    for row, cells in sorted(result["parts"].items(), key=lambda item: -sum(item[1].values())):
        numbers = [sum(cells.values()), *cells.values()]
        lines.append(f"| {row} | " + " | ".join(f"{x:.3f}" if x else "" for x in numbers) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT, help="a name, a file, or `random`")
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "int8"])
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--scale", type=int, default=4)
    parser.add_argument("--frames", type=int, default=17)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    result = measure(args)
    print(table(result))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
