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

from oasis_cli.model.attention import Geometry, Grid, RoutedAttention, geometry
from oasis_cli.model.latent import keep_variance
from oasis_cli.model.routing import HeadTable


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
        if self.width % self.heads or (self.width // self.heads) % 2:
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
        for attention, groups in zip(self.attentions, table.layers, strict=True):
            attention.route(groups)

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

    def forward(self, latent: Tensor) -> Tensor:
        """latent: (B, C, T, h, w) with h and w multiples of p. Returns the velocity, same shape."""
        geo, side = self.geometry(latent), self.config.patch
        x = rearrange(latent, "b c t (h p) (w q) -> b (t h w) (c p q)", p=side, q=side)
        # The stream of tokens keeps the parameters' precision, also under autocast.
        x = self.patch(x).to(self.modulation.dtype)
        for block in self.blocks:
            if self.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, geo, self.context, use_reentrant=False)
            else:
                x = block(x, geo, self.context)
        shift, scale = self.modulation
        x = self.head(modulate(x, shift, scale, self.config.eps))
        frames, rows, cols = geo.grid
        return rearrange(
            x, "b (t h w) (p q c) -> b c t (h p) (w q)", t=frames, h=rows, w=cols, p=side, q=side
        )


def modulate(x: Tensor, shift: Tensor, scale: Tensor, eps: float) -> Tensor:
    """Layer norm without parameters, then scale and shift. x: (B, L, M)."""
    # One fused call: a layer norm whose weight is (1 + scale) and whose bias is the shift.
    return F.layer_norm(x, x.shape[-1:], (1 + scale).to(x.dtype), shift.to(x.dtype), eps)


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

    def forward(self, x: Tensor, geo: Geometry, context: Tensor | None) -> Tensor:
        """x: (B, L, M). Returns the same shape."""
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = self.modulation.to(x.dtype)
        x = x + gate_a * self.attention(modulate(x, shift_a, scale_a, self.eps), geo)
        if self.cross is not None:
            assert context is not None
            x = x + self.cross(x, context)
        return x + gate_f * self.feed(modulate(x, shift_f, scale_f, self.eps), geo.grid)

    def feed(self, x: Tensor, grid: Grid) -> Tensor:
        """The feed-forward part. x: (B, L, M) on a grid of (T, h, w) tokens. Same shape."""
        first, rest = self.ffn[0], self.ffn[1:]
        if not isinstance(first, nn.Conv2d):
            return rest(first(x))
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

    def forward(self, x: Tensor, context: Tensor) -> Tensor:
        """x: (B, L, M); context: (2, M), padding row first. Returns (B, L, M)."""
        context = context.to(x.dtype)
        q = F.rms_norm(self.q(self.norm(x)), x.shape[-1:], self.q_norm.to(x.dtype), self.eps)
        k = F.rms_norm(self.k(context), x.shape[-1:], self.k_norm.to(x.dtype), self.eps)
        pull, value = (y.unflatten(-1, (self.heads, -1)) for y in (k[0] - k[1], self.v(context)))
        logit = (q.unflatten(-1, (self.heads, -1)) * pull).sum(-1) / math.sqrt(pull.shape[-1])
        share = torch.sigmoid(logit + math.log(self.copies))  # of the padding row, (B, L, H)
        # The output layer is linear: apply it to the H differences, not to L tokens.
        columns = self.out.weight.unflatten(1, (self.heads, -1)).to(value.dtype)
        steps = torch.einsum("mhd,hd->hm", columns, value[0] - value[1])
        return share.to(steps.dtype) @ steps + self.out(value[1].flatten())
