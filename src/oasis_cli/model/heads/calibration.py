"""Measure what each head looks at, and decide its group from it (OASIS, sec. ASR).

For one query, let P be its attention over all L tokens and S a local set (its frame, its window).
Restricted to S the head computes exactly Q = P on S, renormalised, and

    KL(Q || P) = -log(P's mass in S) = LSE(all logits) - LSE(logits in S)  >= 0,

the divergence of the localised head from the global one, in nats. (KL(P || Q) is infinite.) It is
averaged over sampled queries. Log-sum-exps are streamed over chunks of keys: no L x L map exists.

Letters: F frames   H, W target pixels   L tokens   M sampled queries   D head width
         N clips   R bootstrap resamples   "heads" in shapes is (layers, heads), checkpoint order
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from oasis_cli.errors import UsageError
from oasis_cli.model.attention import Geometry, Grid, RoutedAttention, window_tiles
from oasis_cli.model.dit import DiT
from oasis_cli.model.heads.routing import GROUPS, HeadTable
from oasis_cli.model.latent import PIXELS, pad
from oasis_cli.model.oasis import Oasis
from oasis_cli.model.tiling import spans

LOCAL = GROUPS[1:]
"""The order of the two local groups in every tensor here: intra, window."""

MIN_FRAMES = 5
"""Fewer frames make one latent frame, where intra-frame and global are the same."""

KEY_CHUNK = 4096
"""Keys seen at once; 12 heads x 512 queries x 4096 keys x 4 bytes = 100 MB."""

FEED_TOKENS = 4096
"""Tokens in the feed-forward part at once; 2 x 4096 x 8960 x 2 bytes = 150 MB."""

QUERY_CHUNK = 64
"""Queries whose windows are gathered at once; 64 x 75 x 12 x 128 x 4 bytes = 30 MB."""


@dataclass(frozen=True, slots=True)
class HeadStatistics:
    """Statistics of every head, on the CPU. Axis 0 of `kl` and `error` is (intra, window)."""

    kl: Tensor
    """(2, N, M, layers, heads) nats: KL(local || global) of every sampled query, at least 0."""
    error: Tensor
    """(2, N, layers, heads): sum over queries of |W_o (o_local - o_global)|^2."""
    norm: Tensor
    """(N, layers, heads): sum over queries of |W_o o_global|^2."""
    grid: Grid
    """The largest token grid (T, h, w) that the transformer saw at once."""
    cost_grid: Grid
    """Where heads are priced: as many frames on a full tile, for enlarged videos fill their tiles;
    the same as `grid` for a network without tiles."""
    window: Grid
    head_width: int

    @property
    def mean_kl(self) -> Tensor:
        """(2, layers, heads), float64: intra, window."""
        return self.kl.double().mean((1, 2))

    @property
    def mass(self) -> Tensor:
        """(2, layers, heads): mean share of the attention that the local set keeps, in [0, 1]."""
        return self.kl.double().neg().exp().mean((1, 2))

    @property
    def output_error(self) -> Tensor:
        """(2, layers, heads): error of the head's output relative to its size, when localised."""
        return self.error.sum(1) / self.norm.sum(0).clamp(min=torch.finfo(torch.float32).tiny)


@torch.no_grad()
def measure_heads(
    model: Oasis, clips: Sequence[Tensor], *, queries: int = 512, seed: int = 0, tiles: int = 2
) -> HeadStatistics:
    """Run the transformer with every head global and measure all heads.

    clips: low-quality clips already enlarged, each (F, 3, H, W) in [-1, 1], F >= 5, any device.
    queries: sampled in each clip, spread evenly over frames. tiles: where the network sees a clip
    in spatial tiles, look at no more than this many of them, drawn by `seed`.

    The model's own head table is put back afterwards. Its weights may be of any type and an
    autocast around this call applies to the forward pass; statistics are float32 (float64 for a
    float64 model). Pass the plain module, not a compiled one.
    """
    if not clips:
        raise UsageError("there are no clips to calibrate on")
    if queries < 1 or tiles < 1:
        raise UsageError("calibration needs at least one query and one tile")
    table, layers = model.dit.table, len(model.dit.attentions)
    model.dit.route(HeadTable.dense(layers, model.config.dit.heads))
    try:
        records = [
            _Recorder(model, number, clip, queries, seed, tiles)
            for number, clip in enumerate(clips)
        ]
    finally:
        model.dit.route(table)
    grid = max((record.grid for record in records), key=math.prod)
    side = model.config.dit_tile // model.config.dit.patch
    return HeadStatistics(
        kl=torch.stack([record.kl for record in records], dim=1).cpu(),
        error=torch.stack([record.error for record in records], dim=1).cpu().double(),
        norm=torch.stack([record.norm for record in records]).cpu().double(),
        grid=grid,
        cost_grid=(grid[0], side, side) if side else grid,
        window=model.config.dit.window,
        head_width=model.config.dit.head_width,
    )


class _Recorder:
    """The measurements of one clip."""

    def __init__(
        self, model: Oasis, number: int, clip: Tensor, queries: int, seed: int, tiles: int
    ) -> None:
        if clip.ndim != 4 or clip.shape[1] != 3:
            raise ValueError(f"a clip is (F, 3, H, W), not {tuple(clip.shape)}")
        if clip.shape[0] < MIN_FRAMES:
            raise UsageError(
                f"clip {number + 1} has {clip.shape[0]} frames; calibration needs {MIN_FRAMES}",
                hint="with fewer, intra-frame and global attention are the same",
            )
        clip, like = pad(clip[None]), model.to_latent.linear.weight
        draw = torch.Generator().manual_seed(1_000_003 * seed + number)
        places = _tiles(model, clip.shape[-2:], tiles, draw)
        parts = [len(share) for share in torch.arange(queries).tensor_split(len(places))]
        kl: list[Tensor] = []
        self.error, self.norm = torch.zeros(()), torch.zeros(())
        for place, count in zip(places, parts, strict=True):
            if not count:
                continue
            tile = model.to_latent(clip[..., place[0], place[1]].to(like.device, like.dtype))
            self.grid = model.dit.geometry(tile).grid
            index = sample_tokens(self.grid, count, draw).to(like.device)
            with _watched(model.dit, index, model.config.dit.window) as seen:
                model.dit(tile, FEED_TOKENS)
            kl.append(torch.stack([one.kl for one in seen], dim=2))
            self.error = self.error + torch.stack([one.error for one in seen], dim=1).cpu()
            self.norm = self.norm + torch.stack([one.norm for one in seen]).cpu()
        self.kl = torch.cat(kl, dim=1)


def _tiles(
    model: Oasis, size: Sequence[int], most: int, draw: torch.Generator
) -> list[tuple[slice, slice]]:
    """Rows and columns, in pixels, of the tiles to look at, cut as `Oasis.refine` cuts them."""
    side, overlap = model.config.dit_tile, model.config.dit_overlap
    rows, cols = (spans(n // PIXELS, side or n, overlap) for n in size)
    places = [
        [slice(first * PIXELS, last * PIXELS) for first, last in p] for p in product(rows, cols)
    ]
    chosen = torch.randperm(len(places), generator=draw)[:most].sort().values
    return [(places[number][0], places[number][1]) for number in chosen.tolist()]


def sample_tokens(grid: Grid, count: int, draw: torch.Generator) -> Tensor:
    """`count` token numbers in ascending frames, spread evenly over frames, uniform inside one."""
    frames, area = grid[0], grid[1] * grid[2]
    frame = (torch.arange(count) % frames).sort().values
    return frame * area + torch.randint(area, (count,), generator=draw)


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer: kl (2, M, H), error (2, H), norm (H,)."""

    kl: Tensor
    error: Tensor
    norm: Tensor


@contextmanager
def _watched(dit: DiT, index: Tensor, window: Grid) -> Iterator[list[_Layer]]:
    """Measure every layer's attention while the transformer runs, in the order it runs."""
    seen: list[_Layer] = []

    def look(attention: RoutedAttention, args: tuple[Tensor, Geometry]) -> None:
        x, geo = args
        q, k, v = (y[0] for y in attention.project(x, geo))
        v = v.contiguous()  # else all that was projected stays with it
        with torch.autocast(x.device.type, enabled=False):
            seen.append(measure_layer(q, k, v, attention.out.weight, geo.grid, window, index))

    handles = [attention.register_forward_pre_hook(look) for attention in dit.attentions]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def measure_layer(
    q: Tensor, k: Tensor, v: Tensor, out: Tensor, grid: Grid, window: Grid, index: Tensor
) -> _Layer:
    """KL and output error of each head for the queries `index` (M,), ascending.

    q, k, v: (L, H, D) as the attention uses them; out: (C, H*D), the output projection.
    """
    kind = torch.float64 if q.dtype == torch.float64 else torch.float32
    query = q.index_select(0, index).to(kind).transpose(0, 1) / math.sqrt(q.shape[-1])
    everything, o_global = attend(query, k, v)
    parts = [_intra(query, k, v, grid, index), _window(query, k, v, grid, window, index)]
    kl = torch.stack([everything - lse for lse, _ in parts])
    assert kl.min() > -1e-2, f"a part weighs more than the whole: {kl.min()}"

    heads = out.to(kind).unflatten(1, q.shape[1:])

    def size(o: Tensor) -> Tensor:
        return torch.einsum("hmd,chd->hmc", o, heads).square().sum((1, 2))

    error = torch.stack([size(o - o_global) for _, o in parts])
    return _Layer(kl.clamp(min=0).transpose(1, 2), error, size(o_global))


def attend(query: Tensor, k: Tensor, v: Tensor, chunk: int = KEY_CHUNK) -> tuple[Tensor, Tensor]:
    """Softmax attention with its log-sum-exp, streamed over chunks of keys.

    query: (H, M, D), already divided by sqrt(D); k, v: (L, H, D), any type. Returns lse (H, M) and
    output (H, M, D) in the query's type.
    """
    peak = query.new_full(query.shape[:2], -math.inf)
    total, out = torch.zeros_like(peak), torch.zeros_like(query)
    for start in range(0, k.shape[0], chunk):
        keys, values = (
            x[start : start + chunk].to(query.dtype).transpose(0, 1).contiguous() for x in (k, v)
        )
        logits = query @ keys.transpose(1, 2)
        higher = torch.maximum(peak, logits.amax(-1))
        weight = logits.sub_(higher[..., None]).exp_()
        shrink = (peak - higher).exp()
        total = total * shrink + weight.sum(-1)
        out = out * shrink[..., None] + weight @ values
        peak = higher
    return peak + total.log(), out / total[..., None]


def _intra(query: Tensor, k: Tensor, v: Tensor, grid: Grid, index: Tensor) -> tuple[Tensor, Tensor]:
    """`attend` with each query's own frame as keys."""
    area = grid[1] * grid[2]
    frames, sizes = torch.unique_consecutive(index // area, return_counts=True)
    parts = []
    for frame, some in zip(frames.tolist(), query.split(sizes.tolist(), dim=1), strict=True):
        own = slice(frame * area, (frame + 1) * area)
        parts.append(attend(some, k[own], v[own]))
    return torch.cat([lse for lse, _ in parts], 1), torch.cat([o for _, o in parts], 1)


def _window(
    query: Tensor, k: Tensor, v: Tensor, grid: Grid, window: Grid, index: Tensor
) -> tuple[Tensor, Tensor]:
    """`attend` with each query's window as keys, cut off at the borders."""
    near, inside = neighbours(grid, window, index)
    parts = []
    for start in range(0, len(index), QUERY_CHUNK):
        some = slice(start, start + QUERY_CHUNK)
        keys, values = (x[near[some]].to(query.dtype) for x in (k, v))
        logits = torch.einsum("hmd,mkhd->hmk", query[:, some], keys)
        logits = logits.masked_fill(~inside[some], -math.inf)
        lse = logits.logsumexp(-1)
        weight = (logits - lse[..., None]).exp()
        parts.append((lse, torch.einsum("hmk,mkhd->hmd", weight, values)))
    return torch.cat([lse for lse, _ in parts], 1), torch.cat([o for _, o in parts], 1)


def neighbours(grid: Grid, window: Grid, index: Tensor) -> tuple[Tensor, Tensor]:
    """Token numbers (M, K) around each of `index`, and which of them lie in the grid (M, K)."""
    offsets = torch.tensor(
        list(product(*(range(-(size // 2), size // 2 + 1) for size in window))), device=index.device
    )
    shape = torch.tensor(grid, device=index.device)
    centre = torch.stack(torch.unravel_index(index, grid), dim=-1)
    place = centre[:, None] + offsets
    inside = ((place >= 0) & (place < shape)).all(-1)
    t, h, w = place.clamp(min=0).minimum(shape - 1).unbind(-1)
    return (t * grid[1] + h) * grid[2] + w, inside


def head_cost(grid: Grid, window: Grid, head_width: int) -> tuple[float, float, float]:
    """FLOP of one (global, intra, window) head on a token grid (T, h, w): 4 D for each pair.

    The window's pairs are the ones its tiles compute, masked pairs included, because that is what
    runs: on small grids several times its 75 keys a query.

    >>> [round(cost / 1e9, 1) for cost in head_cost((9, 45, 80), (3, 5, 5), 128)]
    [537.5, 59.7, 5.4]
    """
    tokens = math.prod(grid)
    tiles = window_tiles(grid, window, torch.device("cpu"))
    pairs = (tokens**2, tokens**2 // grid[0], tiles.queries.numel() * tiles.keys.shape[1])
    return tuple(4.0 * head_width * count for count in pairs)  # type: ignore[return-value]


def uniform_kl(grid: Grid, window: Grid) -> tuple[float, float]:
    """(intra, window) KL of a head that attends to all tokens alike: what "no preference" means.

    >>> [round(kl, 3) for kl in uniform_kl((9, 45, 80), (3, 5, 5))]
    [2.197, 6.209]
    """
    keys = 0.0  # the mean of log(keys) is a sum over axes
    for n, size in zip(grid, window, strict=True):
        reach = size // 2
        seen = [min(i + reach, n - 1) - max(i - reach, 0) + 1 for i in range(n)]
        keys += sum(math.log(count) for count in seen) / n
    return math.log(grid[0]), math.log(math.prod(grid)) - keys
