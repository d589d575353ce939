"""Streams that the output's container cannot hold as they are: sound and subtitles re-encoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
from av.container import OutputContainer
from av.stream import Stream

from oasis_cli.media.native import decode_sound, give_plain_layout

MILLISECOND = Fraction(1, 1000)
USUAL_LAYOUTS = {
    1: "mono",
    2: "stereo",
    3: "2.1",
    4: "quad",
    5: "5.0",
    6: "5.1",
    7: "6.1",
    8: "7.1",
}
BITS_PER_CHANNEL = {"aac": 96_000, "libopus": 80_000}


class Converter(Protocol):
    """Takes the packets of one input stream, gives those of its output stream."""

    stream: Stream

    def feed(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]: ...

    def flush(self) -> Iterator[av.Packet[Any]]: ...


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
        rate = 48000 if codec == "libopus" else context.sample_rate
        stream: Any = output.add_stream(codec, rate=rate)
        self.stream: Stream = stream
        self._encoder = encoder = stream.codec_context
        layout = give_plain_layout(context)
        # PCM may come with a number of channels and no layout, which encoders refuse.
        usual = USUAL_LAYOUTS.get(layout.channels, "stereo")
        encoder.layout = layout.name if layout.is_named else usual
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
        """What decoder, resampler and encoder still hold."""
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
