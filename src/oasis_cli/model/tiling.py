"""Space in tiles: exact tiles for the decoder, blended tiles for the transformer.

Positions here are on the latent grid, 8 target pixels each.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from oasis_cli.model.latent import PIXELS


def spans(length: int, tile: int, overlap: int) -> list[tuple[int, int]]:
    """Equal spans [start, stop) of at most `tile` that cover `length` and overlap by `overlap`.

    Starts and stops are even, so that tokens, of one or two positions a side, are never cut.

    >>> spans(10, 16, 4)
    [(0, 10)]
    >>> spans(90, 64, 8)
    [(0, 50), (40, 90)]
    """
    if length <= tile:
        return [(0, length)]
    count = -(-(length - overlap) // (tile - overlap))
    size = -(-(length + (count - 1) * overlap) // count)
    size += size % 2
    starts = [2 * round(k * (length - size) / (count - 1) / 2) for k in range(count)]
    return [(start, start + size) for start in starts]


def blended(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    tile: int,
    overlap: int,
    most: int | None = None,
) -> Tensor:
    """Apply `function` to overlapping tiles of x (B, C, T, h, w) and cross-fade the results.

    `function` keeps the shape. All tiles have one size and go through it as one batch, or, to save
    memory, `most` at a time. The weights are summed alongside; where there is one tile this is
    function(x).
    """
    height, width = x.shape[-2:]
    rows, cols = spans(height, tile, overlap), spans(width, tile, overlap)
    if len(rows) == len(cols) == 1:
        return function(x)
    tiles = torch.cat([x[..., slice(*row), slice(*col)] for row in rows for col in cols])
    some = tiles.split(most * len(x)) if most else [tiles]
    parts = (part for batch in some for part in function(batch).split(len(x)))
    out, total = torch.zeros_like(x), torch.zeros_like(x[:1, :1, :1])
    for top, bottom in rows:
        for left, right in cols:
            down = _ramp(top, bottom, height, overlap, x)
            across = _ramp(left, right, width, overlap, x)
            weight = down[:, None] * across
            out[..., top:bottom, left:right] += weight * next(parts)
            total[..., top:bottom, left:right] += weight
    return out / total


def _ramp(start: int, stop: int, length: int, overlap: int, like: Tensor) -> Tensor:
    """Weight along one side of a tile: falls towards borders it shares with another tile."""
    position = torch.arange(stop - start, device=like.device, dtype=like.dtype)
    weight = torch.ones_like(position)
    if start > 0:
        weight = torch.minimum(weight, (position + 1) / (overlap + 1))
    if stop < length:
        weight = torch.minimum(weight, (stop - start - position) / (overlap + 1))
    return weight


def exact_tiles(
    height: int, width: int, tile: int, halo: int
) -> Iterator[tuple[tuple[slice, slice], tuple[slice, slice], tuple[slice, slice]]]:
    """Cut (height, width) latent positions into tiles of at most `tile`, without overlap.

    Yields three (rows, columns) pairs of slices: the tile with its halo on the latent grid, the
    tile inside the decoded halo in pixels, and the tile in the whole picture in pixels.
    """

    def axis(length: int) -> Iterator[tuple[slice, slice, slice]]:
        for start in range(0, length, tile):
            stop = min(start + tile, length)
            first, last = max(0, start - halo), min(length, stop + halo)
            inner = slice((start - first) * PIXELS, (stop - first) * PIXELS)
            yield slice(first, last), inner, slice(start * PIXELS, stop * PIXELS)

    for rows in axis(height):
        for cols in axis(width):
            yield (rows[0], cols[0]), (rows[1], cols[1]), (rows[2], cols[2])
