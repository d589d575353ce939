"""Memory of windows on a device, for the constants of `oasis_cli.pipeline.memory`.

    python benchmarks/fit_memory.py [--device cuda] [--only small paper wan tiny] [--toy]

Each row is one call of a network with random weights: peak bytes beside the weights, as PyTorch's
allocator had them in use (0 on a CPU, which only tries the code), and seconds.
"""

import argparse
import gc
import json
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from gpu_rig import ROUTED  # the folder of this script is on the path

from oasis_cli.checkpoints.format import channels_last
from oasis_cli.model.decoders.tiny import TinyConfig
from oasis_cli.model.decoders.wan import WanVAEConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.inference import prepare_for_inference
from oasis_cli.model.oasis import PAPER, SMALL, Oasis, OasisConfig
from oasis_cli.runtime.devices import PRECISIONS

SIZES = {"360p": (360, 640), "720p": (720, 1280), "1080p": (1080, 1920), "2160p": (2160, 3840)}

MODELS: dict[str, tuple[OasisConfig, str]] = {
    "small": (SMALL, "giww"),
    "paper": (PAPER, ROUTED),
    "wan": (replace(PAPER, decoder=WanVAEConfig()), ROUTED),
    "tiny": (replace(PAPER, decoder=TinyConfig()), ROUTED),
}


@dataclass(frozen=True, slots=True)
class Case:
    """One window."""

    model: str
    precision: str
    size: str
    frames: int
    tile: int | None = None


def cases() -> Iterator[Case]:  # noqa: C901 - a table
    """What varies one at a time, and some of it together."""
    for size in SIZES:
        for frames in (5, 17) if size == "2160p" else (1, 5, 9, 17, 33):
            yield Case("small", "fp16", size, frames)
        for tile in (1024, 512, 256, 128):
            yield Case("small", "fp16", size, 17, tile)
    yield Case("small", "fp16", "720p", 5, 256)
    yield Case("small", "fp32", "720p", 17)
    for precision in ("fp16", "fp8"):
        for size in ("360p", "720p", "1080p"):
            for frames in (1, 5, 17, 33):
                yield Case("paper", precision, size, frames)
            for tile in (512, 128):
                yield Case("paper", precision, size, 17, tile)
    for size, frames in (("360p", 5), ("360p", 17), ("720p", 1), ("720p", 5), ("720p", 17)):
        yield Case("wan", "fp16", size, frames)
    for tile in (512, 256, 128):
        yield Case("wan", "fp16", "720p", 5, tile)
    yield Case("wan", "fp16", "1080p", 5)
    for size in ("360p", "720p", "1080p"):
        for frames in (1, 5, 17):
            yield Case("tiny", "fp16", size, frames)
        for tile in (512, 128):
            yield Case("tiny", "fp16", size, 17, tile)


def network(name: str, precision: str, device: torch.device, toy: bool) -> Oasis:
    """Random weights, routed, ready."""
    config, groups = MODELS[name]
    if toy:
        width = config.dit.heads * 32
        config = replace(config, dit=replace(config.dit, layers=1, width=width, ffn=width))
        precision = "fp32" if device.type == "cpu" else precision
    with torch.device(device):
        model = Oasis(config)
    model = model.to(PRECISIONS[precision]).eval().requires_grad_(False)
    channels_last(model)
    model.dit.route(HeadTable((groups,) * config.dit.layers))
    if device.type == "cuda":
        prepare_for_inference(model.dit, fp8=precision == "fp8")
    return model


@torch.inference_mode()
def measure(model: Oasis, case: Case, device: torch.device, toy: bool) -> dict[str, Any]:
    """One window, twice: the first call sets libraries up."""
    height, width = (32, 48) if toy else SIZES[case.size]
    low = torch.rand(1, case.frames, 3, height // 4, width // 4, device=device) * 2 - 1
    found: dict[str, Any] = {}
    for _ in range(1 if toy else 2):
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()
        weights = torch.cuda.memory_allocated()
        began = time.perf_counter()
        model(low, (height, width), case.tile)[0].float().flatten()[0].item()  # waits for it
        found = {
            "seconds": round(time.perf_counter() - began, 4),
            "weights": weights,
            "used": torch.cuda.max_memory_allocated() - weights,
        }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--toy", action="store_true", help="narrow networks, small clips")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    device = torch.device(given.device)
    rows: list[dict[str, Any]] = []
    held: tuple[str, str] | None = None
    for case in cases():
        if case.model not in given.only:
            continue
        if held != (case.model, case.precision):
            held, model = (case.model, case.precision), None
            model = network(case.model, case.precision, device, given.toy)
        assert model is not None
        try:
            found = measure(model, case, device, given.toy)
        except torch.OutOfMemoryError as error:
            found = {"failed": str(error)}
        rows.append(asdict(case) | found)
        print(json.dumps(rows[-1]), flush=True)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
