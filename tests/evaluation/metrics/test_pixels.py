import numpy as np
import pytest
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from oasis_cli.evaluation.metrics import pixels


@pytest.fixture
def pair():
    """Two (2, 3, 180, 190) clips in [-1, 1]: one smooth, one with noise on it."""
    generator = torch.Generator().manual_seed(3)
    coarse = torch.rand(2, 3, 12, 13, generator=generator)
    a = torch.nn.functional.interpolate(coarse, size=(180, 190), mode="bicubic").clamp(0, 1)
    b = (a + 0.08 * torch.randn(a.shape, generator=generator)).clamp(0, 1)
    return a * 2 - 1, b * 2 - 1


def arrays(frames):
    return [np.asarray(f) for f in pixels.unit(frames).permute(0, 2, 3, 1)]


def test_psnr_agrees_with_scikit_image(pair):
    a, b = pair
    expected = [
        peak_signal_noise_ratio(x, y, data_range=1)
        for x, y in zip(arrays(a), arrays(b), strict=True)
    ]
    np.testing.assert_allclose(pixels.psnr(a, b), expected, atol=1e-4)


def test_psnr_of_luma_agrees_with_scikit_image(pair):
    a, b = (pixels.luma(x)[:, 0].numpy() for x in pair)
    expected = [peak_signal_noise_ratio(x, y, data_range=1) for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(pixels.psnr_luma(*pair), expected, atol=1e-4)


def test_ssim_agrees_with_scikit_image(pair):
    a, b = (pixels.luma(x)[:, 0].numpy() for x in pair)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        structural_similarity(x, y, data_range=1, **options) for x, y in zip(a, b, strict=True)
    ]
    np.testing.assert_allclose(pixels.ssim(*pair), expected, atol=1e-4)


def test_ms_ssim_with_one_scale_left_is_ssim(pair, monkeypatch):
    monkeypatch.setattr(pixels, "SCALE_WEIGHTS", (1.0,))
    torch.testing.assert_close(pixels.ms_ssim(*pair), pixels.ssim(*pair))


def test_identical_frames_score_best(pair):
    a, _ = pair
    assert pixels.psnr(a, a).tolist() == [pixels.PEAK] * 2
    torch.testing.assert_close(pixels.ssim(a, a), torch.ones(2, dtype=torch.float64))
    torch.testing.assert_close(pixels.ms_ssim(a, a), torch.ones(2, dtype=torch.float64))
    assert pixels.temporal_error(a, a).tolist() == [0]


def test_scores_fall_with_damage(pair):
    a, b = pair
    worse = (b + 0.3).clamp(-1, 1)
    for score in (pixels.psnr, pixels.psnr_luma, pixels.ssim, pixels.ms_ssim):
        assert (score(a, a) > score(a, b)).all(), score.__name__
    assert (pixels.psnr(a, b) > pixels.psnr(a, worse)).all()


def test_small_frames_are_refused():
    tiny = torch.zeros(1, 3, 10, 64)
    with pytest.raises(ValueError, match="11 pixels"):
        pixels.ssim(tiny, tiny)
    with pytest.raises(ValueError, match="161 pixels"):
        pixels.ms_ssim(torch.zeros(1, 3, 160, 300), torch.zeros(1, 3, 160, 300))
    with pytest.raises(ValueError, match="leaves nothing"):
        pixels.crop(tiny, 5)


def test_temporal_error_is_in_8_bit_steps_and_ignores_a_constant():
    a = torch.zeros(3, 3, 16, 16)
    flicker = a.clone()
    flicker[1] += 2 * 10 / 255
    torch.testing.assert_close(
        pixels.temporal_error(flicker, a).float(), torch.tensor([10.0, 10.0])
    )
    assert pixels.temporal_error(a + 0.4, a).abs().max() < 1e-4
    torch.testing.assert_close(pixels.temporal_change(flicker).float(), torch.tensor([10.0, 10.0]))


def test_sharpness_counts_steps_per_pixel():
    ramp = torch.arange(32).float().expand(1, 3, 32, 32) * 2 / 255 - 1
    assert pixels.sharpness(ramp).item() == pytest.approx(219 / 255, abs=1e-5)


def test_the_luma_of_matlab_is_that_of_scikit_image_on_8_bits_rounded(pair):
    eight = (pixels.unit(pair[0]) * 255).round()
    expected = rgb2ycbcr(eight.permute(0, 2, 3, 1).numpy().astype(np.uint8))[..., 0].round()
    found = pixels.matlab_luma(pair[0])[:, 0] * 255
    np.testing.assert_allclose(found, expected, atol=1e-9)
    assert (found == expected.round()).all()


def test_ssim_of_colours_is_the_mean_of_the_three(pair):
    a, b = (pixels.unit(x) for x in pair)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = [
        structural_similarity(x, y, data_range=1, channel_axis=0, **options)
        for x, y in zip(a.numpy(), b.numpy(), strict=True)
    ]
    np.testing.assert_allclose(pixels.ssim(*pair, planes=pixels.unit), expected, atol=1e-4)


def test_a_grid_of_blocks_is_seen_and_edges_of_the_picture_are_not():
    """JPEG-like blocks of 8 pixels, and the same enlarged four times."""
    generator = torch.Generator().manual_seed(2)
    rough = torch.rand(1, 3, 24, 32, generator=generator) - 0.5
    smooth = torch.nn.functional.interpolate(rough, size=(192, 256), mode="bicubic")
    smooth[..., 60:130, 100:101] = 1
    blocks = torch.nn.functional.avg_pool2d(smooth, 8).repeat_interleave(8, -1)
    blocks = blocks.repeat_interleave(8, -2)
    some = 0.8 * smooth + 0.2 * blocks
    large = torch.nn.functional.interpolate(some, scale_factor=4, mode="bicubic")
    plain = torch.nn.functional.interpolate(smooth, scale_factor=4, mode="bicubic")
    assert pixels.blockiness(smooth) < 1.5 < 2 < pixels.blockiness(some)
    assert pixels.blockiness(plain) < 1.5 < pixels.blockiness(large)
