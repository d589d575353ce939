# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# (what Triton compiles is no Python for a type checker)
"""Everything between the matrix products of a block, as Triton kernels for inference on GPUs.

A program holds one token: read once, written once, in float32 between. Compilers get none of these
right: reductions over a whole token end up in several passes over memory. The references are
`dit.add_norm`, `dit.CrossAttention.shares`, and `F.rms_norm` with `rope.apply_rope`.

Letters: B batch   L tokens   C channels of a token   H heads   D head width
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from oasis_cli.model.kernels.window import INTERPRETED
from oasis_cli.model.operators import operator

FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def supports(*tokens: Tensor) -> bool:
    """Whether kernels for inference alone take activations like these, of any layout: they are of
    one type, on a GPU, and nobody wants gradients."""
    if torch.is_grad_enabled() or len({x.dtype for x in tokens}) > 1:
        return False
    return tokens[0].dtype in FLOATS and (tokens[0].is_cuda or INTERPRETED)


def _shape(width: int) -> dict[str, int]:
    """BLOCK and warps for tokens of this width."""
    block = triton.next_power_of_2(width)
    return {"WIDTH": width, "BLOCK": block, "num_warps": max(1, min(4, block // 512))}


@triton.jit
def _add_norm(
    x_ptr, y_ptr, gate_ptr, weight_ptr, shift_ptr, sum_ptr, out_ptr, eps,
    GATED: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    kept = channel < WIDTH
    place = token * WIDTH + channel
    x = tl.load(x_ptr + place, mask=kept, other=0.0).to(tl.float32)
    y = tl.load(y_ptr + place, mask=kept, other=0.0).to(tl.float32)
    if GATED:
        y *= tl.load(gate_ptr + channel, mask=kept, other=0.0).to(tl.float32)
    x += y
    tl.store(sum_ptr + place, x.to(sum_ptr.dtype.element_ty), mask=kept)
    x = tl.where(kept, x - tl.sum(x, 0) / WIDTH, 0.0)
    x *= tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)
    x *= tl.load(weight_ptr + channel, mask=kept, other=0.0).to(tl.float32)
    x += tl.load(shift_ptr + channel, mask=kept, other=0.0).to(tl.float32)
    tl.store(out_ptr + place, x.to(out_ptr.dtype.element_ty), mask=kept)


def _like_add_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, weight: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    return x.new_empty(x.shape), x.new_empty(x.shape)


@operator("oasis::add_norm", _like_add_norm)
def add_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, weight: Tensor, shift: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """x + gate * y, and its layer norm times weight plus shift.

    x, y: (B, L, C); gate (None for 1), weight, shift: (C,). Returns two of (B, L, C).
    """
    x, y = x.contiguous(), y.contiguous()
    total, out = torch.empty_like(x), torch.empty_like(x)
    width = x.shape[-1]
    _add_norm[(x.numel() // width,)](
        *(x, y, gate, weight, shift, total, out, eps),
        GATED=gate is not None,
        **_shape(width),
    )
    return total, out


@triton.jit(do_not_specialize=["length"])
def _norm_rope(
    fused_ptr, q_norm_ptr, k_norm_ptr, cos_ptr, sin_ptr, q_ptr, k_ptr, length, eps,
    HEAD_PAIRS: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A token's queries in program 0 of the second axis, its keys in program 1."""
    token, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    norm_ptr = q_norm_ptr if part == 0 else k_norm_ptr
    out_ptr = q_ptr if part == 0 else k_ptr
    channel = tl.arange(0, BLOCK)
    kept = channel < WIDTH
    x = tl.load(fused_ptr + token * 3 * WIDTH + part * WIDTH + channel, mask=kept, other=0.0)
    x = x.to(tl.float32)
    spread = tl.rsqrt(tl.sum(x * x, 0) / WIDTH + eps)
    x *= spread * tl.load(norm_ptr + channel, mask=kept, other=0.0).to(tl.float32)
    even, odd = tl.split(tl.reshape(x, (BLOCK // 2, 2)))
    place = (token % length) * HEAD_PAIRS + tl.arange(0, BLOCK // 2) % HEAD_PAIRS
    cos, sin = tl.load(cos_ptr + place), tl.load(sin_ptr + place)
    turned = tl.join(even * cos - odd * sin, even * sin + odd * cos)
    turned = tl.reshape(turned, (BLOCK,)).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + token * WIDTH + channel, turned, mask=kept)


def _like_norm_rope(
    fused: Tensor, q_norm: Tensor, k_norm: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    shape = (*fused.shape[:2], fused.shape[2] // 3)
    return fused.new_empty(shape), fused.new_empty(shape)


@operator("oasis::norm_rope", _like_norm_rope)
def norm_rope(
    fused: Tensor, q_norm: Tensor, k_norm: Tensor, cos: Tensor, sin: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """Normalised, rotated queries and keys.

    fused: (B, L, 3C), queries, keys and values side by side; q_norm, k_norm: (C,); cos, sin:
    (L, D/2) float32. Returns two of (B, L, C).
    """
    batch, length, width = fused.shape[0], fused.shape[1], fused.shape[2] // 3
    fused = fused.contiguous()
    q, k = (fused.new_empty(batch, length, width) for _ in range(2))
    _norm_rope[(batch * length, 2)](
        *(fused, q_norm, k_norm, cos, sin, q, k, length, eps),
        HEAD_PAIRS=cos.shape[1],
        **_shape(width),
    )
    return q, k


@triton.jit
def _shares(
    q_ptr, pull_ptr, out_ptr, bias, eps,
    HEADS: tl.constexpr, D: tl.constexpr, WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    token = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    kept = channel < WIDTH
    q = tl.load(q_ptr + token * WIDTH + channel, mask=kept, other=0.0).to(tl.float32)
    spread = tl.rsqrt(tl.sum(q * q, 0) / WIDTH + eps)
    q *= tl.load(pull_ptr + channel, mask=kept, other=0.0).to(tl.float32)
    logit = tl.sum(tl.reshape(q, (BLOCK // D, D)), 1) * spread + bias
    share = 1 / (1 + tl.exp(-logit))
    head = tl.arange(0, BLOCK // D)
    share = tl.where(head * D < WIDTH, share, 0.0).to(out_ptr.dtype.element_ty)
    tl.store(out_ptr + token * HEADS + head, share, mask=head < HEADS)


def has_shares(q: Tensor, heads: int) -> bool:
    """Whether `shares` takes heads like these."""
    width = q.shape[-1] // heads
    return supports(q) and width & (width - 1) == 0


def _like_shares(q: Tensor, pull: Tensor, heads: int, bias: float, eps: float) -> Tensor:
    return q.new_empty(*q.shape[:2], heads + -heads % 8)


@operator("oasis::shares", _like_shares)
def shares(q: Tensor, pull: Tensor, heads: int, bias: float, eps: float) -> Tensor:
    """sigmoid(bias + sum over a head of RMS-normalised q times pull).

    q: (B, L, C); pull: (C,). Returns (B, L, H'), H' the multiple of 8 from H on, zeros behind H.
    """
    q = q.contiguous()
    columns = heads + -heads % 8
    out = q.new_zeros(*q.shape[:2], columns)
    shape, width = _shape(q.shape[-1]), q.shape[-1] // heads
    _shares[(q.shape[0] * q.shape[1],)](q, pull, out, bias, eps, HEADS=columns, D=width, **shape)
    return out


@triton.jit
def _to_fp8(
    x_ptr, out_ptr, scale_ptr, MOST: tl.constexpr, GELU: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    channel = tl.arange(0, BLOCK)
    kept = channel < WIDTH
    x = tl.load(x_ptr + row * WIDTH + channel, mask=kept, other=0.0).to(tl.float32)
    if GELU:  # the tanh form: (1 + tanh(y)) / 2 is a sigmoid of 2y, with y = sqrt(2 / pi) (...)
        x /= 1 + tl.exp(-1.5957691216057308 * (x + 0.044715 * x * x * x))
    scale = tl.maximum(tl.max(tl.abs(x), 0), 1e-12) / MOST
    x = tl.minimum(tl.maximum(x / scale, -MOST), MOST)
    tl.store(out_ptr + row * WIDTH + channel, x.to(out_ptr.dtype.element_ty), mask=kept)
    tl.store(scale_ptr + row, scale)


def _like_to_fp8(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    out = torch.empty(x.shape, dtype=torch.float8_e4m3fn, device=x.device)
    return out, x.new_empty((x.shape[0], 1), dtype=torch.float32)


@operator("oasis::to_fp8", _like_to_fp8)
def to_fp8(x: Tensor, gelu: bool) -> tuple[Tensor, Tensor]:
    """`inference.to_fp8`. x: (rows, N). Returns (rows, N) e4m3 and (rows, 1) float32."""
    x = x.contiguous()
    rows, width = x.shape
    out = torch.empty(rows, width, dtype=torch.float8_e4m3fn, device=x.device)
    scale = torch.empty(rows, 1, dtype=torch.float32, device=x.device)
    shape = _shape(width)
    shape["num_warps"] = max(shape["num_warps"], min(16, shape["BLOCK"] // 1024))
    _to_fp8[(rows,)](x, out, scale, MOST=448.0, GELU=gelu, **shape)
    return out, scale
