"""The yardstick: a plain convolutional upscaler of the shape that people run today."""

import torch.nn.functional as F
from torch import Tensor, nn


class SRVGG(nn.Module):
    """64 features, 32 convolutions in the middle, x4: realesr-general-x4v3's shape.

    The weights are random: only its time is of interest.
    """

    def __init__(self, features: int = 64, convolutions: int = 32, scale: int = 4) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, features, 3, padding=1), nn.PReLU(features)]
        for _ in range(convolutions):
            layers += [nn.Conv2d(features, features, 3, padding=1), nn.PReLU(features)]
        layers += [nn.Conv2d(features, 3 * scale**2, 3, padding=1), nn.PixelShuffle(scale)]
        self.body = nn.Sequential(*layers)
        self.scale = scale

    def forward(self, low: Tensor) -> Tensor:
        """low: (N, 3, h, w). Returns (N, 3, 4h, 4w)."""
        out: Tensor = self.body(low)
        return out + F.interpolate(low, scale_factor=self.scale)
