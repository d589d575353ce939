"""From pixels to the latent grid: enlarge, pad, unshuffle, one linear map (OASIS: no VAE encoder).

Letters: B batch   F frames   H, W target pixels   T = (F+3)/4 latent frames
"""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

FRAMES = 4
"""Frames of one latent frame."""
PIXELS = 8
"""Target pixels along one side of a latent position."""
ALIGN = 2 * PIXELS
"""Padded heights and widths are multiples of this: the side of the largest token."""


def bicubic_upsample(low: Tensor, size: tuple[int, int]) -> Tensor:
    """A clip or pictures, (..., C, h, w), at `size` = (H, W). Returns (..., C, H, W)."""
    if low.shape[-2:] == size:
        return low
    pictures = low.flatten(0, -4)
    out = F.interpolate(pictures, size=size, mode="bicubic", align_corners=False)
    return out.unflatten(0, low.shape[:-3])


def pad(clip: Tensor) -> Tensor:
    """Repeat the last frame up to 4k+1 frames, edge pixels up to multiples of 16.

    clip: (B, F, 3, H, W). Returns (B, F', 3, H', W').
    """
    frames, _, height, width = clip.shape[1:]
    more = (1 - frames) % FRAMES
    if more:
        clip = torch.cat([clip, clip[:, -1:].expand(-1, more, -1, -1, -1)], dim=1)
    if height % ALIGN or width % ALIGN:
        edge = (0, -width % ALIGN, 0, -height % ALIGN, 0, 0)
        clip = F.pad(clip, edge, mode="replicate")
    return clip


def keep_variance(layer: nn.Linear | nn.Conv2d) -> None:
    """Start a layer so that independent inputs of unit variance become such outputs.

    PyTorch's own start shrinks them to 0.58 in each layer, and a chain of projections to nothing
    beside the pixels that join behind it.
    """
    if not layer.weight.is_meta:  # without data PyTorch would load its compiler for nothing
        nn.init.normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


class ToLatent(nn.Module):
    """Pixel-unshuffle by (4, 8, 8) and a linear map to the latent channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3 * FRAMES * PIXELS**2, channels)

    def forward(self, clip: Tensor) -> Tensor:
        """clip: (B, 4k+1, 3, H, W) in [-1, 1]. Returns (B, channels, k+1, H/8, W/8).

        The first frame stands four times in latent frame 0, as in Wan2.1's causal VAE.
        """
        first = clip[:, :1].expand(-1, FRAMES, -1, -1, -1)
        groups = first, *clip[:, 1:].split(FRAMES, dim=1)
        # One at a time: the pixels of a whole window, reordered, take twice the window's memory.
        parts = [self.linear(_unshuffle(group).to(self.linear.weight.dtype)) for group in groups]
        return rearrange(torch.cat(parts, dim=1), "b t h w c -> b c t h w")

    def unshuffle(self, clip: Tensor) -> Tensor:
        """The input of the linear map: (B, k+1, H/8, W/8, 768), (colour, frame, row, column)."""
        clip = torch.cat([clip[:, :1].expand(-1, FRAMES - 1, -1, -1, -1), clip], dim=1)
        return _unshuffle(clip)


def _unshuffle(clip: Tensor) -> Tensor:
    return rearrange(
        clip, "b (t f) c (h p) (w q) -> b t h w (c f p q)", f=FRAMES, p=PIXELS, q=PIXELS
    )
