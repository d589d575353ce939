"""Does a device compute what it should? A small window on it, and plainly on the CPU in float32."""

import re
import time
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor

from oasis_cli.checkpoints.format import load_model
from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.errors import OasisError
from oasis_cli.pipeline.torch_backend import TORCH
from oasis_cli.runtime.backend import ModelSpec
from oasis_cli.runtime.devices import Capabilities, synchronize

SIZE, FRAMES = (48, 64), 5
"""(rows, columns) of the window's frames, and how many; it is doubled. Several tiles of windows."""

LEAST_DB = 45.0
"""PSNR below which a result is wrong: 16 bits reach 60 to 85 dB, a wrong operator below 35."""


@dataclass(frozen=True, slots=True)
class Comparison:
    """A device beside the CPU."""

    device: str
    precision: str
    decibels: float
    """PSNR of its frames, those of the CPU in float32 being right."""
    seconds: float
    """Of the second call: the first loads kernels."""
    on_cpu: tuple[str, ...]
    """Operators that the device lacks and the CPU did instead."""
    notes: tuple[str, ...]
    """Notes of the network."""

    def __str__(self) -> str:
        text = f"{self.precision}: {self.decibels:.0f} dB to the CPU's fp32, {self.seconds:.2f} s"
        text += f"; on the CPU instead: {', '.join(self.on_cpu)}" if self.on_cpu else ""
        return "; ".join([text, *self.notes])


def picture() -> Tensor:
    """A moving pattern of stripes, edges and a disc: (1, F, 3, h, w) in [-1, 1]."""
    rows, cols = (torch.arange(n, dtype=torch.float32) for n in SIZE)
    frames = []
    for number in range(FRAMES):
        y, x = rows[:, None] - number, cols[None] + 2 * number
        disc = ((y - 24) ** 2 + (x - 32) ** 2 < 150).float()
        colours = (x / 5).sin() * (y / 9).cos(), ((x + y) / 3).sin(), 2 * disc - 1
        frames.append(torch.stack([c.expand(SIZE) for c in colours]))
    return torch.stack(frames)[None] * 0.8


def check_device(card: Capabilities, model: str = DEFAULT) -> Comparison:
    """Run `model` on a device as a run does. Raises OasisError when the frames are other ones."""
    name = card.kind if card.index is None else f"{card.kind}:{card.index}"
    device, low, size = torch.device(name), picture(), (2 * SIZE[0], 2 * SIZE[1])
    precision = card.default_precision
    spec = ModelSpec(name=model, heads=None, device=device, precision=precision, decoder="auto")
    with torch.inference_mode(), warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        run = TORCH.load(spec)
        there = low.to(device)
        for _ in range(3):  # the second call may capture, the third replays
            began = time.perf_counter()
            high = run(there, size)
            synchronize(device)
            seconds = time.perf_counter() - began
        right = load_model(model)(low, size).clamp(-1, 1)
    error = (high.float().cpu().clamp(-1, 1) - right).square().mean().double()
    decibels = float(10 * torch.log10(4 / error.clamp(min=1e-12)))
    fallbacks = (re.search(r"operator '([^']+)'.*fall back", str(w.message)) for w in said)
    made = Comparison(
        name,
        precision,
        decibels,
        seconds,
        tuple(sorted({found[1] for found in fallbacks if found})),
        tuple(getattr(run, "notes", ())),
    )
    if not decibels >= LEAST_DB:  # NaN, too
        raise OasisError(f"it makes other frames than the CPU: {made}")
    return made
