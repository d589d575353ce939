"""TinyDecoder: a small network in place of Wan2.1's decoder, 25 times cheaper.

The shape of TAEHV's taew2_1 (Ollin Boer Bohan, github.com/madebyollin/taehv): convolutions in
space, one past frame of memory in time. Each latent frame becomes four frames, of which the first
three of a clip are dropped.

Letters: B batch   C channels   n, T latent frames   F = 4T-3 frames   h, w latent rows and columns
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from oasis_cli.model.decoders.wan import streamed
from oasis_cli.model.latent import FRAMES, PIXELS

State = list[Tensor]
"""The last input of each block with memory: (B, C, rows, cols)."""

TRIM = FRAMES - 1
"""Frames that come out too many at the start of a clip."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TinyConfig:
    """The size of the decoder; the defaults are taew2_1's."""

    widths: tuple[int, int, int, int] = (256, 128, 64, 64)
    """Channels at 1/8, 1/4, 1/2 and full resolution."""
    blocks: int = 3
    """Blocks with memory at each of the first three resolutions."""
    latent_channels: int = 16


class MemoryBlock(nn.Module):
    """Three convolutions that see this frame and the one before it, added to this frame."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Sequential(
            nn.Conv2d(2 * width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1),
        )

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x: (F*B, C, rows, cols), frame by frame; past: (B, C, rows, cols).

        Returns the output, same shape as x, and the past of the next call.
        """
        batch = past.shape[0]
        before = torch.cat([past, x[:-batch]])
        return F.relu(self.conv(torch.cat([x, before], dim=1)) + x), x[-batch:].clone()


class Grow(nn.Module):
    """Each frame becomes `times` frames, by a 1x1 convolution."""

    def __init__(self, width: int, times: int) -> None:
        super().__init__()
        self.times = times
        self.conv = nn.Conv2d(width, times * width, 1, bias=False)

    def forward(self, x: Tensor, batch: int) -> Tensor:
        """x: (F*B, C, rows, cols), frame by frame. Returns (times*F*B, C, rows, cols)."""
        return rearrange(self.conv(x), "(t b) (f c) h w -> (t f b) c h w", f=self.times, b=batch)


class TinyDecoder(nn.Module):
    """Normalised latents of Wan2.1 to frames; 9,844,611 parameters with the default config.

    `layers` are numbered as in taew2_1's files.
    """

    def __init__(self, config: TinyConfig) -> None:
        super().__init__()
        self.config = config
        first, second, third, last = config.widths
        self.layers = nn.ModuleList(
            [
                nn.Identity(),  # stands for the soft clamp
                nn.Conv2d(config.latent_channels, first, 3, padding=1),
                nn.ReLU(),
                *_stage(first, second, 1, config.blocks),
                *_stage(second, third, 2, config.blocks),
                *_stage(third, last, 2, config.blocks),
                nn.ReLU(),
                nn.Conv2d(last, 3, 3, padding=1),
            ]
        )

    @property
    def halo(self) -> int:
        """Latent positions around a tile beyond which nothing reaches it."""
        each = 1 + 3 * self.config.blocks  # convolutions at 1/8, 1/4 and 1/2; two at full size
        return -(-((8 + 4 + 2) * each + 2) // PIXELS)

    def frame_features(self, latent: Tensor) -> Tensor:
        """The part that has to see whole frames: none. Returns the latents."""
        return latent

    def forward(
        self, features: Tensor, clip: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        """As `stream`, less `clip` (B, F, 3, H, W): the correction to it, in its type."""
        frames, state = self.stream(features, state)
        return frames.to(clip.dtype) - clip, state

    def correction(self, features: Tensor, clip: Tensor) -> Tensor:
        """`forward` for a whole clip, one latent frame at a time: of four frames at full size there
        is work enough for a GPU, and more take memory."""
        return streamed(self.stream, features.split(1, dim=2), dim=1).to(clip.dtype) - clip

    def stream(self, latent: Tensor, state: State | None = None) -> tuple[Tensor, State]:
        """Decode the next latent frames of a clip; any cut into calls gives the same frames.

        latent: (B, 16, n, h, w) normalised; state: of the call before, None at the start of a clip.
        Returns frames (B, 4n, 3, 8h, 8w) in [-1, 1] (not clamped), three fewer from the first call,
        and the state for the next call.
        """
        batch = latent.shape[0]
        x = 3 * torch.tanh(rearrange(latent, "b c t h w -> (t b) c h w") / 3)
        past = iter(state or ())
        kept: State = []
        for layer in self.layers:
            if isinstance(layer, MemoryBlock):
                before = next(past, None)
                x, memory = layer(x, torch.zeros_like(x[:batch]) if before is None else before)
                kept.append(memory)
            elif isinstance(layer, Grow):
                x = layer(x, batch)
            else:
                x = layer(x)
        frames = rearrange(x, "(f b) c h w -> b f c h w", b=batch) * 2 - 1
        return (frames if state else frames[:, TRIM:]), kept


def _stage(wide: int, out: int, times: int, blocks: int) -> list[nn.Module]:
    """Blocks at one size, then twice the rows and columns, `times` the frames, other channels."""
    return [
        *(MemoryBlock(wide) for _ in range(blocks)),
        nn.Upsample(scale_factor=2),
        Grow(wide, times),
        nn.Conv2d(wide, out, 3, padding=1, bias=False),
    ]
