"""Pixel formats: packed ones, and those that nothing decodes."""

from fractions import Fraction

import numpy as np
import pytest

from oasis_cli.errors import MediaError
from oasis_cli.media.color import frames_to_clip
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader
from oasis_cli.media.output.plan import plan_output

PACKED = {
    "rgb24": 0, "bgra": 0, "rgb48be": 0.5, "rgba64le": 0.5, "bgr0": 0,
    "nv12": 6, "nv21": 6, "yuyv422": 5, "uyvy422": 5, "yuv420p16be": 6, "v210": 5,
    "gray16be": 90, "ya8": 90, "monow": 140, "rgb565le": 9,
}  # fmt: skip
"""Formats and how far the picture may be from the one that was put in, in levels of 255."""


def test_pictures_that_no_decoder_of_the_codec_takes_are_refused(kit, tmp_path):
    info = probe(kit.video(tmp_path / "in.mp4", frames=1))
    with pytest.raises(MediaError, match="at most 16384"):
        plan_output(info, tmp_path / "out.mp4", (20000, 100))


@pytest.mark.parametrize("pix_fmt", PACKED)
def test_packed_formats_are_unpacked_without_loss(kit, tmp_path, pix_fmt):
    def picture(number, width, height):
        return kit.ramp(3, width, height) // 2 + 60

    codec, wanted = ("v210", "yuv422p10le") if pix_fmt == "v210" else ("rawvideo", pix_fmt)
    source = kit.video(tmp_path / "in.nut", frames=2, codec=codec, pix_fmt=wanted,
                       base=Fraction(1, 25), picture=picture)  # fmt: skip
    info = probe(source)
    with Reader(info) as reader:
        frames = list(reader)
    clip = (frames_to_clip(frames, reader.spec) + 1) * 127.5
    expected = picture(0, 32, 24).transpose(2, 0, 1).astype(float)

    assert len(frames) == 2
    assert np.abs(clip[0].numpy() - expected).mean() <= PACKED[pix_fmt] + 0.01
