import json
import math
import sys
from types import SimpleNamespace

import pytest
import torch

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.measure import ABOUT, Rules, check_plot, measure, plot
from oasis_cli.pipeline.clips import Clip


@pytest.fixture
def frames():
    """Six frames of a moving pattern: (6, 3, 24, 32) in [-1, 1]."""
    wide = torch.rand(3, 24, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return torch.stack([wide[..., t : t + 32] for t in range(6)])


def noisy(frames, amount=0.1):
    noise = torch.randn(frames.shape, generator=torch.Generator().manual_seed(1))
    return (frames + amount * noise).clamp(-1, 1)


def test_a_perfect_copy_has_perfect_scores(frames):
    scores = measure(Clip.of("out", frames), Clip.of("ref", frames))
    means = scores.means()
    assert scores.frames == 6
    assert means["psnr"] == means["psnr_y"] == 100
    assert means["ssim"] == pytest.approx(1) and means["temporal"] == 0
    assert means["warp"] == means["warp_ref"]
    assert set(means) <= set(ABOUT)


def test_every_frame_has_its_own_row(frames):
    bad = frames.clone()
    bad[4] = 0
    scores = measure(Clip.of("out", bad), Clip.of("ref", frames))
    assert [v == 100 for v in scores.columns["psnr"]] == [n != 4 for n in range(6)]
    assert math.isnan(scores.columns["temporal"][0])
    assert [v == 0 for v in scores.columns["temporal"][1:]] == [True, True, True, False, False]


def test_small_pictures_have_no_ms_ssim_and_say_so(frames):
    scores = measure(Clip.of("out", frames), Clip.of("ref", frames))
    assert "ms_ssim" not in scores.columns
    assert "161 pixels" in scores.notes[0]


def test_sizes_that_differ_are_refused(frames):
    with pytest.raises(UsageError, match="out is 32x24, ref is 16x24"):
        measure(Clip.of("out", frames), Clip.of("ref", frames[..., :16]))


def test_frame_counts_that_differ_are_refused(frames):
    with pytest.raises(OasisError, match="out has 5 frames, ref has more"):
        measure(Clip.of("out", frames[:5]), Clip.of("ref", frames))
    with pytest.raises(OasisError, match="ref has 2 frames, out has more"):
        measure(Clip.of("out", frames), Clip.of("ref", frames[:2]))


def test_no_frames_is_an_error(frames):
    with pytest.raises(OasisError, match="no frames"):
        measure(Clip.of("out", frames[:0]), Clip.of("ref", frames[:0]))


def test_a_border_is_left_out(frames):
    bad = frames.clone()
    bad[..., :2] = 0
    scores = measure(Clip.of("out", bad), Clip.of("ref", frames), Rules(border=2))
    assert scores.means()["psnr"] == 100
    with pytest.raises(UsageError, match="border of 7"):
        measure(Clip.of("out", bad), Clip.of("ref", frames), Rules(border=7))


def test_csv_and_json_hold_every_frame_and_the_mean(frames):
    scores = measure(Clip.of("out", noisy(frames)), Clip.of("ref", frames))
    lines = scores.to_csv().splitlines()
    assert lines[0].startswith("frame,psnr,psnr_y,ssim")
    assert len(lines) == 1 + 6 + 1 and lines[-1].startswith("mean,")
    data = json.loads(json.dumps(scores.to_dict(), allow_nan=False))
    assert data["frames"] == 6
    assert data["per_frame"]["warp"][0] is None
    assert data["mean"]["psnr"] == pytest.approx(scores.means()["psnr"])


def test_a_plot_is_drawn(frames, tmp_path):
    scores = measure(Clip.of("out", noisy(frames)), Clip.of("ref", frames))
    plot(scores, tmp_path / "p.png")
    assert (tmp_path / "p.png").read_bytes().startswith(b"\x89PNG")


def test_a_plot_that_cannot_be_drawn_is_refused_first(tmp_path, monkeypatch):
    check_plot(tmp_path / "p.png")
    with pytest.raises(UsageError, match="does not exist"):
        check_plot(tmp_path / "no" / "p.png")
    with pytest.raises(UsageError, match="no picture"):
        check_plot(tmp_path / "p.txt")
    monkeypatch.setattr("oasis_cli.evaluation.measure.find_spec", lambda name: None)
    with pytest.raises(OasisError, match="needs matplotlib"):
        check_plot(tmp_path / "p.png")


def test_a_damaged_feature_file_is_one_sentence(frames, tmp_path):
    (tmp_path / "features").write_bytes(b"no")
    clip = Clip.of("out", frames)
    with pytest.raises(OasisError, match="cannot be read"):
        measure(clip, clip, perceptual=tmp_path / "features")


def test_extra_scores_come_through_pyiqa(frames, monkeypatch):
    def create_metric(name, device):
        return _Metric("FR" if name == "dists" else "NR")

    monkeypatch.setitem(sys.modules, "pyiqa", SimpleNamespace(create_metric=create_metric))
    clip = Clip.of("out", frames)
    means = measure(clip, clip, extra=["dists", "niqe"]).means()
    assert (means["dists"], means["niqe"]) == (2, 1)


class _Metric:
    """As pyiqa's: the number of pictures it was given, if they are in [0, 1]."""

    def __init__(self, mode):
        self.metric_mode = mode

    def __call__(self, *pictures):
        assert all(p.min() >= 0 and p.max() <= 1 and len(p) == 1 for p in pictures)
        return torch.tensor([[float(len(pictures))]])


def test_extra_scores_that_cannot_be_had_are_errors(frames, monkeypatch):
    clip = Clip.of("out", frames)
    with pytest.raises(UsageError, match="no score called 'vmaf'"):
        measure(clip, clip, extra=["vmaf"])
    monkeypatch.setitem(sys.modules, "pyiqa", None)
    with pytest.raises(OasisError, match="needs pyiqa") as raised:
        measure(clip, clip, extra=["lpips"])
    assert "oasis-cli[metrics]" in raised.value.hint


def test_rules_choose_scores_and_what_they_look_at(frames):
    out, ref = Clip.of("out", noisy(frames)), Clip.of("ref", frames)
    plain = measure(out, ref, Rules(only=("psnr_y", "ssim"))).means()
    assert list(plain) == ["psnr_y", "ssim"]
    colours = measure(out, ref, Rules(only=("ssim",), rgb=True)).means()
    assert list(colours) == ["ssim_rgb"] and colours["ssim_rgb"] != plain["ssim"]
    matlab = measure(out, ref, Rules(only=("psnr_y", "ssim"), matlab=True)).means()
    assert 0 < abs(matlab["psnr_y"] - plain["psnr_y"]) < 0.1 and matlab["ssim"] != plain["ssim"]
    with pytest.raises(UsageError, match="lpips_squeeze cannot be measured here"):
        measure(out, ref, Rules(only=("lpips_squeeze",)))


def test_looks_of_the_output_are_measured_when_they_are_named(frames):
    out, ref = Clip.of("out", noisy(frames)), Clip.of("ref", frames)
    means = measure(out, ref, Rules(only=("psnr",)), extra=["sharpness", "flicker"]).means()
    assert list(means) == ["psnr", "sharpness", "flicker"]
    assert means["sharpness"] > 1 and means["flicker"] > 0
    assert not {"sharpness", "flicker"} & set(measure(out, ref).means())
