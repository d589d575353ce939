"""Verb: how fast is it here? Stage by stage, as a table that fits a bug report."""

import platform
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from oasis_cli import __version__
from oasis_cli.errors import UsageError
from oasis_cli.media.testclip import write_test_clip
from oasis_cli.pipeline.model_choice import model_for
from oasis_cli.pipeline.plan import Options
from oasis_cli.pipeline.run import in_one_go
from oasis_cli.pipeline.threads import Stop
from oasis_cli.runtime.device_memory import forget_peak, peak_bytes
from oasis_cli.runtime.devices import (
    PRECISIONS,
    capabilities,
    choose_device,
    settle_precision,
    synchronize,
)
from oasis_cli.upscaler import Upscaler

SIZES = ("320x180", "640x360")
FRAMES = 17
SMALLEST = 16
"""Pixels on a side: encoders refuse much less."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """What was measured at one size."""

    source: str
    target: str
    frames: int
    model_fps: float
    """Output frames a second, the network alone."""
    latent_ms: float
    """Milliseconds a frame: enlarge and unshuffle."""
    transformer_ms: float
    decoder_ms: float
    total_fps: float
    """Frames a second from file to file: decode, network, encode."""
    limiting: str
    """The stage that the others waited for."""
    peak_mb: float
    """Peak memory: of the process, or on CUDA of the device; MB."""


@dataclass(frozen=True, slots=True)
class Bench:
    """All rows and what they depend on."""

    machine: dict[str, str]
    rows: tuple[Row, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"machine": self.machine, "rows": [asdict(row) for row in self.rows]}


def bench(
    *,
    model: str,
    device: str = "auto",
    precision: str = "auto",
    sizes: Sequence[tuple[int, int]] = (),
    scale: float = 4,
    frames: int = FRAMES,
    say: Callable[[str], None] = lambda text: None,
) -> Bench:
    """Measure at each size = (width, height) of the input. Writes into a temporary folder only."""
    if frames < 5:
        raise UsageError(f"{frames} frames are too few to time", hint="choose --frames 5 or more")
    for width, height in sizes:
        if min(width, height) < SMALLEST:
            raise UsageError(
                f"{width}x{height} is too small to time",
                hint=f"choose --sizes from {SMALLEST}x{SMALLEST}",
            )
    where = choose_device(device)
    precision = settle_precision(precision, where)
    model = model_for(model, str(where)).name
    upscaler = Upscaler(Options(model=model, device=str(where), precision=precision))
    rows = []
    for width, height in sizes:
        say(f"{width}x{height} ...")
        target = (round(width * scale), round(height * scale))
        rows.append(_row(upscaler, (width, height), target, frames))
    return Bench(machine(where, precision, model), tuple(rows))


def _row(upscaler: Upscaler, size: tuple[int, int], target: tuple[int, int], frames: int) -> Row:
    with tempfile.TemporaryDirectory(prefix="oasis-bench-") as folder:
        source = write_test_clip(Path(folder) / "in.mp4", size, frames)
        plan = upscaler.plan(source, Path(folder) / "out.mp4", size=target)
        where, model = plan.device, upscaler.model_for(plan)
        dtype = PRECISIONS[plan.precision]
        network = getattr(model, "network", model)  # without its graph: stage by stage
        stages = _stages(network, size, target, frames, where, dtype)
        result = in_one_go(plan, model, lambda event: None, Stop())
    return Row(
        source=f"{size[0]}x{size[1]}",
        target=f"{target[0]}x{target[1]}",
        frames=frames,
        model_fps=frames / sum(stages.values()),
        latent_ms=1000 * stages["latent"] / frames,
        transformer_ms=1000 * stages["transformer"] / frames,
        decoder_ms=1000 * stages["decoder"] / frames,
        total_fps=result.fps,
        limiting=result.limiting,
        peak_mb=peak_bytes(where) / 1e6,
    )


@torch.inference_mode()
def _stages(
    network: Any,
    size: tuple[int, int],
    target: tuple[int, int],
    frames: int,
    where: torch.device,
    dtype: torch.dtype,
) -> dict[str, float]:
    """Seconds for each part of the network, best of two runs, on random pictures."""
    low = torch.rand(1, frames, 3, size[1], size[0], device=where) * 2 - 1
    best: dict[str, float] = {}
    forget_peak(where)
    for _ in range(2):
        times = dict.fromkeys(("latent", "transformer", "decoder"), 0.0)
        with _timed(network, times, where):
            began = _now(where)
            network(low.to(dtype), (target[1], target[0]))
            whole = _now(where) - began
        # What is neither of the two is the way in and the sum at the end.
        times["latent"] = max(0.0, whole - times["transformer"] - times["decoder"])
        best = times if not best or sum(times.values()) < sum(best.values()) else best
    return best


@contextmanager
def _timed(network: Any, times: dict[str, float], where: torch.device) -> Iterator[None]:
    """Add the time spent in the network's two large parts to `times`."""
    parts = {"refine": "transformer", "decode": "decoder"}

    def watch(method: Callable[..., Tensor], name: str) -> Callable[..., Tensor]:
        def call(*args: Any, **options: Any) -> Tensor:
            began = _now(where)
            out = method(*args, **options)
            times[name] += _now(where) - began
            return out

        return call

    for method, name in parts.items():
        setattr(network, method, watch(getattr(network, method), name))
    try:
        yield
    finally:
        for method in parts:
            delattr(network, method)


def _now(where: torch.device) -> float:
    synchronize(where)
    return time.perf_counter()


def machine(where: torch.device, precision: str, model: str) -> dict[str, str]:
    """Everything that decides how fast it is."""
    from importlib.metadata import version

    return {
        "oasis": __version__,
        "model": model,
        "device": f"{where} ({capabilities(where).name})",
        "precision": precision,
        "threads": str(torch.get_num_threads()),
        "torch": torch.__version__,
        "pyav": version("av"),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def bench_table(bench: Bench) -> str:
    """Markdown, to paste."""
    lines = [f"{key}: {value}  " for key, value in bench.machine.items()]
    lines += [
        "",
        "| input -> output | network frames/s | way in, transformer, decoder: ms a frame "
        "| file to file frames/s | limited by | peak MB |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += [
        f"| {r.source} -> {r.target} | {r.model_fps:.3g} "
        f"| {r.latent_ms:.0f}, {r.transformer_ms:.0f}, {r.decoder_ms:.0f} "
        f"| {r.total_fps:.3g} | {r.limiting} | {r.peak_mb:.0f} |"
        for r in bench.rows
    ]
    return "\n".join(lines)
