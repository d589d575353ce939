"""OUTPUT: planes in, a finished file out, with everything else of the input.

with Writer(plan, info, reader.timeline, reader.relay) as writer:
    for planes in pictures:
        writer.write(planes)
    writer.close()          # leaving without it, or by an exception, discards
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any, Protocol

import av
import numpy as np
from av.container import OutputContainer

from oasis_cli.errors import MediaError
from oasis_cli.media.color import enlarge_alpha
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.reader import SideChannel
from oasis_cli.media.input.source import samples
from oasis_cli.media.output.containers import CONSTANT_RATE
from oasis_cli.media.output.encoders import PACKED, codec_tag, usual_threads
from oasis_cli.media.output.mux import Muxer
from oasis_cli.media.output.pictures_out import PictureSink
from oasis_cli.media.output.plan import OutputPlan
from oasis_cli.media.picture import Planes
from oasis_cli.media.timeline import Timeline
from oasis_cli.runtime.processors import allowed, processors

IDR = ("libx264", "libx265", "h264_nvenc", "hevc_nvenc")
KEY = av.video.frame.PictureType.I


class Sink(Protocol):
    """Where encoded or picture frames end up."""

    @property
    def losses(self) -> list[str]: ...

    def write(self, index: int, frame: av.VideoFrame | None) -> None: ...

    def finish(self) -> None: ...

    def abandon(self) -> None: ...


class Writer:
    """Encodes frames in order. One thread owns it."""

    def __init__(
        self,
        plan: OutputPlan,
        info: MediaInfo,
        timeline: Timeline,
        relay: SideChannel | None = None,
    ) -> None:
        """`timeline` and `relay` are the reader's, which fills them ahead of the writer."""
        self.plan, self.timeline, self._relay = plan, timeline, relay
        self.frames = 0
        self.warnings: list[str] = []
        self._done = False
        self._sink: Sink
        if plan.muxer == "images":
            self._sink = PictureSink(plan)
        else:
            self._sink = _StreamSink(plan, info, timeline, relay)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *raised: object) -> None:
        if not self._done:
            self.discard()

    def write(self, planes: Planes) -> None:
        """Write the next frame: planes as `plan.spec` says.

        The alpha plane may be missing: it is then enlarged from the reader's.
        """
        index, self.frames = self.frames, self.frames + 1
        if self.plan.muxer == "images" and self._relay and self._relay.packets:
            self._relay.packets.clear()  # nobody else takes the sound of a pipe
        self._sink.write(index, video_frame(self._with_alpha(index, planes), self.plan))

    def _with_alpha(self, index: int, planes: Planes) -> Planes:
        spec = self.plan.spec
        if not spec.layout.alpha or len(planes) == len(spec.plane_shapes()):
            return planes
        small = self._relay.alpha.pop(index, None) if self._relay else None
        if small is None:
            opaque = (1 << spec.layout.depth) - 1
            return (*planes, np.full((spec.height, spec.width), opaque, planes[0].dtype))
        return (*planes, enlarge_alpha(small, self.plan.source_spec, spec, self.plan.size))

    def close(self) -> None:
        """Flush the encoder, drain the other streams and put the file in the target's place."""
        if self._done:
            return
        if not self.frames:
            raise MediaError("no frame was written")
        self._sink.write(self.frames, None)
        self._sink.finish()
        self._done = True
        self.warnings += self._sink.losses
        if self.plan.muxer in CONSTANT_RATE and self.timeline.variable:
            self.warnings.append(
                f"the frame times vary, which {self.plan.muxer} cannot store: they are even now"
            )

    def discard(self) -> None:
        """Leave the target as it was."""
        if not self._done:
            self._done = True
            self._sink.abandon()


class DecodingOrder:
    """Mends the decoding positions of packets: x265 gives garbage for films of a frame or two."""

    largest_delay = 64
    """No encoder decodes earlier by more frames than this."""

    def __init__(self) -> None:
        self._place = -1
        self._last: int | None = None

    def __call__(self, shown: int, decoded: int | None) -> int:
        """The position of the next packet: rising, and never later than it is shown."""
        self._place += 1
        if decoded is None or not -self.largest_delay <= decoded <= shown:
            decoded = self._place - 4  # x265 reorders by at most 4 frames
        if self._last is not None:
            decoded = max(decoded, self._last + 1)
        self._last = min(decoded, shown)
        return self._last


class _StreamSink:
    """An encoder and a muxer."""

    def __init__(
        self, plan: OutputPlan, info: MediaInfo, timeline: Timeline, relay: SideChannel | None
    ) -> None:
        self._plan, self._timeline = plan, timeline
        self._gif = _GifPalette() if plan.codec == "gif" else None
        self._order = DecodingOrder()
        self._muxer = Muxer(plan, info, timeline, relay, lambda out: add_encoder(out, plan))

    @property
    def losses(self) -> list[str]:
        return self._muxer.losses

    def write(self, index: int, frame: av.VideoFrame | None) -> None:
        if frame is not None:
            frame.pts, frame.time_base = index, 1 / self._plan.rate
            if self._timeline.after_hole(index):
                frame.pict_type = KEY
        frames = self._gif.frames(frame) if self._gif else [frame]
        for ready in frames:
            for packet in self._muxer.video.codec_context.encode(ready):
                assert packet.pts is not None
                self._muxer.write(packet, packet.pts, self._order(packet.pts, packet.dts))
        if frame is None and self._muxer.written != index:
            raise MediaError(f"{self._plan.codec} returned {self._muxer.written} of {index} frames")

    def finish(self) -> None:
        self._muxer.finish()

    def abandon(self) -> None:
        self._muxer.abandon()


def add_encoder(output: OutputContainer, plan: OutputPlan, *, closed: bool = False) -> Any:
    """Add the video stream with its encoder set up; `closed` makes GOPs that can be joined."""
    options = dict(plan.options)
    if closed and plan.codec == "libx265":
        options["x265-params"] += ":open-gop=0"
    if plan.codec in IDR:
        options["forced-idr"] = "1"  # a key frame that we ask for is one nothing reaches across
    stream: Any = output.add_stream(plan.codec, rate=plan.rate, options=options)
    configure_encoder(stream.codec_context, plan, closed=closed)
    stream.pix_fmt = PACKED.get((plan.codec, plan.spec.pix_fmt), plan.spec.pix_fmt)
    if plan.codec == "gif":
        stream.pix_fmt = "pal8"
    if plan.sar is not None:
        stream.sample_aspect_ratio = plan.sar
    if tag := codec_tag(plan.codec, plan.muxer):
        stream.codec_tag = tag
    return stream


def configure_encoder(context: Any, plan: OutputPlan, *, closed: bool = False) -> None:
    """Size, time base, tags: all before the encoder opens."""
    context.width, context.height = plan.spec.width, plan.spec.height
    if plan.codec == "libx264":
        # PyAV's default cuts each picture into slices: 7 % more bytes, and cores that wait.
        context.thread_type = av.codec.context.ThreadType.FRAME
        if processors() < allowed():
            context.thread_count = usual_threads()  # x264 would count all that are allowed
    # The encoder counts frames. Its own idea of time rounds variable rates into duplicates.
    context.time_base = 1 / plan.rate
    context.framerate = plan.rate
    context.color_primaries = plan.color.primaries
    context.color_trc = plan.color.transfer
    context.colorspace = plan.color.matrix
    context.color_range = plan.color.range
    if plan.sar is not None:
        context.sample_aspect_ratio = plan.sar
    if closed:
        context.flags |= int(av.codec.context.Flags.closed_gop)


def video_frame(planes: Planes, plan: OutputPlan) -> av.VideoFrame:
    """A frame for the encoder, repacked where it wants another arrangement of the same samples."""
    spec = plan.spec
    wanted = PACKED.get((plan.codec, spec.pix_fmt), spec.pix_fmt)
    name = wanted if wanted.startswith("yuvj") else spec.pix_fmt
    frame = av.VideoFrame(spec.width, spec.height, name)
    for plane, values in zip(frame.planes, planes, strict=True):
        samples(plane, values.dtype)[: values.shape[0], : values.shape[1]] = values
    if wanted != name:
        frame = frame.reformat(format=wanted)
    # ProRes takes its tags from the frames, the others from the encoder.
    frame.color_range, frame.colorspace = plan.color.range, plan.color.matrix
    frame.color_primaries, frame.color_trc = plan.color.primaries, plan.color.transfer
    return frame


class _GifPalette:
    """A palette of its own for each frame: one for all would need the whole film first."""

    def __init__(self) -> None:
        self._graph: av.filter.Graph | None = None
        self._index = 0

    def frames(self, frame: av.VideoFrame | None) -> Iterator[av.VideoFrame | None]:
        if frame is None:
            yield None
            return
        rgba = frame.reformat(format="rgba" if frame.format.name == "gbrap" else "rgb24")
        graph = self._graph or self._build(rgba)
        pts, base = frame.pts, frame.time_base
        rgba.pts = frame.pts
        graph.vpush(rgba)
        while True:
            try:
                found = graph.vpull()
            except (av.BlockingIOError, EOFError):
                return
            assert isinstance(found, av.VideoFrame)
            found.pts, found.time_base = pts, base
            yield found

    def _build(self, frame: av.VideoFrame) -> av.filter.Graph:
        graph = av.filter.Graph()
        source = graph.add_buffer(
            width=frame.width, height=frame.height, format=frame.format,
            time_base=frame.time_base or Fraction(1, 25),
        )  # fmt: skip
        split, palette = graph.add("split"), graph.add("palettegen", "stats_mode=single")
        use, sink = graph.add("paletteuse", "new=1:dither=sierra2_4a"), graph.add("buffersink")
        source.link_to(split)
        split.link_to(use, 0, 0)
        split.link_to(palette, 1, 0)
        palette.link_to(use, 0, 1)
        use.link_to(sink)
        graph.configure()
        self._graph = graph
        return graph
