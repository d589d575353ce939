"""Fields become frames, by default and on request."""

from fractions import Fraction

import numpy as np

from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions


def test_interlaced_frames_are_deinterlaced_by_default(kit, tmp_path):
    source = interlaced(kit, tmp_path / "in.ts")
    info = probe(source)
    assert info.video.interlaced

    read = {}
    for mode in ("auto", "off", "bob"):
        with Reader(info, ReadOptions(deinterlace=mode)) as reader:
            read[mode] = (list(reader), reader.timeline, reader.report)

    assert len(read["auto"][0]) == len(read["off"][0]) == 8
    assert len(read["bob"][0]) == 16
    assert read["auto"][1].pts == read["off"][1].pts
    assert read["auto"][2].interlaced_frames == 8
    middle = {
        mode: combing(frames[len(frames) // 2].planes[0]) for mode, (frames, _, _) in read.items()
    }
    assert middle["auto"] < 0.3 * middle["off"]
    assert middle["bob"] < 0.3 * middle["off"]
    times = [read["bob"][1].seconds(k) for k in range(16)]
    assert {b - a for a, b in zip(times, times[1:], strict=False)} == {Fraction(1, 50)}


def test_progressive_frames_are_left_alone(kit, tmp_path):
    source = kit.video(tmp_path / "in.mp4")
    with Reader(probe(source), ReadOptions(deinterlace="auto")) as reader:
        auto = list(reader)
    with Reader(probe(source), ReadOptions(deinterlace="off")) as reader:
        off = list(reader)
    for a, b in zip(auto, off, strict=True):
        assert all((x == y).all() for x, y in zip(a.planes, b.planes, strict=True))


def interlaced(kit, path, frames=8):
    """A square that moves between the two fields of each frame."""

    def picture(number, width, height):
        image = np.full((height, width, 3), 40, np.uint8)
        for field in (0, 1):
            at = 4 + (2 * number + field) * 2
            image[field::2, at : at + 12] = 220
        return image

    return kit.video(path, frames=frames, size=(64, 48), codec="mpeg2video", picture=picture,
                     options={"b": "4000k", "flags": "+ildct+ilme", "top": "1"})  # fmt: skip


def combing(plane):
    """How much neighbouring lines differ beyond lines two apart."""
    rows = plane.astype(int)
    return np.abs(rows[1:-1] - rows[2:]).mean() - np.abs(rows[:-2] - rows[2:]).mean()
