import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from oasis_cli.errors import MediaError, OasisError, UsageError
from oasis_cli.evaluation.compare.films import compose, film_size, sheet
from oasis_cli.evaluation.compare.run import compare
from oasis_cli.pipeline.clips import Clip, names_for, open_clip

sys.path.insert(0, str(Path(__file__).parents[2]))
from conftest import audio_packets, video_frames, video_times  # noqa: E402

sys.path.pop(0)


@pytest.fixture
def pair(make_clip):
    """A clip and one of twice the size with the same scenes: (path, path), 8 frames."""
    return (
        make_clip("small.mp4", cuts=(5,)),
        make_clip("large.mp4", size=(64, 48), cuts=(5,), sound=False),
    )


def test_a_clip_is_read_as_often_as_wanted(pair):
    clip = open_clip(pair[0])
    assert clip.size == (32, 24) and clip.rate == 25 and clip.facts["codec"] == "h264"
    for _ in range(2):
        frames = list(clip.frames())
        assert len(frames) == 8 and frames[0].shape == (3, 24, 32)
        assert frames[0].min() >= -1 and frames[0].max() <= 1


def test_a_film_of_both_has_the_first_ones_times_and_sound(pair, tmp_path):
    target = tmp_path / "both.mp4"
    sentence = compare(pair, target)
    assert "8 frames" in sentence and "small.mp4, large.mp4" in sentence
    assert video_frames(target)[0].shape == (48, 128, 3)
    assert video_times(target) == video_times(pair[0])
    assert audio_packets(target) == audio_packets(pair[0])


def test_a_wipe_shows_the_right_one_first_and_the_left_one_after_half_a_round():
    left, right = -torch.ones(60, 3, 16, 32), torch.ones(60, 3, 16, 32)
    clips = [Clip.of("l", left, rate=10), Clip.of("r", right, rate=10)]
    pictures = list(compose(clips, "wipe", film_size(clips, "wipe")))
    assert pictures[0][..., 5:].min() == 1
    assert pictures[20][..., :-5].max() == -1
    assert len(pictures) == 60


def test_wide_rows_are_shrunk_together():
    clips = [Clip.of(n, torch.zeros(1, 3, 2160, 3840)) for n in "abc"]
    width, height = film_size(clips, "sides")
    assert width <= 7680 and width % 6 == 0 and height == width // 3 * 2160 // 3840 // 2 * 2


def test_a_sheet_has_a_row_for_each_frame_and_a_column_for_each_input(pair, tmp_path):
    target = tmp_path / "sheet.png"
    assert "frames 1, 6" in compare(pair, target, frames=[1, 6])
    from PIL import Image

    assert np.asarray(Image.open(target)).shape == (96, 128, 3)
    clips = [open_clip(p) for p in pair]
    with pytest.raises(UsageError, match="no frame 99: the inputs have 8"):
        sheet(clips, [1, 99])
    with pytest.raises(OasisError, match="no frame in common"):
        sheet([clips[0], Clip.of("none", torch.zeros(0, 3, 24, 32))], [0])


def test_a_page_is_written_whole(pair, tmp_path):
    target = tmp_path / "report.html"
    compare(pair, target, reference=pair[1], title="Mine")
    text = target.read_text(encoding="utf-8")
    assert "<title>Mine</title>" in text and '"name":"PSNR"' in text
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []


def test_a_page_says_when_lengths_differ(make_clip, tmp_path):
    long, short = make_clip("long.mp4", frames=9), make_clip("short.mp4", frames=6)
    compare([long, short], tmp_path / "r.html")
    assert "the first 6 frames are compared" in (tmp_path / "r.html").read_text(encoding="utf-8")


def test_what_cannot_be_compared_is_refused(pair, tmp_path):
    target = tmp_path / "report.html"
    with pytest.raises(UsageError, match="one video"):
        compare(pair[:1], target)
    with pytest.raises(UsageError, match="no layout"):
        compare(pair, target, layout="grid")
    with pytest.raises(UsageError, match="does not exist"):
        compare(pair, tmp_path / "no" / "report.html")
    with pytest.raises(UsageError, match="input itself"):
        compare(pair, pair[0], overwrite=True)
    with pytest.raises(UsageError, match=r"\.txt is neither a page"):
        compare(pair, tmp_path / "report.txt")
    with pytest.raises(UsageError, match="a wipe shows two videos, and 3"):
        compare(pair, tmp_path / "wipe.mp4", layout="wipe", reference=pair[1])
    target.write_text("mine")
    with pytest.raises(MediaError, match="already there"):
        compare(pair, target)
    assert target.read_text() == "mine"


def test_names_tell_inputs_apart():
    assert names_for([Path("a/x.mp4"), Path("b/x.mp4")]) == ["a/x.mp4", "b/x.mp4"]


@pytest.fixture
def run(capsys):
    """run("metrics", ...) -> (exit code, stdout, stderr)."""
    from oasis_cli.cli.main import app

    def call(*words):
        with pytest.raises(SystemExit) as left:
            app([str(word) for word in words])
        return (left.value.code, *capsys.readouterr())

    return call


def test_the_metrics_command_prints_scores(run, pair):
    code, out, _ = run("metrics", pair[0], "--ref", pair[0], "--quiet")
    assert code == 0 and "psnr_y" in out and "100.0000" in out and "no MS-SSIM" in out
    code, out, _ = run("metrics", pair[0], "--ref", pair[0], "--json", "--quiet")
    assert json.loads(out)["mean"]["psnr"] == 100
    code, out, _ = run("metrics", pair[0], "--ref", pair[0], "--csv", "--quiet")
    assert len(out.splitlines()) == 10


def test_the_metrics_command_refuses_clearly(run, pair, tmp_path):
    code, _, err = run("metrics", pair[0], "--ref", pair[1])
    assert code == 2 and "small.mp4 is 32x24, large.mp4 is 64x48" in err and "hint:" in err
    assert run("metrics", pair[0], "--ref", pair[0], "--json", "--csv")[0] == 2
    assert run("metrics", tmp_path / "none.mp4", "--ref", pair[0])[0] == 2


def test_the_compare_command_writes_a_page(run, pair, tmp_path):
    code, out, err = run("compare", *pair, "-o", tmp_path / "r.html", "--quiet")
    assert (code, out, err) == (0, "", "")
    assert (tmp_path / "r.html").exists()
    code, _, err = run("compare", *pair, "-o", tmp_path / "s.png", "--frames", "a")
    assert code == 2 and "no list of frames" in err


@pytest.mark.parametrize("name", ["out.png", "out.html", "out.mp4"])
def test_a_link_is_followed_to_the_file_behind_it(make_clip, tmp_path, name):
    paths = [make_clip("a.mp4", frames=3), make_clip("b.mp4", frames=3)]
    (tmp_path / "far").mkdir()
    behind, link = tmp_path / "far" / name, tmp_path / name
    link.symlink_to(behind)
    compare(paths, link)
    assert link.is_symlink()
    assert behind.stat().st_size > 100
    assert [p.name for p in (tmp_path / "far").iterdir()] == [name]
