# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator"
# (what Triton compiles is no Python for a type checker)
"""Window attention as one fused Triton kernel, forward and backward; imported on GPUs only.

A program holds one tile of queries and walks over the box of keys that its windows can reach, read
straight from (B, L, H, D). Borders and windows are comparisons of positions: nothing is gathered
into memory and there is no mask. Softmax is computed online (Milakov and Gimelshein, arXiv
1805.02867; FlashAttention, arXiv 2205.14135). The reference is `attention.window_attention`.

Letters: as in `attention`; t, y, x position of a token   j entries of a box, row by row
"""

import math
import os
from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from oasis_cli.model.operators import operator
from oasis_cli.runtime.devices import capabilities

Grid = tuple[int, int, int]

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
"""Triton then runs on the CPU, slowly and with every type: for tests."""

HEAD_WIDTHS = (16, 32, 64, 128)
HALF = (torch.float16, torch.bfloat16)


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kernel is cut up. Fixed for each card and head width, not tuned while running: another
    tile sums in another order, and a resumed job must give the same frames."""

    tile: Grid
    """Queries of one program, each side a power of two, 16 or more together."""
    step: int
    """Keys of one step of the backward pass; the forward pass takes a frame of its box a step."""
    warps: int
    stages: int
    """Steps loaded ahead."""


FORWARD = Shape((4, 4, 4), 0, 4, 3)
"""4 x 4 tokens of a frame see 8 x 8 of each frame around through a (3, 5, 5) window: a step of 64
keys without padding."""
BACKWARD = Shape((1, 8, 8), 32, 4, 2)
SIZES = ("heads", "frames", "rows", "cols")
"""Arguments whose values must not make another kernel: grids come in all sizes."""

TOY = Shape((2, 4, 8), 256, 4, 1)
"""Under the interpreter, whose time goes by operations, not by numbers."""


def expected(device: str, head_width: int) -> bool:
    """Whether the kernel will take heads of this width on this device, unless in full precision."""
    return head_width in HEAD_WIDTHS and (INTERPRETED or capabilities(device).fused_kernels)


def supports(q: Tensor) -> bool:
    """Whether the kernel takes heads like q (B, L, H, D)."""
    if q.shape[-1] not in HEAD_WIDTHS:
        return False
    return INTERPRETED or (q.is_cuda and q.dtype in HALF)


@triton.jit
def _place(j, t0, y0, x0, ROWS: tl.constexpr, COLS: tl.constexpr):
    """Positions of entries j of a box of frames of ROWS x COLS that begins at t0, y0, x0."""
    return t0 + j // (ROWS * COLS), y0 + j // COLS % ROWS, x0 + j % COLS


@triton.jit
def _token(t, y, x, frames, rows, cols):
    """Which positions are in the grid, and their token numbers (0 for others)."""
    inside = (t >= 0) & (t < frames) & (y >= 0) & (y < rows) & (x >= 0) & (x < cols)
    return inside, tl.where(inside, (t * rows + y) * cols + x, 0).to(tl.int64)


@triton.jit
def _near(a_t, a_y, a_x, b_t, b_y, b_x, inside,
          TT: tl.constexpr, RT: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr):  # fmt: skip
    """(M, N): whether each a is in the window (radii RT, RY, RX) of each b, and b in the grid."""
    b_y = tl.where(inside, b_y, -(1 << 20))
    near = tl.abs(a_y[:, None] - b_y[None, :]) <= RY
    near &= tl.abs(a_x[:, None] - b_x[None, :]) <= RX
    if TT > 1:  # else the box has no other frames
        near &= tl.abs(a_t[:, None] - b_t[None, :]) <= RT
    return near


@triton.jit
def _corner(number, rows, cols, TT: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr):
    """Where tile `number` begins."""
    across, down = tl.cdiv(cols, TX), tl.cdiv(rows, TY)
    x = number % across
    y = number // across % down
    t = number // across // down
    return t * TT, y * TY, x * TX


@triton.jit
def _planes(t0, frames, TT: tl.constexpr, RT: tl.constexpr, PLANE: tl.constexpr):
    """First and last entry of a box that lie in frames of the clip."""
    first = tl.maximum(RT - t0, 0) * PLANE
    return first, (tl.minimum(t0 + TT + RT, frames) - t0 + RT) * PLANE


@triton.jit(do_not_specialize=SIZES)
def _forward(
    q_ptr, k_ptr, v_ptr, out_ptr, lse_ptr, scale,
    q_batch, q_token, q_head, k_batch, k_token, k_head,
    v_batch, v_token, v_head, out_batch, out_token, out_head,
    heads, frames, rows, cols,
    D: tl.constexpr, TT: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    RT: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr, STEP: tl.constexpr,
    KEEP: tl.constexpr,
):  # fmt: skip
    """One tile of queries of one head: their output and, if KEEP, log2 of the softmax's sum.

    A step takes the box's part in one frame, at most STEP keys. Where its keys lie and which of
    them a query may see is then the same in every step; what changes is whether a query's window
    reaches that frame. Scores stay unscaled up to the exponent, which is one multiply-add.
    """
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    batch, head = batch.to(tl.int64), head.to(tl.int64)
    BOX_X: tl.constexpr = TX + 2 * RX
    PLANE: tl.constexpr = (TY + 2 * RY) * BOX_X
    # Scores of keys not seen. A power of two: times scale it is exact, so no row becomes NaN.
    NEVER: tl.constexpr = -(2.0**100)
    t0, y0, x0 = _corner(tl.program_id(0), rows, cols, TT, TY, TX)
    q_t, q_y, q_x = _place(tl.arange(0, TT * TY * TX), t0, y0, x0, TY, TX)
    wanted, q_at = _token(q_t, q_y, q_x, frames, rows, cols)
    channel = tl.arange(0, D)
    q_ptr += batch * q_batch + head * q_head
    q = tl.load(q_ptr + q_at[:, None] * q_token + channel[None, :])

    j = tl.arange(0, STEP)
    k_y, k_x = y0 - RY + j // BOX_X, x0 - RX + j % BOX_X
    inside, k_at = _token(0, k_y, k_x, frames, rows, cols)
    inside &= j < PLANE
    seen = _near(0, q_y, q_x, 0, k_y, k_x, inside, 1, RT, RY, RX)
    hidden = tl.where(seen, 0.0, NEVER)
    present = inside[:, None]
    k_ptrs = k_ptr + batch * k_batch + head * k_head + k_at[:, None] * k_token + channel[None, :]
    v_ptrs = v_ptr + batch * v_batch + head * v_head + k_at[:, None] * v_token + channel[None, :]
    area = tl.full((), rows * cols, tl.int64)
    k_frame, v_frame = k_token * area, v_token * area

    # Finite, so that a row that has met no key yet makes no NaN: the first key wipes it out.
    top = tl.full((TT * TY * TX,), NEVER, tl.float32)
    total = tl.zeros((TT * TY * TX,), tl.float32)
    out = tl.zeros((TT * TY * TX, D), tl.float32)
    for t in range(tl.maximum(t0 - RT, 0), tl.minimum(t0 + TT + RT, frames)):
        k = tl.load(k_ptrs + t * k_frame, mask=present, other=0.0)
        v = tl.load(v_ptrs + t * v_frame, mask=present, other=0.0)
        score = tl.dot(q, tl.trans(k), input_precision="ieee") + hidden
        reached = tl.abs(q_t - t) <= RT
        higher = tl.maximum(top, tl.where(reached, tl.max(score, 1), NEVER))
        base = tl.where(reached, higher * scale, -NEVER)
        weight = tl.exp2(score * scale - base[:, None])
        shrink = tl.exp2((top - higher) * scale)
        total = total * shrink + tl.sum(weight, 1)
        out = tl.dot(weight.to(v.dtype), v, out * shrink[:, None], input_precision="ieee")
        top = higher

    out_ptr += batch * out_batch + head * out_head
    place = out_ptr + q_at[:, None] * out_token + channel[None, :]
    out /= tl.where(wanted, total, 1.0)[:, None]
    tl.store(place, out.to(out_ptr.dtype.element_ty), mask=wanted[:, None])
    if KEEP:
        length = frames * rows * cols
        lse_ptr += (batch * heads + head) * length
        tl.store(lse_ptr + q_at, top * scale + tl.log2(total), mask=wanted)


@triton.jit(do_not_specialize=SIZES)
def _backward_q(
    q_ptr, k_ptr, v_ptr, grad_ptr, lse_ptr, delta_ptr, dq_ptr, scale, natural,
    q_batch, q_token, q_head, k_batch, k_token, k_head,
    v_batch, v_token, v_head, grad_batch, grad_token, grad_head,
    heads, frames, rows, cols,
    D: tl.constexpr, TT: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    RT: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """dq of one tile of queries of one head; dq is a contiguous (B, L, H, D)."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    batch, head = batch.to(tl.int64), head.to(tl.int64)
    length = frames * rows * cols
    BOX_Y: tl.constexpr = TY + 2 * RY
    BOX_X: tl.constexpr = TX + 2 * RX
    t0, y0, x0 = _corner(tl.program_id(0), rows, cols, TT, TY, TX)
    q_t, q_y, q_x = _place(tl.arange(0, TT * TY * TX), t0, y0, x0, TY, TX)
    wanted, q_at = _token(q_t, q_y, q_x, frames, rows, cols)
    channel = tl.arange(0, D)
    q_ptr += batch * q_batch + head * q_head
    k_ptr += batch * k_batch + head * k_head
    v_ptr += batch * v_batch + head * v_head
    grad_ptr += batch * grad_batch + head * grad_head
    q = tl.load(q_ptr + q_at[:, None] * q_token + channel[None, :])
    grad = tl.load(grad_ptr + q_at[:, None] * grad_token + channel[None, :])
    lse = tl.load(lse_ptr + (batch * heads + head) * length + q_at)
    delta = tl.load(delta_ptr + (batch * heads + head) * length + q_at)

    dq = tl.zeros((TT * TY * TX, D), tl.float32)
    first, last = _planes(t0, frames, TT, RT, BOX_Y * BOX_X)
    for start in range(first, last, STEP):
        j = start + tl.arange(0, STEP)
        k_t, k_y, k_x = _place(j, t0 - RT, y0 - RY, x0 - RX, BOX_Y, BOX_X)
        inside, k_at = _token(k_t, k_y, k_x, frames, rows, cols)
        k = tl.load(k_ptr + k_at[:, None] * k_token + channel[None, :])
        v = tl.load(v_ptr + k_at[:, None] * v_token + channel[None, :])
        score = tl.dot(q, tl.trans(k), input_precision="ieee") * scale
        seen = _near(q_t, q_y, q_x, k_t, k_y, k_x, inside & (j < last), TT, RT, RY, RX)
        weight = tl.where(seen, tl.exp2(tl.where(seen, score - lse[:, None], 0.0)), 0.0)
        dweight = tl.dot(grad, tl.trans(v), input_precision="ieee")
        dscore = weight * (dweight - delta[:, None])
        dq = tl.dot(dscore.to(k.dtype), k, dq, input_precision="ieee")

    place = dq_ptr + ((batch * length + q_at) * heads + head)[:, None] * D + channel[None, :]
    tl.store(place, (dq * natural).to(dq_ptr.dtype.element_ty), mask=wanted[:, None])


@triton.jit(do_not_specialize=SIZES)
def _backward_kv(
    q_ptr, k_ptr, v_ptr, grad_ptr, lse_ptr, delta_ptr, dk_ptr, dv_ptr, scale, natural,
    q_batch, q_token, q_head, k_batch, k_token, k_head,
    v_batch, v_token, v_head, grad_batch, grad_token, grad_head,
    heads, frames, rows, cols,
    D: tl.constexpr, TT: tl.constexpr, TY: tl.constexpr, TX: tl.constexpr,
    RT: tl.constexpr, RY: tl.constexpr, RX: tl.constexpr, STEP: tl.constexpr,
):  # fmt: skip
    """dk and dv of one tile of keys of one head. Windows are symmetric: the queries that see a key
    are those in the key's own window."""
    batch, head = tl.program_id(1) // heads, tl.program_id(1) % heads
    batch, head = batch.to(tl.int64), head.to(tl.int64)
    length = frames * rows * cols
    BOX_Y: tl.constexpr = TY + 2 * RY
    BOX_X: tl.constexpr = TX + 2 * RX
    t0, y0, x0 = _corner(tl.program_id(0), rows, cols, TT, TY, TX)
    k_t, k_y, k_x = _place(tl.arange(0, TT * TY * TX), t0, y0, x0, TY, TX)
    wanted, k_at = _token(k_t, k_y, k_x, frames, rows, cols)
    channel = tl.arange(0, D)
    q_ptr += batch * q_batch + head * q_head
    grad_ptr += batch * grad_batch + head * grad_head
    lse_ptr += (batch * heads + head) * length
    delta_ptr += (batch * heads + head) * length
    at = k_at[:, None]
    k = tl.load(k_ptr + batch * k_batch + head * k_head + at * k_token + channel[None, :])
    v = tl.load(v_ptr + batch * v_batch + head * v_head + at * v_token + channel[None, :])

    dk = tl.zeros((TT * TY * TX, D), tl.float32)
    dv = tl.zeros((TT * TY * TX, D), tl.float32)
    first, last = _planes(t0, frames, TT, RT, BOX_Y * BOX_X)
    for start in range(first, last, STEP):
        j = start + tl.arange(0, STEP)
        q_t, q_y, q_x = _place(j, t0 - RT, y0 - RY, x0 - RX, BOX_Y, BOX_X)
        inside, q_at = _token(q_t, q_y, q_x, frames, rows, cols)
        q = tl.load(q_ptr + q_at[:, None] * q_token + channel[None, :])
        grad = tl.load(grad_ptr + q_at[:, None] * grad_token + channel[None, :])
        lse, delta = tl.load(lse_ptr + q_at), tl.load(delta_ptr + q_at)
        score = tl.dot(k, tl.trans(q), input_precision="ieee") * scale
        seen = _near(k_t, k_y, k_x, q_t, q_y, q_x, inside & (j < last), TT, RT, RY, RX)
        weight = tl.where(seen, tl.exp2(tl.where(seen, score - lse[None, :], 0.0)), 0.0)
        dv = tl.dot(weight.to(grad.dtype), grad, dv, input_precision="ieee")
        dweight = tl.dot(v, tl.trans(grad), input_precision="ieee")
        dscore = weight * (dweight - delta[None, :])
        dk = tl.dot(dscore.to(q.dtype), q, dk, input_precision="ieee")

    place = ((batch * length + k_at) * heads + head)[:, None] * D + channel[None, :]
    tl.store(dk_ptr + place, (dk * natural).to(dk_ptr.dtype.element_ty), mask=wanted[:, None])
    tl.store(dv_ptr + place, dv.to(dv_ptr.dtype.element_ty), mask=wanted[:, None])


def _programs(q: Tensor, grid: list[int], shape: Shape) -> tuple[int, int]:
    tiles = math.prod(-(-n // side) for n, side in zip(grid, shape.tile, strict=True))
    return tiles, q.shape[0] * q.shape[2]


def _common(window: list[int], shape: Shape, width: int, step: int) -> dict[str, int]:
    tt, ty, tx = shape.tile
    rt, ry, rx = (size // 2 for size in window)
    return {
        **{"D": width, "TT": tt, "TY": ty, "TX": tx, "RT": rt, "RY": ry, "RX": rx},
        **{"STEP": step, "num_warps": shape.warps, "num_stages": shape.stages},
    }


def _strides(*tensors: Tensor) -> list[int]:
    """(batch, token, head) strides of each (B, L, H, D)."""
    return [stride for x in tensors for stride in x.stride()[:3]]


def _rows(x: Tensor) -> Tensor:
    """x with adjacent channels, which the kernels rely on."""
    return x if x.stride(-1) == 1 else x.contiguous()


def run_forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    out: Tensor,
    grid: list[int],
    window: list[int],
    *,
    shape: Shape | None = None,
    keep: bool = False,
) -> Tensor:
    """Attention into `out`; q, k, v, out: (B, L, H, D), any strides with adjacent channels.

    Returns (B, H, L) float32, log2 of each query's softmax sum, for the backward pass; empty unless
    `keep`.
    """
    batch, length, heads, width = q.shape
    shape = shape or (TOY if INTERPRETED else FORWARD)
    size = (batch, heads, length) if keep else (0,)
    lse = torch.empty(size, dtype=torch.float32, device=q.device)
    q, k, v = _rows(q), _rows(k), _rows(v)
    plane = math.prod(
        side + size - 1 for side, size in zip(shape.tile[1:], window[1:], strict=True)
    )
    step = max(16, triton.next_power_of_2(plane))
    _forward[_programs(q, grid, shape)](
        *(q, k, v, out, lse, math.log2(math.e) / math.sqrt(width)),
        *(_strides(q, k, v, out)),
        *(heads, *grid),
        KEEP=keep,
        **_common(window, shape, width, step),
    )
    return lse


def _nothing(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, grid: list[int], window: list[int]
) -> None:
    return None


@operator("oasis::window_attention_into", _nothing, mutates=("out",))
def window_attention_into(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, grid: list[int], window: list[int]
) -> None:
    """Window attention, for inference, written into `out`. All (B, L, H, D)."""
    run_forward(q, k, v, out, grid, window)


@torch.library.custom_op("oasis::window_attention", mutates_args=())
def _window_attention(
    q: Tensor, k: Tensor, v: Tensor, grid: list[int], window: list[int]
) -> tuple[Tensor, Tensor]:
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    return out, run_forward(q, k, v, out, grid, window, keep=True)


@_window_attention.register_fake
def _(q: Tensor, k: Tensor, v: Tensor, grid: list[int], window: list[int]) -> tuple[Tensor, Tensor]:
    batch, length, heads, _ = q.shape
    return q.new_empty(q.shape), q.new_empty((batch, heads, length), dtype=torch.float32)


@torch.library.custom_op("oasis::window_attention_backward", mutates_args=())
def _window_attention_backward(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    grid: list[int], window: list[int],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    heads, width = q.shape[2:]
    shape = TOY if INTERPRETED else BACKWARD
    delta = (grad.float() * out.float()).sum(-1).transpose(1, 2).contiguous()
    grad, q, k, v = _rows(grad), _rows(q), _rows(k), _rows(v)
    dq, dk, dv = (torch.empty(x.shape, dtype=x.dtype, device=x.device) for x in (q, k, v))
    natural = 1 / math.sqrt(width)
    scale = math.log2(math.e) * natural
    programs, common = _programs(q, grid, shape), _common(window, shape, width, shape.step)
    sizes = (*_strides(q, k, v, grad), heads, *grid)
    _backward_q[programs](q, k, v, grad, lse, delta, dq, scale, natural, *sizes, **common)
    _backward_kv[programs](q, k, v, grad, lse, delta, dk, dv, scale, natural, *sizes, **common)
    return dq, dk, dv


@_window_attention_backward.register_fake
def _(
    grad: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, lse: Tensor,
    grid: list[int], window: list[int],
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    return q.new_empty(q.shape), k.new_empty(k.shape), v.new_empty(v.shape)


def _setup(ctx, inputs, output) -> None:
    q, k, v, ctx.grid, ctx.window = inputs
    ctx.save_for_backward(q, k, v, *output)


def _differentiate(ctx, grad: Tensor, grad_lse: Tensor):
    q, k, v, out, lse = ctx.saved_tensors
    grads = _window_attention_backward(grad, q, k, v, out, lse, ctx.grid, ctx.window)
    return *grads, None, None


_window_attention.register_autograd(_differentiate, setup_context=_setup)


def window_attention(q: Tensor, k: Tensor, v: Tensor, grid: Grid, window: Grid) -> Tensor:
    """As `attention.window_attention`, differentiable. q, k, v and result: (B, L, H, D)."""
    if not torch.is_grad_enabled():
        out = q.new_empty(q.shape)
        window_attention_into(q, k, v, out, list(grid), list(window))
        return out
    return _window_attention(q, k, v, list(grid), list(window))[0]
