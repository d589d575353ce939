"""8-bit products on a CPU, for inference: wide 3x3 convolutions and the transformer's layers.

Weights have a scale for each output channel. Inputs have one scale in each call, from their own
least and largest number, so nothing was measured before and nothing is cut off. oneDNN adds up
whole numbers, which is exact: the result does not depend on the number of threads.

Letters: N pictures   C channels in, O out   H, W rows and columns   M features in, O out
"""

import math
from typing import Any, cast

import torch
from torch import Tensor, nn

from oasis_cli.model.inference import wide_linears
from oasis_cli.model.oasis import Oasis

LEAST_WIDTH = 64
"""Channels, in and out, from which on a convolution is done so. FastDecoder's last one, with 48
out, would save 5 ms of 1.5 s a frame, and frames would flicker more."""

LEVELS = 251
"""Steps between the least and the largest number of an input: 255, and some for rounding."""

ZERO = 128
"""What the first bit of a byte is worth. PyTorch converts to signed bytes four times as fast."""

LEAST_RANGE = 1e-6
"""A smaller range of inputs, as of a black picture, counts as this."""


def use_int8(network: Oasis) -> None:
    """Compute the decoder's wide 3x3 convolutions, and the linear layers and convolutions of the
    transformer's blocks, with 8-bit numbers. Call it after heads were routed: weights are taken
    as they are."""
    for layer in network.modules():
        if type(layer) is nn.Conv2d and gains(layer):
            layer.__class__ = Int8Conv  # the same parameters, another way to compute
            cast(Int8Conv, layer).pack()
    for _, _, linear in wide_linears(network.dit):
        linear.__class__ = Int8Linear
        cast(Int8Linear, linear).pack()


def gains(layer: nn.Conv2d) -> bool:
    """Whether a convolution is of the kind done here, and faster for it."""
    kind = layer.kernel_size, layer.padding, layer.stride, layer.dilation, layer.groups
    wide = min(layer.in_channels, layer.out_channels) >= LEAST_WIDTH
    return kind == ((3, 3), (1, 1), (1, 1), (1, 1), 1) and wide and layer.padding_mode == "zeros"


class Int8Conv(nn.Conv2d):
    """A 3x3 convolution between zeros, of rounded numbers."""

    packed: Any

    @torch.no_grad()
    def pack(self) -> None:
        """Round the weights and lay them out for the processor."""
        weight, scale = _rounded(self.weight)
        layout = torch.ops.onednn.qconv_prepack(weight, scale, 1.0, 0, *_GEOMETRY)
        self.packed = layout, scale, torch.zeros(len(scale), dtype=torch.int64), _wide(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns (N, O, H, W), channels last in memory."""
        rounded = to_uint8(x.permute(0, 2, 3, 1))
        if rounded is None:
            return super().forward(x)
        numbers, scale, zero = rounded
        weight, scales, zeros, bias = self.packed
        out: Tensor = torch.ops.onednn.qconv2d_pointwise(
            *(numbers.permute(0, 3, 1, 2), scale, zero, weight, scales, zeros, bias),
            *(*_GEOMETRY, *_plain(x.dtype)),
        )
        return out


class Int8Linear(nn.Linear):
    """A linear layer of rounded numbers."""

    packed: Any

    @torch.no_grad()
    def pack(self) -> None:
        """Round the weights and lay them out for the processor."""
        weight, scale = _rounded(self.weight)
        layout = torch.ops.onednn.qlinear_prepack(weight, None)
        self.packed = layout, scale, torch.zeros(len(scale), dtype=torch.int64), _wide(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., M). Returns (..., O)."""
        rounded = to_uint8(x)
        if rounded is None:
            return super().forward(x)
        out: Tensor = torch.ops.onednn.qlinear_pointwise(*rounded, *self.packed, *_plain(x.dtype))
        return out


_GEOMETRY = [1, 1], [1, 1], [1, 1], 1
"""Stride, padding, dilation and groups."""


def _plain(dtype: torch.dtype) -> tuple[Any, ...]:
    """Arguments of both operators: the output's scale, zero and type, and nothing done to it."""
    return 1.0, 0, dtype, "none", [], ""


def _rounded(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (O, ...) as int8, and the float32 scale (O,) that each channel was divided by."""
    rows = weight.float().flatten(1)
    scale = rows.abs().amax(1).clamp(min=1e-12) / 127
    whole = (rows / scale[:, None]).round().to(torch.int8)
    return whole.view(weight.shape), scale


def _wide(bias: Tensor | None) -> Tensor | None:
    return None if bias is None else bias.float()


def to_uint8(x: Tensor) -> tuple[Tensor, float, int] | None:
    """x as bytes, what a step of them is worth, and the byte for 0: x = scale * (bytes - zero).

    At most 0.75 of a step is lost by rounding in 16 bits, half a step in 32. None if there are
    numbers that are not finite.
    """
    flat = x.reshape(-1)
    most, least = torch.stack([flat.max(), flat.min()]).tolist()
    most, least = max(most, 0.0), min(least, 0.0)
    if not math.isfinite(most - least):
        return None
    # A number with 8 bits of mantissa: with bfloat16, PyTorch would round it, and to another one.
    steps = torch.tensor(LEVELS / max(most - least, LEAST_RANGE)).bfloat16().item()
    zero = 2 + round(-least * steps)
    signed = torch.add(float(zero - ZERO), flat, alpha=steps).round_().to(torch.int8)
    return signed.view(torch.uint8).bitwise_xor_(ZERO).view(x.shape), 1 / steps, zero
