"""Which encoder, which pixel format, which options. Pure decisions but for `opens`."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import av

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.info import Hdr, MediaInfo, VideoInfo
from oasis_cli.media.picture import PixelLayout, parse_pix_fmt, planar_name
from oasis_cli.media.scheduling import usual_scheduling
from oasis_cli.runtime.processors import processors

os.environ.setdefault("SVT_LOG", "1")  # SVT-AV1 would print 20 lines past every log level

ALIASES = {
    "h264": "libx264", "avc": "libx264", "x264": "libx264", "hevc": "libx265", "h265": "libx265",
    "x265": "libx265", "av1": "libsvtav1", "prores": "prores_ks", "vp9": "libvpx-vp9",
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderKind:
    """What we know about one encoder."""

    name: str
    formats: tuple[str, ...]
    """Planar formats it takes; a packed one it takes instead is in `PACKED`."""
    crf: float | None = None
    """Default quality, 8-bit; None: the encoder has no such dial."""
    worst: int = 51
    """Quality from 0 to this, of an encoder that has the dial."""
    whole: bool = False
    """Its quality is a whole number."""
    preset: str | None = None
    presets: tuple[str, ...] = ()
    """What its speed may be called."""
    even: bool = False
    """Refuses odd sizes in 4:2:0 and odd widths in 4:2:2."""
    largest: int = 16384
    quality_option: str = "crf"
    always: Mapping[str, str] = field(default_factory=dict)
    """Options that do not depend on the picture."""
    tag: str | None = None
    """Codec tag in mp4 and mov, where players want another one than FFmpeg writes."""
    bits: float = 0.15
    """Bits for a pixel of the output, as a rule."""
    memory: int = 50
    """Bytes for each pixel of a picture, as measured at its usual preset."""
    thread_memory: int = 0
    """More of them for each of its threads, of which it has three for two processors."""


_H264 = ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "yuv422p10le", "yuv444p10le", "gray",
         "gray10le")  # fmt: skip
_H265 = tuple(f"yuv{s}p{d}" for d in ("", "10le", "12le") for s in (420, 422, 444)) + (
    "gray", "gray10le", "gray12le")  # fmt: skip
_FFV1 = (
    tuple(f"yuv{s}p{d}" for d in ("", "10le", "12le", "16le") for s in (420, 422, 444))
    + ("gray", "gray10le", "gray12le", "gray16le", "gbrp", "gbrp10le", "gbrp12le", "gbrp14le")
    + ("gbrp16le", "gbrap", "gbrap10le", "gbrap12le", "gbrap14le", "gbrap16le")
    + ("yuva420p", "yuva422p", "yuva444p", "yuva420p10le", "yuva422p10le", "yuva444p10le")
    + ("yuva422p12le", "yuva444p12le")
)
_NVENC = ("yuv420p", "yuv444p", "yuv420p10le")
_TUNED = {"tune": "hq", "rc": "vbr", "b": "0", "spatial-aq": "1"}
_SPEEDS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower",
           "veryslow", "placebo")  # fmt: skip
_SVT_SPEEDS = tuple(str(speed) for speed in range(-1, 14))
_CARD_SPEEDS = (*(f"p{speed}" for speed in range(1, 8)), "slow", "medium", "fast")
_RGB = ("gbrp", "gbrap", "gbrp16le", "gbrap16le", "gray", "gray16le")

KINDS = {
    k.name: k
    for k in (
        EncoderKind(name="libx264", formats=_H264, crf=16, preset="medium",
                    presets=_SPEEDS, even=True, memory=190, thread_memory=12),
        EncoderKind(name="libx265", formats=_H265, crf=18, preset="medium",
                    presets=_SPEEDS, even=True, tag="hvc1", memory=390),
        EncoderKind(name="libsvtav1", formats=("yuv420p", "yuv420p10le"), crf=24, preset="6",
                    presets=_SVT_SPEEDS, worst=63, whole=True, memory=500),
        EncoderKind(name="libvpx-vp9", crf=20, worst=63, whole=True, formats=(
            "yuv420p", "yuv422p", "yuv444p", "yuva420p", "gbrp"),
            always={"b": "0", "row-mt": "1", "deadline": "good", "cpu-used": "4"}),
        EncoderKind(name="prores_ks", formats=("yuv422p10le", "yuv444p10le", "yuva444p10le"),
                    bits=4.0),
        EncoderKind(name="ffv1", formats=_FFV1, largest=65536, bits=9.0,
                    always={"level": "3", "slices": "16", "slicecrc": "1", "g": "1"}),
        EncoderKind(name="h264_nvenc", formats=("yuv420p", "yuv444p"), crf=19, preset="p5",
                    presets=_CARD_SPEEDS, even=True, largest=4096, quality_option="cq",
                    always=_TUNED),
        EncoderKind(name="hevc_nvenc", formats=_NVENC, crf=19, preset="p5",
                    presets=_CARD_SPEEDS, even=True, tag="hvc1", largest=8192,
                    quality_option="cq", always=_TUNED),
        EncoderKind(name="av1_nvenc", formats=("yuv420p", "yuv420p10le"), crf=24, preset="p5",
                    presets=_CARD_SPEEDS, even=True, largest=8192, quality_option="cq",
                    always=_TUNED),
        EncoderKind(name="png", formats=_RGB, largest=65500, bits=14.0),
        EncoderKind(name="apng", formats=_RGB, largest=65500),
        EncoderKind(name="tiff", formats=_RGB, largest=65500),
        EncoderKind(name="mjpeg", formats=("yuv420p", "yuv422p", "yuv444p"), largest=65500,
                    always={"qmin": "1", "qmax": "2", "huffman": "optimal"}),
        EncoderKind(name="libwebp", formats=("yuv420p", "yuva420p"), always={"quality": "95"}),
        EncoderKind(name="gif", formats=("gbrp", "gbrap"), largest=65500),
        EncoderKind(name="rawvideo", formats=_FFV1, largest=65536, bits=12.0),
    )
}  # fmt: skip
SOFTWARE = {"h264_nvenc": "libx264", "hevc_nvenc": "libx265", "av1_nvenc": "libsvtav1"}

PACKED = {
    ("ffv1", "gbrp"): "bgr0", ("ffv1", "gbrap"): "bgra",
    **{(c, "gbrp"): "rgb24" for c in ("png", "apng", "tiff")},
    **{(c, "gbrap"): "rgba" for c in ("png", "apng", "tiff")},
    **{(c, "gbrp16le"): "rgb48be" for c in ("png", "apng")},
    **{(c, "gbrap16le"): "rgba64be" for c in ("png", "apng")},
    **{(c, "gray16le"): "gray16be" for c in ("png", "apng")},
    ("tiff", "gbrp16le"): "rgb48le", ("tiff", "gbrap16le"): "rgba64le",
    **{(c, "yuv420p10le"): "p010le" for c in ("hevc_nvenc", "av1_nvenc")},
    ("mjpeg", "yuv420p"): "yuvj420p", ("mjpeg", "yuv422p"): "yuvj422p",
    ("mjpeg", "yuv444p"): "yuvj444p",
}  # fmt: skip
"""Where an encoder wants the same samples in another arrangement: a lossless repacking."""


def usual_threads() -> int:
    """How many threads x264 takes by itself: three for two processors."""
    return math.ceil(1.5 * processors())


def kind_of(name: str) -> EncoderKind:
    """The encoder called `name`, or one of its aliases."""
    name = ALIASES.get(name, name)
    if name not in KINDS:
        usual = "libx264, libx265, libsvtav1, libvpx-vp9, prores_ks, ffv1, h264_nvenc, hevc_nvenc"
        raise UsageError(f"there is no codec called {name}", hint=f"choose one of {usual}")
    return KINDS[name]


def default_codec(container: str, video: VideoInfo) -> str:
    """The encoder for a container when the user names none."""
    layout = video.layout
    if container == "webm":
        return "libvpx-vp9" if layout.alpha else "libsvtav1"
    if container == "mov" and layout.alpha:
        return "prores_ks"
    if container in ("gif", "apng"):
        return container
    if container in ("yuv4mpegpipe", "rawvideo"):
        return "rawvideo"
    if container == "nut":
        return "ffv1"
    deep = layout.depth > 8 or video.is_hdr
    return "libx265" if deep else "libx264"


def choose_pix_fmt(kind: EncoderKind, source: PixelLayout, *, deep: bool, asked: str | None) -> str:
    """The encoder's format nearest to the source's: depth first, then alpha, then subsampling."""
    if asked is not None:
        wanted = parse_pix_fmt(asked)
        name = asked.replace("yuvj", "yuv")
        if wanted is None or name not in kind.formats:
            raise UsageError(
                f"{kind.name} does not write {asked}",
                hint=f"it writes {', '.join(kind.formats)}",
            )
        return name

    depth = max(source.depth, 10 if deep else 8)

    def cost(name: str) -> tuple[int, ...]:
        layout = parse_pix_fmt(name)
        assert layout is not None
        lost_alpha = source.alpha and not layout.alpha
        needless_alpha = layout.alpha and not source.alpha
        lost_color = layout.family == "gray" and source.family != "gray"
        finest = source.sub if source.family == "yuv" else (0, 0)
        if source.family == "rgb" and kind.name in ("libx264", "libx265", "libvpx-vp9"):
            finest = (1, 1)  # players rarely decode 4:4:4; --pix-fmt asks for it
        sub = layout.sub if layout.family == "yuv" else (0, 0)
        lost_sub = sum(max(0, a - b) for a, b in zip(sub, finest, strict=True))
        more_sub = sum(max(0, b - a) for a, b in zip(sub, finest, strict=True))
        other_family = layout.family != source.family
        return (
            lost_color, lost_alpha, max(0, depth - layout.depth), lost_sub, more_sub,
            other_family, max(0, layout.depth - depth), needless_alpha,
        )  # fmt: skip

    return min(kind.formats, key=cost)


def even_size(kind: EncoderKind, size: tuple[int, int], layout: PixelLayout) -> tuple[int, int]:
    """The size that the encoder takes: the same, or one more where it refuses odd numbers."""
    if not kind.even:
        return size
    width, height = size
    return width + (width % 2 if layout.sub[0] else 0), height + (
        height % 2 if layout.sub[1] else 0
    )


def check_dials(kind: EncoderKind, crf: float | None, preset: str | None) -> None:
    """Refuse a quality or a speed that the encoder does not have. Raises UsageError."""
    if crf is not None and kind.crf is None:
        raise UsageError(
            f"{kind.name} has no --crf", hint="leave it out, or use libx264 or libx265"
        )
    if crf is not None and not 0 <= crf <= kind.worst:  # also what is not a number
        raise UsageError(
            f"--crf {crf:g} is not possible: {kind.name} takes 0, the best, to {kind.worst}",
            hint=f"its default here is {kind.crf:g}",
        )
    if preset is not None and kind.preset is None:
        raise UsageError(f"{kind.name} has no --preset", hint="leave it out")
    if preset is not None and preset not in kind.presets:
        raise UsageError(
            f"{kind.name} has no --preset {preset}", hint=f"choose {', '.join(kind.presets)}"
        )


def usable_quality(kind: EncoderKind, crf: float | None) -> tuple[float | None, str]:
    """The quality that the encoder takes for `crf`, and a sentence where that is another one."""
    if crf is None or not kind.whole or crf == round(crf):
        return crf, ""
    whole = round(crf)  # as FFmpeg's command line does
    return whole, f"{kind.name} takes whole numbers: --crf {crf:g} becomes {whole}"


def check_asked(codec: str | None, crf: float | None, preset: str | None) -> None:
    """Refuse what the encoder does not have, or no encoder while none is named.

    Raises UsageError.
    """
    if codec is not None:
        check_dials(kind_of(codec), crf, preset)
        return
    most = max(kind.worst for kind in KINDS.values())
    if crf is not None and not 0 <= crf <= most:
        raise UsageError(
            f"--crf {crf:g} is not possible: 0 is the best, {most} the worst",
            hint="H.264 and HEVC end at 51",
        )
    if preset is not None and not any(preset in kind.presets for kind in KINDS.values()):
        raise UsageError(f"no encoder has --preset {preset}", hint=f"choose {', '.join(_SPEEDS)}")


def encoder_options(
    kind: EncoderKind,
    *,
    crf: float | None,
    preset: str | None,
    layout: PixelLayout,
    hdr: Hdr | None,
    transfer: int,
) -> dict[str, str]:
    """The options for FFmpeg's encoder. Raises UsageError for a dial that it does not have."""
    check_dials(kind, crf, preset)
    options: dict[str, str] = {}
    if kind.crf is not None:
        quality = crf if crf is not None else kind.crf
        options[kind.quality_option] = f"{quality:g}"
    if kind.preset is not None:
        options["preset"] = preset or kind.preset
    return options | dict(kind.always) | _for_picture(kind.name, layout, hdr, transfer)


def _for_picture(name: str, layout: PixelLayout, hdr: Hdr | None, transfer: int) -> dict[str, str]:
    """Options of an encoder that depend on the picture."""
    if name == "libx265":
        return {
            "x265-params": ":".join(
                ["log-level=none", "repeat-headers=1", *_x265_hdr(hdr, transfer)]
            )
        }
    if name == "libsvtav1" and (found := _svt_hdr(hdr)):
        return {"svtav1-params": ":".join(found)}
    if name == "libvpx-vp9" and layout.alpha:
        return {"auto-alt-ref": "0"}  # libvpx refuses alpha with it
    if name == "prores_ks":
        profile = {"profile": "4" if layout.sub == (0, 0) else "3"}
        return profile | ({"alpha_bits": "16"} if layout.alpha else {})
    if name == "hevc_nvenc" and layout.depth > 8:
        return {"profile": "main10"}
    return {}


def _x265_hdr(hdr: Hdr | None, transfer: int) -> list[str]:
    if hdr is None:
        return []
    found = ["hdr10=1"] if transfer == 16 else []
    if hdr.display:
        rx, ry, gx, gy, bx, by, wx, wy = (round(v * 50000) for v in hdr.display[:8])
        low, high = (round(v * 10000) for v in hdr.display[8:])
        found.append(
            f"master-display=G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"
        )
    if hdr.max_content is not None:
        found.append(f"max-cll={hdr.max_content},{hdr.max_average}")
    return found


def _svt_hdr(hdr: Hdr | None) -> list[str]:
    if hdr is None:
        return []
    found = []
    if hdr.display:
        rx, ry, gx, gy, bx, by, wx, wy, low, high = (f"{float(v):.6g}" for v in hdr.display)
        found.append(
            f"mastering-display=G({gx},{gy})B({bx},{by})R({rx},{ry})WP({wx},{wy})L({high},{low})"
        )
    if hdr.max_content is not None:
        found.append(f"content-light={hdr.max_content},{hdr.max_average}")
    return found


def codec_tag(codec: str, muxer: str) -> str | None:
    """The tag of the video in a container; None for the muxer's own. QuickTime plays no hev1."""
    return KINDS[codec].tag if muxer in ("mp4", "mov") else None


def carries_hdr(kind: EncoderKind) -> bool:
    """Whether mastering display and light levels reach the output's bitstream."""
    return kind.name in ("libx265", "libsvtav1")


def opens(
    codec: str,
    pix_fmt: str = "yuv420p",
    size: tuple[int, int] = (256, 256),
    rate: Fraction = Fraction(25),
    options: dict[str, str] | None = None,
) -> str | None:
    """None when the encoder opens here, else the reason: no such card, bad option, bad size."""
    try:
        context: Any = av.CodecContext.create(codec, "w")
        context.width, context.height = size
        context.pix_fmt = PACKED.get((codec, pix_fmt), pix_fmt)
        context.time_base, context.framerate = 1 / rate, rate
        context.options = dict(options or {})
        if codec in ("prores_ks", "mjpeg"):
            context.bit_rate = 0
        if codec == "mjpeg":
            context.color_range = 2
        with usual_scheduling():
            context.open()
    except (av.FFmpegError, ValueError, OSError) as error:
        return getattr(error, "strerror", None) or str(error)
    return None


def software_for(codec: str, info: MediaInfo) -> tuple[str, str]:
    """(codec, note): `codec` itself when it opens, else the software one and why."""
    if codec not in SOFTWARE:
        return codec, ""
    reason = opens(codec, KINDS[codec].formats[0], (512, 512))
    if reason is None:
        return codec, ""
    other = SOFTWARE[codec]
    return other, f"{codec} does not open here ({reason}): {other} is used"


def check_size(kind: EncoderKind, size: tuple[int, int]) -> None:
    """Refuse what no decoder of this codec accepts."""
    if max(size) > kind.largest:
        raise MediaError(
            f"{kind.name} writes at most {kind.largest} pixels a side, not {size[0]}x{size[1]}",
            hint="choose a smaller --scale or --size, or --codec ffv1",
        )
    if min(size) < 16 and kind.name in ("libx265", "libsvtav1", "h264_nvenc", "hevc_nvenc"):
        raise MediaError(f"{kind.name} cannot write pictures of {size[0]}x{size[1]}")


__all__ = [
    "KINDS", "PACKED", "EncoderKind", "carries_hdr", "check_asked", "check_dials", "check_size",
    "choose_pix_fmt", "codec_tag", "default_codec", "encoder_options", "even_size", "kind_of",
    "opens", "planar_name", "software_for", "usable_quality", "usual_threads",
]  # fmt: skip
