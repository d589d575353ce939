"""What the rows of the GPU suite share: a device, random models, clocks, captured graphs."""

import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast

import torch
from torch import Tensor

from oasis_cli.model.decoders.fast import DecoderConfig, FastDecoder
from oasis_cli.model.dit import Block, DiT, DiTConfig
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.inference import compile_regions, prepare_for_inference
from oasis_cli.model.oasis import PAPER, Oasis, OasisConfig

Run = Callable[[], object]

ROUTED, LEAN = "gggiiiiwwwww", "ggiiiiwwwwww"
"""Groups of a layer's 12 heads: 3 global, 4 intra, 5 window; and 2, 4, 6."""


@dataclass(slots=True)
class Rig:
    """Where and how to measure; `toy` is the same code on small shapes, for any machine."""

    device: torch.device
    toy: bool = False
    compiled: bool = True
    graphs: bool = True
    seconds: float = 1.2
    """Time to spend on one number, about."""
    kept: dict[str, Any] = field(default_factory=dict)
    """Models that several rows use."""

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def grid(self, name: str) -> tuple[int, int, int]:
        """Tokens (T, h, w) of 33 frames of "720p" or "1080p"."""
        if self.toy:
            return (3, 4, 6) if name == "720p" else (3, 6, 8)
        return (9, 45, 80) if name == "720p" else (9, 68, 120)

    def clip(self, name: str, dtype: torch.dtype) -> tuple[Tensor, tuple[int, int]]:
        """A small clip (1, F, 3, h, w) of moving shapes, and the (H, W) to enlarge it to."""
        size = {"720p": (720, 1280), "1080p": (1080, 1920)}[name]
        frames = 33
        if self.toy:
            size, frames = (size[0] // 10 // 8 * 8, size[1] // 10 // 8 * 8), 9
        low = moving_shapes(frames, size[0] // 4, size[1] // 4)
        return low.to(self.device, dtype), size

    def latent(self, name: str, channels: int, dtype: torch.dtype) -> Tensor:
        """Random latents (1, C, T, h, w) of a grid of 2x2 tokens."""
        frames, rows, cols = self.grid(name)
        torch.manual_seed(1)
        return torch.randn(1, channels, frames, 2 * rows, 2 * cols, device=self.device, dtype=dtype)

    def paper_config(self) -> OasisConfig:
        """The paper-scale network, or a toy of the same parts."""
        if not self.toy:
            return PAPER
        dit = replace(PAPER.dit, width=192, layers=2, ffn=256)
        decoder = PAPER.decoder
        if isinstance(decoder, DecoderConfig):
            decoder = replace(decoder, low_width=32, high_width=16)
        return replace(PAPER, dit=dit, decoder=decoder)

    def paper(self, groups: str = ROUTED) -> Oasis:
        """The paper-scale network in bfloat16 with random weights, routed, ready to run."""
        key = f"paper {groups}"
        if key not in self.kept:
            config = self.paper_config()
            torch.manual_seed(0)
            with torch.device(self.device):
                model = Oasis(config)
            if isinstance(model.decoder, FastDecoder):  # it starts at zero, which would hide errors
                torch.nn.init.normal_(model.decoder.last.weight, 0, 0.02)
            self.kept[key] = self.ready(model, groups)
        return self.kept[key]

    def ready(self, model: Oasis, groups: str | None = None, *, fp8: bool = False) -> Oasis:
        """In bfloat16 (float32 on a CPU), routed, prepared, compiled, with open residual gates."""
        model = model.to(torch.bfloat16 if self.cuda else torch.float32)
        model = model.eval().requires_grad_(False)
        open_gates(model.dit)
        if groups:
            model.dit.route(HeadTable.repeat(groups, model.dit.config.layers))
        for module in model.decoder.modules():
            if isinstance(module, torch.nn.Conv2d):
                module.weight.data = module.weight.data.contiguous(
                    memory_format=torch.channels_last
                )
        prepare_for_inference(model.dit, fp8=fp8)
        if self.compiled:
            compile_regions(model)
        return model

    def drop(self) -> None:
        """Forget models and give their memory back."""
        self.kept.clear()
        self.release()

    def release(self) -> None:
        """Give cached memory back."""
        if self.cuda:
            torch.cuda.synchronize()
            torch.cuda.empty_cache()

    def measure(self, run: Run, *, graph: bool = True) -> dict[str, Any]:
        """Median milliseconds of `run`, launched by Python and, on CUDA, as a captured graph.

        "ms" is the better of the two; peak memory is that of the launched run, beside it what was
        allocated before (weights and inputs).
        """
        run()
        run()  # the second call of a compiled function may still compile
        self.release()
        if self.cuda:
            torch.cuda.reset_peak_memory_stats()
        found: dict[str, Any] = {"eager_ms": self._median(run)}
        if self.cuda:
            found["peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 2)
            found["before_gib"] = round(torch.cuda.memory_allocated() / 2**30, 2)
        if graph and self.graphs and self.cuda:
            try:
                found["graph_ms"] = self._median(capture(run))
            except RuntimeError as error:
                found["graph_error"] = str(error).splitlines()[0][:120]
        found["ms"] = min(found["eager_ms"], found.get("graph_ms", math.inf))
        return found

    def _median(self, run: Run) -> float:
        times = [self._once(run)]
        while len(times) < 5 or (len(times) < 50 and sum(times) < 1000 * self.seconds):
            times.append(self._once(run))
            if sum(times) > 4000 * self.seconds:
                break
        return round(statistics.median(times), 4)

    def _once(self, run: Run) -> float:
        """Milliseconds of one call, by the device's own clock."""
        if not self.cuda:
            began = time.perf_counter()
            run()
            return 1000 * (time.perf_counter() - began)
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        run()
        end.record()
        torch.cuda.synchronize()
        return float(start.elapsed_time(end))


def capture(run: Run) -> Run:
    """`run` as a CUDA graph."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        run()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        kept = run()

    def replay() -> object:
        graph.replay()
        return kept

    return replay


def open_gates(dit: DiT) -> None:
    """Random modulation: the paper's start has closed gates, behind which errors would hide."""
    generator = torch.Generator(dit.modulation.device).manual_seed(2)
    for block in dit.blocks:
        cast(Block, block).modulation.data.normal_(0, 0.2, generator=generator)
    if dit.context is not None:
        dit.context.data.normal_(0, 1, generator=generator)


def moving_shapes(frames: int, rows: int, cols: int) -> Tensor:
    """(1, F, 3, h, w) in [-1, 1]: sliding edges and waves with a little noise."""
    generator = torch.Generator().manual_seed(3)
    t = torch.arange(frames).view(-1, 1, 1, 1) * 0.7
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(cols), indexing="ij")
    phase = torch.tensor([0.0, 1.0, 2.0]).view(1, 3, 1, 1)
    waves = 0.4 * torch.sin((x + 2 * t) / 5 + phase) * torch.cos((y - t) / 9 + phase)
    edges = 0.4 * torch.sign(torch.sin((x - y + 3 * t) / 17 + phase))
    noise = 0.05 * torch.randn(frames, 3, rows, cols, generator=generator)
    return (waves + edges + noise).clamp(-1, 1)[None]


def decibels(one: Tensor, other: Tensor, peak: float | None = None) -> float:
    """PSNR of `one` against `other` for a `peak`, or the signal-to-noise ratio without."""
    one, other = one.float(), other.float()
    noise = (one - other).square().mean().item()
    signal = peak**2 if peak else other.square().mean().item()
    return round(10 * math.log10(signal / max(noise, 1e-20)), 2)


def window_inputs(
    rig: Rig, grid: tuple[int, int, int], heads: int, width: int, batch: int = 1, others: int = 8
) -> list[Tensor]:
    """q, k, v (B, L, H, D) as the layer makes them: slices of all heads; v of the fused product."""
    length, total = math.prod(grid), heads + others
    dtype = torch.bfloat16 if rig.cuda else torch.float32
    torch.manual_seed(0)
    q, k = torch.randn(2, batch, length, total, width, device=rig.device).to(dtype)
    fused = torch.randn(batch, length, 3, total, width, device=rig.device).to(dtype)
    return [x[:, :, others:] for x in (q, k, fused[:, :, 2])]


def small_dit(config: DiTConfig) -> tuple[int, int]:
    """(window heads, head width) of a layer of a small network, for the training row."""
    return max(1, config.heads // 3), config.head_width
