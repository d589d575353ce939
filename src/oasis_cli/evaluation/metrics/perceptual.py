"""LPIPS on SqueezeNet 1.1 features: how different two pictures look (Zhang et al., 2018).

The weights are one `.safetensors` file with `features.N...` (ImageNet SqueezeNet 1.1, input in
[-1, 1]) and `lin0.weight` to `lin6.weight` (one positive weight a channel, (1, C, 1, 1)).
"""

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oasis_cli.evaluation.metrics.features import read_features

FIRES = ((3, 4), (6, 7), (9,), (10,), (11,), (12,))
"""Fire modules between two taps. A 2x downsampling stands before groups 0, 1 and 2."""
TAPS = 1 + len(FIRES)


class SqueezeLpips(nn.Module):
    """Perceptual distance; 0 is identical, 0.5 very different. Gradients flow through it."""

    def __init__(self, path: str | Path) -> None:
        """Read the weights. Raises ValueError when `path` is not such a file."""
        super().__init__()
        tensors = read_features(path)
        needed = {"features.0.weight", "lin0.weight", f"lin{TAPS - 1}.weight"}
        if not needed <= tensors.keys():
            raise ValueError(f"{path} holds no SqueezeNet features with LPIPS heads")
        for name, tensor in tensors.items():
            self.register_buffer(name.replace(".", "_"), tensor.float(), persistent=False)

    def _conv(self, x: Tensor, name: str, padding: int = 0, stride: int = 1) -> Tensor:
        weight, bias = getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias")
        return F.relu(F.conv2d(x, weight, bias, padding=padding, stride=stride))

    def _fire(self, x: Tensor, number: int) -> Tensor:
        x = self._conv(x, f"features_{number}_squeeze")
        small = self._conv(x, f"features_{number}_expand1x1")
        return torch.cat([small, self._conv(x, f"features_{number}_expand3x3", padding=1)], dim=1)

    def taps(self, frames: Tensor) -> Iterator[Tensor]:
        """The seven feature maps that LPIPS compares, finest first."""
        x = self._conv(frames, "features_0", stride=2)
        yield x
        for group, numbers in enumerate(FIRES):
            if group < 3:
                x = F.max_pool2d(x, 3, 2, ceil_mode=True)
            for number in numbers:
                x = self._fire(x, number)
            yield x

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """a, b: (N, 3, H, W) in [-1, 1], 32 pixels or more. Returns (N,)."""
        total = a.new_zeros(len(a))
        for tap, (u, v) in enumerate(zip(self.taps(a), self.taps(b), strict=True)):
            distance = (_normal(u) - _normal(v)).square()
            total = total + F.conv2d(distance, getattr(self, f"lin{tap}_weight")).mean((1, 2, 3))
        return total


def _normal(x: Tensor) -> Tensor:
    """Each position's feature vector, brought to length 1."""
    return x / (x.norm(dim=1, keepdim=True) + 1e-10)
