"""Rotary positions."""

import torch

from oasis_cli.model.rope import apply_rope, axis_widths, rope_table


def test_rope_equals_complex_rotation():
    grid, width = (3, 4, 5), 64
    cos, sin = rope_table(grid, width)
    x = torch.randn(2, 60, 2, width)
    at = torch.cartesian_prod(*map(torch.arange, grid)).double()
    angles = torch.cat(
        [
            at[:, axis, None] * 10000 ** (-2 * torch.arange(size // 2).double() / size)
            for axis, size in enumerate(axis_widths(width))
        ],
        dim=1,
    )
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    pairs = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    expected = torch.view_as_real(pairs * turn).flatten(-2)

    assert (apply_rope(x, cos, sin) - expected).abs().max() < 1e-6
    tables = torch.complex(cos, sin) - turn[:, 0]
    assert tables.abs().max() < 2e-7
