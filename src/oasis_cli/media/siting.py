"""Where the chroma samples of a decoded frame lie."""

from __future__ import annotations

import av
import numpy as np
from av.video.reformatter import Interpolation

from oasis_cli.media.picture import Siting, parse_pix_fmt, planar_name
from oasis_cli.media.source import samples

CENTERED = {"mjpeg", "mpeg1video", "h264", "hevc", "mpeg2video", "theora", "webp"}
"""Codecs whose frames are centre-sited only when the codec or the stream says so."""


def chroma_siting(frame: av.VideoFrame, codec: str, container: str) -> Siting:
    """Where the chroma samples of a decoded 4:2:0 frame lie.

    PyAV 18 does not tell, but swscale knows and honours it: ramps are put into a copy's chroma
    planes, and where they come out after enlarging says where the samples were taken to be.
    What swscale takes to be the centre may also mean "not said", which stands for left.
    """
    name = frame.format.name.replace("yuvj", "yuv")
    layout = parse_pix_fmt(name)
    if layout is None or layout.sub != (1, 1) or layout.alpha:
        return "left"
    small = frame.reformat(width=64, height=64, format=frame.format.name)
    if small is frame:
        return "left"
    kind, unit = (np.uint8, 1) if layout.depth == 8 else (np.uint16, 1 << (layout.depth - 8))
    ramp = ((np.arange(32) * 4 + 64) * unit).astype(kind)
    for plane, values in zip(small.planes[1:3], (ramp[None, :], ramp[:, None]), strict=True):
        samples(plane, kind)[:, :32] = values
    flags = Interpolation.BILINEAR | Interpolation.FULL_CHR_H_INP | Interpolation.FULL_CHR_H_INT
    tall = small.reformat(
        format=planar_name("yuv", layout.depth, (0, 0), False),
        interpolation=int(flags | Interpolation.ACCURATE_RND),
    )
    u, v = (samples(p, kind).astype(float) / unit for p in tall.planes[1:3])
    aside, down = (u[32, 32] - 128) / 2 > -0.25, (v[32, 32] - 128) / 2 > -0.25
    if aside:
        return "topleft" if down else "left"
    return "center" if codec in CENTERED or "yuv4mpeg" in container else "left"
