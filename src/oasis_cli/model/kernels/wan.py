# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# (what Triton compiles is no Python for a type checker)
"""Everything between the convolutions of the Wan decoder, as Triton kernels for inference on GPUs.

Tensors (B, C, time, rows, cols) lie channels last in memory: a position's channels are a row. A
program takes a few rows: read once, written once, in float32 between. The biases of convolutions
are added here, since cuDNN adds none to a convolution over time without another pass over memory.
The reference is `wan_vae.NormConv` and `wan_vae.Residual`.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oasis_cli.model.kernels.token import supports as supports

LAYOUT = torch.channels_last_3d
VALUES = 4096
"""Values of a program, with those that fill a row up to a power of two."""


def _cut(channels: int) -> dict[str, int]:
    """Rows and columns of a program."""
    block = triton.next_power_of_2(channels)
    return {"C": channels, "BLOCK": block, "ROWS": max(1, VALUES // block), "num_warps": 4}


@triton.jit
def _norm_silu(
    x_ptr, bias_ptr, weight_ptr, out_ptr, count, clip, room, ahead,
    BIASED: tl.constexpr, C: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    kept = (row < count)[:, None] & (channel < C)[None, :]
    x = tl.load(x_ptr + row[:, None] * C + channel[None, :], mask=kept, other=0.0).to(tl.float32)
    if BIASED:
        x += tl.load(bias_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    length = tl.sqrt(tl.sum(x * x, 1))
    weight = tl.load(weight_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)
    x *= weight[None, :] * (tl.sqrt(C * 1.0) / tl.maximum(length, 1e-12))[:, None]
    x /= 1 + tl.exp(-x)
    place = row // clip * room + ahead + row % clip
    tl.store(
        out_ptr + place[:, None] * C + channel[None, :], x.to(out_ptr.dtype.element_ty), mask=kept
    )


def norm_silu(x: Tensor, bias: Tensor | None, weight: Tensor, past: Tensor | None) -> Tensor:
    """What precedes a convolution, of x + bias, behind the two frames of the past, zeros if None.

    x: (B, C, time, rows, cols); bias, weight: (C,); past: (B, C, 2, rows, cols). Returns (B, C,
    time + 2, rows, cols), channels last.
    """
    x = x.contiguous(memory_format=LAYOUT)
    batch, channels, time, rows, cols = x.shape
    seen = torch.empty(
        (batch, channels, time + 2, rows, cols),
        dtype=x.dtype,
        device=x.device,
        memory_format=LAYOUT,
    )
    if past is None:
        seen[:, :, :2].zero_()
    else:
        seen[:, :, :2] = past
    cut, frame = _cut(channels), rows * cols
    count = batch * time * frame
    _norm_silu[(triton.cdiv(count, cut["ROWS"]),)](
        *(x, bias, weight, seen, count, time * frame, (time + 2) * frame, 2 * frame),
        BIASED=bias is not None,
        **cut,
    )
    return seen


@triton.jit
def _add(
    x_ptr, y_ptr, bias_ptr, count,
    C: tl.constexpr, BLOCK: tl.constexpr, ROWS: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    channel = tl.arange(0, BLOCK)
    kept = (row < count)[:, None] & (channel < C)[None, :]
    place = row[:, None] * C + channel[None, :]
    total = tl.load(x_ptr + place, mask=kept, other=0.0).to(tl.float32)
    total += tl.load(y_ptr + place, mask=kept, other=0.0).to(tl.float32)
    total += tl.load(bias_ptr + channel, mask=channel < C, other=0.0).to(tl.float32)[None, :]
    tl.store(y_ptr + place, total.to(y_ptr.dtype.element_ty), mask=kept)


def add(x: Tensor, y: Tensor, bias: Tensor) -> Tensor:
    """x + y + bias, written over y. x, y: (B, C, time, rows, cols); bias: (C,)."""
    x, y = (z.contiguous(memory_format=LAYOUT) for z in (x, y))
    cut, count = _cut(x.shape[1]), x.numel() // x.shape[1]
    _add[(triton.cdiv(count, cut["ROWS"]),)](x, y, bias, count, **cut)
    return y
