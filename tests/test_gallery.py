"""docs/make_gallery.py: what its page promises, on toy clips. The networks run by hand."""

import sys
from pathlib import Path

import numpy as np
import pytest

from oasis_cli.media.input.probe import probe
from oasis_cli.media.testclip import write_test_clip

DOCS = Path(__file__).parents[1] / "docs"


@pytest.fixture(scope="module")
def scripts():
    """The modules `make_gallery` and `gallery_places`."""
    pytest.importorskip("PIL")
    sys.path.insert(0, str(DOCS))
    try:
        import gallery_places
        import make_gallery

        yield make_gallery, gallery_places
    finally:
        sys.path.remove(str(DOCS))


@pytest.fixture(scope="module")
def toy(scripts, tmp_path_factory):
    """A folder with one clip of 160x120 pixels and six frames, called as one that is known."""
    folder = tmp_path_factory.mktemp("clips")
    write_test_clip(folder / "tree.avi", (160, 120), 6)
    return folder


def test_places_that_are_there_are_made_and_missing_clips_are_named(
    scripts, toy, tmp_path, monkeypatch, capsys
):
    from PIL import Image

    gallery, places = scripts
    monkeypatch.setattr(gallery, "PICTURES", tmp_path)
    wanted = [
        places.Place("still", "Corner", "tree", 0, 0, 0),
        places.Place("moving", "Middle", "tree", 1, 40, 30, moves=True),
        places.Place("other", "Not here", "webb", 0, 0, 0),
    ]
    asked = []

    def doubled(low):
        asked.append(low.shape)
        return low.repeat(4, 1).repeat(4, 2)

    everybody = [
        gallery.Column("input", gallery.nearest, alone=True),
        gallery.Column("bicubic", gallery.bicubic, alone=True),
        gallery.Column("toy", doubled, "version 1"),
    ]
    kept = gallery.Kept(tmp_path / "kept")
    there = gallery.gallery(toy, wanted, everybody, kept)
    gallery.cells(wanted[0], toy / "tree.avi", everybody, kept)
    assert [place.name for place in there] == ["still", "moving"]
    assert "nasa_multi_video.mp4 is missing" in capsys.readouterr().err
    assert asked == [(6, 80, 112, 3), (5, 96, 128, 3)], "what was made once is kept"
    for name, frames in (("still", 1), ("moving", 3)):
        with Image.open(tmp_path / f"{name}.webp") as picture:
            assert getattr(picture, "n_frames", 1) == frames
            assert picture.size == (2 * 384 + gallery.GAP, 2 * (256 + gallery.STRIP) + gallery.GAP)


def test_every_column_shows_the_same_place(scripts, toy):
    gallery, places = scripts
    place = places.Place("at", "At", "tree", 0, 8, 20)
    cells = gallery.cells(
        place,
        toy / "tree.avi",
        [
            gallery.Column("input", gallery.nearest, alone=True),
            gallery.Column("all frames", gallery.nearest),
        ],
        gallery.Kept,
    )
    assert np.array_equal(cells["input"], cells["all frames"])
    whole = gallery.to_pixels(list(gallery.open_clip(toy / "tree.avi").frames())[2]).numpy()
    assert np.array_equal(cells["input"][0, ::4, ::4], whole[20:84, 8:104])


def test_a_place_outside_its_clip_is_refused(scripts, toy):
    gallery, places = scripts
    with pytest.raises(SystemExit, match="corner"):
        gallery.cut_out(toy / "tree.avi", places.Place("corner", "C", "tree", 0, 70, 0))


def test_the_page_marks_failures_and_credits_every_clip(scripts):
    gallery, places = scripts
    everybody = [gallery.Column("oasis", gallery.nearest, "SHA-256 12")]
    text = " ".join(gallery.page(places.PLACES, everybody).split())
    for place in places.PLACES:
        assert f"](images/gallery/{place.name}.webp)" in text
        assert places.SOURCES[place.source].credit in text
    for verdict in places.VERDICTS.values():
        assert not verdict.fails or f"**Fails:** {verdict.fails}" in text
    assert "x4plus at 13 places, oasis-base's sharp look at 4, no difference at 3" in text
    assert "oasis in 24% (95 % interval: 10% to 47%)" in text
    assert "- oasis: SHA-256 12" in text and "other weights" in text
    everybody = [gallery.Column("oasis", gallery.nearest, f"SHA-256 {places.SEEN_WITH}")]
    assert "other weights" not in gallery.page(places.PLACES, everybody)


def test_the_tables_of_places_and_sources_fit(scripts):
    _, places = scripts
    names = [place.name for place in places.PLACES]
    assert len(names) == len(set(names)) >= 16
    assert set(places.VERDICTS) <= set(names)
    assert sorted(name for chosen in places.CHOSEN.values() for name in chosen) == sorted(names)
    assert {place.source for place in places.PLACES} == set(places.SOURCES)
    assert sum(place.moves for place in places.PLACES) >= 3


def test_the_pictures_of_the_page_are_here_and_small():
    page = (DOCS / "gallery.md").read_text(encoding="utf-8")
    pictures = list((DOCS / "images" / "gallery").glob("*.webp"))
    assert pictures and all(f"images/gallery/{path.name}" in page for path in pictures)
    assert sum(path.stat().st_size for path in pictures) < 3e6


@pytest.mark.parametrize("kind", ["small", "blocks", "dv"])
def test_a_clip_is_damaged_as_the_page_says(scripts, tmp_path, kind):
    _, places = scripts
    source = tmp_path / "in.mp4"
    write_test_clip(source, (1280, 720), 3)
    target = tmp_path / "worse.avi"
    getattr(places, kind)(source, target)
    video = probe(target).video
    codec, size, interlaced = {
        "small": ("h264", (320, 180), False),
        "blocks": ("mpeg4", (320, 180), False),
        "dv": ("dvvideo", (720, 576), True),
    }[kind]
    assert (video.codec, (video.width, video.height), video.interlaced) == (codec, size, interlaced)
