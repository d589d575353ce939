import pytest
import torch
from toys import bicubic

from oasis_cli.errors import UsageError
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.fidelity import (
    FidelityControl,
    SeamMeter,
    adain_color,
    bands,
    blend_by_frequency,
    wavelet_color,
)
from oasis_cli.pipeline.windows import Blend, WindowOptions, cut, window_spans


def brighter(low, size, tile=None):
    """A model that adds fine detail (a checkerboard) and a colour cast."""
    checks = torch.ones(size)
    checks[::2, ::2] = checks[1::2, 1::2] = -1
    cast = torch.tensor([0.2, 0.0, -0.1]).view(3, 1, 1)
    return bicubic(low, size) + 0.1 * checks + cast


@pytest.fixture
def low():
    return torch.rand(1, 3, 3, 16, 20, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6


def test_bands_add_up_to_the_picture(low):
    picture = bicubic_upsample(low[0], (64, 80))
    torch.testing.assert_close(sum(bands(picture)), picture)


def test_strength_one_is_the_model_and_zero_is_bicubic(low):
    size = (64, 80)
    assert torch.equal(FidelityControl(brighter)(low, size), brighter(low, size))
    torch.testing.assert_close(FidelityControl(brighter, strength=0)(low, size), bicubic(low, size))


def test_half_strength_keeps_detail_and_gives_up_the_cast(low):
    size = (64, 80)
    added = FidelityControl(brighter, strength=0.5)(low, size) - bicubic(low, size)
    cast = added.mean((1, 3, 4))[0]
    detail = (added - added.mean((3, 4), keepdim=True)).abs().mean()
    torch.testing.assert_close(cast, torch.tensor([0.05, 0.0, -0.025]), atol=1e-3, rtol=0)
    assert detail.item() == pytest.approx(0.1 * 0.5**0.5, rel=0.05)


def test_strength_grows_steadily(low):
    base, high = bicubic(low, (64, 80))[0], brighter(low, (64, 80))[0]
    away = [(blend_by_frequency(high, base, s / 4) - base).abs().mean() for s in range(5)]
    assert away == sorted(away)


@pytest.mark.parametrize("fix", [wavelet_color, adain_color])
def test_a_colour_cast_is_taken_out_and_detail_stays(low, fix):
    base, high = bicubic(low, (64, 80))[0], brighter(low, (64, 80))[0]
    fixed = fix(high, base)
    torch.testing.assert_close(fixed.mean((2, 3)), base.mean((2, 3)), atol=2e-3, rtol=0)
    fine = bands(fixed)[0].abs().mean() / bands(high)[0].abs().mean()
    assert 0.8 < fine < 1.2


@pytest.mark.parametrize("options", [{"strength": 1.5}, {"strength": -0.1}, {"color_fix": "lab"}])
def test_impossible_options_are_refused(options):
    with pytest.raises(UsageError) as raised:
        FidelityControl(bicubic, **options)
    assert raised.value.hint


def pan(frames=40):
    """A picture that moves two pixels a frame: (frames, 3, 32, 48)."""
    generator = torch.Generator().manual_seed(5)
    wide = bicubic_upsample(torch.rand(1, 3, 8, 48, generator=generator) * 2 - 1, (32, 192))[0]
    return torch.stack([wide[..., 2 * t : 2 * t + 48] for t in range(frames)])


def run(frames, options, bias):
    """Windows through a model that gives every second window a bias, as a bad model would."""
    meter, blend = SeamMeter(), Blend(options.overlap)
    for number, window in enumerate(cut(list(frames), options)):
        high = [frame + bias * (number % 2) for frame in window.frames]
        for _, frame in blend.add(window, high):
            meter.add(frame)
    for _, frame in blend.flush():
        meter.add(frame)
    return meter.seams([window_spans(0, len(frames), options)], options.overlap)


def test_no_seam_is_seen_on_a_panning_clip():
    seams = run(pan(), WindowOptions(frames=17, overlap=4), bias=0.0)
    assert [s.frame for s in seams] == [17, 30]
    assert all(0.85 < s.ratio < 1.15 for s in seams)


def test_a_hard_border_between_different_windows_is_seen():
    seams = run(pan(), WindowOptions(frames=17, overlap=0), bias=0.8)
    assert all(s.ratio > 1.5 for s in seams)
    faded = run(pan(), WindowOptions(frames=17, overlap=4), bias=0.8)
    assert max(s.ratio for s in faded) < min(s.ratio for s in seams)


def test_a_still_clip_has_no_seams():
    seams = run(torch.zeros(30, 3, 32, 48), WindowOptions(), bias=0.0)
    assert seams and all(s.ratio == 1 for s in seams)
