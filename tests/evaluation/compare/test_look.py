import pytest
import torch

from oasis_cli.errors import UsageError
from oasis_cli.evaluation.compare.look import check_extra, look
from oasis_cli.pipeline.clips import Clip


def test_scenes_and_frames_are_found(clips):
    found = look(clips)
    assert found.total == 8
    assert found.scenes == [0, 5]


def test_the_place_that_differs_is_found(clips):
    worst = look(clips[1:]).spots[0]
    x, y, width, height = worst.box
    assert worst.frame == 3
    assert x <= 46 / 64 <= x + width and y <= 26 / 48 <= y + height


def test_places_are_told_once(clips):
    frames = [s.frame for s in look(clips[1:]).spots if s.difference > 1]
    assert frames == [3]


def test_curves_tell_sharp_from_soft_and_skip_cuts(clips):
    curves = look(clips).curves
    assert set(curves) == {"sharpness", "change", "blockiness"}
    soft, sharp = (sum(curves["sharpness"][n]) for n in (0, 1))
    assert sharp > soft
    assert [n for n, v in enumerate(curves["change"][1]) if v is None] == [0, 5]


def test_a_reference_adds_scores_for_the_others(clips):
    curves = look(clips, reference=1, lpips=lambda a, b: (a - b).abs().mean((1, 2, 3))).curves
    assert set(curves) == {"sharpness", "change", "blockiness", "PSNR", "SSIM", "LPIPS"}
    assert set(curves["PSNR"]) == {0, 2}
    assert [v == 100 for v in curves["PSNR"][2]] == [n != 3 for n in range(8)]


def test_other_shapes_are_refused(clips):
    other = Clip.of("tall.mp4", torch.zeros(8, 3, 64, 48))
    with pytest.raises(UsageError, match="tall.mp4 is 48x64, soft.mp4 is 32x24"):
        look([clips[0], other])


def test_flicker_is_told_against_the_input_that_was_enlarged(clips):
    """A clip that is steady but for noise of its own, beside its input at half size."""
    generator = torch.Generator().manual_seed(1)
    busy = clips[1].frames
    noisy = torch.stack(list(busy()))
    noisy = (noisy + 0.1 * torch.randn(noisy.shape, generator=generator)).clamp(-1, 1)
    curves = look([clips[0], clips[1], Clip.of("n", noisy)], extra=["flicker", "hatching"]).curves
    assert set(curves["flicker"]) == set(curves["hatching"]) == {1, 2}
    steady, restless = ([v for v in curves["flicker"][n] if v is not None] for n in (1, 2))
    assert len(steady) == 6 and sum(restless) > 2 * sum(steady)
    assert curves["hatching"][1] == [None] * 8  # too small for smooth places


def test_curves_that_cannot_be_drawn_are_refused(clips):
    with pytest.raises(UsageError, match="no curve called 'vmaf'"):
        check_extra(clips, False, ["vmaf"])
    with pytest.raises(UsageError, match="need a reference, or the video that was enlarged"):
        check_extra(clips[1:], False, ["flicker"])
    check_extra(clips[1:], True, ["flicker"])
    check_extra(clips, False, ["hatching"])
