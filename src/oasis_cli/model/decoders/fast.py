"""FastDecoder: latents and the enlarged low-quality clip in, the correction to that clip out.

Convolutional in space, one past frame of memory in time, so a clip of any length streams through.
Letters: B batch   C latent channels   T latent frames   F = 4T-3 frames   H, W pixels
         K channels of a frame's features
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from oasis_cli.model.latent import FRAMES, PIXELS, keep_variance
from oasis_cli.runtime.devices import in_pieces

State = list[Tensor]
"""State of each residual block, from the last frame: (B, remembered channels, rows, cols)."""

DECODE_FRAMES, CPU_FRAMES = 4, 1
"""Frames decoded at once: enough to keep a GPU busy, few enough to bound memory. One fits a CPU's
caches, which is a fifth faster."""

HALF = PIXELS // 2
"""Target pixels covered by one position of the second stage."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderConfig:
    """The size of the decoder."""

    latent_channels: int = 64
    low_width: int = 128
    """Channels at 1/8 of the target size."""
    low_blocks: int = 5
    high_width: int = 64
    """Channels at 1/4 of the target size."""
    high_blocks: int = 3
    frame_channels: int = 64
    """Channels of one frame's part of the latents."""
    low_frames: int = 1
    """Low-quality frames, the decoded one in the middle, that the stage at 1/8 size reads beside
    the latents; 0 for none: then all but the last detail comes through the transformer."""
    memory: float = 0.25
    """Part of its channels that every second block also sees of the frame before."""

    def __post_init__(self) -> None:
        if self.low_frames and self.low_frames % 2 == 0:
            raise ValueError(f"{self.low_frames} low-quality frames have none in the middle")
        if not 0 <= self.memory <= 1:
            raise ValueError(f"a part of {self.memory} of the channels is not possible")


class ResidualBlock(nn.Module):
    """Two convolutions; the first may also read some channels of the frame before."""

    def __init__(self, width: int, remembered: int = 0) -> None:
        super().__init__()
        self.remembered = remembered
        self.first = nn.Conv2d(width + remembered, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        with torch.no_grad():
            self.second.weight.mul_(0.2)  # start near the identity

    def forward(self, x: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """x: (F*B, width, rows, cols), frame by frame; past: (B, remembered, rows, cols).

        Returns the output, same shape as x, and the past of the next call.
        """
        batch = past.shape[0]
        seen = torch.cat([past, x[:, : self.remembered]])  # of the frame before, and the last
        y = self.added(x, torch.cat([x, seen[:-batch]], dim=1) if self.remembered else x)
        # Cloned: a view would keep the whole chunk alive for as long as the state lives.
        return y, seen[-batch:].clone()

    def added(self, x: Tensor, seen: Tensor) -> Tensor:
        """x and what the convolutions make of `seen`, which is x or begins with it."""
        y = self.second(F.leaky_relu(self.first(seen), 0.1, inplace=True))
        return y.add_(x)


class FastDecoder(nn.Module):
    """Latents (B, C, T, H/8, W/8) and a clip (B, F, 3, H, W) to a correction (B, F, 3, H, W).

    The last convolution starts at zero: an untrained decoder corrects nothing.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        low, high = config.low_width, config.high_width
        self.unfold_time = nn.Conv2d(config.latent_channels, FRAMES * config.frame_channels, 1)
        seen = 3 * PIXELS**2 * config.low_frames
        self.join_low = nn.Conv2d(config.frame_channels + seen, low, 1)
        self.low = _stage(low, config.low_blocks, config.memory)
        self.up = nn.Conv2d(low, 4 * high, 1)
        self.join_high = nn.Conv2d(high + 3 * HALF**2, high, 1)
        self.high = _stage(high, config.high_blocks, config.memory)
        self.last = nn.Conv2d(high, 3 * HALF**2, 3, padding=1)
        for layer in (self.unfold_time, self.join_low, self.up, self.join_high):
            keep_variance(layer)
        for parameter in self.last.parameters():
            nn.init.zeros_(parameter)

    @property
    def halo(self) -> int:
        """Positions at 1/8 size beyond which nothing can change an output: the receptive field."""
        at_quarter = 2 * self.config.high_blocks + 1
        return 2 * self.config.low_blocks + -(-at_quarter // 2)

    def frame_features(self, latent: Tensor) -> Tensor:
        """Latents (B, C, T, h, w) to one map for each frame, (B, F, K, h, w)."""
        x = self.unfold_time(rearrange(latent, "b c t h w -> (b t) c h w"))
        x = rearrange(x, "(b t) (f c) h w -> b (t f) c h w", b=latent.shape[0], f=FRAMES)
        return x[:, FRAMES - 1 :]  # group 0 is the first frame, repeated

    def forward(
        self, features: Tensor, clip: Tensor, state: State | None = None, start: int = 0
    ) -> tuple[Tensor, State]:
        """Decode consecutive frames.

        features: (B, F, K, H/8, W/8) of `frame_features`, any F >= 1; clip: (B, N, 3, H, W) in
        [-1, 1], of which frames start ... start + F - 1 are decoded and those around them seen;
        state: what the frames before returned. Returns the correction (B, F, 3, H, W) and the
        state. Frames in several calls give what they give in one if each gets the whole clip, or,
        with `low_frames` of 1 or 0, its own frames.
        """
        batch, frames = features.shape[:2]
        near = self.config.low_frames // 2  # on each side
        index = torch.arange(start - near, start + frames + near, device=clip.device)
        clip = clip[:, index.clamp(0, clip.shape[1] - 1)].to(features.dtype)
        pixels = rearrange(clip, "b f c h w -> (f b) c h w")  # frame by frame: slices are in time
        x = rearrange(features, "b f c h w -> (f b) c h w")
        past = iter(state or self._start(x[:batch]))
        new_state: State = []

        def run(blocks: nn.ModuleList, x: Tensor) -> Tensor:
            x = x.contiguous(memory_format=torch.channels_last)
            for block in blocks:
                x, kept = block(x, next(past))
                new_state.append(kept)
            return x

        def seen(frame: int, pixels: Tensor) -> Tensor:
            return pixels[(near + frame) * batch :][: frames * batch]

        if self.config.low_frames:
            small = F.pixel_unshuffle(pixels, PIXELS)
            x = torch.cat([x, *(seen(frame, small) for frame in range(-near, near + 1))], dim=1)
        x = self.join_low(x)
        x = F.pixel_shuffle(F.leaky_relu(self.up(run(self.low, x)), 0.1, inplace=True), 2)
        x = self.join_high(torch.cat([x, F.pixel_unshuffle(seen(0, pixels), HALF)], dim=1))
        x = F.pixel_shuffle(self.last(F.leaky_relu(run(self.high, x), 0.1)), HALF)
        return rearrange(x, "(f b) c h w -> b f c h w", b=batch), new_state

    def correction(self, features: Tensor, clip: Tensor) -> Tensor:
        """`forward` for a whole clip, a few frames at a time; in the type of the clip."""
        out = clip.new_empty(clip.shape)
        for some, part in self._parts(features, clip):
            out[:, some] = part
        return out

    @property
    def may_add(self) -> bool:
        """Whether `add_to` is possible: whether no frame is decoded from another one's pixels."""
        return self.config.low_frames <= 1

    def add_to(self, features: Tensor, clip: Tensor) -> Tensor:
        """The clip, to which the `correction` was added: in place, which saves its memory."""
        for some, part in self._parts(features, clip):
            clip[:, some] += part.to(clip.dtype)
        return clip

    def _parts(self, features: Tensor, clip: Tensor) -> Iterator[tuple[slice, Tensor]]:
        """Which frames, and their correction."""
        state: State | None = None
        count = CPU_FRAMES if in_pieces(clip.device) else DECODE_FRAMES
        for start in range(0, clip.shape[1], count):
            some = slice(start, start + count)
            part, state = self(features[:, some], clip, state, start)
            yield some, part

    def _start(self, x: Tensor) -> State:
        """State of the blocks before the first frame: zeros. x: (B, K, rows, cols)."""
        rows, cols = x.shape[-2:]
        return [
            x.new_zeros(x.shape[0], block.remembered, rows * scale, cols * scale)
            for scale, stage in ((1, self.low), (2, self.high))
            for block in cast(list[ResidualBlock], list(stage))
        ]


def _stage(width: int, blocks: int, memory: float) -> nn.ModuleList:
    """Residual blocks of which every second, the first included, remembers the frame before."""
    remembered = round(width * memory)
    return nn.ModuleList(ResidualBlock(width, (1 - n % 2) * remembered) for n in range(blocks))
