"""Seconds a frame of the network alone, beside a plain SRVGG network doing the same frames.

    python benchmarks/speed.py [--model NAME|PATH] [--device cpu] [--json out.json]
    python benchmarks/speed.py --suite gpu          # another table: see gpu.py

All run in this process on the same clip; each is timed several times in turns, and the best time
of each counts, so that other work on the machine does not decide. Reading and writing are left out.
SRVGG is timed as plain PyTorch runs it, and once more with its weights laid out for the CPU.
"""

import argparse
import json
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from srvgg import SRVGG  # the folder of this script is on the path
from torch import Tensor

from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.errors import OasisError
from oasis_cli.model.oasis import SMALL, Oasis
from oasis_cli.model.winograd import use_winograd
from oasis_cli.pipeline.torch_backend import load_network, same_for_any_thread_count
from oasis_cli.runtime.devices import PRECISIONS, settle_precision


def parse_size(text: str) -> tuple[int, int]:
    """ "320x180" -> (180, 320)."""
    width, height = text.split("x")
    return int(height), int(width)


def channels_last(module: torch.nn.Module) -> None:
    """Lay convolution weights out as a CPU likes them: about twice as fast."""
    for part in module.modules():
        if isinstance(part, torch.nn.Conv2d):
            weight = part.weight.detach().contiguous(memory_format=torch.channels_last)
            part.weight = torch.nn.Parameter(weight, requires_grad=False)


def network(name: str, device: torch.device, precision: str) -> torch.nn.Module:
    """The named model, as a run has it; `random` is oasis-small with random weights, which takes
    the same time."""
    if name != "random":
        model = load_network(name, device, precision)
    else:
        model = Oasis(SMALL).to(device, PRECISIONS[precision]).eval().requires_grad_(False)
        channels_last(model.decoder)
        if device.type == "cpu":
            use_winograd(model)
    if device.type == "cpu":
        same_for_any_thread_count(model)
    return model


def synchronize(device: torch.device) -> None:
    """Wait for the device to finish what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(run: Callable[[], Tensor], device: torch.device) -> float:
    """Wall time of one call."""
    synchronize(device)
    start = time.perf_counter()
    run()
    synchronize(device)
    return time.perf_counter() - start


def machine(device: torch.device) -> dict[str, Any]:
    """What the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    if Path("/proc/cpuinfo").exists() and device.type == "cpu":
        models = [x for x in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in x]
        name = models[0].partition(": ")[2] if models else name
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Time both networks in turns."""
    device = torch.device(args.device)
    usual = "fp16" if device.type == "cuda" else "fp32"
    precision = settle_precision(args.precision or usual, device)
    dtype = PRECISIONS[precision]
    (h, w), (height, width) = parse_size(args.size), parse_size(args.target)
    clip = torch.rand(1, args.frames, 3, h, w, device=device) * 2 - 1
    frames = clip[0].to(dtype)
    ours = network(args.model, device, precision)
    plain = SRVGG().to(device, dtype).eval().requires_grad_(False)
    tuned = SRVGG().to(device, dtype).eval().requires_grad_(False)
    channels_last(tuned)
    runs: dict[str, Callable[[], Tensor]] = {
        "oasis": lambda: ours(clip, (height, width)),
        "srvgg": lambda: torch.cat([plain(frame[None]) for frame in frames]),
        "srvgg, channels last": lambda: torch.cat([tuned(frame[None]) for frame in frames]),
    }
    times: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for run in runs.values():
            run()  # allocate what it needs before the clock runs
        for _ in range(args.repeat):
            for name, run in runs.items():
                times[name].append(seconds(run, device) / args.frames)
    best = {name: min(values) for name, values in times.items()}
    return {
        "model": args.model,
        "size": args.size,
        "target": args.target,
        "frames": args.frames,
        "precision": precision,
        "seconds_per_frame": best,
        "all_seconds_per_frame": times,
        "speed_against_srvgg": best["srvgg"] / best["oasis"],
        **machine(device),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default=DEFAULT, help="a name, a file, or `random`")
    parser.add_argument("--device", help="default: cpu, or cuda for a suite")
    parser.add_argument("--precision", help="of all networks; default: fp32, fp16 on CUDA")
    parser.add_argument("--size", default="320x180")
    parser.add_argument("--target", default="1280x720")
    parser.add_argument("--frames", type=int, default=9)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--json", type=Path, help="write the numbers here")
    parser.add_argument("--suite", choices=["gpu"], help="the table of gpu.py instead")
    suite = parser.add_argument_group("with --suite gpu")
    suite.add_argument("--only", nargs="+", metavar="ROW", help="these rows")
    suite.add_argument("--toy", action="store_true", help="small shapes, for any device")
    suite.add_argument("--budget", type=float, default=150, help="start no row after this, seconds")
    suite.add_argument("--no-compile", action="store_true")
    suite.add_argument("--no-graphs", action="store_true")
    args = parser.parse_args()
    if args.suite:
        import gpu

        args.device = args.device or "cuda"
        gpu.suite(args)
        return
    args.device = args.device or "cpu"
    try:
        result = measure(args)
    except OasisError as error:
        sys.exit(f"error: {error}")
    where = f"{result['device']}, {result['precision']}"
    print(f"{args.size} -> {args.target}, {args.frames} frames, {where}")
    for name, value in result["seconds_per_frame"].items():
        print(f"{args.model if name == 'oasis' else name:24} {value:7.3f} s a frame")
    print(f"speed against srvgg      {result['speed_against_srvgg']:7.2f}")
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
