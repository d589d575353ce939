"""Open an input, choose its video stream and describe everything in it.

One frame is decoded: rotation, HDR metadata, alpha and the real pixel format are only on frames.
"""

from __future__ import annotations

import struct
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.faults import reading, shown, unreadable_hint
from oasis_cli.media.icc import profile_of
from oasis_cli.media.info import (
    Color,
    Hdr,
    MediaInfo,
    StreamInfo,
    StreamKind,
    VideoInfo,
    usual_rate,
)
from oasis_cli.media.input.chapters import all_chapters
from oasis_cli.media.input.joins import BREAKING
from oasis_cli.media.input.limits import check_size
from oasis_cli.media.input.lookahead import Ahead, continued, count_frames, look_ahead
from oasis_cli.media.input.parts import FORMATS, film_behind, missing_bytes, part_starts
from oasis_cli.media.input.pieces import look_behind
from oasis_cli.media.input.pipes import Pipe, passes_once
from oasis_cli.media.input.playlists import REACHING
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.siting import chroma_siting
from oasis_cli.media.input.source import FrameSource, LiveInput, open_input
from oasis_cli.media.input.stills import (
    animated_webp,
    check_pictures,
    left_out,
    list_pictures,
    webp_profile,
)
from oasis_cli.media.input.tracks import HALF_TURN
from oasis_cli.media.native import SideDataReader, sound_layout
from oasis_cli.media.picture import parse_pix_fmt, planar_name

STANDARD_START = ("mpegts", "mpeg", "mpegvideo", "vob")
"""Formats whose clock starts anywhere: their start is moved to 0, as players do."""


def probe(path: str | Path, raw: RawInput | None = None) -> MediaInfo:
    """Describe the input `path`: a file, a folder or pattern of pictures, or `-` for a pipe.

    Raises UsageError for what is not there or not a file, MediaError for what is no video.
    """
    raw = raw or RawInput()
    if not str(path):  # which would be this folder
        raise UsageError("the input has no name", hint="name a video, or - for a pipe")
    with reading(path):
        if passes_once(path):
            pipe = Pipe(path)
            return _probe_container(path, open_input(path, raw, pipe=pipe), raw, pipe, live=True)
        files = list_pictures(path)
        if files:
            return _probe_pictures(path, files, raw)
        if not Path(path).exists():
            raise FileNotFoundError(path)
        if Path(path).is_dir():
            raise UsageError(
                f"{path} is a directory without pictures, not a video",
                hint="give a video, or a folder of numbered PNG, JPEG, TIFF or WebP files",
            )
        with Path(path).open("rb") as file:  # the plainest way to ask for permission
            if not file.read(1):
                raise MediaError(f"{path} is empty", hint="it may still be downloading")
        if (animation := animated_webp(path)) is not None:
            raw.check_used(path, "webp")
            with animation as frames:
                info = _describe_frames(path, "webp", next(iter(frames)), frames.rate)
            return replace(info, video=replace(info.video, icc=webp_profile(path)))
        container = open_input(path, raw)
        if container.format.name in REACHING:  # what it names may be gone the next time
            return _probe_container(path, container, raw, live=True)
        with container:
            return _probe_container(path, container, raw)


def _probe_container(
    path: str | Path,
    container: InputContainer,
    raw: RawInput,
    pipe: Pipe | None = None,
    *,
    live: bool = False,
) -> MediaInfo:
    stream = choose_video(container, path, raw.track)
    metadata = stream.metadata
    decoder = (
        "libvpx-vp9" if metadata.get("alpha_mode", metadata.get("ALPHA_MODE")) == "1" else None
    )
    if decoder and stream.codec_context.name not in ("vp9", "libvpx-vp9"):
        decoder = None
    once = LiveInput(container, stream, decoder, pipe) if live else None
    first = (
        once.first() if once else next(iter(FrameSource(container, stream, decoder=decoder)), None)
    )
    if first is None:
        raise MediaError(
            f"{shown(path)} has a video stream, but not one frame of it can be decoded",
            hint=unreadable_hint(
                path,
                "it may be damaged, encrypted, hold no frames, or claim more pixels than a file "
                "of its size can hold",
            ),
        )
    check_size(path, first.width, first.height)
    own = stream.guessed_rate or stream.average_rate or stream.base_rate or Fraction(25)
    rate = raw.rate_of(path, Fraction(own), timed=first.pts is not None)
    video = _describe_video(container, stream, first, decoder, rate, live=live)
    parts = [] if live else part_starts(str(path), container.format.name)
    behind = look_behind(container, str(path), parts, FORMATS.get(container.format.name, ""))
    chapters, odd_chapters, left_behind = all_chapters(container, str(path), raw, behind)
    if parts:
        video = replace(video, claimed_frames=0)  # the first part's own
    if not (live or video.claimed_frames or (container.format.name in BREAKING and not parts)):
        video = replace(video, claimed_frames=count_frames(path, raw, stream.index))
    joined, changed = ({}, {}) if live else _continued(path, container, raw)
    streams = [s for s in container.streams if s.index not in joined]
    shift = container.format.name.split(",")[0] in STANDARD_START
    starts = [
        _seconds(s.start_time, s.time_base)
        for s in streams
        if s.type != "data" and s.index not in changed
    ]
    return MediaInfo(
        path=str(path),
        format=container.format.name,
        streams=tuple(describe_stream(s) for s in streams),
        video=video,
        chapters=tuple(chapters),
        odd_chapters=odd_chapters,
        unread_at=0 if live else film_behind(str(path), container.format.name),
        metadata=dict(container.metadata),
        duration=_duration(container, behind.seconds),
        parts=1 + len(parts),
        left_behind=left_behind,
        missing=0 if live else missing_bytes(str(path), container.format.name),
        start=min((s for s in starts if s is not None), default=Fraction(0))
        if shift
        else Fraction(0),
        live=once,
        raw=raw,
        joined=joined,
        changed=changed,
    )


def _continued(
    path: str | Path, container: InputContainer, raw: RawInput
) -> tuple[dict[int, int], dict[int, int]]:
    """See `joins.continued`. Not for pipes: the packets that were looked at would be gone."""
    if container.format.name not in BREAKING:
        return {}, {}
    with open_input(path, raw) as other:
        return continued(other, str(path))


def _duration(container: InputContainer, behind: float | None) -> float | None:
    """Seconds, with those of the files behind it, unless they are the difference of two clocks."""
    if not container.duration or behind is None:
        return None
    seconds = container.duration / 1e6 + behind
    broken = container.format.name in BREAKING and seconds > HALF_TURN
    return None if broken else seconds


def choose_video(
    container: InputContainer, path: str | Path, track: int | None = None
) -> VideoStream:
    """Stream number `track`, else the default video stream, else the first; never a cover.

    Raises UsageError when `track` is no video stream, MediaError when there is none.
    """
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    streams.sort(key=lambda s: not s.disposition & Disposition.default)
    if track is not None and streams:
        numbers = ", ".join(str(n) for n in sorted(s.index for s in streams))
        streams = [s for s in streams if s.index == track]
        if not streams:
            raise UsageError(
                f"stream {track} of {shown(path)} is no video track",
                hint=f"its video tracks: {numbers}; `oasis info` shows all streams",
            )
    for stream in streams:
        if stream.codec_context is not None:
            check_size(path, stream.codec_context.width, stream.codec_context.height)
            return stream
    if streams:
        raise MediaError(f"no decoder here reads the video in {path}")
    kinds: list[str] = sorted({s.type for s in container.streams if s.type != "video"})
    kinds += ["a cover picture"] if container.streams.video else []
    what = f"only {' and '.join(kinds)}" if kinds else "no streams at all"
    raise MediaError(f"{shown(path)} has no video stream, {what}", hint="give a video")


def _seconds(ticks: int | None, base: Fraction | None) -> Fraction | None:
    return None if ticks is None or not base else ticks * base


def describe_stream(stream: Stream) -> StreamInfo:
    """What the container says about one stream."""
    kind: Any = stream.type
    if stream.disposition & Disposition.attached_pic:
        kind = "cover"
    context: Any = stream.codec_context
    detail = ""
    if kind in ("video", "cover") and context is not None:
        detail = f"{context.width}x{context.height}"
    elif kind == "audio" and context is not None:
        detail = f"{context.sample_rate} Hz {sound_layout(context).name}".strip()
    elif kind == "attachment":
        detail = stream.metadata.get("filename", "")
    duration = _seconds(stream.duration, stream.time_base)
    return StreamInfo(
        index=stream.index,
        kind=_kind(kind),
        codec=context.name if context is not None else _codec_of(stream),
        decodable=context is not None,
        time_base=stream.time_base or Fraction(1, 1000),
        start=_seconds(stream.start_time, stream.time_base),
        duration=float(duration) if duration is not None else None,
        language=stream.metadata.get("language"),
        disposition=int(stream.disposition),
        metadata=dict(stream.metadata),
        detail=detail,
        tag=_tag_of(stream),
    )


def _kind(kind: str) -> StreamKind:
    known: tuple[StreamKind, ...] = ("video", "audio", "subtitle", "data", "attachment", "cover")
    return next((k for k in known if k == kind), "unknown")


def _tag_of(stream: Stream) -> str:
    try:
        return stream.codec_tag.strip("\0 ")
    except (AttributeError, UnicodeDecodeError, ValueError):
        return ""


def _codec_of(stream: Stream) -> str:
    # A data stream's name is its codec's, an attachment's the name of its file.
    name = getattr(stream, "name", None) if stream.type == "data" else None
    return name or _tag_of(stream) or stream.metadata.get("mimetype", "unknown")


def _describe_video(
    container: InputContainer, stream: VideoStream, frame: av.VideoFrame, decoder: str | None,
    rate: Fraction, *, live: bool,
) -> VideoInfo:  # fmt: skip
    context = stream.codec_context
    sar = stream.sample_aspect_ratio or context.sample_aspect_ratio
    side = SideDataReader()(frame)
    ahead = Ahead() if live else look_ahead(container, stream)
    matrix = _display_matrix(side.get("DISPLAYMATRIX"))
    return VideoInfo(
        index=stream.index,
        codec=context.name,
        width=frame.width,
        height=frame.height,
        pix_fmt=frame.format.name,
        planar=planar_format(frame.format),
        rate=usual_rate(rate),
        time_base=stream.time_base or Fraction(1, 1000),
        sar=sar if sar and sar > 0 and sar != 1 else None,
        color=_color_of(frame, context),
        siting=chroma_siting(frame, context.name, container.format.name),
        rotation=int(frame.rotation),
        matrix=matrix,
        interlaced=bool(frame.interlaced_frame),
        hdr=_hdr_of(side),
        dolby_vision=any(name.startswith("DOVI") for name in side),
        hdr10_plus="DYNAMIC_HDR_PLUS" in side,
        captions="A53_CC" in side or ahead.captions,
        second_view=ahead.second_view,
        icc=profile_of(side),
        claimed_frames=stream.frames,
        decoder=decoder,
    )


def _color_of(frame: av.VideoFrame, context: Any) -> Color:
    def tag(name: str, unknown: int) -> int:
        for holder in (frame, context):
            value = int(getattr(holder, name) or unknown)
            if value != unknown:
                return value
        return unknown

    matrix = tag("colorspace", 2)
    if frame.format.is_rgb or frame.format.has_palette:
        matrix = 0
    return Color(
        primaries=tag("color_primaries", 2),
        transfer=tag("color_trc", 2),
        matrix=matrix,
        range=tag("color_range", 0),
    )


def planar_format(fmt: av.VideoFormat) -> str:
    """The planar little-endian format that holds everything `fmt` holds.

    >>> planar_format(av.VideoFormat("nv12")), planar_format(av.VideoFormat("rgb48be"))
    ('yuv420p', 'gbrp16le')
    """
    if fmt.name.startswith("yuvj") or parse_pix_fmt(fmt.name) is not None:
        return fmt.name.replace("yuvj", "yuv")
    alpha = any(c.is_alpha for c in fmt.components) or fmt.name in ("pal8",)
    bits = max(c.bits for c in fmt.components)
    depth = next((d for d in (8, 10, 12, 14, 16) if d >= bits), 16)
    if fmt.is_rgb or fmt.has_palette or fmt.is_bayer or fmt.name.startswith("xyz"):
        return planar_name("rgb", 8 if fmt.has_palette else depth, (0, 0), alpha)
    if len([c for c in fmt.components if not c.is_alpha]) == 1:
        depth = 8 if fmt.name in ("monob", "monow") else depth
        # There is no planar gray with alpha: RGB keeps both.
        return planar_name("rgb" if alpha else "gray", depth, (0, 0), alpha)
    sub = (
        (64 // fmt.chroma_width(64)).bit_length() - 1,
        (64 // fmt.chroma_height(64)).bit_length() - 1,
    )
    return planar_name("yuv", depth, sub, alpha)


def _display_matrix(data: bytes | None) -> tuple[int, ...] | None:
    if data is None or len(data) < 36:
        return None
    matrix = struct.unpack("<9i", data[:36])
    identity = matrix[0] > 0 and matrix[4] > 0 and matrix[1] == matrix[3] == 0
    return None if identity else matrix


def _hdr_of(side: dict[str, bytes]) -> Hdr | None:
    display: tuple[Fraction, ...] = ()
    data = side.get("MASTERING_DISPLAY_METADATA", b"")
    if len(data) >= 88:
        v = struct.unpack("<22i", data[:88])
        if v[20] and v[21] and all(v[i] for i in range(1, 20, 2)):
            display = tuple(Fraction(v[i], v[i + 1]) for i in range(0, 20, 2))
    light = side.get("CONTENT_LIGHT_LEVEL", b"")
    content, average = struct.unpack("<2I", light[:8]) if len(light) >= 8 else (None, None)
    if not display and content is None:
        return None
    return Hdr(display=display, max_content=content, max_average=average)


def _describe_frames(
    path: str | Path, kind: str, frame: av.VideoFrame, rate: Fraction
) -> MediaInfo:
    """The description of pictures that come without a container of their own."""
    base = Fraction(1, 1000) if kind == "webp" else 1 / rate
    alpha = planar_format(frame.format)
    video = VideoInfo(
        index=0, codec=kind, width=frame.width, height=frame.height, pix_fmt=frame.format.name,
        planar=alpha, rate=usual_rate(rate), time_base=base, sar=None,
        color=_color_of(frame, frame), siting=chroma_siting(frame, "mjpeg", kind),
        rotation=int(frame.rotation), matrix=None, interlaced=False,
        icc=profile_of(SideDataReader()(frame)),
    )  # fmt: skip
    stream = StreamInfo(
        index=0, kind="video", codec=kind, decodable=True, time_base=base, start=Fraction(0),
        duration=None, language=None, disposition=0, metadata={},
        detail=f"{frame.width}x{frame.height}",
    )  # fmt: skip
    return MediaInfo(
        path=str(path), format=kind, streams=(stream,), video=video, chapters=(), metadata={},
        duration=None, start=Fraction(0),
    )  # fmt: skip


def _probe_pictures(path: str | Path, files: list[Path], raw: RawInput) -> MediaInfo:
    raw.check_used(path, "images")
    check_pictures(files)
    with open_input(files[0]) as container:
        stream = choose_video(container, files[0])
        first = next(iter(FrameSource(container, stream)), None)
        if first is None:
            raise MediaError(f"{files[0]} cannot be decoded")
        rate = Fraction(raw.rate or 25)
        info = _describe_frames(path, "images", first, rate)
    return replace(
        info,
        files=tuple(files),
        duration=float(len(files) / rate),
        other_files=tuple(left_out(path, files)),
    )
