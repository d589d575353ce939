import math

import pytest
import torch
import torch.nn.functional as F

from oasis_cli.errors import OasisError
from oasis_cli.evaluation.align import Shift, find_shift
from oasis_cli.evaluation.measure import Rules, measure
from oasis_cli.pipeline.clips import Clip

FRAMES, HEIGHT, WIDTH = 11, 144, 176
HAND = [4, 5, 3, 6, 8, 7, 5, 2, 0, 1, 4, 5]
"""How a hand moves the camera, in pixels."""
RIM = 16
"""Pixels around the picture, from which a shift brings other things in."""


def texture(seed, height, width):
    """As photographs have it: coarse structure is strong and fine structure is weak."""
    generator, out = torch.Generator().manual_seed(seed), torch.zeros(3, height, width)
    for cell in (2, 4, 8, 16, 32):
        rough = torch.rand(1, 3, height // cell + 2, width // cell + 2, generator=generator) - 0.5
        fine = F.interpolate(rough, scale_factor=cell, mode="bicubic")
        out += 0.08 * cell**0.6 * fine[0, :, :height, :width]
    return out


@pytest.fixture(scope="module")
def world():
    """A texture on which a second one wanders: (11, 3, 176, 208), larger than a frame."""
    height, width = HEIGHT + 2 * RIM, WIDTH + 2 * RIM
    still, moving = texture(3, height + 9, width + 9), texture(4, height, width)
    frames = []
    for t in range(FRAMES):
        x, y = 10 + 2 * t + t % 3, 30 - t
        a, b = HAND[t], HAND[-t]
        frame = still[:, a : a + height, b : b + width].clone()
        frame[:, 20:120, 30:150] = moving[:, y : y + 100, x : x + 120]
        frames.append(frame)
    return torch.stack(frames)


def shifted(frames, x, y):
    """Frames whose content lies x pixels to the right and y down, exactly but for the rim."""
    f_y, f_x = (torch.fft.fftfreq(n, dtype=torch.float64) for n in frames.shape[-2:])
    turn = torch.exp(-2j * math.pi * (f_y[:, None] * y + f_x * x))
    return torch.fft.ifft2(torch.fft.fft2(frames.double()) * turn).real.float()


def seen(frames, start=0, end=None):
    return frames[start:end, :, RIM:-RIM, RIM:-RIM].clamp(-1, 1)


def restored(frames, noise=0.02):
    """As an upscaler gives them: blurred, a quarter as large, noisy, a little dark, enlarged."""
    low = F.avg_pool2d(F.avg_pool2d(frames, 5, 1, 2), 4)
    low = low + noise * torch.randn(low.shape, generator=torch.Generator().manual_seed(5))
    return 0.9 * F.interpolate(low, scale_factor=4, mode="bicubic", align_corners=False) - 0.05


def clips(output, reference, late):
    """The output, `late` frames behind (or ahead of) the reference, both of one length."""
    ends = FRAMES - abs(late)
    first = seen(output, max(0, -late), max(0, -late) + ends)
    second = seen(reference, max(0, late), max(0, late) + ends)
    return Clip.of("out", first), Clip.of("ref", second)


PLANTED = [
    (0.25, 0, 0), (0, -0.25, 1), (-0.5, 0.5, -1), (1.3, -0.7, 0), (0, 2.6, 2), (-3.4, 0, -3),
    (4.75, 5.5, 3), (6, -6, -2), (0, 0, 3), (0, 0, -1),
]  # fmt: skip


@pytest.mark.parametrize(("x", "y", "late"), PLANTED)
def test_a_planted_shift_of_a_restored_clip_is_found_to_a_twentieth_of_a_pixel_and_to_the_frame(
    world, x, y, late
):
    found = find_shift(*clips(shifted(restored(world), x, y), world, late))
    assert found.frames == late
    assert (found.x, found.y) == pytest.approx((x, y), abs=0.05)


@pytest.mark.parametrize(
    ("speed", "noise", "late"), [(0.5, 0.05, 2), (0.8, 0.03, -1), (0.8, 0.03, -3)]
)
def test_a_steady_pan_past_something_still_is_told_from_a_shift(world, speed, noise, late):
    """The camera moves by less than a pixel a frame; a logo stays where it is."""
    logo = world[0, :, 60:110, 60:130].clone()
    pan = torch.stack([shifted(world[:1], speed * t, 0)[0] for t in range(FRAMES)])
    pan[:, :, 60:110, 60:130] = logo
    found = find_shift(*clips(restored(pan, noise), pan, late))
    assert (found.x, found.y, found.frames) == (pytest.approx(0, abs=0.15), 0, late)


@pytest.mark.parametrize(("x", "y", "late"), PLANTED[::3])
def test_a_planted_shift_of_a_clean_clip_is_found_to_a_fiftieth(world, x, y, late):
    found = find_shift(*clips(shifted(world, x, y), world, late))
    assert found.frames == late
    assert (found.x, found.y) == pytest.approx((x, y), abs=0.02)


@pytest.mark.parametrize(("x", "y", "late"), [(1.3, -0.7, 0), (-3, 2, 2), (0, 0.5, -3)])
def test_what_is_aligned_scores_as_if_it_had_never_been_shifted(world, x, y, late):
    """To half a decibel of what a damaged clip scores; it loses decibels when it is not aligned."""
    only = Rules(border=8, only=("psnr_y", "ssim"))
    aligned = Rules(border=8, only=("psnr_y", "ssim"), align=True)
    honest = measure(*clips(restored(world), world, 0), only).means()
    pair = clips(shifted(restored(world), x, y), world, late)
    raw, found = measure(*pair, only), measure(*pair, aligned)
    assert found.means()["psnr_y"] == pytest.approx(honest["psnr_y"], abs=0.5)
    assert found.means()["ssim"] == pytest.approx(honest["ssim"], abs=0.02)
    assert raw.means()["psnr_y"] < honest["psnr_y"] - 0.4
    assert "--align" in raw.notes[-1] and "taken out" in found.notes[-1]
    assert (raw.aligned, found.aligned) == (False, True)
    assert raw.to_dict()["shift"] == found.to_dict()["shift"] != {"x": 0, "y": 0, "frames": 0}


def test_a_shift_by_whole_pixels_is_undone_without_interpolation(world):
    pair = clips(shifted(world, 3, -2), world, 0)
    assert measure(*pair, Rules(align=True, only=("psnr",))).means()["psnr"] > 80


def test_a_clip_in_its_place_is_compared_as_before_and_nothing_is_said(world):
    pair = clips(restored(world), world, 0)
    rules = {"only": ("psnr", "temporal")}
    plain, aligned = measure(*pair, Rules(**rules)), measure(*pair, Rules(**rules, align=True))
    assert plain.columns["psnr"] == aligned.columns["psnr"]
    assert plain.notes == aligned.notes == () and not plain.shift and not aligned.aligned


def test_missing_frames_are_allowed_when_frames_are_aligned(world):
    out, ref = Clip.of("out", seen(world, 2)), Clip.of("ref", seen(world))
    with pytest.raises(OasisError, match="out has 9 frames, ref has more"):
        measure(out, ref, Rules(only=("psnr",)))
    scores = measure(out, ref, Rules(only=("psnr",), align=True))
    assert scores.frames == 9 and scores.means()["psnr"] == 100
    assert scores.notes == ("taken out: 2 frames early; 2 frames have no partner",)
    short = Clip.of("out", seen(world, 0, 7))
    with pytest.raises(OasisError, match="differ in length by more than 3"):
        measure(short, ref, Rules(only=("psnr",), align=True))


def test_a_steady_picture_is_not_thought_late(world):
    still = world[:1].expand(FRAMES, -1, -1, -1)
    assert find_shift(*clips(restored(still), still, 0)).frames == 0


@pytest.mark.parametrize("frames", [1, 2, 3, 5])
def test_short_clips_are_looked_at_too(world, frames):
    out, ref = (Clip.of("c", seen(x, 0, frames)) for x in (shifted(world, 1.5, 0), world))
    found = find_shift(out, ref)
    assert (found.x, found.y, found.frames) == (pytest.approx(1.5, abs=0.05), 0, 0)


def test_what_shows_nothing_or_something_else_has_no_shift(world):
    flat = Clip.of("flat", torch.zeros(8, 3, HEIGHT, WIDTH))
    noise = torch.rand(8, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(9)) - 0.5
    ref = Clip.of("ref", seen(world, 0, 8))
    assert find_shift(flat, flat) is None
    assert find_shift(Clip.of("noise", noise), ref) is None
    assert (
        find_shift(Clip.of("s", world[..., :24, :24]), Clip.of("s", world[..., :24, :24])) is None
    )
    scores = measure(Clip.of("noise", noise), ref, Rules(only=("psnr",), align=True))
    assert "cannot be told" in scores.notes[0]


def test_a_shift_reads_as_a_sentence():
    assert str(Shift(1.25, -2, 1)) == "1.25 pixels right, 2.00 pixels up, 1 frame late"
    assert str(Shift(-0.3, 0, -2)) == "0.30 pixels left, 2 frames early"
