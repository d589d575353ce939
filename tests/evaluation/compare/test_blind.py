import base64
import importlib.util
import io
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.compare.blind import KEY, BlindOptions, blind
from oasis_cli.evaluation.compare.run import compare
from oasis_cli.pipeline.clips import Clip

_spec = importlib.util.spec_from_file_location("browser", Path(__file__).with_name("browser.py"))
browser = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(browser)

HEIGHT, WIDTH = 200, 250
LIGHT = {"dark.mp4": -0.5, "plain.mp4": 0.0, "light.mp4": 0.5}


@pytest.fixture(scope="module")
def films():
    """Three clips that differ by their light alone, two frames each."""
    base = torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) - 0.5
    return [Clip.of(name, base + light) for name, light in LIGHT.items()]


def data_of(page):
    return json.loads(re.search(r'id="data">(.*?)</script>', page, re.S)[1])


def secret_of(data):
    scrambled = base64.b64decode(data["secret"])
    return json.loads(bytes(b ^ KEY[n % len(KEY)] for n, b in enumerate(scrambled)))


def pixels(uri):
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))))


def whose(uri):
    """By the light of a picture."""
    light = pixels(uri).mean() / 127.5 - 1
    return min(LIGHT, key=lambda name: abs(LIGHT[name] - light))


def test_the_pictures_are_those_that_the_key_tells_and_lose_nothing(films):
    data = data_of(blind(films[:2], BlindOptions(places=6, seed=1)))
    secret = secret_of(data)
    assert len(data["questions"]) == 6 and len(data["images"]) == 12
    for shown, told in zip(data["questions"], secret["questions"], strict=True):
        assert whose(data["images"][shown["left"]]) == secret["names"][told["left"]]
        assert whose(data["images"][shown["right"]]) == secret["names"][told["right"]]
        x, y, side, _ = told["box"]
        frame = list(films[told["left"]].frames())[told["frame"]]
        part = frame[:, y : y + side, x : x + side].permute(1, 2, 0).numpy()
        difference = pixels(data["images"][shown["left"]]) - (part + 1) * 127.5
        assert abs(difference).max() <= 0.51


def test_every_two_meet_at_every_place_and_sides_are_fair(films):
    secret = secret_of(data_of(blind(films, BlindOptions(places=8, seed=2))))
    questions = secret["questions"]
    pairs = Counter(frozenset((q["left"], q["right"])) for q in questions)
    assert set(pairs.values()) == {8} and len(pairs) == 3
    sides = Counter((q["left"], q["right"]) for q in questions)
    assert set(sides.values()) == {4}
    lefts = [q["left"] < q["right"] for q in questions]
    assert 2 < sum(a != b for a, b in zip(lefts, lefts[1:], strict=False)) < len(lefts) - 1


def test_equal_seeds_make_equal_pages_and_others_do_not(films):
    first, again, other = (blind(films, BlindOptions(places=4, seed=s)) for s in (5, 5, 6))
    assert first == again != other


def test_the_source_names_nobody_and_loads_nothing(films):
    page = blind(films, BlindOptions(places=2))
    assert not any(name.split(".")[0] in page.split('id="data"')[1] for name in LIGHT)
    assert not re.search(r"(src|href)\s*=\s*[\"']?(https?:|//)", page)
    assert "default-src 'none'" in page and "fetch(" not in page and "localStorage" not in page


def test_a_reference_is_shown_and_not_judged(films):
    data = data_of(blind(films, BlindOptions(places=3, reference=2)))
    assert len(data["questions"]) == 3
    assert {whose(data["images"][q["reference"]]) for q in data["questions"]} == {"light.mp4"}
    assert {q[s] for q in secret_of(data)["questions"] for s in ("left", "right")} == {0, 1}


def test_pictures_stay_within_the_budget(films):
    small = data_of(blind(films[:2], BlindOptions(places=6, budget=1)))
    assert len(small["questions"]) == 1


def test_what_makes_no_test_is_refused(films, make_clip, tmp_path):
    with pytest.raises(UsageError, match="between two"):
        blind(films[:2], BlindOptions(reference=1))
    with pytest.raises(OasisError, match="do not differ"):
        blind([films[0], films[0]], BlindOptions())
    clips = [make_clip("a.mp4", frames=2), make_clip("b.mp4", frames=2)]
    with pytest.raises(UsageError, match=r"a blind test is a page, not \.mp4"):
        compare(clips, tmp_path / "out.mp4", blind=BlindOptions())


def test_the_command_writes_a_test(make_clip, tmp_path, capsys):
    from oasis_cli.cli.main import app

    clips = [make_clip("a.mp4", frames=2), make_clip("b.mp4", frames=2, cuts=(0,))]
    words = ["compare", *clips, "-o", tmp_path / "t.html", "--blind", "--seed", 1]
    with pytest.raises(SystemExit) as left:
        app([str(word) for word in words])
    assert left.value.code == 0 and "a blind test" in capsys.readouterr().out
    secret = secret_of(data_of((tmp_path / "t.html").read_text()))
    assert secret["names"] == ["a.mp4", "b.mp4"] and secret["seed"] == 1


@pytest.fixture(scope="module")
def page(films, tmp_path_factory):
    if browser.CHROMIUM is None:
        pytest.skip("no Chromium here")
    folder = tmp_path_factory.mktemp("blind")
    (folder / "test.html").write_text(blind(films[:2], BlindOptions(places=5, seed=1)))
    found = browser.Browser(folder / "profile")
    found.open(folder / "test.html")
    yield found
    found.close()
    assert found.errors == []


def test_keys_answer_and_the_end_tells_whose_they_are(page):
    """Whoever always takes the lighter picture is told so, with Wilson's interval of 5 of 5."""
    lighter = """(() => {
      const light = (id) => { const c = document.createElement('canvas').getContext('2d');
        c.drawImage(document.getElementById(id), 0, 0, 8, 8);
        return c.getImageData(0, 0, 8, 8).data.reduce((a, b) => a + b); };
      return Promise.all([1, 2].map((n) => document.getElementById('image-' + n).decode()))
        .then(() => light('image-1') > light('image-2') ? '1' : '2'); })()"""
    assert page.run("document.getElementById('where').textContent") == "1 of 5"
    page.key("0")
    page.key("Backspace")
    for _ in range(5):
        assert "mp4" not in page.run("document.body.innerText")
        page.key(page.run(lighter))
    shown = page.run("document.getElementById('counts').innerText")
    assert "plain.mp4 5 better" in shown
    assert "dark.mp4 was chosen in 0 % (95 %: 0 % to 43 %)" in shown
    saved = page.run("JSON.parse(JSON.stringify(saved()))")
    assert saved["counts"][0]["first"] == "dark.mp4"
    assert [saved["counts"][0][k] for k in ("first_better", "second_better", "same")] == [0, 5, 0]
    assert saved["counts"][0]["interval"] == pytest.approx([0, 0.4345], abs=1e-3)
    assert len(saved["answers"]) == 5 and saved["seed"] == 1
    page.key("Backspace")
    assert page.run("document.getElementById('where').textContent") == "5 of 5"
