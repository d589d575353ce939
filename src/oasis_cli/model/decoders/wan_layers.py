"""The layers of Wan2.1's video autoencoder (arXiv 2503.20314, sec. 4.1); see `wan_vae`.

Each looks only into the past and returns what it has to remember beside its output. Tensors are (B,
C, time, rows, cols). Where Triton runs they lie channels last in memory, as cuDNN wants them, and
kernels do what stands between the convolutions.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from oasis_cli.model.attention import load_kernel

State = list[list[Tensor]]
"""State of each layer in a sequence: its input from the frames before."""

KERNELS = load_kernel("wan")
"""None where Triton does not run."""


def run_layers(
    layers: Iterable[nn.Module], x: Tensor, state: State | None, recompute: bool
) -> tuple[Tensor, State]:
    """Send x (B, C, time, rows, cols) through layers, each with its own past.

    recompute: store only the inputs of layers for the backward pass. Returns the output and what
    the layers remember.
    """
    if KERNELS is not None and KERNELS.supports(x):
        x = x.contiguous(memory_format=torch.channels_last_3d)
    new: State = []
    past = iter(state or ())
    for layer in layers:
        before = next(past, [])
        if recompute and torch.is_grad_enabled():
            x, *after = checkpoint(layer, x, *before, use_reentrant=False)
        else:
            x, *after = layer(x, *before)
        new.append(after)
    return x, new


def remember(past: Tensor | None, x: Tensor) -> tuple[Tensor, Tensor]:
    """Two frames of the past, zeros at the start of a clip, in front of x (B, C, time, ...).

    Returns that and its last two frames. Those are copied: a view would keep all of it alive.
    """
    if past is None:  # laid out in memory as x is, or joining them would undo it
        layout = torch.channels_last_3d if _is_last(x) else torch.contiguous_format
        past = x.new_zeros(*x.shape[:2], 2, *x.shape[3:]).contiguous(memory_format=layout)
    x = torch.cat([past, x], dim=2)
    return x, x[:, :, -2:].clone()


def _is_last(x: Tensor) -> bool:
    """Whether the channels of a position lie side by side in memory."""
    return x.stride(1) == 1


def _einops(function: Callable[..., Tensor], x: Tensor, old: str, new: str, **sizes: int) -> Tensor:
    """einops' rearrange or repeat from `old` to `new`, whose second axis is c, in x's layout."""
    if not _is_last(x):
        return function(x, f"{old} -> {new}", **sizes)
    return function(x, f"{old} -> {new.replace(' c', '', 1)} c", **sizes).movedim(-1, 1)


class CausalConv(nn.Conv3d):
    """3x3x3 convolution over a frame and the two before it; zeros around the picture."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__(wide, out, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """x: (B, C, time, rows, cols). Returns the output, as long, and what to remember."""
        x, past = remember(past, x)
        return super().forward(x), past


class Norm(nn.Module):
    """Each position's channels scaled to a mean square of one, then by a learned factor each."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        """x: (B, C, time, rows, cols). Returns the same shape and type; at least float32 inside."""
        wide = x if x.dtype == torch.float64 else x.float()
        scale = x.shape[1] ** 0.5 * self.weight.view(-1, 1, 1, 1).to(wide.dtype)
        return (F.normalize(wide, dim=1) * scale).to(x.dtype)


class NormConv(nn.Module):
    """Norm, SiLU, causal convolution."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        self.norm = Norm(wide)
        self.conv = CausalConv(wide, out)

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """As `CausalConv`."""
        if KERNELS is not None and KERNELS.supports(x):
            y, past = self.unbiased(x, None, past)
            assert self.conv.bias is not None
            return y + self.conv.bias.view(-1, 1, 1, 1), past
        return self.conv(F.silu(self.norm(x)), past)

    def unbiased(
        self, x: Tensor, bias: Tensor | None, past: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """`forward` of x + bias through kernels, but for the convolution's own bias."""
        assert KERNELS is not None
        seen = KERNELS.norm_silu(x, bias, self.norm.weight, past)
        y = F.conv3d(seen, self.conv.weight, padding=self.conv.padding)
        return y, seen[:, :, -2:].clone()


class Residual(nn.Module):
    """Two of those, added to the input; a 1x1x1 convolution fits the input if widths differ."""

    def __init__(self, wide: int, out: int) -> None:
        super().__init__()
        self.one = NormConv(wide, out)
        self.two = NormConv(out, out)
        self.shortcut = nn.Conv3d(wide, out, 1) if wide != out else nn.Identity()

    def forward(
        self, x: Tensor, first: Tensor | None = None, second: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """x: (B, C, time, rows, cols). Returns the output and what to remember, twice."""
        if KERNELS is not None and KERNELS.supports(x):
            y, first = self.one.unbiased(x, None, first)
            y, second = self.two.unbiased(y, self.one.conv.bias, second)
            return KERNELS.add(self.shortcut(x), y, self.two.conv.bias), first, second
        y, first = self.one(x, first)
        y, second = self.two(y, second)
        return self.shortcut(x) + y, first, second


class FrameAttention(nn.Module):
    """Each position of a frame attends to all of that frame, with one head."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = Norm(width)
        self.qkv = nn.Conv3d(width, 3 * width, 1)
        self.out = nn.Conv3d(width, width, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """x: (B, C, time, rows, cols). Returns the same shape; it remembers nothing."""
        batch, rows = x.shape[0], x.shape[3]
        q, k, v = rearrange(
            self.qkv(self.norm(x)), "b (n c) t h w -> n (b t) 1 (h w) c", n=3
        ).contiguous()
        y = F.scaled_dot_product_attention(q, k, v)
        return (x + self.out(rearrange(y, "(b t) 1 (h w) c -> b c t h w", b=batch, h=rows)),)


class Down(nn.Module):
    """Half the rows and columns; with `in_time` also half the frames after the first."""

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        self.space = nn.Conv3d(width, width, (1, 3, 3), stride=(1, 2, 2))
        self.time = nn.Conv3d(width, width, (3, 1, 1), stride=(2, 1, 1)) if in_time else None

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
        """x: (B, C, time, rows, cols), an odd time at the start of a clip, then even ones.

        Returns the output and, with `in_time`, the last frame.
        """
        x = self.space(F.pad(x, (0, 1, 0, 1)))
        if self.time is None:
            return (x,)
        kept = x[:, :, -1:].clone()
        if past is not None:
            return self.time(torch.cat([past, x], dim=2)), kept
        first = x[:, :, :1]
        return (torch.cat([first, self.time(x)], dim=2) if x.shape[2] > 1 else first), kept


class Up(nn.Module):
    """Twice the rows and columns, half the channels; with `in_time` two frames for each.

    The first frame of a clip is not doubled, and the convolution in time starts after it.
    """

    def __init__(self, width: int, *, in_time: bool) -> None:
        super().__init__()
        self.time = nn.Conv3d(width, 2 * width, (3, 1, 1)) if in_time else None
        self.space = nn.Conv3d(width, width // 2, (1, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor, past: Tensor | None = None) -> tuple[Tensor, ...]:
        """x: (B, C, time, rows, cols). Returns the output and, with `in_time`, what to remember."""
        if self.time is None:
            return (self._enlarge(x),)
        alone = 1 if past is None else 0
        first, rest = x[:, :, :alone], x[:, :, alone:]
        seen, past = remember(past, rest)
        if rest.shape[2]:
            pairs = _einops(rearrange, self.time(seen), "b (f c) t h w", "b c (t f) h w", f=2)
            x = torch.cat([first, pairs], dim=2) if alone else pairs
        return self._enlarge(x), past

    def _enlarge(self, x: Tensor) -> Tensor:
        # Copies of pixels, whatever the type: torch's own nearest would go through float32.
        return self.space(_einops(repeat, x, "b c t h w", "b c t (h 2) (w 2)"))


def residuals(wide: int, out: int, count: int) -> list[Residual]:
    return [Residual(wide if n == 0 else out, out) for n in range(count)]


def middle_blocks(width: int) -> nn.ModuleList:
    return nn.ModuleList([Residual(width, width), FrameAttention(width), Residual(width, width)])
