import importlib.util
import json
import re
from pathlib import Path

import pytest
import torch

from oasis_cli.errors import OasisError
from oasis_cli.evaluation.compare.look import Look, Spot
from oasis_cli.evaluation.compare.page import PageOptions, choose_frames, fill, report
from oasis_cli.pipeline.clips import Clip

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def test_every_frame_is_inside_when_it_fits(clips):
    data = data_of(report(clips, PageOptions()))
    assert [f["number"] for f in data["frames"]] == list(range(8))
    assert all(len(f["images"]) == 3 for f in data["frames"])
    assert data["frames"][2]["images"][0].startswith("data:image/webp;base64,")
    assert data["scenes"] == [0, 5]
    assert data["inputs"][1]["facts"]["size"] == "64x48"


def test_pictures_stay_inside_the_budget(clips):
    whole = data_of(report(clips, PageOptions()))
    sizes = [sum(map(len, f["images"])) for f in whole["frames"]]
    budget = sum(sizes) // 2
    data = data_of(report(clips, PageOptions(budget=budget)))
    assert 1 <= len(data["frames"]) < 8
    assert sum(len(i) for f in data["frames"] for i in f["images"]) <= budget
    assert data["total"] == 8
    assert f"{len(data['frames'])} of 8 frames are embedded" in data["notes"][0]
    assert whole["notes"][0].startswith("All 8 frames")


def test_a_tiny_budget_still_shows_one_frame(clips):
    assert len(data_of(report(clips, PageOptions(budget=1)))["frames"]) == 1


@pytest.mark.parametrize("room", [1, 2, 3, 5, 9, 30, 100, 200])
def test_the_choice_of_frames_fills_the_room(room):
    found = Look(total=100, scenes=[0, 40], spots=[Spot(71, (0, 0, 1, 1), 9)])
    chosen = choose_frames(found, room)
    assert len(chosen) == len(set(chosen)) <= min(room, 100)
    assert len(chosen) >= min(room, 100) - 3
    assert 0 in chosen and (room < 3 or {40, 71} <= set(chosen))


def test_the_page_loads_nothing_and_text_cannot_break_out():
    page = fill({"name": "</script><script>alert(1)</script> {{css}}"}, "a <b> & {{script}}")
    assert "alert(1)</script>" not in page
    assert data_of(page)["name"].startswith("</script>")
    assert "<title>a &lt;b&gt; &amp;" in page
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)", page)
    assert "default-src 'none'" in page


def test_clips_without_a_common_frame_are_refused(clips):
    with pytest.raises(OasisError, match="no frame"):
        report([clips[0], Clip.of("none", torch.zeros(0, 3, 24, 32))], PageOptions())


@pytest.fixture(scope="module")
def page_in_browser(tmp_path_factory):
    if browser.CHROMIUM is None:
        pytest.skip("no Chromium here")
    folder = tmp_path_factory.mktemp("page")
    frames = torch.rand(6, 3, 48, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    both = [Clip.of("a.mp4", frames * 0.5), Clip.of("b.mp4", frames)]
    (folder / "report.html").write_text(report(both, PageOptions(reference=1)), encoding="utf-8")
    page = browser.Browser(folder / "profile")
    yield page, folder / "report.html"
    page.close()


@pytest.fixture
def page(page_in_browser):
    found, path = page_in_browser
    found.errors.clear()
    found.screen(1200, 900)
    found.open(path)
    yield found
    assert found.errors == []


def stage_box(page):
    return page.run(
        "(b => [b.x, b.y, b.width, b.height])(document.getElementById('stage')"
        ".getBoundingClientRect())"
    )


def test_the_slider_follows_the_mouse(page):
    x, y, width, height = stage_box(page)
    page.drag((x + width / 2, y + height / 2), (x + width * 0.25, y + height / 2))
    assert page.run("state.split") == pytest.approx(0.25, abs=0.02)
    assert "25" in page.run("document.getElementById('view-right').style.clipPath")


def test_keys_step_frames_and_change_the_view(page):
    where = "document.getElementById('where').textContent"
    assert page.run(where).startswith("frame 0")
    page.key("ArrowRight")
    page.key("ArrowRight")
    assert page.run(where).startswith("frame 2")
    page.key("End")
    assert page.run(where).startswith("frame 5")
    page.key("2")
    assert page.run("document.getElementById('tag-left').textContent") == "a.mp4"
    page.key(" ")
    assert page.run("document.getElementById('tag-left').textContent") == "b.mp4"


def test_zoom_and_pan_move_both_pictures_alike(page):
    x, y, width, height = stage_box(page)
    page.wheel(x + width / 4, y + height / 2, -800)
    page.drag((x + width * 0.2, y + 60), (x + width * 0.1, y + 90))
    left, right = (
        page.run(f"document.getElementById('image-{side}').style.transform")
        for side in ("left", "right")
    )
    assert left == right
    assert page.run("state.zoom") > 2
    page.key("0")
    assert page.run("[state.zoom, state.x, state.y]") == [1, 0, 0]


def test_side_by_side_shows_the_whole_of_both(page):
    page.key("3")
    x, y, width, height = stage_box(page)
    assert width / height == pytest.approx(2 * 64 / 48, rel=0.01)
    boxes = page.run(
        "['left', 'right'].map(s => document.getElementById('image-' + s)"
        ".getBoundingClientRect()).map(b => [b.x, b.width])"
    )
    assert boxes == [[x, width / 2], [x + width / 2, width / 2]]


def test_what_is_zoomed_to_stays_in_sight_when_the_window_changes(page):
    """A phone's address bar comes and goes: each time the window has another size."""
    x, y, width, height = stage_box(page)
    page.wheel(x + width / 4, y + height / 4, -800)
    inside = "[state.zoom, state.x / viewWidth(), state.y / stage.clientHeight]"
    before = page.run(inside)
    page.screen(700, 500)
    page.run("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert page.run(inside) == pytest.approx(before, rel=0.02)
    assert before[0] > 2


def test_an_unzoomed_picture_can_be_dragged_anywhere_to_move_the_line(page):
    x, y, width, height = stage_box(page)
    page.drag((x + width * 0.7, y + 40), (x + width * 0.8, y + 40))
    assert page.run("state.split") == pytest.approx(0.8, abs=0.02)
    assert page.run("getComputedStyle(stage).touchAction") == "pan-y"  # a swipe scrolls the page
    page.key("+")
    assert page.run("getComputedStyle(stage).touchAction") == "none"


def test_curves_tell_their_range_and_the_value_here(page):
    text = page.run("document.querySelector('#curves figure').textContent")
    assert "sharpness" in text and "8-bit steps a pixel" in text
    values = page.run("data.curves[0].lines.flatMap(l => l.values)")
    assert page.run("document.querySelector('.plot .high').textContent") == f"{max(values):.4g}"
    page.key("End")
    assert f"here {values[5]:.4g}" in page.run("document.querySelector('.legend i').textContent")


def test_every_part_is_there_and_a_crop_leads_to_its_place(page):
    count = "document.querySelectorAll({!r}).length"
    assert page.run(count.format("#curves svg")) == 5
    assert page.run(count.format("#crops button")) >= 1
    page.run("document.querySelector('#crops button').click()")
    assert page.run("state.zoom") > 1
    shown = page.run(
        "Promise.all([...document.querySelectorAll('.view img')].map(i => i.decode()))"
        ".then(() => [...document.querySelectorAll('.view img')].map(i => i.naturalWidth))"
    )
    assert shown == [64, 64]


def test_a_phone_has_no_sideways_scrolling(page):
    page.screen(360, 740, dark=True, phone=True)
    assert page.run("document.documentElement.scrollWidth <= innerWidth")
    assert page.run("getComputedStyle(document.body).backgroundColor") == "rgb(22, 23, 26)"
