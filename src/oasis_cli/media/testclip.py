"""A clip to time things with: moving detail, made on the spot."""

from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np


def write_test_clip(path: Path, size: tuple[int, int], frames: int, rate: int = 25) -> Path:
    """Write H.264 pictures of drifting waves and grain. size: (width, height), even."""
    width, height = size
    y, x = np.mgrid[:height, :width].astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 6, (height, width)).astype(np.float32)
    with av.open(path, "w") as box:
        stream: Any = box.add_stream("libx264", rate=rate, options={"preset": "veryfast"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            waves = [
                128 + 90 * np.sin((x + (2 + c) * number) / (7 + 3 * c) + y / 11) for c in range(3)
            ]
            picture = np.stack(waves, axis=-1) + np.roll(grain, number, axis=1)[..., None]
            frame = av.VideoFrame.from_ndarray(picture.clip(0, 255).astype(np.uint8), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, rate)
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    return path
