"""The attention patterns a head can be routed to, and the layer that runs them side by side.

Letters: B batch   T latent frames   h, w rows and columns of tokens   L = T*h*w tokens, in that
order   H heads   D head width   C = H*D

Every pattern is the same softmax(q k^T / sqrt(D)) v over a different set of keys:
    global  all L tokens
    intra   the h*w tokens of the same frame
    window  tokens at most (1, 2, 2) away in (time, row, column) for a (3, 5, 5) window, cut off at
            the borders: 75 keys inside the grid, 18 in a corner
"""

import math
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from itertools import product
from types import ModuleType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from oasis_cli.model.heads.routing import GROUPS, channels, counts, order
from oasis_cli.model.rope import apply_rope, rope_table
from oasis_cli.runtime.devices import capabilities, may_run_triton

Grid = tuple[int, int, int]

DENSE_TOKENS = 2048
"""Up to this many tokens a GPU without the fused kernel computes window heads as masked dense
attention."""

CPU_QUERIES = 256
"""Queries at a time of 16-bit attention on a CPU: what their logits take fits its caches."""

RECOMPILE_LIMIT = 64
"""Graphs of one function: layers with different head tables, sizes of windows and tiles."""

CUDNN_FIRST = [
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
]
"""Attention backends in the order to try them on Hopper: cuDNN took 0.6 of flash's time there."""


def load_kernel(name: str) -> ModuleType | None:
    """A fused kernel's module where Triton can run: on CUDA, or under its interpreter."""
    if not may_run_triton():
        return None
    try:
        return import_module(f"oasis_cli.model.kernels.{name}")
    except ImportError:  # torch for CUDA without Triton: Windows
        return None


KERNEL = load_kernel("window")
TOKENS = load_kernel("token")


@dataclass(frozen=True, slots=True)
class Geometry:
    """All that depends on the token grid and not on its content; made once for each grid."""

    grid: Grid
    """(T, h, w)"""
    cos: Tensor
    """(L, D/2), as is sin."""
    sin: Tensor
    window: "WindowTiles | None"
    """None when no head is a window head, or when the fused kernel is expected to do them."""
    reach: Grid
    """Sides of a window."""


@dataclass(frozen=True, slots=True)
class WindowTiles:
    """Window attention as dense attention between tiles of queries and their neighbourhoods."""

    queries: Tensor
    """(tiles, queries) token numbers; the last tiles of a side repeat tokens to be full."""
    keys: Tensor
    """(tiles, keys) token numbers; out of the grid, any token stands in and is masked."""
    bias: Tensor
    """(tiles, 1, queries, keys) added to the logits: 0 in the query's window and grid, else -inf.
    A mask of bools would be turned into this in every call."""
    place: Tensor
    """(L,) where each token's result lies in the flattened (tiles, queries)."""


def geometry(
    grid: Grid, window: Grid, head_width: int, *, windowed: bool, device: torch.device
) -> Geometry:
    """The `Geometry` of a grid; repeated calls return the same tensors."""
    return _geometry(grid, window, head_width, windowed, str(device))


@lru_cache(maxsize=8)
def _geometry(grid: Grid, window: Grid, head_width: int, windowed: bool, device: str) -> Geometry:
    # Plain tensors, also when the first caller runs under inference_mode: training may come later.
    with torch.inference_mode(False):
        cos, sin = (table.to(device) for table in rope_table(grid, head_width))
    fused = KERNEL is not None and KERNEL.expected(device, head_width)
    tiles = _tiles(grid, window, device) if windowed and not fused else None
    return Geometry(grid, cos, sin, tiles, window)


@lru_cache(maxsize=8)
def _tiles(grid: Grid, window: Grid, device: str) -> "WindowTiles":
    with torch.inference_mode(False):
        return window_tiles(grid, window, torch.device(device))


def _prefers_cudnn(device: torch.device) -> bool:
    return capabilities(device).cudnn_attention


def for_compiler() -> None:
    """Set torch.compile up: once, before anything that calls this is compiled. Not when this module
    is loaded: the compiler alone takes a second to load."""
    torch.compiler.assume_constant_result(_prefers_cudnn)
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT


def _backends(q: Tensor) -> AbstractContextManager[None]:
    """The choice of attention backends for queries like q. Training keeps torch's own."""
    half = q.is_cuda and q.dtype in (torch.float16, torch.bfloat16)
    if half and not torch.is_grad_enabled() and _prefers_cudnn(q.device):
        return sdpa_kernel(CUDNN_FIRST, set_priority=True)
    return nullcontext()


def global_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """q, k, v: (B, L, H, D). Returns (B, L, H, D)."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if _wants_products(q):
        return _by_products(q, k, v).transpose(1, 2)
    with _backends(q):
        return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def _wants_products(q: Tensor) -> bool:
    """Whether attention for queries like q is faster as `_by_products`."""
    return q.is_cpu and q.dtype == torch.bfloat16 and not torch.is_grad_enabled()


def _by_products(q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attention as plain products, some queries at a time. q, k, v and result: (B, H, L, D); bias:
    added to the logits.

    PyTorch's own takes 1.6 times as long on a CPU with units for bf16: it hardly uses them. Logits
    are rounded to 16 bits here: the result differs by 0.5 % from an exact one, PyTorch's by 0.2.
    """
    q, keys = q * q.shape[-1] ** -0.5, k.transpose(-1, -2)
    parts = []
    for number, some in enumerate(q.split(CPU_QUERIES, dim=2)):
        logits = some @ keys
        if bias is not None:
            logits += bias[..., number * CPU_QUERIES :, :][..., : some.shape[2], :]
        parts.append(torch.softmax(logits, dim=-1) @ v)
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def intra_attention(q: Tensor, k: Tensor, v: Tensor, frames: int) -> Tensor:
    """Attention inside each latent frame: frames are folded into the batch, so no mask is needed.

    q, k, v: (B, L, H, D), `frames` latent frames in order along L. Returns (B, L, H, D).
    """
    q, k, v = (rearrange(x, "b (t n) h d -> (b t) n h d", t=frames) for x in (q, k, v))
    return rearrange(global_attention(q, k, v), "(b t) n h d -> b (t n) h d", t=frames)


def window_attention(q: Tensor, k: Tensor, v: Tensor, tiles: WindowTiles) -> Tensor:
    """Each token attends to the window of tokens around it, cut off at the borders; exact.

    q, k, v: (B, L, H, D). Returns (B, L, H, D).
    """
    batch, count = q.shape[0], tiles.queries.shape[0]
    if count == 1:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        return F.scaled_dot_product_attention(
            q, k, v, attn_mask=tiles.bias[0].to(q.dtype)
        ).transpose(1, 2)

    def gather(x: Tensor, index: Tensor) -> Tensor:
        rows = _rows(x, index.flatten())
        return rearrange(rows, "b (n k) h d -> (b n) h k d", n=count)

    bias = tiles.bias.to(q.dtype).repeat(batch, 1, 1, 1)
    q, k, v = gather(q, tiles.queries), gather(k, tiles.keys), gather(v, tiles.keys)
    if _wants_products(q):
        out = _by_products(q, k, v, bias)
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
    return _rows(rearrange(out, "(b n) h k d -> b (n k) h d", b=batch), tiles.place)


def _rows(x: Tensor, index: Tensor) -> Tensor:
    """x[:, index] of (B, L, H, D): whole rows of one long matrix, which all threads copy."""
    batch, length, *row = x.shape
    starts = length * torch.arange(batch, device=x.device)
    rows = x.reshape(batch * length, -1).index_select(0, (starts[:, None] + index).flatten())
    return rows.view(batch, -1, *row)


def window_tiles(grid: Grid, window: Grid, device: torch.device) -> WindowTiles:
    """Cut a grid into tiles of queries, each with the union of its queries' windows as keys."""
    # A GPU does a small grid fastest as one tile: dense attention under a mask.
    whole = not capabilities(device).host and math.prod(grid) <= DENSE_TOKENS
    tile = grid if whole else _choose_tile(grid, window)
    queries, keys, near = [], [], []
    for n, side, size in zip(grid, tile, window, strict=True):
        first = torch.arange(0, n, side)[:, None]
        query = (first + torch.arange(side)).clamp(max=n - 1)
        halo = 0 if side == n else size // 2
        key = first + torch.arange(side + 2 * halo) - halo
        inside = (key >= 0) & (key < n)
        near.append(((key[:, None] - query[..., None]).abs() <= size // 2) & inside[:, None])
        queries.append(query)
        keys.append(key.clamp(0, n - 1))

    def number(axes: list[Tensor]) -> Tensor:
        """Token numbers, (tiles, positions), from the three axes' (tiles, positions)."""
        t, h, w = axes
        t, h, w = t[:, None, None, :, None, None], h[:, None, None, :, None], w[:, None, None, :]
        return ((t * grid[1] + h) * grid[2] + w).flatten(3).flatten(0, 2)

    t, h, w = near
    mask = (
        rearrange(t, "i a x -> i 1 1 a 1 1 x 1 1")
        & rearrange(h, "j b y -> j 1 1 b 1 1 y 1")
        & rearrange(w, "k c z -> k 1 1 c 1 1 z")
    )
    index = number(queries)
    place = torch.empty(math.prod(grid), dtype=torch.long)
    place[index.flatten()] = torch.arange(index.numel())
    mask = rearrange(mask, "i j k a b c x y z -> (i j k) 1 (a b c) (x y z)")
    bias = torch.zeros(mask.shape).masked_fill(~mask, -math.inf)
    return WindowTiles(*(x.to(device) for x in (index, number(keys), bias, place)))


def _choose_tile(grid: Grid, window: Grid) -> Grid:
    """The tile of queries that costs least: rows times keys, plus the moving of keys.

    Moving a key weighs as much as computing with it for 64 queries.
    """

    def cost(tile: Grid) -> float:
        axes = list(zip(grid, tile, window, strict=True))
        tiles = math.prod(-(-n // side) for n, side, _ in axes)
        keys = math.prod(n if side == n else side + size - 1 for n, side, size in axes)
        return tiles * keys * (math.prod(tile) + 64.0)

    # All frames at once: keys move once, not thrice. In longer clips that would compute with too
    # many keys that no window holds.
    times = [1, grid[0]] if grid[0] < 2 * window[0] else [1]
    rows, cols = (range(1, min(n, 12) + 1) for n in grid[1:])
    return min(product(times, rows, cols), key=cost)


class RoutedAttention(nn.Module):
    """Self-attention whose heads are split into global, intra-frame and window groups.

    Weights are kept in execution order [global | intra | window], so a group is a slice of one
    fused projection. `route` changes the table in place. RMS norm of q and k runs over the full
    width and is therefore indifferent to the order (Wan2.1, qk_norm).
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads, self.eps = heads, eps
        self.groups = "g" * heads
        self.sizes = counts(self.groups)
        self.qkv = nn.Linear(width, 3 * width)
        self.q_norm = nn.Parameter(torch.ones(width))
        self.k_norm = nn.Parameter(torch.ones(width))
        self.out = nn.Linear(width, width)

    @torch.no_grad()
    def route(self, groups: str) -> None:
        """Use `groups` (a letter for each head, numbered as in the checkpoint) from now on."""
        if len(groups) != self.heads:
            raise ValueError(f"{len(groups)} letters for {self.heads} heads: {groups!r}")
        state = self.state_dict()
        canonical = reorder_heads(state, self.groups, self.heads, undo=True)
        self.load_state_dict(reorder_heads(canonical, groups, self.heads))
        self.groups, self.sizes = groups, counts(groups)

    def project(self, x: Tensor, geo: Geometry) -> tuple[Tensor, Tensor, Tensor]:
        """Normalised, rotated q and k, and v, for all heads in execution order.

        x: (B, L, C). Returns three of (B, L, H, D).
        """
        fused = self.qkv(x)
        if TOKENS is not None and TOKENS.supports(fused):
            q, k = TOKENS.norm_rope(fused, self.q_norm, self.k_norm, geo.cos, geo.sin, self.eps)
            parts = q, k, fused[..., 2 * self.q_norm.shape[0] :]
            return tuple(y.unflatten(-1, (self.heads, -1)) for y in parts)
        q, k, v = fused.chunk(3, dim=-1)
        q = F.rms_norm(q, q.shape[-1:], self.q_norm.to(q.dtype), self.eps)
        k = F.rms_norm(k, k.shape[-1:], self.k_norm.to(k.dtype), self.eps)
        q, k, v = (y.unflatten(-1, (self.heads, -1)) for y in (q, k, v))
        return apply_rope(q, geo.cos, geo.sin), apply_rope(k, geo.cos, geo.sin), v

    def forward(self, x: Tensor, geo: Geometry) -> Tensor:
        """x: (B, L, C). Returns (B, L, C)."""
        # No names for q, k and v: they are gone before the output is made.
        return self.out(self._attend(*self._of_one_type(x, geo), geo).flatten(2))

    def _of_one_type(self, x: Tensor, geo: Geometry) -> tuple[Tensor, Tensor, Tensor]:
        """As `project`; autocast normalises in float32."""
        q, k, v = self.project(x, geo)
        return q.to(v.dtype), k.to(v.dtype), v

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, geo: Geometry) -> Tensor:
        """Every group by its pattern. q, k, v and result: (B, L, H, D)."""
        parts, first = [], 0
        for letter, size in zip(GROUPS, self.sizes, strict=True):
            mine = slice(first, first + size)
            group = q[:, :, mine], k[:, :, mine], v[:, :, mine]
            first += size
            if size and letter == "g":
                parts.append(global_attention(*group))
            elif size and letter == "i":
                parts.append(intra_attention(*group, geo.grid[0]))
            elif size and KERNEL is not None and KERNEL.supports(group[0]):
                if not (torch.is_grad_enabled() or torch.compiler.is_compiling()):
                    return _filled(parts, group, geo)  # compiled, it would be copied twice
                parts.append(KERNEL.window_attention(*group, geo.grid, geo.reach))
            elif size:
                tiles = geo.window or _tiles(geo.grid, geo.reach, str(q.device))
                parts.append(window_attention(*group, tiles))
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)


def _filled(parts: list[Tensor], group: tuple[Tensor, Tensor, Tensor], geo: Geometry) -> Tensor:
    """The results of other groups and, written in place by the kernel, of the last one, window."""
    assert KERNEL is not None
    q = group[0]
    batch, length, size, width = q.shape
    others = sum(part.shape[2] for part in parts)
    out = q.new_empty(batch, length, others + size, width)
    first = 0
    for part in parts:
        out[:, :, first : first + part.shape[2]] = part
        first += part.shape[2]
    KERNEL.window_attention_into(*group, out[:, :, first:], list(geo.grid), list(geo.reach))
    return out


def reorder_heads(
    state: dict[str, Tensor], groups: str, heads: int, *, undo: bool = False
) -> dict[str, Tensor]:
    """The state of a `RoutedAttention` from checkpoint to execution order of `groups`, or back.

    Rows of the fused projection, the norms and the columns of the output projection move; exact.
    """
    width = state["q_norm"].shape[0]
    moved = torch.tensor(channels(order(groups), width // heads))
    if undo:
        moved = moved.argsort()
    rows = torch.cat([part * width + moved for part in range(3)])
    return {
        "qkv.weight": state["qkv.weight"][rows],
        "qkv.bias": state["qkv.bias"][rows],
        "q_norm": state["q_norm"][moved],
        "k_norm": state["k_norm"][moved],
        "out.weight": state["out.weight"][:, moved],
        "out.bias": state["out.bias"],
    }
