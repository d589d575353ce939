"""Streams that the output's container cannot hold as they are: sound and subtitles re-encoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
from av.container import OutputContainer
from av.stream import Stream

from oasis_cli.media.native import SoundLayout, decode_sound, give_plain_layout, sound_layout

MILLISECOND = Fraction(1, 1000)
LAYOUTS = {
    1: ("mono",), 2: ("stereo",), 3: ("2.1", "3.0"), 4: ("quad", "4.0"), 5: ("5.0",), 6: ("5.1",),
    7: ("6.1", "6.1(back)"), 8: ("7.1", "7.1(wide)"),
}  # fmt: skip
"""Names for a number of channels, the usual one first: no encoder takes all of them."""
BITS_PER_CHANNEL = {"aac": 96_000, "libopus": 80_000}


class Converter(Protocol):
    """Takes the packets of one input stream, gives those of its output stream."""

    stream: Stream

    def feed(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]: ...

    def flush(self) -> Iterator[av.Packet[Any]]: ...


def make_converter(output: OutputContainer, source: Any, codec: str) -> Converter:
    """The converter for a stream of sound or subtitles, with its stream added to `output`."""
    make = AudioConverter if source.type == "audio" else SubtitleConverter
    return make(output, source, codec)


def rate_for(codec: str, rate: int) -> int:
    """The sample rate that an encoder takes instead of `rate`: the next higher, or its highest.

    >>> rate_for("aac", 37800), rate_for("aac", 192000), rate_for("flac", 37800)
    (44100, 96000, 37800)
    """
    if codec == "libopus":
        return 48000
    rates = av.Codec(codec, "w").audio_rates or [rate]
    return min((r for r in rates if r >= rate), default=max(rates))


def layout_for(codec: str, rate: int, layout: SoundLayout) -> str:
    """The layout that an encoder takes instead: its own name, another one, or stereo.

    Sound may come with a number of channels and no names, which encoders refuse, and several
    encoders refuse some names: Opus 5.1(side), as AC-3 has it, ALAC 7.1.
    """
    usual = LAYOUTS.get(layout.channels, ())
    names = (layout.name, *usual) if layout.is_named else usual
    return next((name for name in names if _opens(codec, rate, name)), "stereo")


def lost_in_conversion(source: Any, codec: str) -> str:
    """What converting a stream to `codec` loses of its space; "" when nothing."""
    if source.type != "audio":
        return ""
    profile = source.codec_context.profile or ""
    if "Atmos" in profile or "DTS:X" in profile:
        return f"the objects of {profile} are lost, its channels are kept"
    context, layout = source.codec_context, sound_layout(source.codec_context)
    kept = layout_for(codec, rate_for(codec, context.sample_rate), layout)
    if layout.channels <= 2 or kept != "stereo":
        return ""
    return f"{layout.channels} channels are mixed to stereo"


def _opens(codec: str, rate: int, layout: str) -> bool:
    context: Any = av.CodecContext.create(codec, "w")
    context.sample_rate, context.layout = rate, layout
    context.format = context.codec.audio_formats[0]
    context.time_base = Fraction(1, rate)
    try:
        context.open()
    except (av.FFmpegError, ValueError):
        return False
    return True


class SubtitleConverter:
    """Text subtitles from one format to another; the words and their times are kept."""

    def __init__(self, output: OutputContainer, source: Any, codec: str) -> None:
        self._decoder = source.codec_context
        if not self._decoder.is_open:
            self._decoder.open(strict=False)
        stream: Any = output.add_stream(codec)
        stream.codec_context.time_base = stream.time_base = MILLISECOND
        stream.codec_context.subtitle_header = self._decoder.subtitle_header
        self.stream: Stream = stream
        self._encoder = stream.codec_context

    def feed(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        """One packet in, one out; mov_text's empty gap packets give none."""
        base = packet.time_base
        pts, duration = packet.pts or 0, packet.duration or 0
        subtitle = self._decoder.decode2(packet)
        if subtitle is None:
            return
        out: av.Packet[Any] = self._encoder.encode_subtitle(subtitle)
        out.time_base = MILLISECOND
        out.pts = out.dts = round(pts * base / MILLISECOND)
        out.duration = round(duration * base / MILLISECOND)
        out.stream = self.stream
        yield out

    def flush(self) -> Iterator[av.Packet[Any]]:
        """Nothing is held back."""
        return iter(())


class AudioConverter:
    """Sound decoded and encoded again, with its sample times."""

    def __init__(self, output: OutputContainer, source: Any, codec: str) -> None:
        self._source = source
        context = source.codec_context
        rate = rate_for(codec, context.sample_rate)
        stream: Any = output.add_stream(codec, rate=rate)
        self.stream: Stream = stream
        self._encoder = encoder = stream.codec_context
        layout = give_plain_layout(context)
        encoder.layout = layout_for(codec, rate, layout)
        if codec in BITS_PER_CHANNEL:
            encoder.bit_rate = BITS_PER_CHANNEL[codec] * max(1, layout.channels)
        elif codec in ("flac", "alac") and context.format.bits > 16:
            encoder.format = "s32" if codec == "flac" else "s32p"
        self._rate = rate
        self._resampler = self._new_resampler()
        self._form: tuple[str, str, int] | None = None

    def _new_resampler(self) -> av.AudioResampler:
        encoder = self._encoder
        return av.AudioResampler(format=encoder.format, layout=encoder.layout, rate=self._rate)

    def feed(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        """One packet in, any number out."""
        for frame in decode_sound(self._source.codec_context, packet):
            yield from self._encoded(frame)

    def flush(self) -> Iterator[av.Packet[Any]]:
        """The packets that decoder, resampler and encoder still hold."""
        try:
            frames = decode_sound(self._source.codec_context, None)
        except (EOFError, av.FFmpegError):
            frames = []
        for frame in [*frames, None]:
            yield from self._encoded(frame)
        yield from self._encoder.encode(None)

    def _encoded(self, frame: av.AudioFrame | None) -> Iterator[av.Packet[Any]]:
        pieces: list[av.AudioFrame] = []
        if frame is not None:
            form = frame.format.name, frame.layout.name, frame.sample_rate
            if self._form not in (None, form):  # broadcasts go from stereo to 5.1 and back
                pieces = self._resampler.resample(None)
                self._resampler = self._new_resampler()
            self._form = form
        for piece in [*pieces, *self._resampler.resample(frame)]:
            if piece is not None:  # what a resampler with nothing to do gives back
                yield from self._encoder.encode(piece)
