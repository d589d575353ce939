"""Ways to run a loaded network faster on a GPU, for inference only: constants computed once, a
fused first half of the feed-forward part, compiled regions, 8-bit linear layers.

Letters: B batch   L tokens   M model width   N output channels
"""

from collections.abc import Iterator
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from oasis_cli.model import attention
from oasis_cli.model.decoders.fast import FastDecoder
from oasis_cli.model.dit import Block, DiT
from oasis_cli.model.oasis import Oasis
from oasis_cli.model.operators import operator

FP8 = torch.float8_e4m3fn
FP8_MAX = 448.0


def compile_regions(model: Oasis) -> None:
    """Compile what repeats: the transformer's blocks and FastDecoder's residual blocks.

    One graph serves every layer of the same shape, so compiling takes seconds, not minutes; each
    new size of clip costs them again.
    """
    compile_blocks(model.dit)
    if isinstance(model.decoder, FastDecoder):
        for block in [*model.decoder.low, *model.decoder.high]:
            block.compile(dynamic=False)


def compile_blocks(dit: DiT) -> None:
    """Compile the transformer's blocks, as `compile_regions`."""
    attention.for_compiler()
    for block in dit.blocks:
        block.compile(dynamic=False)


def prepare_for_inference(dit: DiT, *, fp8: bool = False) -> None:
    """All that needs no compiler: `fix_context`, then `quantize_fp8` or `fuse_ffn`."""
    fix_context(dit)
    if fp8:
        quantize_fp8(dit)
    else:
        fuse_ffn(dit)


@torch.no_grad()
def fix_context(dit: DiT) -> None:
    """Compute what cross-attention takes from the context, which is always the same, once.

    For a network whose weights, type and device do not change any more.
    """
    for block in dit.blocks:
        cross = cast(Block, block).cross
        if cross is not None:
            assert dit.context is not None
            cross.fixed = cross.rows(dit.context)


def fuse_ffn(dit: DiT) -> None:
    """Apply the feed-forward part's GELU while its product is still in registers."""
    for block in dit.blocks:
        first, _, last = cast(nn.Sequential, block.ffn)
        if isinstance(first, nn.Linear):
            block.ffn = nn.Sequential(LinearGELU(first), nn.Identity(), last)


def _like_linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return x.new_empty(x.shape[0], weight.shape[0])


@operator("oasis::linear_gelu", _like_linear_gelu)
def _linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x: (rows, M). Returns (rows, N)."""
    # An operator of its own, or the compiler would take the two apart again.
    return torch._addmm_activation(bias, x, weight.t(), use_gelu=True)


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


def quantize_fp8(dit: DiT) -> None:
    """Make the linear layers of all blocks 8-bit; norms, attention and residuals stay as they are.

    Call it before `compile_blocks`, and not together with `fuse_ffn`.
    """
    for parent, name, linear in list(wide_linears(dit)):
        setattr(parent, name, Float8Linear(linear))
    for block in dit.blocks:
        ffn = cast(nn.Sequential, block.ffn)
        if isinstance(ffn[2], Float8Linear):  # it reads what GELU wrote: in one pass
            ffn[1], ffn[2].gelu = nn.Identity(), True


def wide_linears(dit: DiT) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """The layers that `quantize_fp8` replaces: (parent, name in the parent, layer)."""
    for block in dit.blocks:
        cross = getattr(block, "cross", None)
        tiny = [cross.k, cross.v, cross.out] if cross is not None else []  # see two rows only
        for parent in block.modules():
            for name, child in parent.named_children():
                if isinstance(child, nn.Linear) and child not in tiny and _divides(child):
                    yield parent, name, child


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
        self.gelu = False
        """Whether the layer applies GELU to its input, before rounding."""

    def forward(self, x: Tensor) -> Tensor:
        """x: (..., M). Returns (..., N) in the type of x."""
        rows, scale = to_fp8(x.flatten(0, -2), gelu=self.gelu)
        if x.is_cuda:
            out = torch._scaled_mm(
                rows,
                self.weight.t(),
                scale,
                self.scale,
                bias=None if self.bias is None else self.bias.to(torch.bfloat16),
                out_dtype=torch.bfloat16,
                use_fast_accum=True,
            )
        else:
            out = F.linear(rows.float(), self.weight.float()) * scale * self.scale
            out = out if self.bias is None else out + self.bias
        return out.to(x.dtype).unflatten(0, x.shape[:-1])


def to_fp8(x: Tensor, *, gelu: bool = False) -> tuple[Tensor, Tensor]:
    """x (rows, M), or the tanh form of its GELU, as e4m3 and the float32 scale (rows, 1) that each
    row was divided by."""
    if attention.TOKENS is not None and attention.TOKENS.supports(x):
        both: tuple[Tensor, Tensor] = attention.TOKENS.to_fp8(x, gelu)
        return both
    wide = F.gelu(x.float(), approximate="tanh") if gelu else x.float()
    scale = wide.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / FP8_MAX
    return (wide / scale).clamp(-FP8_MAX, FP8_MAX).to(FP8), scale
