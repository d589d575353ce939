"""The GPU suite of `speed.py`: each row of the table of speed and memory, with its bar.

    python benchmarks/speed.py --suite gpu [--only NAME ...] [--budget 150] [--json out.json]
    python benchmarks/speed.py --suite gpu --device cpu --toy       # the same code, small shapes

Random weights (speed does not depend on them) unless a row says otherwise; 33 frames; medians of
CUDA-event times after warm-up, launched by Python and as a captured graph. A row that fails says so
and the others go on.
"""

import argparse
import gc
import json
import platform
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from gpu_rig import LEAN, ROUTED, Rig, decibels, small_dit, window_inputs
from torch.nn.attention import SDPBackend, sdpa_kernel

from oasis_cli.checkpoints.format import channels_last, load_model
from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.model import attention
from oasis_cli.model.attention import window_attention, window_tiles
from oasis_cli.model.decoders.wan import WanDecoder, WanVAEConfig
from oasis_cli.model.heads.calibration import measure_heads
from oasis_cli.model.inference import compile_blocks
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.model.oasis import SMALL, Oasis
from oasis_cli.runtime.devices import supports_fp8

Found = dict[str, Any]

WINDOW = (3, 5, 5)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    what: str
    run: Callable[[Rig], Found]
    bar: float | None = None
    """Of `value`."""
    unit: str = "ms"
    more: bool = False
    """Whether more is better."""


def window(name: str, rig: Rig) -> Found:
    """4 heads of 128 through the layer's own path, beside the gather path."""
    grid = rig.grid(name)
    q, k, v = window_inputs(rig, grid, 4, 128)
    tiles = window_tiles(grid, WINDOW, rig.device)
    out = torch.empty(*q.shape[:2], 12, 128, device=rig.device, dtype=q.dtype)[:, :, 8:]
    plain = partial(window_attention, q, k, v, tiles)
    reference = window_attention(q.float(), k.float(), v.float(), tiles)
    found = {"plain_ms": rig.measure(plain)["ms"]}
    if attention.KERNEL is None:
        return found | {"value": found["plain_ms"]}

    def run() -> None:
        assert attention.KERNEL is not None
        attention.KERNEL.window_attention_into(q, k, v, out, list(grid), list(WINDOW))

    found |= rig.measure(run)
    found["error"] = (out.float() - reference).abs().max().item()
    found["plain_error"] = (plain().float() - reference).abs().max().item()
    return found | {"value": found["ms"]}


def window_training(rig: Rig) -> Found:
    """Forward and backward at the size of a small network's training crops."""
    heads, width = small_dit(SMALL.dit)
    grid, batch = ((2, 3, 4), 2) if rig.toy else ((3, 16, 16), 48)
    inputs = window_inputs(rig, grid, heads, width, batch, others=SMALL.dit.heads - heads)
    inputs = [x.detach().requires_grad_() for x in inputs]
    tiles = window_tiles(grid, WINDOW, rig.device)

    def step(function: Callable[..., torch.Tensor], *more: object) -> object:
        with torch.enable_grad():
            return torch.autograd.grad(function(*inputs, *more).sum(), inputs)

    found = {"plain_ms": rig.measure(lambda: step(window_attention, tiles), graph=False)["ms"]}
    if attention.KERNEL is None:
        return found | {"value": found["plain_ms"]}
    kernel = attention.KERNEL.window_attention
    found |= rig.measure(lambda: step(kernel, grid, WINDOW), graph=False)
    return found | {"value": found["ms"]}


def backends(rig: Rig) -> Found:
    """Global and intra heads by backend: which one should `attention` try first?"""
    found: Found = {}
    frames, rows, cols = rig.grid("720p")
    shapes = {
        "global 3x128": (1, 3, frames * rows * cols, 128),
        "intra 4x128": (frames, 4, rows * cols, 128),
        "global 2x64 small": (6, 2, 9 * 24 * 24 if not rig.toy else 24, 64),
    }
    for what, (batch, heads, length, width) in shapes.items():
        q, k, v = (
            torch.randn(batch, length, heads, width, device=rig.device)
            .to(torch.bfloat16)
            .transpose(1, 2)
            for _ in range(3)
        )
        for backend in (SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION):
            if not rig.cuda:
                backend = SDPBackend.MATH
            run = partial(_attend, backend, q, k, v)
            found[f"{what}, {backend.name.split('_')[0].lower()}"] = rig.measure(run)["ms"]
    return found | {"value": next(iter(found.values()))}


def _attend(backend: SDPBackend, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> object:
    with sdpa_kernel(backend):
        return F.scaled_dot_product_attention(q, k, v)


def dit(name: str, rig: Rig) -> Found:
    """The transformer alone, heads 3 global, 4 intra, 5 window, 2-token cross-attention."""
    model = rig.paper(ROUTED)
    latent = rig.latent(name, model.config.dit.latent_channels, model.dit.modulation.dtype)
    found = rig.measure(lambda: model.dit(latent))
    return found | {"value": found["ms"]}


def fast_decoder(name: str, rig: Rig) -> Found:
    """FastDecoder at paper-scale width, without the transformer."""
    model = rig.paper(ROUTED)
    dtype = model.dit.modulation.dtype
    frames, rows, cols = rig.grid(name)
    latent = rig.latent(name, model.config.dit.latent_channels, dtype)
    clip = torch.rand(1, 4 * frames - 3, 3, 16 * rows, 16 * cols, device=rig.device).to(dtype)
    found = rig.measure(lambda: model.decode(latent, clip))
    return found | {"value": found["ms"]}


def wan_decoder(rig: Rig) -> Found:
    """The Wan decoder in bfloat16, weights channels last."""
    config = WanVAEConfig(width=8 if rig.toy else 96)
    torch.manual_seed(0)
    with torch.device(rig.device):
        decoder = WanDecoder(config)
    decoder = decoder.to(torch.bfloat16 if rig.cuda else torch.float32).eval()
    decoder.requires_grad_(False)
    channels_last(decoder)
    latent = rig.latent("720p", 16, decoder.first.weight.dtype)
    searching = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False  # found nothing better, and took minutes
    found = rig.measure(partial(decoder.decode, latent), graph=False)
    torch.backends.cudnn.benchmark = searching
    return found | {"value": found["ms"]}


def whole(name: str, rig: Rig) -> Found:
    """Low-quality clip to frames: enlarge, unshuffle, transformer, FastDecoder."""
    model = rig.paper(ROUTED)
    low, size = rig.clip(name, model.dit.modulation.dtype)
    found = rig.measure(lambda: model(low, size))
    return found | {"value": round(1000 * low.shape[1] / found["ms"], 2)}


def whole_fp8(name: str, rig: Rig) -> Found:
    """The same with 8-bit linear layers and 2 global heads, and what 8 bits cost."""
    if rig.cuda and not supports_fp8(rig.device):
        return {"value": None, "note": "this device has no 8-bit floats"}
    key = "fp8"
    low, size = rig.clip(name, torch.bfloat16 if rig.cuda else torch.float32)
    if key not in rig.kept:
        plain = rig.paper(LEAN)
        rig.kept["fp8 reference"] = plain(low, size)
        with torch.device(rig.device):
            model = Oasis(plain.config)
        model.load_state_dict(plain.checkpoint_state())
        model = replace(rig, compiled=False, kept={}).ready(model, LEAN, fp8=True)
        if rig.compiled:
            compile_blocks(model.dit)
        model.decoder = plain.decoder
        rig.kept[key] = model
        rig.kept.pop(f"paper {LEAN}")
    model = rig.kept[key]
    found = rig.measure(lambda: model(low, size))
    if (reference := rig.kept.pop("fp8 reference", None)) is not None:
        found["psnr_against_bf16"] = decibels(model(low, size), reference, peak=2.0)
    return found | {"value": round(1000 * low.shape[1] / found["ms"], 2)}


def peak(rig: Rig) -> Found:
    """Most GPU memory at 1080p, transformer and FastDecoder, everything counted."""
    model = rig.paper(ROUTED)
    low, size = rig.clip("1080p", model.dit.modulation.dtype)
    found = replace(rig, graphs=False).measure(lambda: model(low, size))
    found["tiled"] = replace(rig, graphs=False).measure(lambda: model(low, size, 512))
    return found | {"value": found.get("peak_gib")}


def calibration(rig: Rig) -> Found:
    """Measuring all heads on a clip, as `oasis calibrate-heads`: memory beside the weights."""
    torch.manual_seed(0)
    with torch.device(rig.device):
        model = Oasis(rig.paper_config())
    model = model.to(torch.bfloat16 if rig.cuda else torch.float32).eval()
    low, size = rig.clip("720p", torch.float32)
    clip = bicubic_upsample(low, size)[0].cpu()
    found = replace(rig, graphs=False).measure(lambda: measure_heads(model, [clip]))
    more = found.get("peak_gib", 0.0) - found.get("before_gib", 0.0)
    return found | {"value": round(more * 2**30 / 1e9, 3)}


def small(rig: Rig) -> Found:
    """The shipped small network in fp16, the network alone."""
    model = rig.ready(_small(rig, torch.float16))
    if rig.cuda:
        model = model.half()
    low, size = rig.clip("720p", model.dit.modulation.dtype)
    found = rig.measure(lambda: model(low, size))
    return found | {"value": round(1000 * low.shape[1] / found["ms"], 2)}


def small_quality(rig: Rig) -> Found:
    """PSNR between the shipped small network's outputs in fp16 and in fp32."""
    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    low, size = rig.clip("720p", torch.float32)
    low = low[:, :9]
    exact = _small(rig, torch.float32)(low, size)
    half = torch.float16 if rig.cuda else torch.bfloat16
    rounded = _small(rig, half)(low.to(half), size)
    torch.backends.cudnn.allow_tf32 = tf32
    correction = exact.float() - attention_free_base(low, size)
    return {
        "value": decibels(rounded, exact, peak=2.0),
        "correction_rms": correction.square().mean().sqrt().item(),
    }


def attention_free_base(low: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """The bicubic clip that the network corrects."""
    return F.interpolate(low[0], size=size, mode="bicubic")[None]


def _small(rig: Rig, dtype: torch.dtype) -> Oasis:
    return load_model(DEFAULT, device=rig.device, dtype=dtype if rig.cuda else torch.float32)


ROWS = (
    Row("window-720p", "window attention, 4x128, 9x45x80", partial(window, "720p"), 0.20),
    Row("window-1080p", "window attention, 4x128, 9x68x120", partial(window, "1080p"), 0.45),
    Row("dit-720p", "DiT, 720p, bf16", partial(dit, "720p"), 240),
    Row("fast-720p", "FastDecoder, 720p", partial(fast_decoder, "720p"), 50),
    Row("whole-720p", "DiT + FastDecoder, 720p", partial(whole, "720p"), 110, "frames/s", True),
    Row("small", "oasis-small, 720p, fp16", small, 500, "frames/s", True),
    Row("small-quality", "oasis-small, fp16 against fp32", small_quality, 50, "dB", True),
    Row("dit-1080p", "DiT, 1080p, bf16", partial(dit, "1080p"), 860),
    Row("whole-1080p", "DiT + FastDecoder, 1080p", partial(whole, "1080p"), 34, "frames/s", True),
    Row("peak", "peak memory, 1080p", peak, 8, "GiB"),
    Row("wan", "Wan decoder, 720p, bf16", wan_decoder, 900),
    Row("fp8-720p", "fp8, 2 global, 720p", partial(whole_fp8, "720p"), 150, "frames/s", True),
    Row("fp8-1080p", "fp8, 2 global, 1080p", partial(whole_fp8, "1080p"), 48, "frames/s", True),
    Row("calibration", "measuring heads, 720p, beside weights", calibration, 1, "GB"),
    Row("backends", "3 global heads, cuDNN", backends),
    Row("training", "window attention, a training step", window_training),
)


def machine(device: torch.device) -> dict[str, str]:
    """What the numbers depend on."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor()
    return {"device": name or "cpu", "torch": torch.__version__}


@torch.no_grad()
def one(row: Row, rig: Rig) -> Found:
    """Measure a row; an error is a result too."""
    began = time.perf_counter()
    try:
        found = row.run(rig)
    except Exception as error:  # whatever it is, the other rows are worth having
        traceback.print_exc()
        found = {"value": None, "error": f"{type(error).__name__}: {str(error)[:200]}"}
        rig.drop()
    gc.collect()
    rig.release()
    bar, value = None if rig.toy else row.bar, found.get("value")
    if bar is not None and value is not None:
        found["met"] = value >= bar if row.more else value <= bar
    return {
        "name": row.name,
        "what": row.what,
        "bar": bar,
        "unit": row.unit,
        **found,
        "took_s": round(time.perf_counter() - began, 1),
    }


def line(found: Found) -> str:
    """A line of the table."""
    value = "-" if found["value"] is None else f"{found['value']:.4g}"
    bar = "" if found["bar"] is None else f"{found['bar']:g}"
    met = "" if "met" not in found else "met" if found["met"] else "MISSED"
    known = ("name", "what", "bar", "unit", "value", "met", "ms")
    rest = {
        k: round(v, 5) if isinstance(v, float) else v for k, v in found.items() if k not in known
    }
    text = ", ".join(f"{k} {v}" for k, v in rest.items())
    return f"| {found['what']:36} | {value:>8} {found['unit']:8} | {bar:>5} | {met:6} | {text} |"


def suite(args: argparse.Namespace) -> dict[str, Any]:
    """Run the rows that were asked for, printing and writing after each."""
    device = torch.device(args.device)
    rig = Rig(device, toy=args.toy, compiled=not args.no_compile, graphs=not args.no_graphs)
    if device.type == "cuda":
        torch.backends.cudnn.benchmark = True
    began = time.perf_counter()
    result: dict[str, Any] = {"machine": machine(device), "rows": []}
    print(json.dumps(result["machine"]))
    print("| what | value | bar | | details |\n| --- | --- | --- | --- | --- |", flush=True)
    for row in ROWS:
        if args.only and row.name not in args.only:
            continue
        if time.perf_counter() - began > args.budget:
            print(f"| {row.what:36} | not measured: out of time |", flush=True)
            continue
        if row.name.startswith("fp8") and f"paper {ROUTED}" in rig.kept:
            rig.drop()  # another model follows
        result["rows"].append(one(row, rig))
        print(line(result["rows"][-1]), flush=True)
        if args.json:
            args.json.write_text(json.dumps(result, indent=2) + "\n")
    return result
