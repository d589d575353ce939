"""Rotary position embedding over time, height and width (Wan2.1; RoFormer, arXiv 2104.09864).

Letters: B batch   L tokens, ordered by time, then row, then column   H heads   D head width
"""

import torch
from torch import Tensor


def axis_widths(head_width: int) -> tuple[int, int, int]:
    """Channels of a head that turn with time, row and column; each is even.

    >>> axis_widths(128), axis_widths(64)
    ((44, 42, 42), (24, 20, 20))
    """
    space = 2 * (head_width // 6)
    return head_width - 2 * space, space, space


def rope_table(
    grid: tuple[int, int, int], head_width: int, theta: float = 10000.0
) -> tuple[Tensor, Tensor]:
    """Cosine and sine of every token's angles, (L, D/2) float32 each, for `grid` = (T, h, w).

    Pair j of an axis of d channels turns by position * theta^(-2j/d). Angles are made in float64:
    in float32 they would lose a tenth of a degree at position 1000.
    """
    axes = torch.meshgrid(
        *(torch.arange(n, dtype=torch.float64) for n in grid),
        indexing="ij",
    )
    angles = torch.cat(
        [
            position.reshape(-1, 1)
            * theta ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            for position, width in zip(axes, axis_widths(head_width), strict=True)
        ],
        dim=1,
    )
    return angles.cos().float(), angles.sin().float()


def apply_rope(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn adjacent channel pairs (2j, 2j+1) of x by their angles.

    x: (B, L, H, D); cos, sin: (L, D/2). Computed in float32 (or wider), returned in x's type.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    pairs = wide.unflatten(-1, (-1, 2))
    if x.is_cpu and not torch.compiler.is_exporting():  # one pass over memory instead of six
        turn = torch.complex(cos, sin)[:, None].to(
            torch.complex64 if wide.dtype == torch.float32 else torch.complex128
        )
        return torch.view_as_real(torch.view_as_complex(pairs) * turn).flatten(-2).to(x.dtype)
    even, odd = pairs.unbind(-1)
    cos, sin = cos[:, None], sin[:, None]  # the same for every head
    turned = torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1)
    return turned.flatten(-2).to(x.dtype)
