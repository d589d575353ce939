"""Features of VGG-16 (Simonyan and Zisserman, 2014), as a distance between pictures and as a loss.

The weights are one `.safetensors` file with `convB_N.weight` and `convB_N.bias` for LAYERS. It
takes RGB in [-1, 1]: the subtraction of means is folded into conv1_1, and every layer is scaled so
that its mean activation on photographs is about 1. Nothing strides before the first taps, so
patterns of 2 to 4 pixels are seen, which SqueezeNet's first layer passes over.
"""

from collections.abc import Sequence
from pathlib import Path

import torch.nn.functional as F
from torch import Tensor, nn

from oasis_cli.evaluation.metrics.features import read_features

LAYERS = tuple(
    f"conv{block}_{n}"
    for block, count in ((1, 2), (2, 2), (3, 3), (4, 3))
    for n in range(1, count + 1)
)
"""Finest first. A 2x2 max pooling stands before each conv*_1 but the first."""
COMPARED = ("conv1_2", "conv2_2", "conv3_3", "conv4_3")
"""Layers whose features the distance compares."""
LEAST_SIDE = 8
"""Pixels on a side that conv4_3 needs."""


class VggFeatures(nn.Module):
    """Feature maps of pictures. Fixed: it has no parameters, and nothing of it is saved.

    Gradients flow through it to the pictures.
    """

    def __init__(self, path: str | Path) -> None:
        """Read the weights. Raises ValueError when `path` is not such a file."""
        super().__init__()
        tensors = read_features(path)
        inside = 3
        for name in LAYERS:
            weight, bias = tensors.get(f"{name}.weight"), tensors.get(f"{name}.bias")
            if weight is None or bias is None or weight.shape != (len(bias), inside, 3, 3):
                raise ValueError(f"{path} holds no VGG-16 features: {name} is missing or misshapen")
            self.register_buffer(f"{name}_weight", weight.float(), persistent=False)
            self.register_buffer(f"{name}_bias", bias.float(), persistent=False)
            inside = len(bias)

    def taps(
        self, frames: Tensor, names: Sequence[str] = COMPARED, before_relu: bool = False
    ) -> list[Tensor]:
        """Feature maps of the layers `names`, in the order of LAYERS.

        frames: (N, 3, H, W) in [-1, 1], LEAST_SIDE pixels or more a side for conv4. Returns one
        (N, C, H / s, W / s) for each name, s = 1, 2, 4, 8 in conv1 to conv4. The values are those
        after the ReLU, or before it. Layers behind the last name are not computed.
        Raises ValueError for a name that is no layer.
        """
        unknown = sorted(set(names) - set(LAYERS))
        if unknown or not names:
            raise ValueError(f"VGG-16 features have no layer {', '.join(unknown) or 'to return'}")
        found: list[Tensor] = []
        x = frames
        for name in LAYERS:
            if name.endswith("_1") and name != LAYERS[0]:
                x = F.max_pool2d(x, 2)
            raw = F.conv2d(
                x, getattr(self, f"{name}_weight"), getattr(self, f"{name}_bias"), padding=1
            )
            x = F.relu(raw)
            if name in names:
                found.append(raw if before_relu else x)
                if len(found) == len(set(names)):
                    break
        return found

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        """The VGG distance: mean |difference| of COMPARED after ReLU, averaged over the layers.

        a, b: (N, 3, H, W) in [-1, 1], LEAST_SIDE pixels or more a side. Returns (N,).
        """
        total = a.new_zeros(len(a))
        for u, v in zip(self.taps(a), self.taps(b), strict=True):
            total = total + (u - v).abs().float().mean((1, 2, 3))
        return total / len(COMPARED)
