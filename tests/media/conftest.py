"""Makers of awkward little files, and one way through the whole media layer."""

from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
import torch

from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.reader import Reader, ReadOptions
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.media.output.writer import DecodingOrder, Writer

RATE = 25


def ramp(number: int, width: int, height: int) -> np.ndarray:
    """A smooth picture that moves: (H, W, 3) uint8."""
    x = (np.arange(width)[None, :] * 3 + number * 5) % 256
    y = np.arange(height)[:, None] * 255 // height
    return np.stack([x + 0 * y, y + 0 * x, (x // 2 + y // 2)], -1).astype(np.uint8)


def add_video(out: Any, codec: str, size: tuple[int, int], pix_fmt: str, options: dict) -> Any:
    video = out.add_stream(codec, rate=RATE, options=options)
    video.width, video.height, video.pix_fmt = *size, pix_fmt
    return video


def make_video(
    path: Path,
    *,
    ticks: Sequence[int] | None = None,
    base: Fraction = Fraction(1, 12800),
    frames: int = 8,
    size: tuple[int, int] = (32, 24),
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    setup: Callable[[Any], None] | None = None,
    sound: bool = False,
    sound_at: Fraction = Fraction(0),
    seconds: float = 0.32,
    container: dict[str, str] | None = None,
    format: str | None = None,
    picture: Callable[[int, int, int], np.ndarray] = ramp,
) -> Path:
    """A video whose frame k is shown at `ticks[k] * base`; pcm sound that starts at `sound_at`."""
    ticks = ticks if ticks is not None else [int(Fraction(k, RATE) / base) for k in range(frames)]
    quick = {"preset": "ultrafast"} if codec in ("libx264", "libx265") else {}
    if codec == "libx265":
        quick["x265-params"] = "log-level=none"
    with av.open(str(path), "w", container_options=container or {}, format=format) as out:
        video = add_video(out, codec, size, pix_fmt, {**quick, **(options or {})})
        video.codec_context.time_base = Fraction(1, RATE)
        video.time_base = base
        if setup:
            setup(video)
        audio = out.add_stream("pcm_s16le", rate=48000, layout="mono") if sound else None

        order = DecodingOrder()

        def stamp(packets: list[av.Packet]) -> None:
            for packet in packets:
                shown, decoded = packet.pts, order(packet.pts, packet.dts)
                packet.time_base = base
                packet.pts = ticks[shown]
                step = ticks[1] - ticks[0] if len(ticks) > 1 else int(1 / RATE / base)
                packet.dts = ticks[decoded] if decoded >= 0 else ticks[0] + decoded * step
                packet.duration = step
                packet.stream = video
                out.mux(packet)

        for number in range(len(ticks)):
            frame = av.VideoFrame.from_ndarray(picture(number, *size), format="rgb24")
            frame = frame.reformat(format=pix_fmt)
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            stamp(video.encode(frame))
        stamp(video.encode(None))
        if audio is not None:
            for start in range(0, int(48000 * seconds), 960):
                tone = np.full((1, 960), 1000 + start % 7000, np.int16)
                chunk = av.AudioFrame.from_ndarray(tone, format="s16", layout="mono")
                chunk.sample_rate, chunk.time_base = 48000, Fraction(1, 48000)
                chunk.pts = start + int(sound_at * 48000)
                out.mux(audio.encode(chunk))
            out.mux(audio.encode(None))
    return path


def make_rich(path: Path) -> Path:
    """A Matroska file with one of everything, the same bytes each time: no random numbers."""
    with av.open(str(path), "w", options={"fflags": "bitexact"}) as out:
        video = add_video(out, "libx264", (32, 24), "yuv420p", {"preset": "ultrafast"})
        video.metadata["title"] = "the picture"
        sounds = []
        for codec, language in (("aac", "eng"), ("flac", "deu")):
            sound = out.add_stream(codec, rate=48000, layout="mono")
            sound.metadata["language"] = language
            sounds.append(sound)
        sounds[1].disposition = av.stream.Disposition.comment
        words: Any = out.add_mux_stream("subrip")
        words.time_base, words.metadata["language"] = Fraction(1, 1000), "fre"
        words.disposition = av.stream.Disposition.forced
        out.add_attachment("font.ttf", "application/x-truetype-font", b"not really a font")
        cover = av.CodecContext.create("png", "w")
        cover.width, cover.height, cover.pix_fmt, cover.time_base = 8, 8, "rgb24", Fraction(1, 25)
        art = av.VideoFrame.from_ndarray(ramp(0, 8, 8), format="rgb24")
        png = b"".join(bytes(p) for p in cover.encode(art))
        out.add_attachment("cover.png", "image/png", png)
        out.metadata.update({"title": "Case title", "artist": "Someone", "MAJOR_BRAND": "isom"})
        out.set_chapters(
            [
                {"id": n, "start": n * 160, "end": n * 160 + 160, "time_base": Fraction(1, 1000),
                 "metadata": {"title": name}}
                for n, name in enumerate(("First", "Zweites Kapitel"))
            ]
        )  # fmt: skip
        for number in range(8):
            frame = av.VideoFrame.from_ndarray(ramp(number, 32, 24), format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            out.mux(video.encode(frame))
        out.mux(video.encode(None))
        for sound in sounds:
            kind = sound.codec_context.format.name
            for start in range(0, 15360, 1024):
                tone = np.zeros((1, 1024), np.float32 if kind == "fltp" else np.int16)
                chunk = av.AudioFrame.from_ndarray(tone, format=kind, layout="mono")
                chunk.sample_rate, chunk.time_base = 48000, Fraction(1, 48000)
                chunk.pts = start
                out.mux(sound.encode(chunk))
            out.mux(sound.encode(None))
        for number, text in enumerate((b"Hello", b"World")):
            packet = av.Packet(text)
            packet.pts = packet.dts = number * 160 + 10
            packet.duration, packet.time_base, packet.stream = 100, Fraction(1, 1000), words
            out.mux(packet)
    return path


def enlarge(
    source: Path | str,
    target: Path | str,
    *,
    scale: int = 2,
    read: ReadOptions | None = None,
    encode: EncodeOptions | None = None,
    raw: Any = None,
) -> SimpleNamespace:
    """Enlarge by repeating pixels: every pixel of the output is known. Gives plan and reports."""
    info = probe(source, raw)
    read = read or ReadOptions()
    width, height = info.video.size(bake_rotation=read.bake_rotation)
    size = (width * scale, height * scale)
    plan = plan_output(info, target, size, encode or EncodeOptions(overwrite=True), read)
    with (
        Reader(info, read, keep_alpha=plan.keep_alpha, keep_captions=plan.captions) as reader,
        Writer(plan, info, reader.timeline, reader.relay) as writer,
    ):
        for frame in reader:
            clip = frames_to_clip([frame], reader.spec)
            clip = torch.nn.functional.interpolate(clip, (size[1], size[0]))
            writer.write(clip_to_planes(clip, plan.spec)[0])
        writer.close()
    return SimpleNamespace(info=info, plan=plan, report=reader.report, line=reader.timeline,
                           warnings=writer.warnings)  # fmt: skip


def shown(path: Path) -> list[Fraction]:
    """The time of every frame of the first real video stream."""
    with av.open(str(path)) as box:
        stream = next(s for s in box.streams.video if not int(s.disposition) & 0x400)
        return [f.pts * f.time_base for f in box.decode(stream)]


def payloads(path: Path, kind: str = "audio") -> list[list[bytes]]:
    """Packets of every stream of a kind."""
    with av.open(str(path)) as box:
        found = {s.index: [] for s in box.streams if s.type == kind}
        for packet in box.demux():
            if packet.size and packet.stream_index in found:
                found[packet.stream_index].append(bytes(packet))
    return list(found.values())


@pytest.fixture
def kit() -> SimpleNamespace:
    """kit.video, kit.rich, kit.enlarge, kit.shown, kit.payloads, kit.ramp: see the functions."""
    return SimpleNamespace(video=make_video, rich=make_rich, enlarge=enlarge, shown=shown,
                           payloads=payloads, ramp=ramp)  # fmt: skip
