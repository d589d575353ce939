"""What happens to the picture itself, in sentences: changes are notes, losses are errors under
--strict."""

from __future__ import annotations

from oasis_cli.media.captions import CARRIERS
from oasis_cli.media.info import HLG, PQ, MediaInfo, rate_text
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.containers import CONSTANT_RATE, ROTATES
from oasis_cli.media.output.encoders import EncoderKind, carries_hdr
from oasis_cli.media.picture import PixelLayout


def explain_picture(
    info: MediaInfo, muxer: str, kind: EncoderKind, layout: PixelLayout, read: ReadOptions,
    notes: list[str], losses: list[str],
) -> None:  # fmt: skip
    """Say what is changed or lost in the picture itself."""
    losses += _said(*_losses(info, muxer, kind, layout, read))
    video = info.video
    shown_as_lines = read.deinterlace == "off"
    notes += _said(
        (
            video.layout.family == "rgb" and layout.family == "yuv",
            "RGB becomes YCbCr BT.709; --codec ffv1 in .mkv keeps RGB",
        ),
        (
            video.interlaced and shown_as_lines,
            "the picture is interlaced and --deinterlace off: fields are enlarged as lines",
        ),
        (
            video.interlaced and not shown_as_lines,
            "the picture is interlaced: bwdif makes it progressive",
        ),
        (
            muxer in CONSTANT_RATE,
            f"{muxer} knows one frame rate only: {rate_text(video.rate)} frames/s",
        ),
    )


def _said(*rules: tuple[object, str]) -> list[str]:
    """The sentences of (whether it is so, sentence)."""
    return [sentence for is_so, sentence in rules if is_so]


def _losses(
    info: MediaInfo, muxer: str, kind: EncoderKind, layout: PixelLayout, read: ReadOptions
) -> list[tuple[object, str]]:
    """What may be lost: whether it is, and how that is said."""
    video, before = info.video, info.video.layout
    is_yuv = layout.family == before.family == "yuv"
    is_hdr = video.color.transfer in (PQ, HLG)
    base = "only the HDR10 or HLG base layer is written"
    if not is_hdr:  # profile 5
        base = "the base layer has no standard colours, and they will look wrong"
    return [
        (
            before.alpha and not layout.alpha,
            f"{kind.name} carries no alpha (prores_ks in .mov, ffv1 in .mkv do)",
        ),
        (
            layout.depth < before.depth,
            f"{before.depth} bits become {layout.depth}, dithered",
        ),
        (
            is_yuv and layout.sub > before.sub,
            f"{video.planar} becomes {kind.name}'s subsampling {layout.sub}",
        ),
        (
            video.hdr is not None and not carries_hdr(kind),
            f"{kind.name} does not write HDR mastering metadata (libx265 does)",
        ),
        (is_hdr and layout.depth < 10, "an HDR picture in 8 bits shows bands"),
        (video.dolby_vision, f"DOLBY VISION is lost: {base}"),
        (
            video.second_view,
            "the second view (MV-HEVC) is lost: the first one is enlarged",
        ),
        (
            video.hdr10_plus,
            "HDR10+ DYNAMIC METADATA is lost; static HDR10 values are kept",
        ),
        (
            video.captions and kind.name not in CARRIERS,
            f"closed captions are lost: {kind.name} has no place for them (libx264 has)",
        ),
        (
            video.matrix and not read.bake_rotation and muxer not in ROTATES,
            f"{muxer} cannot store the rotation; --bake-rotation turns the pixels",
        ),
    ]
