import io

import numpy as np
import pytest
from PIL import Image

from oasis_cli.errors import MediaError
from oasis_cli.media.pictures import encode_picture


@pytest.fixture
def rgb():
    """Smooth and coloured, odd sizes: (33, 47, 3)."""
    y, x = np.mgrid[:33, :47]
    return np.stack([5 * x, 7 * y, 120 + x - y], axis=-1).clip(0, 255).astype(np.uint8)


def test_png_is_exact(rgb):
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_picture(rgb)))), rgb)


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_lossy_kinds_are_close(rgb, kind):
    decoded = np.asarray(Image.open(io.BytesIO(encode_picture(rgb, kind, 95))).convert("RGB"))
    assert decoded.shape == rgb.shape
    assert np.abs(decoded.astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("kind", ["webp", "jpeg"])
def test_lower_quality_is_smaller(kind):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    assert len(encode_picture(noise, kind, 30)) < len(encode_picture(noise, kind, 95))


def test_a_picture_that_is_too_wide_is_refused():
    with pytest.raises(MediaError, match="20000x1"):
        encode_picture(np.zeros((1, 20000, 3), np.uint8), "webp")
