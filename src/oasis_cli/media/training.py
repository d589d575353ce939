"""Media for training: whole clips as arrays, and real codec damage. No quality path uses this."""

import io
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray

from oasis_cli.errors import MediaError
from oasis_cli.media.input.source import open_input

Clip = NDArray[np.uint8]
"""(T, H, W, 3) RGB"""

SMALLEST = {"libx265": 96}
"""Pixels a side below which a codec must not be used: x265 corrupts memory below about 64."""

CODECS = ("libx264", "mpeg4", "libx265", "libvpx-vp9", "mpeg2video")


@dataclass(frozen=True, slots=True)
class Compression:
    """How a clip is damaged by a codec."""

    codec: str
    """One of CODECS."""
    bits: float
    """Bits a pixel and frame, before entropy coding has its way with the target."""


def read_clip(path: Path, most: int | None = None) -> Clip:
    """Decode the first `most` frames of a video, or a picture as one frame."""
    frames = []
    try:
        with open_input(path) as box:
            box.streams.video[0].thread_type = "AUTO"
            for frame in box.decode(video=0):
                frames.append(frame.to_ndarray(format="rgb24"))
                if len(frames) == most:
                    break
    except (av.FFmpegError, OSError, IndexError) as error:
        raise MediaError(f"{path} cannot be read as training data: {error}") from error
    return np.stack(frames)


def compress(clip: Clip, how: Compression) -> Clip:
    """Encode and decode a clip with one thread, so that equal input gives equal output."""
    frames, height, width, _ = clip.shape
    even = np.pad(clip, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)), mode="edge")
    file = io.BytesIO()
    with av.open(file, "w", format="matroska") as box:
        stream = box.add_stream(how.codec, rate=25, options=_OPTIONS.get(how.codec, {}))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = even.shape[2], even.shape[1], "yuv420p"
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = Fraction(1, 25)
        stream.bit_rate = max(2000, int(how.bits * even.shape[1] * even.shape[2] * 25))
        for number, picture in enumerate(even):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = number
            box.mux(stream.encode(frame))
        box.mux(stream.encode(None))
    file.seek(0)
    with av.open(file, "r") as box:
        out = [f.to_ndarray(format="rgb24")[:height, :width] for f in box.decode(video=0)]
    if len(out) != frames:
        raise MediaError(f"{how.codec} returned {len(out)} of {frames} frames")
    return np.stack(out)


_OPTIONS = {
    # Without mbtree: with it, x264 was seen to give different bits for equal input.
    "libx264": {"preset": "veryfast", "x264-params": "log-level=none:mbtree=0"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=1:frame-threads=1"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
}
