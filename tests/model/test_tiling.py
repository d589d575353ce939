"""Tiles: where they lie, and that none is seen."""

import pytest
import torch

from oasis_cli.model.tiling import blended, spans


@pytest.mark.parametrize("length", [16, 64, 66, 90, 160, 270, 480])
def test_transformer_tiles_cover_everything_and_are_even(length):
    found = spans(length, 64, 4)
    assert found[0][0] == 0 and found[-1][1] == length
    assert len({stop - start for start, stop in found}) == 1
    assert all(stop - start <= 64 and start % 2 == 0 for start, stop in found)
    for (_, stop), (start, _) in zip(found[:-1], found[1:], strict=True):
        assert stop - start >= 4


def test_blended_tiles_of_a_pointwise_function_equal_the_function():
    x = torch.randn(1, 2, 3, 22, 30, dtype=torch.float64)
    torch.testing.assert_close(blended(torch.sin, x, 12, 4), x.sin(), atol=1e-12, rtol=0)


def test_blended_tiles_may_go_a_few_at_a_time():
    x, sizes = torch.randn(2, 2, 3, 22, 30, dtype=torch.float64), []

    def function(tiles):
        sizes.append(len(tiles))
        return tiles.cos()

    whole, some = blended(function, x, 12, 4), blended(function, x, 12, 4, most=4)
    assert torch.equal(some, whole)
    assert sizes[0] == sum(sizes[1:])
    assert sizes[1:-1] == [8] * (len(sizes) - 2)
