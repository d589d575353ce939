"""Every degradation against a plain formula or what a viewer would notice."""

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from oasis_cli.train.degrade import (
    KERNEL,
    add_noise,
    blur,
    blur_kernels,
    harder,
    interlace,
    jpeg,
    old_film,
    resize_by,
    resize_matrix,
    sharpening,
)
from oasis_cli.train.draws import (
    BlurDraw,
    Draws,
    FilmDraw,
    NoiseDraw,
)

CPU = torch.device("cpu")


def kernel(shape=0.0, size=21.0, sx=2.0, sy=2.0, angle=0.0, beta=1.0, cutoff=1.5):
    return blur_kernels(
        BlurDraw(*(torch.tensor([v]) for v in (shape, size, sx, sy, angle, beta, cutoff)))
    )[0]


def test_kernels_sum_to_one_and_stay_in_their_size():
    draws = Draws(40, 2, [1], 1.0, CPU)
    kernels = blur_kernels(draws.blur(3.0))
    assert kernels.shape == (80, KERNEL, KERNEL)
    torch.testing.assert_close(kernels.sum((1, 2)), torch.ones(80))
    small = kernel(size=7.0)
    assert small[:7].abs().max() == 0 and small[7, 10] > 0


def test_a_gaussian_kernel_has_its_variance_and_direction():
    k = kernel(sx=3.0, sy=1.0, angle=math.pi / 2)
    n = torch.arange(21.0) - 10
    along_y = (k.sum(1) * n**2).sum()
    along_x = (k.sum(0) * n**2).sum()
    assert along_y == pytest.approx(9.0, rel=0.03)
    assert along_x == pytest.approx(1.0, rel=0.03)


def test_the_low_pass_removes_what_lies_above_its_cutoff():
    x = torch.arange(64.0)
    slow, fast = torch.cos(0.5 * x), torch.cos(2.5 * x)
    frames = torch.stack([slow, fast])[:, None, None].expand(2, 3, 64, 64)
    out = blur(frames, kernel(shape=3.0, cutoff=1.5).expand(2, -1, -1))[:, :, 20:44, 20:44]
    assert out[0].std() > 0.6 and out[1].std() < 0.1


def test_blur_equals_convolution():
    x = torch.rand(3, 3, 30, 30)
    kernels = blur_kernels(Draws(3, 1, [2], 0.0, CPU).blur(3.0))
    padded = F.pad(x, (10, 10, 10, 10), mode="replicate").transpose(0, 1)
    expected = F.conv2d(padded, kernels.flip(-1, -2)[:, None], groups=3).transpose(0, 1)
    torch.testing.assert_close(blur(x, kernels), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("how", "mode"), [(0, "bilinear"), (1, "area"), (2, "bicubic")])
@pytest.mark.parametrize("to", [12, 36])
def test_resize_equals_torch_inside_the_picture(how, mode, to):
    if mode == "area" and to > 24:
        pytest.skip("torch calls area enlargement by another name")
    x = torch.rand(1, 3, 24, 24)
    sizes = torch.tensor([24.0]), torch.tensor([float(to)]), torch.tensor([how])
    matrix = resize_matrix(*sizes, 24, 40)
    out = resize_by(x, matrix)[..., :to, :to]
    align = {} if mode == "area" else {"align_corners": False}
    expected = F.interpolate(x, size=(to, to), mode=mode, **align)
    inner = slice(4, -4)
    torch.testing.assert_close(
        out[..., inner, inner], expected[..., inner, inner], atol=1e-5, rtol=0
    )


def test_resize_repeats_the_last_row_and_ignores_what_is_outside():
    x = torch.rand(1, 3, 24, 24)
    spoiled = x.clone()
    spoiled[..., 16:] = 99
    spoiled[..., 16:, :] = 99
    matrix = resize_matrix(torch.tensor([16.0]), torch.tensor([8.0]), torch.tensor([2]), 24, 20)
    out = resize_by(spoiled, matrix)
    assert torch.equal(out, resize_by(x, matrix))
    torch.testing.assert_close(out[..., 19, :], out[..., 7, :])


@pytest.mark.parametrize("quality", [30, 60, 90])
def test_jpeg_looks_like_a_real_encoder(quality):
    y, x = np.mgrid[:64, :64]
    picture = np.stack([128 + 100 * np.sin(x / 4), 2.0 * y + 60, 255 - 3.0 * x], -1)
    picture = picture.clip(0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality, subsampling=2)
    real = np.asarray(Image.open(file)).astype(float)

    frames = torch.from_numpy(picture).permute(2, 0, 1)[None].float()
    ours = jpeg(frames, torch.tensor([float(quality)]))[0].permute(1, 2, 0).numpy()

    error = np.abs(real - picture).mean()
    assert np.abs(ours - picture).mean() == pytest.approx(error, rel=0.35)
    assert np.abs(ours - real).mean() < 0.6 * error + 1.5


def test_noise_has_its_level_and_grey_noise_is_grey():
    x = torch.full((2, 3, 128, 128), 64.0)
    yes, no = torch.tensor([True, True]), torch.tensor([False, False])
    level, counts = torch.tensor([10.0, 2.0]), torch.tensor([256.0, 256.0])
    generator = torch.Generator().manual_seed(0)
    gaussian = add_noise(x, NoiseDraw(no, no, level, counts), generator) - x
    assert gaussian[0].std() == pytest.approx(10, rel=0.05)
    assert gaussian[1].std() == pytest.approx(2, rel=0.05)
    poisson = add_noise(x, NoiseDraw(yes, no, level, counts), generator) - x
    # Poisson of 64 * 256 / 255 counts, times 255 / 256, times its level
    assert poisson[1].std() == pytest.approx(2 * math.sqrt(255 * 64 / 256), rel=0.05)
    grey = add_noise(x, NoiseDraw(no, yes, level, counts), generator) - x
    assert torch.equal(grey[:, 0], grey[:, 2]) and not torch.equal(gaussian[:, 0], gaussian[:, 2])


def test_interlacing_weaves_the_next_frame_into_odd_rows_of_chosen_clips():
    x = torch.arange(6.0)[:, None, None, None].expand(6, 3, 4, 4)
    out = interlace(x, torch.tensor([True, False]), 3)
    assert out[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert out[:, 0, 1, 0].tolist() == [1, 2, 2, 3, 4, 5]


def test_sharpening_leaves_halos_along_edges_and_flat_places_alone():
    x = torch.full((2, 3, 40, 40), 50.0)
    x[..., 20:] = 150
    nothing = kernel(sx=0.3, sy=0.3).expand(2, -1, -1)
    strength = torch.tensor([0.0, 1.5])
    out = blur(x, sharpening(nothing, strength, torch.full((2,), 1.5)))
    torch.testing.assert_close(out[0], blur(x, nothing)[0], atol=1e-3, rtol=0)
    assert out[1].max() > 175 and out[1].min() < 25
    assert out[1, 0, 20, 2] == pytest.approx(50, abs=0.1)


def test_harder_edges_are_steeper_and_grain_stays_as_it_is():
    ramp = torch.linspace(-0.5, 0.5, 5)
    row = torch.cat([torch.full((20,), -0.5), ramp, torch.full((20,), 0.5)])
    edge = row.expand(1, 2, 3, 48, -1)
    generator = torch.Generator().manual_seed(1)
    grain = 0.06 * torch.rand(1, 2, 3, 48, 48, generator=generator)
    hard = harder(edge, 0.5)
    assert hard.shape == edge.shape
    assert hard.diff(dim=-1).max() > 1.1 * edge.diff(dim=-1).max()
    assert hard.abs().max() <= 1 and hard[..., 22].allclose(torch.zeros(()), atol=1e-4)
    torch.testing.assert_close(hard[..., :8], edge[..., :8])
    torch.testing.assert_close(harder(grain, 0.5), grain)
    assert torch.equal(harder(edge, 0.0), edge)


def test_old_film_touches_only_its_clips():
    x = torch.full((2, 3, 32, 32), 100.0)
    draw = FilmDraw(
        on=torch.tensor([True, False]),
        gain=torch.full((2, 3), 0.9),
        scratch=torch.tensor([[5.0, 20.0], [5.0, 20.0]]),
        brightness=torch.tensor([100.0, 100.0]),
        grain=torch.zeros(2),
    )
    out = old_film(x, draw, torch.Generator().manual_seed(0))
    assert torch.equal(out[1], x[1])
    assert out[0, 0, 3, 5] == pytest.approx(190, abs=1) and out[0, 0, 3, 12] == pytest.approx(90)
