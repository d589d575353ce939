"""Which devices there are and what each can do. Nothing else compares kinds of devices.

A kind is PyTorch's name: "cuda" (NVIDIA, and AMD under ROCm), "xpu" (Intel), "mps" (Apple), "cpu".
"""

import os
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from platform import machine, processor
from typing import Any

import torch

from oasis_cli.errors import UsageError

KINDS = ("cuda", "xpu", "mps", "cpu")
"""In the order in which "auto" takes them."""

NUMBERED = ("cuda", "xpu")
"""Kinds of which a machine may have several."""

PRECISIONS = {
    "fp32": torch.float32,
    "fp16": torch.float16,
    "bf16": torch.bfloat16,
    "fp8": torch.bfloat16,
    "int8": torch.bfloat16,
}
"""Types to compute in; with fp8 the transformer's linear layers use 8 bits inside, with int8 the
wide convolutions, too."""

BEFORE_BF16 = (
    *("SSE41", "AVX", "AVX2", "AVX2_VNNI", "AVX2_VNNI_2"),
    *("AVX512_CORE", "AVX512_CORE_VNNI"),
)
"""Values of ONEDNN_MAX_CPU_ISA that bar oneDNN from units for bf16: it then takes ten times as long
for it, and two hundred times for int8."""

SIXTEEN = ("fp32", "fp16", "bf16")


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one device can do. False also stands for what was never tried on such a device."""

    kind: str
    """One of `KINDS`."""
    index: int | None
    """Its number among those of its kind; None for PyTorch's current one."""
    name: str
    """The driver's name for it; empty when there is no such device here."""
    memory: int | None
    """Bytes in all; None where nobody tells."""
    precisions: tuple[str, ...]
    """Which of `PRECISIONS` it computes in."""
    default_precision: str
    """For "auto": 16 bits where the device multiplies them."""
    graphs: bool = False
    """Whether launches can be captured and replayed."""
    fused_kernels: bool = False
    """Whether our fused layers and Triton kernels are made for it."""
    tried: bool = False
    """Whether oasis was run and tested on such a device."""
    fp8: bool = False
    """Whether it multiplies 8-bit floats."""
    cudnn_attention: bool = False
    """Whether cuDNN's attention is the fastest: on Hopper it took 0.6 of flash's time."""
    streams: bool = False
    """Whether copies from and to it go on beside other work; its events say when they are done."""
    autocast: bool = False
    """Whether training computes in bf16 and keeps its weights in float32."""
    collectives: str = "gloo"
    """Backend for sending tensors between processes of a training run, as PyTorch names it."""
    large_models: bool = False
    """Whether `--model auto` may take the base model."""

    @property
    def host(self) -> bool:
        """Whether it is the CPU, which shares memory and time with reading and encoding."""
        return self.kind == "cpu"

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def capabilities(device: torch.device | str) -> Capabilities:
    """What a device can do, also one that is not here: then nothing that depends on the model."""
    device = torch.device(device)
    if device.type == "cpu":
        return _cpu()
    return _accelerator(device.type, device.index)


@cache
def _accelerator(kind: str, index: int | None) -> Capabilities:
    makers = {"cuda": _cuda, "xpu": _xpu}
    if kind in makers:
        return makers[kind](index, (index or 0) < count(kind))
    precisions = SIXTEEN if kind == "mps" else ("fp32",)
    name = "Apple GPU" if kind == "mps" and count(kind) else ""
    return Capabilities(
        kind=kind,
        index=index,
        name=name,
        memory=None,
        precisions=precisions,
        default_precision="fp32",
    )


def _cuda(index: int | None, here: bool) -> Capabilities:
    # ROCm calls itself cuda, too. Its capability is the number of a gfx architecture: (9, 4) is an
    # MI300, no Hopper. Its 8-bit type is another one.
    nvidia = torch.version.hip is None
    about = torch.cuda.get_device_properties(index or 0) if here else None
    version = torch.cuda.get_device_capability(index) if here and nvidia else (0, 0)
    fp8 = version >= (8, 9)
    return Capabilities(
        kind="cuda",
        index=index,
        name=about.name if about else "",
        memory=int(about.total_memory) if about else None,
        precisions=(*SIXTEEN, "fp8") if fp8 else SIXTEEN,
        default_precision="fp16",
        graphs=nvidia,
        fused_kernels=nvidia,
        tried=version == (9, 0),  # H100, H200
        fp8=fp8,
        cudnn_attention=version[0] == 9,
        streams=True,
        autocast=True,
        # Gradients travel between GPUs; clocks and tables between CPUs, where nothing waits.
        collectives="cpu:gloo,cuda:nccl",
        large_models=True,
    )


def _xpu(index: int | None, here: bool) -> Capabilities:
    about = torch.xpu.get_device_properties(index or 0) if here else None
    return Capabilities(
        kind="xpu",
        index=index,
        name=about.name if about else "",
        memory=int(about.total_memory) if about else None,
        precisions=SIXTEEN,
        default_precision="fp16",
    )


def _cpu() -> Capabilities:
    return Capabilities(
        kind="cpu",
        index=None,
        name=cpu_name(),
        memory=None,  # what counts is what is free: `free_memory`
        precisions=("fp32", "bf16", "int8") if cpu_has_int8() else ("fp32", "bf16"),
        default_precision="bf16" if cpu_has_bf16() else "fp32",
        tried=True,
    )


def cpu_has_bf16() -> bool:
    """Whether this CPU multiplies bf16 in units of its own: x86 ones, as PyTorch uses no others."""
    barred = os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper() in BEFORE_BF16
    return not barred and _cpu_has_any("avx512_bf16", "amx_bf16")


def cpu_has_int8() -> bool:
    """Whether this CPU multiplies bytes in units of its own, and bf16, which the rest is in.

    Others add products of bytes up in 16 bits, which overflow.
    """
    units = _cpu_has_any("avx512_vnni", "amx_int8")
    return units and cpu_has_bf16() and torch.backends.mkldnn.is_available()


def _cpu_has_any(*units: str) -> bool:
    """Whether this CPU has one of these, as PyTorch calls them; its older versions know none."""
    known: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(known.get(name, False) for name in units)


@cache
def cpu_name() -> str:
    """Model name of the processor."""
    path = Path("/proc/cpuinfo")
    if path.exists():
        for line in path.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return processor() or machine()


def count(kind: str) -> int:
    """How many devices of a kind there are here."""
    if kind == "cpu":
        return 1
    if kind == "mps":
        return int(torch.backends.mps.is_available())
    module = getattr(torch, kind, None)
    return int(module.device_count()) if module is not None and module.is_available() else 0


def found() -> list[Capabilities]:
    """Every device here, in the order in which "auto" takes them."""
    return [
        capabilities(f"{kind}:{index}" if kind in NUMBERED else kind)
        for kind in KINDS
        for index in range(count(kind))
    ]


def choose_devices(name: str) -> list[torch.device]:
    """ "auto", "cpu", "cuda", "cuda:1", "xpu", "mps", or several with commas -> devices here.

    Raises UsageError for what is no device, or is not here.
    """
    if name == "auto":
        return [torch.device(next(kind for kind in KINDS if count(kind)))]
    return [_device(part.strip()) for part in name.split(",")]


def choose_device(name: str) -> torch.device:
    """As `choose_devices`, where there can be one. Raises UsageError for several, too."""
    first, *others = choose_devices(name)
    if others:
        raise UsageError(f"{name} are several devices, and this takes one", hint="name one of them")
    return first


def _device(name: str) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        device = torch.device("meta")
    if device.type not in KINDS:
        raise UsageError(
            f"{name!r} is not a device", hint="choose auto, cpu, cuda, cuda:N, xpu, xpu:N or mps"
        )
    there = count(device.type)
    if device.type == "mps" and not there:
        raise UsageError("torch sees no mps device here", hint="--device cpu always works")
    if device.type != "cpu" and (device.index or 0) >= there:
        raise UsageError(
            f"there is no {name}: torch sees {there} {device.type.upper()} devices",
            hint="`oasis doctor` shows what torch sees; --device cpu always works",
        )
    return device


def own_device(device: torch.device, number: int) -> torch.device:
    """The device of one of several processes on a machine: the `number`-th of its kind.

    It becomes the process's current one. Kinds of which a machine has one are shared.
    """
    if device.type not in NUMBERED:
        return device
    torch.accelerator.set_device_index(number)
    return torch.device(device.type, number)


def autocast(device: torch.device) -> torch.autocast:
    """A context in which training computes in bf16, where the device is for that."""
    return torch.autocast(device.type, torch.bfloat16, capabilities(device).autocast)


def in_pieces(device: torch.device) -> bool:
    """Whether work is cut into pieces that fit a CPU's caches. What is exported is for others."""
    return capabilities(device).host and not torch.compiler.is_exporting()


def settle_precision(name: str, device: torch.device) -> str:
    """auto: the device's default. Raises UsageError for another that is not possible on it."""
    known = capabilities(device)
    if name == "auto":
        return known.default_precision
    if name not in PRECISIONS:
        raise UsageError(
            f"{name!r} is not a precision", hint=f"choose auto, {', '.join(PRECISIONS)}"
        )
    if name == "fp8" and not known.fp8:
        raise UsageError(
            f"fp8 is not possible on {device}: it needs an NVIDIA card of compute capability 8.9",
            hint="choose --precision auto or bf16",
        )
    if name == "int8" and name not in known.precisions:
        raise UsageError(
            f"int8 is not possible on {'this CPU' if known.host else device}: it needs a CPU with "
            "units for bytes and bf16 (AVX512-VNNI and AVX512-BF16, or AMX)",
            hint="choose --precision auto, or bf16 or fp32",
        )
    if name not in known.precisions:
        where = "a CPU" if known.host else str(device)
        raise UsageError(
            f"{name} is not possible on {where}",
            hint=f"choose --precision {' or '.join(known.precisions)}",
        )
    return name


def supports_fp8(device: torch.device | str) -> bool:
    """Whether a device multiplies 8-bit floats."""
    return capabilities(device).fp8


def may_run_triton() -> bool:
    """Whether this PyTorch is for NVIDIA's cards, or Triton is interpreted."""
    return torch.version.cuda is not None or os.environ.get("TRITON_INTERPRET") == "1"


def synchronize(device: torch.device) -> None:
    """Wait until a device has done what it was told."""
    if not capabilities(device).host:
        torch.accelerator.synchronize(device)
