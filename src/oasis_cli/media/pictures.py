"""One picture as the bytes of a PNG, WebP or JPEG file."""

from fractions import Fraction
from typing import Any, Literal

import av
import numpy as np
from numpy.typing import NDArray

from oasis_cli.errors import MediaError

Kind = Literal["png", "webp", "jpeg"]

_CODECS: dict[Kind, tuple[str, str]] = {
    "png": ("png", "rgb24"),
    "webp": ("libwebp", "yuv420p"),
    "jpeg": ("mjpeg", "yuvj420p"),
}
MIME: dict[Kind, str] = {"png": "image/png", "webp": "image/webp", "jpeg": "image/jpeg"}


def encode_picture(rgb: NDArray[np.uint8], kind: Kind = "png", quality: int = 90) -> bytes:
    """Encode a picture.

    rgb: (H, W, 3). quality: 1 to 100, for webp and jpeg. Raises MediaError when the encoder does
    not take the picture (WebP ends at 16383 pixels on a side).
    """
    name, pix_fmt = _CODECS[kind]
    height, width, _ = rgb.shape
    try:
        encoder: Any = av.CodecContext.create(name, "w")
        encoder.width, encoder.height, encoder.pix_fmt = width, height, pix_fmt
        encoder.time_base = Fraction(1, 25)
        if kind == "webp":
            encoder.options = {"quality": str(quality)}
        elif kind == "jpeg":
            scale = str(round(2 + (100 - quality) * 0.29))  # FFmpeg's 2 (best) to 31
            encoder.options = {"qmin": scale, "qmax": scale}
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
        if kind != "png":
            full = "JPEG" if kind == "jpeg" else "MPEG"
            frame = frame.reformat(format=pix_fmt, dst_colorspace="ITU601", dst_color_range=full)
        frame.pts = 0
        return b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)])
    except (av.FFmpegError, ValueError) as error:
        raise MediaError(f"a {width}x{height} picture cannot be made a {kind}: {error}") from error
