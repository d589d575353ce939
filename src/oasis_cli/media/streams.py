"""What becomes of every other stream: copied, converted, attached or dropped with its reason."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any, Literal

import av
from av.container import InputContainer

from oasis_cli.media.info import MediaInfo, StreamInfo

Action = Literal["encode", "copy", "convert", "attach", "regenerate", "drop"]

BITMAP_SUBTITLES = {"pgssub", "dvdsub", "dvbsub", "xsub"}
TEXT_SUBTITLES = {"srt", "subrip", "ass", "ssa", "mov_text", "webvtt", "text", "eia_608"}
NATIVE_TEXT = {
    "mp4": {"mov_text"}, "mov": {"mov_text"}, "webm": {"webvtt"},
    "matroska": {"srt", "subrip", "ass", "ssa", "webvtt"},
    "nut": set(), "mpegts": set(),
}  # fmt: skip
CONVERTED_TEXT = {"mp4": "mov_text", "mov": "mov_text", "webm": "webvtt", "matroska": "subrip"}
CONVERTED_AUDIO = {
    "webm": ("libopus",), "mov": ("alac", "aac"), "mp4": ("aac",), "matroska": ("flac", "aac"),
    "mpegts": ("aac",), "nut": ("flac",),
}  # fmt: skip
TS_AUDIO = {"aac", "ac3", "eac3", "mp2", "mp2float", "mp3", "mp3float", "dca", "opus", "truehd"}
LOSSLESS = {"flac", "alac", "truehd", "mlp", "tta", "wavpack", "ape"}


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamPlan:
    """The fate of one input stream."""

    index: int
    kind: str
    codec: str
    action: Action
    to: str
    """The codec in the output; empty when dropped."""
    reason: str
    """Why it is converted or dropped; empty for a plain copy."""

    @property
    def fate(self) -> str:
        """What becomes of the stream, without the reason: the output depends on no sentence."""
        words = {"encode": "enlarged", "copy": "copied", "convert": "converted",
                 "attach": "attached", "regenerate": "written anew", "drop": "DROPPED"}  # fmt: skip
        arrow = f" to {self.to}" if self.action in ("convert", "encode") else ""
        return f"stream {self.index}, {self.kind} {self.codec}: {words[self.action]}{arrow}"

    def __str__(self) -> str:
        return f"{self.fate} ({self.reason})" if self.reason else self.fate


def plan_streams(
    info: MediaInfo, source: InputContainer | None, muxer: str, codec: str
) -> tuple[StreamPlan, ...]:
    """One plan per input stream, in order. `source` is the open input, for header dry-runs."""
    plans = []
    for stream in info.streams:
        if stream.index == info.video.index:
            plan = _plan(stream, "encode", codec)
        elif source is None or muxer not in CONVERTED_AUDIO:
            plan = _plan(stream, "drop", reason=f"{muxer} holds one video stream only")
        else:
            plan = _decide(stream, source, muxer)
        plans.append(plan)
    return tuple(plans)


def _plan(stream: StreamInfo, action: Action, to: str = "", reason: str = "") -> StreamPlan:
    return StreamPlan(
        index=stream.index, kind=stream.kind, codec=stream.codec, action=action, to=to,
        reason=reason,
    )  # fmt: skip


def _decide(stream: StreamInfo, source: InputContainer, muxer: str) -> StreamPlan:
    if stream.kind == "subtitle":
        return _subtitle(stream, source, muxer)
    if stream.kind == "cover":
        return _cover(stream, source, muxer)
    if stream.kind == "data":
        return _data(stream, source, muxer)
    if stream.kind == "attachment" and muxer != "matroska":
        return _plan(stream, "drop", reason=f"{muxer} has no attachments; mkv has")
    if stream.kind == "audio" and (found := _known_audio(stream, muxer)):
        return found
    refused = refusal(stream, source, muxer)
    if refused is None:
        return _plan(stream, "copy", stream.codec)
    if stream.kind == "audio" and stream.decodable:
        return _convert_audio(stream, muxer, refused)
    return _plan(stream, "drop", reason=refused)


def _known_audio(stream: StreamInfo, muxer: str) -> StreamPlan | None:
    if muxer == "mpegts" and stream.codec not in TS_AUDIO:
        return _convert_audio(stream, muxer, f"{stream.codec} in MPEG-TS is unreadable")
    if muxer == "webm" and stream.codec not in ("opus", "vorbis", "libopus", "libvorbis"):
        return _convert_audio(stream, muxer, "webm holds opus and vorbis only")
    if muxer == "mov" and stream.codec in ("flac", "opus", "libopus"):
        return _convert_audio(stream, muxer, f"mov does not hold {stream.codec}")
    return None


def _convert_audio(stream: StreamInfo, muxer: str, reason: str) -> StreamPlan:
    choices = CONVERTED_AUDIO[muxer]
    lossless = stream.codec in LOSSLESS or stream.codec.startswith("pcm_")
    to = choices[0] if lossless or len(choices) == 1 else choices[-1]
    if not stream.decodable:
        return _plan(stream, "drop", reason=f"{reason}, and nothing here decodes it")
    return _plan(stream, "convert", to, reason)


def _subtitle(stream: StreamInfo, source: InputContainer, muxer: str) -> StreamPlan:
    if stream.codec in TEXT_SUBTITLES and stream.codec not in NATIVE_TEXT[muxer]:
        if muxer not in CONVERTED_TEXT:
            return _plan(stream, "drop", reason=f"{muxer} holds no text subtitles; mkv does")
        styled = stream.codec in ("ass", "ssa")
        reason = f"{muxer} does not hold {stream.codec}" + (", styles are lost" if styled else "")
        return _plan(stream, "convert", CONVERTED_TEXT[muxer], reason)
    refused = refusal(stream, source, muxer)
    if refused is None:
        return _plan(stream, "copy", stream.codec)
    if stream.codec in BITMAP_SUBTITLES:
        refused = f"{muxer} does not hold these picture subtitles; mkv does"
    return _plan(stream, "drop", reason=refused)


def _cover(stream: StreamInfo, source: InputContainer, muxer: str) -> StreamPlan:
    if muxer == "matroska":
        return _plan(stream, "attach", stream.codec)
    if muxer != "mp4":
        return _plan(stream, "drop", reason=f"{muxer} has no cover pictures; mp4 and mkv have")
    refused = refusal(stream, source, muxer)
    return _plan(stream, "drop", reason=refused) if refused else _plan(stream, "copy", stream.codec)


def _data(stream: StreamInfo, source: InputContainer, muxer: str) -> StreamPlan:
    handler = stream.metadata.get("handler_name", "").lower()
    if "timecode" in stream.metadata or stream.tag == "tmcd":
        if muxer in ("mp4", "mov"):
            return _plan(stream, "regenerate", "tmcd", "from the timecode tag")
        if muxer == "matroska":
            return _plan(stream, "regenerate", "tag", "kept as the TIMECODE tag")
        return _plan(stream, "drop", reason=f"{muxer} has no timecode")
    if _is_chapter_track(stream, source):
        return _plan(stream, "regenerate", "chapters", "this track is the chapter list")
    if muxer in ("matroska", "webm", "mpegts"):
        return _plan(stream, "drop", reason=f"{muxer} holds no data streams")
    refused = refusal(stream, source, muxer)
    if refused is None:
        return _plan(stream, "copy", stream.codec)
    return _plan(stream, "drop", reason=f"{refused} [{handler}]" if handler else refused)


def _is_chapter_track(stream: StreamInfo, source: InputContainer) -> bool:
    """Whether a data stream is the text track that QuickTime keeps chapters in."""
    # PyAV does not give a data stream's tag; such a track has one sample for each chapter.
    return "mp4" in source.format.name and 0 < source.streams[stream.index].frames == len(
        source.chapters()
    )


def refusal(stream: StreamInfo, source: InputContainer, muxer: str) -> str | None:
    """Why `muxer` cannot take a stream, or None when it writes a header with it.

    The query FFmpeg offers says yes to combinations that only fail when the header is written. Its
    log would sometimes say more; but that is one for all threads, and a plan must not depend on
    what else runs.
    """
    try:
        output = av.open(os.devnull, "w", format=muxer)
        try:
            output.add_stream_from_template(source.streams[stream.index], opaque=True)
            output.start_encoding()
        finally:
            output.close()
    except (ValueError, OSError, av.FFmpegError):
        return f"{muxer} does not hold {stream.codec}"
    return None


def opened_for_copy(info: MediaInfo) -> Any:
    """The container whose other streams are planned: the live one, or a fresh handle."""
    from oasis_cli.media.source import open_input

    if info.live is not None:
        return info.live.container
    if info.files or info.format == "webp":
        return None
    return open_input(info.path, info.raw)
