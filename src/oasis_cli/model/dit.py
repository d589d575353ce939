"""The diffusion transformer: one velocity for a whole clip of latents (Wan2.1 block, routed heads).

Letters: B batch   C latent channels   T latent frames   h, w latent rows and columns
         p side of a patch   L = T * h/p * w/p tokens   M model width
"""

import math
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from oasis_cli.model import attention
from oasis_cli.model.attention import Geometry, Grid, RoutedAttention, geometry
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.latent import keep_variance


@dataclass(frozen=True, slots=True, kw_only=True)
class DiTConfig:
    """The size of the transformer."""

    width: int = 384
    """Channels of a token; heads share them evenly."""
    layers: int = 8
    heads: int = 6
    ffn: int = 1536
    """Hidden channels of the feed-forward part."""
    ffn_kernel: int = 1
    """Tokens of the same frame, along a side, that the feed-forward part's first layer reads. With
    1 it is Wan2.1's; 3 is a convolution, from which a network without pretraining learns sooner."""
    latent_channels: int = 64
    patch: int = 2
    """Latent rows and columns of one token, 1 or 2; patches do not cross latent frames."""
    window: Grid = (3, 5, 5)
    """Tokens a window head sees: (time, row, column), odd numbers."""
    context_rows: int = 0
    """Rows of text the cross-attention stands for (512 in Wan2.1); 0 leaves it out."""
    gate: float = 0.1
    """Initial size of the residual gates."""
    zero_head: bool = False
    """Whether the velocity starts at zero instead of at random."""
    eps: float = 1e-6

    def __post_init__(self) -> None:
        if self.heads < 1 or self.width % (2 * self.heads):
            raise ValueError(f"width {self.width} does not split into {self.heads} even heads")
        if any(size % 2 == 0 for size in self.window):
            raise ValueError(f"window sizes must be odd, not {self.window}")
        if self.patch not in (1, 2):
            raise ValueError(f"a patch is 1 or 2 latent positions wide, not {self.patch}")
        if self.ffn_kernel % 2 == 0:
            raise ValueError(f"a kernel has an odd number of tokens a side, not {self.ffn_kernel}")

    @property
    def head_width(self) -> int:
        return self.width // self.heads


class DiT(nn.Module):
    """Latents in, velocity out, at one fixed time: modulation is constant, there is no time MLP."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        patch_channels = config.latent_channels * config.patch**2
        self.patch = nn.Linear(patch_channels, config.width)
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.layers))
        self.modulation = nn.Parameter(torch.zeros(2, config.width))
        self.head = nn.Linear(config.width, patch_channels)
        keep_variance(self.patch)
        if config.zero_head:
            for parameter in self.head.parameters():
                nn.init.zeros_(parameter)
        self.context = nn.Parameter(torch.zeros(2, config.width)) if config.context_rows else None
        """The two distinct rows of an embedded empty prompt: padding, end of sentence."""
        self.checkpointing = False
        """Whether training recomputes each block in the backward pass instead of storing it."""

    def route(self, table: HeadTable) -> None:
        """Give every layer its row of the head table."""
        for layer, groups in zip(self.attentions, table.layers, strict=True):
            layer.route(groups)

    @property
    def attentions(self) -> list[RoutedAttention]:
        """The self-attention of each layer."""
        return [cast(Block, block).attention for block in self.blocks]

    @property
    def table(self) -> HeadTable:
        return HeadTable(tuple(attention.groups for attention in self.attentions))

    def geometry(self, latent: Tensor) -> Geometry:
        """The token grid of `latent` (B, C, T, h, w)."""
        frames, rows, cols = latent.shape[2:]
        side = self.config.patch
        windowed = any("w" in groups for groups in self.table.layers)
        return geometry(
            (frames, rows // side, cols // side),
            self.config.window,
            self.config.head_width,
            windowed=windowed,
            device=latent.device,
        )

    def forward(self, latent: Tensor, at_once: int | None = None) -> Tensor:
        """The velocity, of the shape of latent: (B, C, T, h, w) with h and w multiples of p.

        at_once: for inference, tokens of the feed-forward part at a time, whose hidden layer is the
        largest tensor of the network; None for all. A convolution there takes all.
        """
        geo, side = self.geometry(latent), self.config.patch
        x = rearrange(latent, "b c t (h p) (w q) -> b (t h w) (c p q)", p=side, q=side)
        # The stream of tokens keeps the parameters' precision, also under autocast.
        x = self.patch(x).to(self.modulation.dtype)
        norms = [cast(Block, block).modulation[:2] for block in self.blocks] + [self.modulation]
        shift, scale = norms[0]
        h = modulate(x, shift, 1 + scale, self.config.eps)
        for block, following in zip(self.blocks, norms[1:], strict=True):
            if self.checkpointing and torch.is_grad_enabled():
                x, h = checkpoint(block, x, h, geo, self.context, following, use_reentrant=False)
            else:
                x, h = block(x, h, geo, self.context, following, at_once)
        x = self.head(h)
        frames, rows, cols = geo.grid
        return rearrange(
            x, "b (t h w) (p q c) -> b c t (h p) (w q)", t=frames, h=rows, w=cols, p=side, q=side
        )


def modulate(x: Tensor, shift: Tensor, weight: Tensor, eps: float) -> Tensor:
    """Layer norm without parameters of its own, times weight, plus shift. x: (B, L, M)."""
    return F.layer_norm(x, x.shape[-1:], weight.to(x.dtype), shift.to(x.dtype), eps)


def add_norm(
    x: Tensor, y: Tensor, gate: Tensor | None, shift: Tensor, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """The stream x + gate * y, and what the next layer reads of it, `modulate`d.

    x, y: (B, L, M); gate: (M,), None for 1. On a GPU one pass over memory does both.
    """
    if attention.TOKENS is not None and attention.TOKENS.supports(x, y):
        both: tuple[Tensor, Tensor] = attention.TOKENS.add_norm(x, y, gate, weight, shift, eps)
        return both
    x = x + (y if gate is None else gate.to(x.dtype) * y)
    return x, modulate(x, shift, weight, eps)


class Block(nn.Module):
    """Self-attention, optional cross-attention, feed-forward; each added to the token stream."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.eps = config.eps
        # shift, scale, gate for attention, then for the feed-forward part (Wan2.1 order)
        self.modulation = nn.Parameter(torch.zeros(6, config.width))
        with torch.no_grad():
            self.modulation[[2, 5]] = config.gate
        self.attention = RoutedAttention(config.width, config.heads, config.eps)
        self.cross = CrossAttention(config) if config.context_rows else None
        kernel = config.ffn_kernel
        first = (
            nn.Linear(config.width, config.ffn)
            if kernel == 1
            else nn.Conv2d(config.width, config.ffn, kernel, padding=kernel // 2)
        )
        self.ffn = nn.Sequential(
            first, nn.GELU(approximate="tanh"), nn.Linear(config.ffn, config.width)
        )

    def forward(
        self,
        x: Tensor,
        h: Tensor,
        geo: Geometry,
        context: Tensor | None,
        following: Tensor,
        at_once: int | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The stream after this block, and that normalised for what follows.

        x: (B, L, M), the stream; h: the same, normalised by this block's modulation; following: (2,
        M), shift and scale of the next norm. Norms are made where their input is made: with the sum
        before them. at_once: as `DiT.forward`.
        """
        _, _, gate, shift, scale, gate_f = self.modulation
        y = self.attention(h, geo)
        if self.cross is not None:
            assert context is not None
            norm = self.cross.norm
            x, h = add_norm(x, y, gate, norm.bias, norm.weight, self.eps)
            y, gate = self.cross(h, context), None
        x, h = add_norm(x, y, gate, shift, 1 + scale, self.eps)
        y = self.feed(h, geo.grid, at_once)
        return add_norm(x, y, gate_f, following[0], 1 + following[1], self.eps)

    def feed(self, x: Tensor, grid: Grid, at_once: int | None = None) -> Tensor:
        """The feed-forward part. x: (B, L, M) on a grid of (T, h, w) tokens. Same shape."""
        first, rest = self.ffn[0], self.ffn[1:]
        if not isinstance(first, nn.Conv2d):
            if at_once is None or x.shape[:-1].numel() <= at_once:
                return rest(first(x))
            out = torch.empty_like(x)
            for some, place in zip(
                x.flatten(0, 1).split(at_once), out.flatten(0, 1).split(at_once), strict=True
            ):
                place.copy_(rest(first(some)))
            return out
        frames, rows, cols = grid
        # Tokens in order are frames with their channels last: nothing is copied.
        y = first(rearrange(x, "b (t h w) m -> (b t) m h w", t=frames, h=rows, w=cols))
        return rest(rearrange(y, "(b t) m h w -> b (t h w) m", t=frames))


class CrossAttention(nn.Module):
    """Attention to an embedded empty prompt, exact with two keys.

    An empty prompt padded to N rows has only two distinct rows: one end-of-sentence row and N-1
    equal padding rows. N keys with N-1 copies are two keys, the padding one with log(N-1) added
    to its logit; a softmax over two is a sigmoid of their difference.
    """

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        width = config.width
        self.heads, self.eps = config.heads, config.eps
        self.norm = nn.LayerNorm(width, eps=config.eps)
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))
        self.q_norm = nn.Parameter(torch.ones(width))
        self.k_norm = nn.Parameter(torch.ones(width))
        self.copies = config.context_rows - 1
        self.fixed: tuple[Tensor, Tensor, Tensor] | None = None
        """`rows` of the context, for inference."""

    def forward(self, h: Tensor, context: Tensor) -> Tensor:
        """h: (B, L, M), normalised; context: (2, M), padding row first. Returns (B, L, M)."""
        pull, steps, base = self.fixed or self.rows(context.to(h.dtype))
        share = self.shares(self.q(h), pull)
        return F.linear(share.to(steps.dtype), steps.t(), base)

    def rows(self, context: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """All that does not depend on the tokens: (M,), (H', M) and (M,).

        H' is the multiple of 8, which matrix units want, from H on.
        """
        k = F.rms_norm(self.k(context), context.shape[-1:], self.k_norm.to(context.dtype), self.eps)
        pull = (k[0] - k[1]) * self.q_norm.to(k.dtype) / math.sqrt(k.shape[-1] // self.heads)
        value = self.v(context).unflatten(-1, (self.heads, -1))
        # The output layer is linear: apply it to the H differences, not to L tokens.
        columns = self.out.weight.unflatten(1, (self.heads, -1)).to(value.dtype)
        steps = torch.einsum("mhd,hd->hm", columns, value[0] - value[1])
        return pull, F.pad(steps, (0, 0, 0, -self.heads % 8)), self.out(value[1].flatten())

    def shares(self, q: Tensor, pull: Tensor) -> Tensor:
        """How much each head takes of the padding row. q: (B, L, M). Returns (B, L, H')."""
        bias = math.log(self.copies)
        if attention.TOKENS is not None and attention.TOKENS.has_shares(q, self.heads):
            return cast(Tensor, attention.TOKENS.shares(q, pull, self.heads, bias, self.eps))
        q = F.rms_norm(q, q.shape[-1:], eps=self.eps) * pull
        logit = q.unflatten(-1, (self.heads, -1)).sum(-1)
        return F.pad(torch.sigmoid(logit + bias), (0, -self.heads % 8))
