"""Modulation, gates and a norm's affine part worked into the matrices beside them.

    W (n(x) (1 + scale) + shift) + b  =  (W (1 + scale)) n(x) + (W shift + b)
    gate (W y + b)                    =  (gate W) y + gate b

The network's time is fixed, so all of these are constants. A folded network is for inference only:
training would see other gradients.
"""

import torch
from torch import Tensor, nn

from oasis_cli.model.dit import Block
from oasis_cli.model.oasis import Oasis


@torch.no_grad()
def fold(model: Oasis) -> None:
    """Change `model`, in float32 or wider, to compute the same with neutral modulation."""
    dit = model.dit
    for block in dit.blocks:
        assert isinstance(block, Block)
        shift_a, scale_a, gate_a, shift_f, scale_f, gate_f = block.modulation
        _absorb(block.attention.qkv, shift_a, scale_a)
        _gate(block.attention.out, gate_a)
        first, last = block.ffn[0], block.ffn[2]
        assert isinstance(last, nn.Linear)
        _gate(last, gate_f)
        kept = torch.zeros_like(block.modulation)
        kept[[2, 5]] = 1.0
        if isinstance(first, nn.Linear):
            _absorb(first, shift_f, scale_f)
        else:  # a convolution adds its zeros around the frame after the shift
            kept[3:5] = block.modulation[3:5]
        block.modulation.copy_(kept)
        if block.cross is not None:
            norm = block.cross.norm
            _absorb(block.cross.q, norm.bias, norm.weight - 1)
            norm.reset_parameters()
    shift, scale = dit.modulation
    _absorb(dit.head, shift, scale)
    dit.modulation.zero_()


def _absorb(linear: nn.Linear, shift: Tensor, scale: Tensor) -> None:
    linear.bias.add_(linear.weight @ shift)
    linear.weight.mul_(1 + scale)


def _gate(linear: nn.Linear, gate: Tensor) -> None:
    linear.weight.mul_(gate[:, None])
    linear.bias.mul_(gate)
