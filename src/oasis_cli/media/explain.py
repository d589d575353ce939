"""What happens to the picture itself, in sentences: changes are notes, losses are errors under
--strict."""

from __future__ import annotations

from fractions import Fraction

from oasis_cli.media.captions import CARRIERS
from oasis_cli.media.containers import CONSTANT_RATE, ROTATES
from oasis_cli.media.encoders import EncoderKind, carries_hdr
from oasis_cli.media.info import HLG, PQ, MediaInfo
from oasis_cli.media.picture import PixelLayout
from oasis_cli.media.reader import ReadOptions


def rate_text(rate: Fraction) -> str:
    return f"{float(rate):.3f}".rstrip("0").rstrip(".") if rate >= 1 else f"{float(rate):.3g}"


def explain_picture(
    info: MediaInfo, muxer: str, kind: EncoderKind, layout: PixelLayout, read: ReadOptions,
    notes: list[str], losses: list[str],
) -> None:  # fmt: skip
    """Say what is changed or lost in the picture itself."""
    video, before = info.video, info.video.layout
    if before.alpha and not layout.alpha:
        losses.append(f"{kind.name} carries no alpha (prores_ks in .mov, ffv1 in .mkv do)")
    if layout.depth < before.depth:
        losses.append(f"{before.depth} bits become {layout.depth}, dithered")
    if layout.family == "yuv" and before.family == "yuv" and layout.sub > before.sub:
        losses.append(f"{video.planar} becomes {kind.name}'s subsampling {layout.sub}")
    if before.family == "rgb" and layout.family == "yuv":
        notes.append("RGB becomes YCbCr BT.709; --codec ffv1 in .mkv keeps RGB")
    if video.hdr is not None and not carries_hdr(kind):
        losses.append(f"{kind.name} does not write HDR mastering metadata (libx265 does)")
    if video.color.transfer in (PQ, HLG) and layout.depth < 10:
        losses.append("an HDR picture in 8 bits shows bands")
    if video.dolby_vision:
        base = "only the HDR10 or HLG base layer is written"
        if video.color.transfer not in (PQ, HLG):  # profile 5
            base = "the base layer has no standard colours, and they will look wrong"
        losses.append(f"DOLBY VISION is lost: {base}")
    if video.second_view:
        losses.append("the second view (MV-HEVC) is lost: the first one is enlarged")
    if video.hdr10_plus:
        losses.append("HDR10+ DYNAMIC METADATA is lost; static HDR10 values are kept")
    if video.captions and kind.name not in CARRIERS:
        losses.append(f"closed captions are lost: {kind.name} has no place for them (libx264 has)")
    if video.matrix and not read.bake_rotation and muxer not in ROTATES:
        losses.append(f"{muxer} cannot store the rotation; --bake-rotation turns the pixels")
    if video.interlaced and read.deinterlace == "off":
        notes.append(
            "the picture is interlaced and --deinterlace off: fields are enlarged as lines"
        )
    elif video.interlaced:
        notes.append("the picture is interlaced: bwdif makes it progressive")
    if muxer in CONSTANT_RATE:
        notes.append(f"{muxer} knows one frame rate only: {rate_text(video.rate)} frames/s")
