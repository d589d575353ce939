import pytest
import torch

from oasis_cli.evaluation.metrics import flow


def scene(height=96, width=128):
    """A picture with detail at several scales: (1, 3, height, width) in [-1, 1]."""
    generator = torch.Generator().manual_seed(1)
    picture = torch.zeros(1, 3, height, width)
    for side in (6, 12, 24):
        coarse = torch.rand(1, 3, side, side, generator=generator)
        picture += torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")
    return picture / 1.5 - 1


def moved(picture, dx, dy):
    shift = torch.tensor([dx, dy], dtype=picture.dtype).view(1, 2, 1, 1)
    return flow.warp(picture, -shift.expand(1, 2, *picture.shape[-2:]))


def test_polynomials_of_a_quadratic_are_its_coefficients():
    y, x = torch.meshgrid(torch.arange(20.0) - 10, torch.arange(24.0) - 12, indexing="ij")
    surface = (0.3 * x**2 + 0.4 * x * y - 0.2 * y**2 + 1.5 * x - 0.7 * y + 5).view(1, 1, 20, 24)
    a, b = flow.polynomials(surface)
    at = (..., 10, 12)  # the origin of x and y, far from the edges
    torch.testing.assert_close(a[at], torch.tensor([[0.3, 0.2, -0.2]]), atol=1e-4, rtol=0)
    torch.testing.assert_close(b[at], torch.tensor([[1.5, -0.7]]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("shift", [(0.0, 0.0), (0.5, 0.25), (3.0, -2.0), (7.0, 5.0)])
def test_a_shift_is_found(shift):
    picture = scene()
    found = flow.dense_motion(picture, moved(picture, *shift))[..., 16:-16, 16:-16]
    wrong = (found - torch.tensor(shift).view(1, 2, 1, 1)).norm(dim=1)
    assert wrong.median() < 0.1
    assert wrong.mean() < 0.3


def test_warping_follows_the_motion():
    picture = scene()
    steps = torch.tensor([2.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, 96, 128)
    back = flow.warp(moved(picture, 2, 1), steps)
    torch.testing.assert_close(back[..., 8:-8, 8:-8], picture[..., 8:-8, 8:-8])


def test_a_still_clip_has_no_warping_error():
    assert flow.warping_error(scene().repeat(3, 1, 1, 1)).max() < 1e-3


def test_flicker_costs_more_than_motion():
    picture = scene()
    pan = torch.cat([moved(picture, 2 * k, 0) for k in range(3)])
    generator = torch.Generator().manual_seed(0)
    flicker = pan + 0.1 * torch.randn(pan.shape, generator=generator)
    assert flow.warping_error(flicker).mean() > 3 * flow.warping_error(pan).mean()


def test_uncovered_pixels_are_not_counted():
    still = torch.zeros(1, 2, 32, 32)
    jump = still.clone()
    jump[..., 16:] = 9
    assert flow.trusted(still, still).mean() == 1
    assert flow.trusted(jump, still)[..., 17:].mean() == 0
