"""What `oasis compare` refuses, and how a page is written."""

from pathlib import Path

import pytest

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.evaluation.compare.run import compare
from oasis_cli.pipeline.clips import names_for, open_clip


def test_a_clip_is_read_as_often_as_wanted(pair):
    clip = open_clip(pair[0])
    assert clip.size == (32, 24) and clip.rate == 25 and clip.facts["codec"] == "h264"
    for _ in range(2):
        frames = list(clip.frames())
        assert len(frames) == 8 and frames[0].shape == (3, 24, 32)
        assert frames[0].min() >= -1 and frames[0].max() <= 1


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
