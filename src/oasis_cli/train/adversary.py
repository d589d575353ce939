"""The discriminators: a U-Net that judges every pixel of a frame, and one that judges motion."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm


class Adversary(nn.Module):
    """Both discriminators; each returns scores and the features that matching compares."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.frame = FrameDiscriminator(width)
        self.motion = MotionDiscriminator(width)

    def forward(self, clip: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        """clip: (B, T, 3, H, W) in [-1, 1], H and W multiples of 8. Returns scores, features."""
        score, features = self.frame(clip.flatten(0, 1))
        if clip.shape[1] < 3:
            return [score], features
        motion_score, motion_features = self.motion(clip)
        return [score, motion_score], features + motion_features


class FrameDiscriminator(nn.Module):
    """A U-Net with spectral norm, a score for each pixel (Real-ESRGAN, arXiv 2107.10833)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        w = width
        self.first = nn.Conv2d(3, w, 3, padding=1)
        self.down = nn.ModuleList(
            _normed(nn.Conv2d(w << n, w << (n + 1), 4, 2, 1, bias=False)) for n in range(3)
        )
        self.up = nn.ModuleList(
            _normed(nn.Conv2d(w << (n + 1), w << n, 3, padding=1, bias=False)) for n in (2, 1, 0)
        )
        self.last = nn.Conv2d(w, 1, 3, padding=1)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x: (N, 3, H, W). Returns (N, 1, H, W) scores and the features on the way down."""
        x = F.leaky_relu(self.first(x), 0.2)
        skips = []
        for layer in self.down:
            skips.append(x)
            x = F.leaky_relu(layer(x), 0.2)
        features = [*skips[1:], x]
        for layer in self.up:
            x = F.interpolate(x, scale_factor=2, mode="bilinear")
            x = F.leaky_relu(layer(x), 0.2) + skips.pop()
        return self.last(x), features


class MotionDiscriminator(nn.Module):
    """Judges the changes between three frames in a row, where flicker shows."""

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [6, width, 2 * width, 4 * width]
        self.layers = nn.ModuleList(
            _normed(nn.Conv2d(a, b, 4, 2, 1)) for a, b in zip(sizes[:-1], sizes[1:], strict=True)
        )
        self.last = nn.Conv2d(4 * width, 1, 3, padding=1)

    def forward(self, clip: Tensor) -> tuple[Tensor, list[Tensor]]:
        """clip: (B, T, 3, H, W), T >= 3. Returns scores (N, 1, H/8, W/8) and features."""
        change = clip.diff(dim=1)
        pairs = torch.cat([change[:, :-1], change[:, 1:]], dim=2)
        x = rearrange(pairs, "b t c h w -> (b t) c h w")
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), 0.2)
            features.append(x)
        return self.last(x), features


def _normed(layer: nn.Conv2d) -> nn.Module:
    return spectral_norm(layer)
