"""Real encoders as damage."""

import numpy as np
import pytest

from oasis_cli.media.pictures import encode_picture
from oasis_cli.media.training import CODECS, SMALLEST, Compression, compress, read_clip


def textured(frames=4, side=96):
    rng = np.random.default_rng(0)
    clip = rng.uniform(0, 255, (frames, side // 8, side // 8, 3))
    return np.kron(clip, np.ones((1, 8, 8, 1))).astype(np.uint8)


@pytest.mark.parametrize("codec", CODECS)
def test_a_codec_damages_more_with_fewer_bits_and_repeats_itself(codec):
    clip = textured()
    assert clip.shape[1] >= SMALLEST.get(codec, 0)
    errors = []
    for bits in (0.02, 2.0):
        out = compress(clip, Compression(codec, bits))
        assert out.shape == clip.shape
        assert np.array_equal(out, compress(clip, Compression(codec, bits)))
        errors.append(np.abs(out.astype(float) - clip).mean())
    assert errors[0] > errors[1]


def test_odd_sizes_survive_a_codec():
    assert compress(textured()[:, :33, :35], Compression("libx264", 1.0)).shape == (4, 33, 35, 3)


def test_pictures_survive_png(tmp_path):
    picture = textured()[0]
    (tmp_path / "a.png").write_bytes(encode_picture(picture))
    assert np.array_equal(read_clip(tmp_path / "a.png")[0], picture)
