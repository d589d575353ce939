"""Raw input: what it is told, and what no raw picture or stream can be."""

from fractions import Fraction

import pytest
from typer.testing import CliRunner

from oasis_cli.cli.main import app
from oasis_cli.errors import UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.raw import RawInput


@pytest.mark.parametrize(("told", "sentence"), [
    ({"rate": "abc"}, "--input-rate abc is no frame rate"),
    ({"rate": "0"}, "--input-rate 0 is"),
    ({"rate": "-25"}, "--input-rate -25 is"),
    ({"rate": "25/0"}, "--input-rate 25/0 is"),
    ({"rate": "inf"}, "--input-rate inf is"),
    ({"rate": "1e9"}, "--input-rate 1e9 is"),
    ({"rate": ""}, "--input-rate  is"),
    ({"size": "64"}, "--input-size 64 is no size"),
    ({"size": "0x48"}, "--input-size 0x48 is"),
    ({"size": "-64x48"}, "--input-size -64x48 is"),
    ({"size": "99999x2"}, "--input-size 99999x2 is"),
    ({"size": "30000x30000"}, "--input-size 30000x30000 is"),
    ({"size": "64x48x2"}, "--input-size 64x48x2 is"),
    ({"pix_fmt": "yuv421p"}, "--input-pix-fmt yuv421p is no pixel format"),
    ({"pix_fmt": ""}, "--input-pix-fmt  is"),
    ({"pix_fmt": "cuda"}, "--input-pix-fmt cuda is"),
])  # fmt: skip
def test_what_no_raw_video_can_be_is_wrong_usage(told, sentence):
    with pytest.raises(UsageError, match=sentence) as caught:
        RawInput(**told)
    assert caught.value.hint


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "y4m", "gif"])
@pytest.mark.parametrize("told", [{"rate": "10"}, {"size": "64x48"}, {"pix_fmt": "gray"}], ids=str)
def test_what_a_file_with_a_header_would_not_use_is_wrong_usage(kit, tmp_path, suffix, told):
    kit.enlarge(kit.video(tmp_path / "a.mp4", frames=2), tmp_path / f"in.{suffix}", scale=1)
    with pytest.raises(UsageError, match=f"in.{suffix} has a header, so --input-"):
        probe(tmp_path / f"in.{suffix}", RawInput(**told))


def test_pictures_take_a_rate_and_no_size(kit, tmp_path):
    kit.enlarge(kit.video(tmp_path / "a.mp4", frames=2), f"{tmp_path}/f_%d.png", scale=1)
    for source in (tmp_path / "f_%d.png", tmp_path / "f_1.png"):
        assert probe(source, RawInput(rate="10")).video.rate == 10
        with pytest.raises(UsageError, match="has a header, so --input-size"):
            probe(source, RawInput(size="64x48"))


@pytest.mark.parametrize("rate", ["10", "12.5", "30000/1001"])
@pytest.mark.parametrize("format", ["h264", None])
def test_a_raw_stream_is_shown_at_the_rate_that_it_is_told(kit, tmp_path, rate, format):
    source = kit.video(tmp_path / "in.h264", format="h264", frames=4)
    kit.enlarge(source, tmp_path / "o.mp4", raw=RawInput(format=format, rate=rate))
    shown = kit.shown(tmp_path / "o.mp4")
    assert [round(time * 1000) for time in shown] == [round(k * 1000 / Fraction(rate))
                                                      for k in range(4)]  # fmt: skip


def test_a_raw_stream_with_times_of_its_own_takes_no_other_rate(kit, tmp_path):
    source = kit.video(tmp_path / "in.m2v", codec="mpeg2video", format="mpeg2video", frames=4)
    assert probe(source, RawInput(rate="25")).video.rate == 25
    with pytest.raises(UsageError, match="in.m2v says itself that it has 25 frames/s"):
        probe(source, RawInput(rate="10"))


@pytest.mark.parametrize("wrong", [
    "--crf 999", "--crf nan", "--preset warp", "--codec divx", "--input-rate abc",
    "--input-size 64", "--input-pix-fmt none", "--start 9999999999999999999999",
    "--end 99999999999:00:00",
])  # fmt: skip
def test_the_commands_end_with_exit_code_2_before_any_work(tiny_clip, tmp_path, wrong):
    for command in ("upscale", "batch"):
        target = tmp_path / ("out.mp4" if command == "upscale" else "out")
        source = tiny_clip if command == "upscale" else tiny_clip.parent
        done = CliRunner().invoke(app, [command, str(source), str(target), *wrong.split()])
        assert done.exit_code == 2, done.stderr
        assert "error:" in done.stderr
        assert not target.exists()
    dry = ["upscale", str(tiny_clip), "out.mp4", "--dry-run"]
    assert CliRunner().invoke(app, [*dry, *wrong.split()]).exit_code == 2
