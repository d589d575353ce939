"""3x3 convolutions on a CPU by Winograd's minimal filtering F(4x4, 3x3), for inference in float32.

A tile of 4x4 outputs takes 36 products a pair of channels instead of 144. Lavin and Gray, arXiv
1509.09308. The sums around the products are matrix products themselves, done for a few rows of
tiles at a time, which stay in the caches.

Letters: N pictures   C channels in, O out   H, W rows and columns   k, m tiles down and across
"""

from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEAST_WIDTH = 96
"""Channels, in and out, from which on the products saved outweigh the sums around them: with 128
it takes 0.65 of the time, with 96 0.85, with 64 as long."""

SIDE, SEEN = 4, 6
"""Rows and columns of outputs in a tile, and of inputs that they see."""

VALUES = 1 << 19
"""Numbers of transformed input at a time, about: a core's cache holds them."""

# The matrices B', G and A' for the points 0, 1, -1, 2, -2 and infinity, as in the paper.
_INPUT = [[4, 0, -5, 0, 1, 0], [0, -4, -4, 1, 1, 0], [0, 4, -4, -1, 1, 0],
          [0, -2, -1, 2, 1, 0], [0, 2, -1, -2, 1, 0], [0, 4, 0, -5, 0, 1]]  # fmt: skip
_WEIGHT = [[1 / 4, 0, 0], [-1 / 6, -1 / 6, -1 / 6], [-1 / 6, 1 / 6, -1 / 6],
           [1 / 24, 1 / 12, 1 / 6], [1 / 24, -1 / 12, 1 / 6], [0, 0, 1]]  # fmt: skip
_OUTPUT = [[1, 1, 1, 1, 1, 0], [0, 1, -1, 2, -2, 0], [0, 1, 1, 4, 4, 0], [0, 1, -1, 8, -8, 1]]


@cache
def _transforms() -> tuple[Tensor, Tensor, Tensor]:
    """Of rows and columns together: (36, 36) input, (36, 9) weight, (16, 36) output."""
    with torch.inference_mode(False):
        wide = (torch.tensor(m, dtype=torch.float64) for m in (_INPUT, _WEIGHT, _OUTPUT))
        of_input, of_weight, of_output = (torch.kron(m, m).float() for m in wide)
    return of_input, of_weight, of_output


def use_winograd(model: nn.Module) -> None:
    """Compute the wide 3x3 convolutions of a network this way, if it is in float32."""
    for layer in model.modules():
        if type(layer) is nn.Conv2d and gains(layer):
            layer.__class__ = WinogradConv  # the same parameters, another way to compute


def gains(layer: nn.Conv2d) -> bool:
    """Whether a convolution is of the kind done here, and faster for it."""
    kind = layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups
    wide = min(layer.in_channels, layer.out_channels) >= LEAST_WIDTH
    plain = layer.padding_mode == "zeros" and layer.weight.dtype == torch.float32
    return kind == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and wide and plain


class WinogradConv(nn.Conv2d):
    """A 3x3 convolution between zeros."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns (N, O, H, W), channels last in memory."""
        _, of_weight, _ = _transforms()
        outputs, channels = self.weight.shape[:2]
        # Made in each call, in a hundredth of its time: kept, it is four times the weights' memory.
        taps = self.weight.permute(2, 3, 1, 0).reshape(9, -1)
        weight = (of_weight @ taps).view(SEEN**2, channels, outputs)
        count, _, rows, cols = x.shape
        down, across = -(-rows // SIDE), -(-cols // SIDE)
        edge = (0, 0, 1, SIDE * across - cols + 1, 1, SIDE * down - rows + 1)
        padded = F.pad(x.permute(0, 2, 3, 1), edge)
        out = x.new_empty(count, rows, cols, outputs)
        row = SEEN**2 * across * channels
        if row * down <= VALUES:  # several pictures
            for some in range(0, count, VALUES // (row * down)):
                more = slice(some, some + VALUES // (row * down))
                self._tiles(padded[more], weight, out[more], 0)
        else:
            step = max(1, VALUES // row)
            for number in range(count):
                one = slice(number, number + 1)
                for first in range(0, down, step):
                    last = min(first + step, down)
                    seen = padded[one, first * SIDE : last * SIDE + 2]
                    self._tiles(seen, weight, out[one], first)
        return out.permute(0, 3, 1, 2)

    def _tiles(self, x: Tensor, weight: Tensor, out: Tensor, first: int) -> None:
        """Rows of tiles, from `first` on. x: (N, 4k+2, 4m+2, C), what they see; out: (N, H, W, O),
        of which they write theirs."""
        of_input, _, of_output = _transforms()
        count, rows, cols, channels = x.shape
        down, across, outputs = rows // SIDE, cols // SIDE, out.shape[-1]
        stride = x.stride()
        tiles = x.as_strided(
            (SEEN, SEEN, count, down, across, channels),
            (stride[1], stride[2], stride[0], SIDE * stride[1], SIDE * stride[2], 1),
        )
        made = of_input @ tiles.reshape(SEEN**2, -1)
        made = torch.bmm(made.view(SEEN**2, -1, channels), weight)
        made = (of_output @ made.view(SEEN**2, -1)).view(SIDE, SIDE, count, down, across, outputs)
        made = made.permute(2, 3, 0, 4, 1, 5)
        whole = x.new_empty(made.shape)
        torch.add(made, self.bias, out=whole) if self.bias is not None else whole.copy_(made)
        place = out[:, first * SIDE : (first + down) * SIDE]
        whole = whole.view(count, down * SIDE, across * SIDE, outputs)
        place.copy_(whole[:, : place.shape[1], : place.shape[2]])
