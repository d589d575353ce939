"""Streams that the output's container cannot hold as they are: sound and subtitles re-encoded."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
from av.container import OutputContainer
from av.stream import Stream

MILLISECOND = Fraction(1, 1000)
USUAL_LAYOUTS = {1: "mono", 2: "stereo", 3: "2.1", 4: "quad", 5: "5.0", 6: "5.1", 8: "7.1"}
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
        channels = context.layout.nb_channels
        # PCM may come with a number of channels and no layout, which encoders refuse.
        named = " " not in context.layout.name
        encoder.layout = context.layout.name if named else USUAL_LAYOUTS.get(channels, "stereo")
        if codec in BITS_PER_CHANNEL:
            encoder.bit_rate = BITS_PER_CHANNEL[codec] * max(1, channels)
        elif codec in ("flac", "alac") and context.format.bits > 16:
            encoder.format = "s32" if codec == "flac" else "s32p"
        self._resampler = av.AudioResampler(format=encoder.format, layout=encoder.layout, rate=rate)

    def feed(self, packet: av.Packet[Any]) -> Iterator[av.Packet[Any]]:
        """One packet in, any number out."""
        frames: Any = packet.decode()
        for frame in frames:
            for piece in self._resampler.resample(frame):
                yield from self._encoder.encode(piece)

    def flush(self) -> Iterator[av.Packet[Any]]:
        """What decoder, resampler and encoder still hold."""
        try:
            frames = self._source.codec_context.decode(None)
        except (EOFError, av.FFmpegError):
            frames = []
        for frame in [*frames, None]:
            for piece in self._resampler.resample(frame):
                yield from self._encoder.encode(piece)
        yield from self._encoder.encode(None)
