"""Ways to run a loaded network faster on a GPU: compiled regions, a fused first half of the
feed-forward part, 8-bit linear layers. Each changes the module in place, for inference only.

Letters: B batch   L tokens   M model width   N output channels
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oasis_cli.model.dit import DiT
from oasis_cli.model.fast_decoder import FastDecoder
from oasis_cli.model.oasis import Oasis
from oasis_cli.model.wan_vae import NormConv, WanDecoder

RECOMPILE_LIMIT = 64
"""Graphs of one function: layers with different head tables, sizes of windows and tiles."""

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


def compile_regions(model: Oasis) -> None:
    """Compile what repeats: the transformer's blocks, FastDecoder's residual blocks, and what
    stands between the Wan decoder's convolutions.

    One graph serves every layer of the same shape, so compiling takes seconds, not minutes; each
    new size of clip costs them again.
    """
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    compile_blocks(model.dit)
    if isinstance(model.decoder, FastDecoder):
        for block in [*model.decoder.low, *model.decoder.high]:
            block.compile(dynamic=False)
    if isinstance(model.decoder, WanDecoder):
        compile_activations(model.decoder)


def compile_activations(decoder: WanDecoder) -> None:
    """Compile norm and SiLU of the Wan decoder into one pass, for clips of any size."""
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    for module in decoder.modules():
        if isinstance(module, NormConv):
            module.activate = torch.compile(  # type: ignore[method-assign]
                module.activate, dynamic=True
            )


def compile_blocks(dit: DiT) -> None:
    """Compile the transformer's blocks, as `compile_regions`."""
    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    for block in dit.blocks:
        block.compile(dynamic=False)


def fuse_ffn(dit: DiT) -> None:
    """Apply the feed-forward part's GELU while its product is still in registers."""
    for block in dit.blocks:
        first, _, last = cast(nn.Sequential, block.ffn)
        if isinstance(first, nn.Linear):
            block.ffn = nn.Sequential(LinearGELU(first), nn.Identity(), last)


@torch.library.custom_op("oasis::linear_gelu", mutates_args=())
def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x: (rows, M). Returns (rows, N)."""
    # An operator of its own, or the compiler would take the two apart again.
    return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)


@_linear_gelu.register_fake
def _(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


class LinearGELU(nn.Module):
    """A linear layer and the tanh form of GELU, as one product on CUDA."""

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        self.weight, self.bias = linear.weight, linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., M). Returns (..., N)."""
        if not x.is_cuda or torch.is_grad_enabled():
            return F.gelu(F.linear(x, self.weight, self.bias), approximate="tanh")
        out: Tensor = _linear_gelu(x.flatten(0, -2), self.weight, self.bias)
        return out.unflatten(0, x.shape[:-1])


def supports_fp8(device: torch.device) -> bool:
    """Whether a device multiplies 8-bit floats: CUDA from compute capability 8.9 on."""
    if device.type != "cuda" or not torch.cuda.is_available():
        return False
    return torch.cuda.get_device_capability(device) >= (8, 9)


def quantize_fp8(dit: DiT) -> None:
    """Make the linear layers of all blocks 8-bit; norms, attention and residuals stay as they are.

    Call it before `compile_blocks`, and not together with `fuse_ffn`.
    """
    for block in dit.blocks:
        cross = getattr(block, "cross", None)
        tiny = [cross.k, cross.v, cross.out] if cross is not None else []  # see two rows only
        for parent in list(block.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.Linear) and child not in tiny and _divides(child):
                    setattr(parent, name, Float8Linear(child))


def _divides(linear: nn.Linear) -> bool:
    """Whether the matrix units take the layer: both sides multiples of 16."""
    return linear.in_features % 16 == 0 and linear.out_features % 16 == 0


class Float8Linear(nn.Module):
    """A linear layer with e4m3 weights and inputs: a scale for each output channel and each token.

    Weights take half the memory of 16-bit ones. On CUDA the product runs on the 8-bit units; on
    other devices it is computed from the same rounded numbers in the input's type.
    """

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        weight, scale = to_fp8(linear.weight.detach())
        self.register_buffer("weight", weight)  # (N, M)
        self.register_buffer("scale", scale.t().contiguous())  # (1, N)
        self.bias = linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., M). Returns (..., N) in the type of x."""
        rows, scale = to_fp8(x.flatten(0, -2))
        if x.is_cuda:
            out = torch._scaled_mm(
                rows,
                self.weight.t(),
                scale,
                self.scale,
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
            out = out.to(x.dtype)
        else:
            out = F.linear(rows.float(), self.weight.float())
            out = (out * scale * self.scale).to(x.dtype)
        if self.bias is not None:
            out = out + self.bias.to(x.dtype)
        return out.unflatten(0, x.shape[:-1])


def to_fp8(x: Tensor) -> tuple[Tensor, Tensor]:
    """x (rows, M) as e4m3 and the float32 scale (rows, 1) that each row was divided by."""
    wide = x.float()
    scale = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / FP8_MAX
    return (wide / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale
