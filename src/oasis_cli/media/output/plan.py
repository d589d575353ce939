"""Decide everything about the output before any work: pure data, printable, JSON-able.

Every refusal happens here: an encoder that does not open, a container that does not hold the
codec, a stream that would be lost under --strict.
"""

from __future__ import annotations

import os
import sys
from dataclasses import asdict, dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.atomic import behind, check_kind, check_name, check_target
from oasis_cli.media.captions import CARRIERS, SOURCES
from oasis_cli.media.icc import keep_profile
from oasis_cli.media.info import Color, MediaInfo, VideoInfo, left_out, plain, rate_text, some
from oasis_cli.media.input.lookahead import whole_until
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.input.stills import is_pattern, list_pictures, numbered
from oasis_cli.media.output.containers import (
    CHAPTERS,
    CONSTANT_RATE,
    PICTURE_CODECS,
    ROTATES,
    choose_muxer,
    clean_tags,
    container_options,
    own_tags_lost,
)
from oasis_cli.media.output.encoders import (
    EncoderKind,
    check_asked,
    check_dials,
    check_size,
    choose_pix_fmt,
    default_codec,
    encoder_options,
    even_size,
    kind_of,
    opens,
    software_for,
    usable_quality,
)
from oasis_cli.media.output.explain import explain_picture
from oasis_cli.media.output.streams import StreamPlan, opened_for_copy, plan_streams
from oasis_cli.media.picture import MATRIX_TAGS, PictureSpec, PixelLayout, parse_pix_fmt


@dataclass(frozen=True, slots=True, kw_only=True)
class EncodeOptions:
    """What the user asks of the output; None means the default for the input and container."""

    codec: str | None = None
    crf: float | None = None
    preset: str | None = None
    pix_fmt: str | None = None
    format: str | None = None
    """Container, for a pipe or when the suffix does not say."""
    strict: bool = False
    """A stream that would be dropped is an error."""
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse a quality or speed that no input could be given. Raises UsageError."""
        check_asked(self.codec, self.crf, self.preset)


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputPlan:
    """Everything about the output."""

    source: str
    target: str
    """A path, or `-` for the standard output."""
    muxer: str
    """FFmpeg's name of the container; `images` for one picture or a numbered sequence."""
    codec: str
    options: dict[str, str]
    """The encoder's options."""
    container_options: dict[str, str]
    size: tuple[int, int]
    """(width, height) of the pictures that the model makes."""
    spec: PictureSpec
    """How the planes for the encoder are made; may be one pixel wider or higher than `size`."""
    source_spec: PictureSpec
    """How the planes that the reader gives are understood."""
    color: Color
    rate: Fraction
    time_base: Fraction
    sar: Fraction | None
    display_matrix: tuple[int, ...] | None
    streams: tuple[StreamPlan, ...]
    metadata: dict[str, str]
    read: ReadOptions
    icc: bytes = field(default=b"", repr=False)
    """The colour profile that goes into each picture."""
    captions: bool = False
    """Whether closed captions go from the input's frames into the output's packets."""
    notes: tuple[str, ...] = ()
    """What the user may want to know."""
    losses: tuple[str, ...] = ()
    """What the output will lack; errors under --strict."""

    @property
    def is_pipe(self) -> bool:
        """Whether the output is the standard output."""
        return self.target == "-"

    @property
    def keep_alpha(self) -> bool:
        """Whether the reader must hand on alpha planes."""
        return self.spec.layout.alpha and self.source_spec.layout.alpha

    def lines(self) -> list[str]:
        """What a dry run prints, one fact per line."""
        (w, h), tags = self.size, self.color.names()
        found = [
            f"output: {self.target} ({self.muxer}), {self.codec} {self.spec.pix_fmt} {w}x{h}, "
            f"{rate_text(self.rate)} frames/s",
            f"color: {self.spec.matrix}, {'full' if self.spec.full_range else 'limited'} range, "
            f"primaries {tags.get('primaries', 'untagged')}, "
            f"transfer {tags.get('transfer', 'untagged')}",
        ]
        found += [str(s) for s in self.streams]
        found += [f"note: {note}" for note in self.notes]
        return found + [f"lost: {loss}" for loss in self.losses]

    def to_json(self) -> dict[str, Any]:
        """Numbers, strings, lists and dicts only."""
        data: dict[str, Any] = plain(asdict(self))
        return data


def plan_output(
    info: MediaInfo,
    target: str | Path,
    size: tuple[int, int],
    options: EncodeOptions | None = None,
    read: ReadOptions | None = None,
) -> OutputPlan:
    """Plan the output of `info`, enlarged to `size` (width, height), at `target`.

    Raises UsageError for what cannot be meant (2), MediaError for what cannot be done (1).
    """
    options, read = options or EncodeOptions(), read or ReadOptions()
    target = str(target)
    if not target:
        raise UsageError("the output has no name", hint="name a file to write; . is this folder")
    check_name(numbered(Path(target).name, 0))
    check_kind(Path(target))
    muxer = choose_muxer(target, options.format, info)
    _check_place(target, info, muxer, overwrite=options.overwrite)
    notes: list[str] = []
    losses: list[str] = []
    video = info.video
    kind, options = _choose_encoder(target, muxer, info, options, notes)
    check_size(kind, size)
    pix_fmt = choose_pix_fmt(kind, video.layout, deep=video.is_hdr, asked=options.pix_fmt)
    layout = parse_pix_fmt(pix_fmt)
    assert layout is not None
    source_spec = video.spec(bake_rotation=read.bake_rotation)
    coded = _coded_size(kind, size, layout, notes)
    spec, color = _output_color(video, source_spec, pix_fmt, layout, coded, kind)
    icc, color = keep_profile(video, muxer, kind.name, color, layout.family, losses)
    encoder = _encoder_options(kind, options, video, spec, color)
    _check_encoder(kind, muxer, pix_fmt, coded, video.rate, encoder)
    streams = _other_streams(info, muxer, kind.name)
    cover = any(s.kind == "cover" and s.action == "copy" for s in streams)
    if cover and (own := own_tags_lost(info.metadata)):
        losses.append(f"tags that an mp4 with a cover cannot hold: {', '.join(own)}")
    losses += [str(s) for s in streams if s.action == "drop"]
    if info.chapters and muxer not in CHAPTERS:
        losses.append(f"{len(info.chapters)} chapters: {muxer} holds none")
    _explain_input(info, read.end, notes, losses)
    explain_picture(info, muxer, kind, layout, read, notes, losses)
    if options.strict:
        _refuse_losses(losses)
    return OutputPlan(
        source=info.path,
        target=target if target == "-" else str(behind(Path(target))),
        muxer=muxer,
        codec=kind.name,
        options=encoder,
        container_options=container_options(muxer, target, video.time_base, cover=cover),
        size=size,
        spec=spec,
        source_spec=source_spec,
        color=color,
        rate=video.rate * (2 if read.deinterlace == "bob" else 1),
        time_base=video.time_base,
        sar=_turned(video.sar, read, video),
        display_matrix=None if read.bake_rotation or muxer not in ROTATES else video.matrix,
        streams=streams,
        metadata=clean_tags(info.metadata),
        read=read,
        icc=icc,
        captions=video.codec in SOURCES and kind.name in CARRIERS,
        notes=tuple(notes),
        losses=tuple(losses),
    )


def _refuse_losses(losses: list[str]) -> None:
    if losses:
        raise MediaError(
            f"--strict: something would be lost: {'; '.join(losses)}",
            hint="an .mkv holds nearly everything; without --strict the rest is written",
        )


def _coded_size(
    kind: EncoderKind, size: tuple[int, int], layout: PixelLayout, notes: list[str]
) -> tuple[int, int]:
    """The size that is encoded."""
    coded = even_size(kind, size, layout)
    if coded != size:
        notes.append(
            f"{kind.name} needs even sizes: one repeated line or column makes it "
            f"{coded[0]}x{coded[1]} (--pix-fmt yuv444p keeps {size[0]}x{size[1]})"
        )
    return coded


def _explain_input(
    info: MediaInfo, end: Fraction | None, notes: list[str], losses: list[str]
) -> None:
    """Say what of the input is left out, or comes from more than one track."""
    losses += _parted(info)
    tracks = [s.index for s in info.streams if s.kind == "video"]
    if len(tracks) > 1:
        others = ", ".join(str(n) for n in tracks if n != info.video.index)
        notes.append(
            f"of {len(tracks)} video tracks stream {info.video.index} is enlarged; --video-track "
            f"takes another ({others})"
        )
    if info.joined:
        pairs = ", ".join(f"{new} continues {old}" for new, old in info.joined.items())
        notes.append(f"the streams change on the way: {pairs}")
    if info.odd_chapters:
        losses.append(f"{info.odd_chapters} chapters at impossible times")
    if info.left_behind and not whole_until(info, end, min(info.left_behind)):
        losses.append(left_out(info.left_behind))
    if info.missing and not whole_until(info, end):
        losses.append(f"the last {info.missing} bytes: the file is shorter than it tells, cut off?")
    if info.unread_at and not whole_until(info, end, info.unread_at):
        losses.append(f"another film begins at byte {info.unread_at}: it is not read")
    if info.other_files:
        notes.append(f"skipped, for these are no pictures: {some(info.other_files)}")


def _parted(info: MediaInfo) -> list[str]:
    """What is said of streams that begin where another ends but cannot continue it."""
    ends = {old: new for new, old in info.changed.items()}
    found = []
    for old, new in ends.items():
        what = "enlarged" if old == info.video.index else "joined to it"
        found.append(
            f"stream {old} ends where stream {new} begins, of another codec or language: "
            f"the second is not {what}"
        )
    return found


def _choose_encoder(
    target: str, muxer: str, info: MediaInfo, options: EncodeOptions, notes: list[str]
) -> tuple[EncoderKind, EncodeOptions]:
    """The encoder, and the options that still apply when another one takes its place."""
    kind = kind_of(options.codec or _default(target, muxer, info.video))
    check_dials(kind, options.crf, options.preset)
    usable, note = software_for(kind.name, info)
    if note:
        notes.append(note)
        kind, options = kind_of(usable), replace(options, preset=None)  # presets have other names
    crf, note = usable_quality(kind, options.crf)
    if note:
        notes.append(note)
        options = replace(options, crf=crf)
    if muxer == "yuv4mpegpipe":
        y4m = tuple(f for f in kind.formats if f.startswith(("yuv4", "gray")))
        kind = replace(kind, formats=y4m)
    return kind, options


def _encoder_options(
    kind: EncoderKind, options: EncodeOptions, video: VideoInfo, spec: PictureSpec, color: Color
) -> dict[str, str]:
    found = encoder_options(
        kind, crf=options.crf, preset=options.preset, layout=spec.layout, hdr=video.hdr,
        transfer=color.transfer,
    )  # fmt: skip
    if spec.siting != "left" and kind.name in ("libx264", "libx265", "ffv1"):
        found["chroma_sample_location"] = spec.siting
    return found


def _default(target: str, muxer: str, video: VideoInfo) -> str:
    if muxer == "images":
        return PICTURE_CODECS.get(Path(target).suffix.lower(), "png")
    return default_codec(muxer, video)


def _turned(sar: Fraction | None, read: ReadOptions, video: VideoInfo) -> Fraction | None:
    turned = read.bake_rotation and video.orientation[0] % 2 == 1
    return 1 / sar if sar and turned else sar


def _check_place(target: str, info: MediaInfo, muxer: str, *, overwrite: bool) -> None:
    if target == "-":
        if sys.stdout.isatty():
            raise UsageError(
                "the output is a terminal, and a video would garble it",
                hint="pipe it: oasis upscale in.mp4 - | mpv -",
            )
        return
    path = Path(target)
    if muxer == "images" and (is_pattern(path) or not path.suffix or path.is_dir()):
        folder = path.parent
        if not folder.is_dir():
            raise UsageError(f"the folder {folder} does not exist", hint=f"mkdir -p {folder}")
        if path.exists() and not path.is_dir() and not is_pattern(path):
            raise UsageError(f"{target} is a file, not a folder", hint="choose another name")
        taken = path.is_dir() and any(path.iterdir())
        if is_pattern(path):
            taken = bool(list_pictures(path))
        if taken and not overwrite:
            raise MediaError(f"{target} already has pictures", hint="pass --overwrite")
        return
    check_target(path, info.path, overwrite=overwrite)


def _output_color(
    video: VideoInfo,
    source: PictureSpec,
    pix_fmt: str,
    layout: PixelLayout,
    size: tuple[int, int],
    kind: EncoderKind,
) -> tuple[PictureSpec, Color]:
    """The picture for the encoder and its tags: the input's own wherever both are YUV.

    An untagged input keeps the matrix that was used to read it, and says so: at the larger size
    players would guess another one.
    """
    from_rgb = source.layout.family == "rgb"
    full = source.full_range and source.layout.family == "yuv"
    matrix = "bt709" if from_rgb else source.matrix
    if layout.family == "rgb":
        matrix, full = "rgb", True
    elif layout.family == "gray":
        full = source.full_range
    elif kind.name in ("mjpeg",):
        matrix, full = "bt601", True  # JFIF knows nothing else
    elif kind.name in ("libwebp",):
        matrix, full = "bt601", False
    spec = PictureSpec(
        width=size[0],
        height=size[1],
        pix_fmt=pix_fmt,
        matrix=matrix,
        full_range=full,
        siting="center" if kind.name == "mjpeg" else source.siting,
        dither=layout.depth < source.layout.depth,
    )
    tag = video.color.matrix
    known = {1, 4, 5, 6, 7, 8, 9, 10}
    color = replace(
        video.color,
        matrix=tag if matrix == source.matrix and tag in known else MATRIX_TAGS[matrix],
        range=2 if full else 1,
    )
    if from_rgb and layout.family == "yuv" and color.primaries == 2:
        color = replace(color, primaries=1, transfer=13 if color.transfer == 2 else color.transfer)
    return spec, color


def _check_encoder(
    kind: EncoderKind,
    muxer: str,
    pix_fmt: str,
    size: tuple[int, int],
    rate: Fraction,
    options: dict[str, str],
) -> None:
    if kind.name == "gif" or muxer in CONSTANT_RATE:
        return
    if muxer == "mov" and ("av1" in kind.name or "vp9" in kind.name):  # FFmpeg's own rule
        raise UsageError(f"mov does not hold {kind.name}", hint="mp4 and mkv do")
    reason = opens(kind.name, pix_fmt, size, rate, options)
    if reason is not None:
        raise MediaError(
            f"{kind.name} does not start for {pix_fmt} at {size[0]}x{size[1]}: {reason}",
            hint="check --preset, --crf and --pix-fmt, or choose another --codec",
        )
    if muxer == "images":
        return
    output = av.open(os.devnull, "w", format=muxer)
    try:
        output.add_mux_stream(kind.name)
    except ValueError as error:
        raise UsageError(
            f"{muxer} does not hold {kind.name}", hint="an .mkv holds every codec"
        ) from error
    finally:
        output.close()


def _other_streams(info: MediaInfo, muxer: str, codec: str) -> tuple[StreamPlan, ...]:
    source = opened_for_copy(info)
    try:
        return plan_streams(info, source, muxer, codec)
    finally:
        if source is not None and info.live is None:
            source.close()
