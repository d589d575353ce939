"""What becomes of every other stream: copied, converted, attached or dropped with its reason."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

from av.container import InputContainer

from oasis_cli.media.info import MediaInfo, StreamInfo
from oasis_cli.media.output.convert import lost_in_conversion
from oasis_cli.media.output.rehearse import Packets, converting_fails, copying_fails, first_packets

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
DATA = {"mpegts": {"klv", "timed_id3"}}
"""Data streams that readers of the container find again; elsewhere the muxer knows."""
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


@dataclass(frozen=True, slots=True)
class _Trial:
    """The open input and its first packets, which show what can be copied and converted."""

    source: InputContainer
    packets: Packets

    def copying(self, stream: StreamInfo, muxer: str) -> str | None:
        """Why `muxer` cannot hold a stream; None when it can."""
        return copying_fails(self.source, stream, muxer, self.packets.get(stream.index, []))

    def converting(self, index: int, muxer: str, to: str) -> str | None:
        """Why a stream cannot be converted; None when it can."""
        return converting_fails(self.source, index, muxer, to, self.packets.get(index, []))


def plan_streams(
    info: MediaInfo, source: InputContainer | None, muxer: str, codec: str
) -> tuple[StreamPlan, ...]:
    """One plan per input stream, in order. `source` is the open input; it is read from.

    Whatever is said to be copied or converted was, with the first packets, in memory.
    """
    plans = []
    trial = None
    if source is not None and muxer in CONVERTED_AUDIO and len(info.streams) > 1:
        trial = _Trial(source, first_packets(info, source))
    for stream in info.streams:
        if stream.index == info.video.index:
            plan = _plan(stream, "encode", codec)
        elif trial is None:
            plan = _plan(stream, "drop", reason=f"{muxer} holds one video stream only")
        else:
            plan = _proven(stream, _decide(stream, trial, muxer), trial, muxer)
        plans.append(plan)
    return tuple(plans)


def _proven(stream: StreamInfo, plan: StreamPlan, trial: _Trial, muxer: str) -> StreamPlan:
    """The plan, or a loss with its reason where its conversion fails; a loss says what keeps it."""
    if plan.action == "convert":
        if why := trial.converting(stream.index, muxer, plan.to):
            plan = _plan(stream, "drop", reason=f"{plan.reason}; {why}")
        elif change := lost_in_conversion(trial.source.streams[stream.index], plan.to):
            plan = replace(plan, reason=f"{plan.reason}; {change}")
    if plan.action != "drop" or muxer == "matroska" or "mkv" in plan.reason:
        return plan
    if stream.kind == "cover" or trial.copying(stream, "matroska"):
        return plan
    return replace(plan, reason=f"{plan.reason}; mkv keeps it")


def _plan(stream: StreamInfo, action: Action, to: str = "", reason: str = "") -> StreamPlan:
    return StreamPlan(
        index=stream.index, kind=stream.kind, codec=stream.codec, action=action, to=to,
        reason=reason,
    )  # fmt: skip


def _decide(stream: StreamInfo, trial: _Trial, muxer: str) -> StreamPlan:
    if stream.kind == "subtitle":
        return _subtitle(stream, trial, muxer)
    if stream.kind == "cover":
        return _cover(stream, trial, muxer)
    if stream.kind == "data":
        return _data(stream, trial, muxer)
    if stream.kind == "attachment" and muxer != "matroska":
        return _plan(stream, "drop", reason=f"{muxer} has no attachments; mkv has")
    if stream.kind == "audio" and (found := _known_audio(stream, muxer)):
        return found
    refused = trial.copying(stream, muxer)
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


def _subtitle(stream: StreamInfo, trial: _Trial, muxer: str) -> StreamPlan:
    if stream.codec in TEXT_SUBTITLES and stream.codec not in NATIVE_TEXT[muxer]:
        if muxer not in CONVERTED_TEXT:
            return _plan(stream, "drop", reason=f"{muxer} holds no text subtitles; mkv does")
        styled = stream.codec in ("ass", "ssa")
        reason = f"{muxer} does not hold {stream.codec}" + (", styles are lost" if styled else "")
        return _plan(stream, "convert", CONVERTED_TEXT[muxer], reason)
    refused = trial.copying(stream, muxer)
    if stream.codec == "cc_dec" and muxer != "mov":  # MPEG-TS takes it, and no reader finds it
        refused = f"{muxer} holds no track of CEA-608 captions; mov does"
    if refused is None:
        return _plan(stream, "copy", stream.codec)
    if not stream.decodable:
        stream = replace(stream, codec=_unknown_subtitle(trial.packets.get(stream.index, [])))
    if stream.codec in BITMAP_SUBTITLES:
        refused = f"{muxer} does not hold these picture subtitles; mkv does"
    return _plan(stream, "drop", reason=refused)


def _unknown_subtitle(packets: list[Any]) -> str:
    """What subtitles without a decoder are, by their first bytes (EN 300 472, ARIB STD-B24)."""
    head = bytes(packets[0])[:3] if packets else b""
    if len(head) == 3 and 0x10 <= head[0] < 0x20 and head[1] in (2, 3, 0xFF) and head[2] == 44:
        return "teletext"
    return "ARIB captions" if head[:1] in (b"\x80", b"\x81") else "unknown"


def _cover(stream: StreamInfo, trial: _Trial, muxer: str) -> StreamPlan:
    if muxer == "matroska":
        return _plan(stream, "attach", stream.codec)
    if muxer != "mp4":
        return _plan(stream, "drop", reason=f"{muxer} has no cover pictures; mp4 and mkv have")
    refused = trial.copying(stream, muxer)
    return _plan(stream, "drop", reason=refused) if refused else _plan(stream, "copy", stream.codec)


def _data(stream: StreamInfo, trial: _Trial, muxer: str) -> StreamPlan:
    handler = stream.metadata.get("handler_name", "").lower()
    if "timecode" in stream.metadata or stream.tag == "tmcd":
        if muxer in ("mp4", "mov"):
            return _plan(stream, "regenerate", "tmcd", "from the timecode tag")
        if muxer == "matroska":
            return _plan(stream, "regenerate", "tag", "kept as the TIMECODE tag")
        return _plan(stream, "drop", reason=f"{muxer} has no timecode")
    if _is_chapter_track(stream, trial.source):
        return _plan(stream, "regenerate", "chapters", "this track is the chapter list")
    if muxer in ("matroska", "webm") or stream.codec not in DATA.get(muxer, {stream.codec}):
        return _plan(stream, "drop", reason=f"{muxer} holds no such data streams")
    refused = trial.copying(stream, muxer)
    if stream.codec == "bin_data" and "mp4" not in trial.source.format.name:
        refused = f"{muxer} would call it GoPro telemetry"  # its one name for such data
    reason = refused or ""
    if refused and handler:
        reason = f"{refused} [{handler}]"
    return _plan(stream, "drop", reason=reason) if refused else _plan(stream, "copy", stream.codec)


def _is_chapter_track(stream: StreamInfo, source: InputContainer) -> bool:
    """Whether a data stream is the text track that QuickTime keeps chapters in."""
    # PyAV does not give a data stream's tag; such a track has one sample for each chapter.
    return "mp4" in source.format.name and 0 < source.streams[stream.index].frames == len(
        source.chapters()
    )


def opened_for_copy(info: MediaInfo) -> Any:
    """The container whose other streams are planned: the live one, or a fresh handle."""
    from oasis_cli.media.input.source import open_input

    if info.live is not None:
        return info.live.container
    if info.files or info.format == "webp":
        return None
    return open_input(info.path, info.raw)
