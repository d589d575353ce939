"""Qualities and speeds that an encoder has, and those that it has not."""

import pytest

from oasis_cli.errors import UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.encoders import KINDS, opens
from oasis_cli.media.output.plan import EncodeOptions, plan_output


@pytest.mark.parametrize(("asked", "sentence"), [
    ({"crf": 999}, "--crf 999 is not possible"),
    ({"crf": -1}, "--crf -1 is not possible"),
    ({"crf": float("nan")}, "--crf nan is not possible"),
    ({"crf": 55}, "libx264 takes 0, the best, to 51"),
    ({"crf": 55, "codec": "h265"}, "libx265 takes 0, the best, to 51"),
    ({"crf": 64, "codec": "av1"}, "libsvtav1 takes 0, the best, to 63"),
    ({"crf": 20, "codec": "ffv1"}, "ffv1 has no --crf"),
    ({"preset": "warp"}, "no encoder has --preset warp"),
    ({"preset": "8"}, "libx264 has no --preset 8"),
    ({"preset": "slow", "codec": "av1"}, "libsvtav1 has no --preset slow"),
    ({"preset": "", "codec": "libx264"}, "libx264 has no --preset"),
    ({"preset": "warp", "codec": "h264_nvenc"}, "h264_nvenc has no --preset warp"),
    ({"preset": "slow", "codec": "ffv1"}, "ffv1 has no --preset"),
])  # fmt: skip
def test_a_quality_or_speed_that_the_encoder_has_not_is_wrong_usage(
    kit, tiny_clip, tmp_path, asked, sentence
):
    with pytest.raises(UsageError, match=sentence) as caught:
        plan_output(probe(tiny_clip), tmp_path / "out.mkv", (64, 48), EncodeOptions(**asked))
    assert caught.value.hint


@pytest.mark.parametrize(("codec", "crf", "used"), [
    ("av1", 20.5, "20"), ("vp9", 20.51, "21"), ("h264", 20.5, "20.5"), ("av1", 20.0, "20"),
])  # fmt: skip
def test_a_quality_between_two_whole_numbers_is_rounded_and_said(
    kit, tiny_clip, tmp_path, codec, crf, used
):
    options = EncodeOptions(codec=codec, crf=crf)
    plan = plan_output(probe(tiny_clip), tmp_path / "out.mkv", (64, 48), options)

    assert plan.options["crf"] == used
    assert any("takes whole numbers" in n for n in plan.notes) == (float(used) != crf)


@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_every_speed_and_the_ends_of_the_quality_open_the_encoder(codec):
    kind = KINDS[codec]
    for crf, preset in [(0, kind.preset), (kind.worst, kind.presets[0]), (20, kind.presets[-1])]:
        assert opens(codec, options={"crf": str(crf), "preset": preset}) is None
