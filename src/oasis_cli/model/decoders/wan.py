"""The causal video autoencoder of Wan2.1 (arXiv 2503.20314, sec. 4.1): clips to latents and back.

Every layer looks only into the past, so a clip of any length streams through: a layer returns what
it has to remember beside its output, and any cut into chunks gives the same result. There is one
code path; a whole clip is a single chunk. The first frame has a latent frame of its own, each later
latent frame stands for four frames.

Letters: B batch   C channels   F = 4T-3 frames   T latent frames   H, W pixels   h, w = H/8, W/8
Inside, tensors are (B, C, time, rows, cols).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from torch import Tensor, nn

from oasis_cli.model.decoders.wan_layers import (
    CausalConv,
    Down,
    NormConv,
    State,
    Up,
    middle_blocks,
    residuals,
    run_layers,
)
from oasis_cli.model.latent import FRAMES, PIXELS
from oasis_cli.model.tiling import exact_tiles

CHUNK = 4
"""Latent frames that go through at once unless the caller says otherwise: it bounds memory."""

HALO = 13
"""Latent positions around a tile beyond which nothing reaches what the decoder enlarges."""

# Of the latents of Wan2.1's training data: latents outside this file are (z - MEAN) / STD.
MEAN = (
    *(-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508),
    *(0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921),
)
STD = (
    *(2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743),
    *(3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160),
)
CHANNELS = len(MEAN)


@dataclass(frozen=True, slots=True, kw_only=True)
class WanVAEConfig:
    """The size of the autoencoder; the defaults are Wan2.1's."""

    width: int = 96
    """Channels at full resolution; 2, 4 and 4 times as many further down."""
    blocks: int = 2
    """Residual blocks at each resolution of the encoder; the decoder has one more."""

    @property
    def latent_channels(self) -> int:
        return CHANNELS

    @property
    def widths(self) -> tuple[int, int, int, int]:
        """Channels at full, half, quarter and eighth resolution."""
        return self.width, 2 * self.width, 4 * self.width, 4 * self.width


class WanVAE(nn.Module):
    """Encoder and decoder; 126,892,531 parameters with the default config."""

    def __init__(self, config: WanVAEConfig | None = None) -> None:
        super().__init__()
        self.config = config or WanVAEConfig()
        self.encoder = WanEncoder(self.config)
        self.decoder = WanDecoder(self.config)

    def encode(self, clip: Tensor, chunk: int = CHUNK) -> Tensor:
        """The mean of the latent distribution, normalised.

        clip: (B, 4T-3, 3, H, W) in [-1, 1], H and W multiples of 8. chunk: latent frames made at
        once, for memory only. Returns (B, 16, T, H/8, W/8).
        """
        if (clip.shape[1] - 1) % FRAMES:
            raise ValueError(f"{clip.shape[1]} frames are not 4k+1")
        x = rearrange(clip, "b f c h w -> b c f h w")
        first = FRAMES * chunk - FRAMES + 1  # latent frame 0 is frame 0 alone
        parts = [x[:, :, :first], *x[:, :, first:].split(FRAMES * chunk, dim=2)]
        return streamed(self.encoder, (part for part in parts if part.shape[2]), dim=2)

    def decode(self, latent: Tensor, chunk: int = CHUNK, tile: int | None = None) -> Tensor:
        """The clip of normalised latents, clamped to [-1, 1]; arguments as `WanDecoder.decode`."""
        return self.decoder.decode(latent, chunk, tile).clamp(-1, 1)


class WanEncoder(nn.Module):
    """Frames to normalised latents; 53,596,928 parameters with the default config."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        full, half, quarter, eighth = config.widths
        n = config.blocks
        self.first = CausalConv(3, full)
        self.blocks = nn.ModuleList(
            [
                *residuals(full, full, n),
                Down(full, in_time=False),
                *residuals(full, half, n),
                Down(half, in_time=True),
                *residuals(half, quarter, n),
                Down(quarter, in_time=True),
                *residuals(quarter, eighth, n),
            ]
        )
        self.middle = middle_blocks(eighth)
        self.last = NormConv(eighth, 2 * CHANNELS)
        self.quant = nn.Conv3d(2 * CHANNELS, 2 * CHANNELS, 1)
        self.register_buffer("mean", torch.tensor(MEAN).view(-1, 1, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(-1, 1, 1, 1))
        self.checkpointing = False
        """Whether training recomputes each layer in the backward pass instead of storing it."""

    def forward(self, clip: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Encode the next frames of a clip; any cut into calls gives the same latents.

        clip: (B, 3, F, H, W), in the first call 4n-3 frames, then 4n; state: of the call before.
        Returns normalised latents (B, 16, n, H/8, W/8) and the state for the next call.
        """
        layers = [self.first, *self.blocks, *self.middle, self.last]
        x, state = run_layers(layers, clip, state, self.checkpointing)
        mean = self.quant(x)[:, :CHANNELS]  # the other half is the logarithm of the variance
        return (mean - self.mean) / self.std, state


class WanDecoder(nn.Module):
    """Normalised latents to frames; 73,295,603 parameters with the default config.

    Two parts: the stem, at the latents' size, holds the only layer that sees a whole frame; the
    rest enlarges and sees `halo` positions around each, so it can be cut into exact tiles.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, config: WanVAEConfig) -> None:
        super().__init__()
        self.config = config
        full, half, quarter, eighth = config.widths
        n = config.blocks + 1
        self.halo = HALO
        self.post_quant = nn.Conv3d(CHANNELS, CHANNELS, 1)
        self.first = CausalConv(CHANNELS, eighth)
        self.middle = middle_blocks(eighth)
        self.blocks = nn.ModuleList(
            [
                *residuals(eighth, eighth, n),
                Up(eighth, in_time=True),
                *residuals(eighth // 2, quarter, n),
                Up(quarter, in_time=True),
                *residuals(quarter // 2, half, n),
                Up(half, in_time=False),
                *residuals(half // 2, full, n),
            ]
        )
        self.last = NormConv(full, 3)
        self.register_buffer("mean", torch.tensor(MEAN).view(-1, 1, 1, 1))
        self.register_buffer("std", torch.tensor(STD).view(-1, 1, 1, 1))
        self.checkpointing = False
        """Whether training recomputes each layer in the backward pass instead of storing it."""

    def stem(self, latent: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """latent: (B, 16, n, h, w), the next of a clip; state: of the call before.

        Returns features (B, C, n, h, w) and the state for the next call.
        """
        x = self.post_quant(latent * self.std + self.mean)
        return run_layers([self.first, *self.middle], x, state, self.checkpointing)

    def enlarge(self, features: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """features: (B, C, n, h, w) of `stem`, the next of a clip; state: of the call before.

        Returns frames (B, 4n, 3, 8h, 8w), three fewer from the first call, not clamped, and the
        state for the next call.
        """
        x, state = run_layers([*self.blocks, self.last], features, state, self.checkpointing)
        return rearrange(x, "b c f h w -> b f c h w"), state

    def stream(
        self, latent: Tensor, state: tuple[State, State] | None = None
    ) -> tuple[Tensor, tuple[State, State]]:
        """Decode the next latent frames of a clip; any cut into calls gives the same frames.

        latent: (B, 16, n, h, w) normalised; state: of the call before, None at the start of a clip.
        Returns frames (B, 4n, 3, 8h, 8w), three fewer from the first call, not clamped, and the
        state for the next call.
        """
        below, above = state or (None, None)
        features, below = self.stem(latent, below)
        frames, above = self.enlarge(features, above)
        return frames, (below, above)

    def decode(self, latent: Tensor, chunk: int = CHUNK, tile: int | None = None) -> Tensor:
        """The clip of normalised latents, not clamped.

        latent: (B, 16, T, h, w). chunk: latent frames decoded at once; tile: side of a tile in
        latent positions; both save memory and change nothing. Returns (B, 4T-3, 3, 8h, 8w).
        """
        features = self.frame_features(latent, chunk)
        if tile is None:
            return self.frames(features, chunk)
        batch, _, time, rows, cols = features.shape
        frames = FRAMES * time - FRAMES + 1
        out = features.new_empty(batch, frames, 3, rows * PIXELS, cols * PIXELS)
        for outer, inner, place in exact_tiles(rows, cols, tile, self.halo):
            part = self.frames(features[..., outer[0], outer[1]], chunk)
            out[..., place[0], place[1]] = part[..., inner[0], inner[1]]
        return out

    def frame_features(self, latent: Tensor, chunk: int = CHUNK) -> Tensor:
        """`stem` over a whole clip. latent: (B, 16, T, h, w). Returns (B, C, T, h, w)."""
        return streamed(self.stem, latent.split(chunk, dim=2), dim=2)

    def frames(self, features: Tensor, chunk: int = CHUNK) -> Tensor:
        """`enlarge` over a whole clip. features: (B, C, T, h, w). Returns (B, 4T-3, 3, 8h, 8w)."""
        return streamed(self.enlarge, features.split(chunk, dim=2), dim=1)

    def forward(
        self, features: Tensor, clip: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """As `enlarge`, less `clip` (B, F, 3, H, W): the correction to it, in its type."""
        frames, state = self.enlarge(features, state)
        return frames.to(clip.dtype) - clip, state

    def correction(self, features: Tensor, clip: Tensor) -> Tensor:
        """`forward` for a whole clip, a few latent frames at a time."""
        return self.frames(features).to(clip.dtype) - clip


Step = Callable[[Tensor, Any], tuple[Tensor, Any]]
"""The next part of a clip and the state, None at first, to its output and the new state."""


def streamed(step: Step, parts: Iterable[Tensor], dim: int) -> Tensor:
    """The outputs of `step` for consecutive parts of a clip, joined along `dim`."""
    state, out = None, []
    for part in parts:
        made, state = step(part, state)
        out.append(made)
    return torch.cat(out, dim)
