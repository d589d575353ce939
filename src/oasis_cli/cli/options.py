"""The options that several commands share, with their help; nothing here imports torch or PyAV."""

import re
from pathlib import Path
from typing import Annotated

import typer

from oasis_cli.checkpoints.registry import AUTO, registry
from oasis_cli.errors import UsageError

PICTURE, SPEED, ENCODING, RUN = "Picture", "Speed and memory", "Encoding", "Run"
INPUT, JOBS = "Input without a header", "Long jobs"

MODEL, LOOK = AUTO, "faithful"
"""The defaults of --model, where a video is enlarged, and of --look."""


def parse_size(text: str) -> tuple[int, int]:
    """ "1920x1080" -> (1920, 1080), width first. Raises UsageError.

    >>> parse_size("1920x1080")
    (1920, 1080)
    """
    match = re.fullmatch(r"0*([1-9]\d*)[xX:*]0*([1-9]\d*)", text.strip())
    if not match:
        raise UsageError(
            f"{text!r} is not a size", hint="write width x height, for example --size 1920x1080"
        )
    return int(match[1]), int(match[2])


def parse_time(text: str) -> float:
    """Seconds, or [hours:]minutes:seconds -> seconds. Raises UsageError.

    >>> parse_time("90"), parse_time("1:30.5"), parse_time("1:00:00")
    (90.0, 90.5, 3600.0)
    """
    match = re.fullmatch(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)", text.strip())
    if not match:
        raise UsageError(
            f"{text!r} is not a time", hint="write seconds (90.5) or minutes:seconds (1:30.5)"
        )
    hours, minutes, seconds = match.groups()
    return 3600 * float(hours or 0) + 60 * float(minutes or 0) + float(seconds)


def parse_names(text: str) -> tuple[str, ...]:
    """ "file, http" -> ("file", "http").

    >>> parse_names("file, http")
    ('file', 'http')
    """
    return tuple(part for name in text.split(",") if (part := name.strip().lower()))


def model_names() -> list[str]:
    """Names for shell completion."""
    return list(registry())


def models_or_auto() -> list[str]:
    """The same where the model may be left to the device."""
    return [*registry(), AUTO]


def look_names() -> list[str]:
    """Names for shell completion."""
    return sorted({LOOK, "sharp"} | {look for entry in registry().values() for look in entry.looks})


def codec_names() -> list[str]:
    """Names for shell completion."""
    return ["libx264", "libx265", "libsvtav1", "prores_ks", "ffv1"]


Scale = Annotated[
    float | None,
    typer.Option(help="Enlarge by this, 1 to 4; 1.5 is fine. Default: 4.", rich_help_panel=PICTURE),
]
Size = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Exact output size instead.", rich_help_panel=PICTURE),
]
Model = Annotated[
    str,
    typer.Option(
        metavar="NAME|PATH",
        help="A name from `oasis weights list`, or a .safetensors file.",
        rich_help_panel=PICTURE,
        autocompletion=model_names,
    ),
]
ModelOrAuto = Annotated[
    str,
    typer.Option(
        metavar="auto|NAME|PATH",
        help="auto: the one for the device. Or a name from `oasis weights list`, or a .safetensors "
        "file.",
        rich_help_panel=PICTURE,
        autocompletion=models_or_auto,
    ),
]
Look = Annotated[
    str,
    typer.Option(
        metavar="faithful|sharp",
        help="sharp: details drawn with more contrast, of which less was in the input. Not every "
        "model has it.",
        rich_help_panel=PICTURE,
        autocompletion=look_names,
    ),
]
Strength = Annotated[
    float,
    typer.Option(
        min=0, max=1, help="0 is bicubic, 1 all that the model adds.", rich_help_panel=PICTURE
    ),
]
ColorFix = Annotated[
    str,
    typer.Option(
        metavar="none|wavelet|adain",
        help="Pull colours back to the input's.",
        rich_help_panel=PICTURE,
    ),
]
Heads = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Another table of attention groups, from `oasis calibrate-heads`.",
        rich_help_panel=PICTURE,
    ),
]
Decoder = Annotated[
    str,
    typer.Option(
        metavar="auto|NAME",
        help="Another decoder, of a checkpoint that holds several: fast, tiny, wan or a look. "
        "auto: --look's, or where memory is short one that needs less.",
        rich_help_panel=PICTURE,
    ),
]
Deinterlace = Annotated[
    str,
    typer.Option(
        metavar="auto|off|bob",
        help="auto: interlaced frames only; bob: every field becomes a frame.",
        rich_help_panel=PICTURE,
    ),
]
HwAccel = Annotated[
    str,
    typer.Option(
        metavar="auto|none|cuda",
        help="cuda: decode on an NVIDIA card, where it can.",
        rich_help_panel=PICTURE,
    ),
]
BakeRotation = Annotated[
    bool,
    typer.Option(
        "--bake-rotation",
        help="Turn the pixels instead of keeping the turn as metadata.",
        rich_help_panel=PICTURE,
    ),
]
Start = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Begin here: seconds or h:mm:ss.", rich_help_panel=PICTURE),
]
End = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Stop before this time.", rich_help_panel=PICTURE),
]
Device = Annotated[
    str,
    typer.Option(
        metavar="DEVICE",
        help="auto, cpu, cuda, cuda:N, xpu, xpu:N, mps; several: cuda:0,cuda:1.",
        rich_help_panel=SPEED,
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        metavar="auto|fp32|fp16|bf16|fp8",
        help="auto: fp16 on CUDA, bf16 on CPUs with units for it, else fp32. "
        "fp8: bf16 with 8-bit linear layers, on newer cards.",
        rich_help_panel=SPEED,
    ),
]
Window = Annotated[
    int | None,
    typer.Option(
        help="Frames seen at once: 4k + 1; by default 17, or fewer where memory is short.",
        rich_help_panel=SPEED,
    ),
]
Overlap = Annotated[
    int | None,
    typer.Option(
        help="Frames that two windows share and cross-fade; 4 by default.",
        rich_help_panel=SPEED,
    ),
]
Tile = Annotated[
    int | None,
    typer.Option(
        help="Work on tiles of this many pixels: less memory, same picture.",
        rich_help_panel=SPEED,
    ),
]
Resume = Annotated[
    bool | None,
    typer.Option(
        "--resume/--no-resume",
        help="Work in segments even when it is short; or forget what was begun. "
        "By default long jobs work in segments, and the same command continues them.",
        rich_help_panel=JOBS,
        show_default=False,
    ),
]
WorkDir = Annotated[
    Path | None,
    typer.Option(help="Folder for segments; beside TARGET by default.", rich_help_panel=JOBS),
]
Workers = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Processes that render; by default one for each device, or several where the encoder "
        "is slower than a GPU.",
        rich_help_panel=JOBS,
    ),
]
Engine = Annotated[
    str,
    typer.Option(metavar="local|ray", help="Who renders the segments.", rich_help_panel=JOBS),
]
Address = Annotated[
    str,
    typer.Option(metavar="HOST:PORT", help="Ray cluster to join.", rich_help_panel=JOBS),
]
SegmentFrames = Annotated[
    int | None,
    typer.Option(
        min=1, help="Frames in a segment; about a minute of work by default.", rich_help_panel=JOBS
    ),
]
Codec = Annotated[
    str | None,
    typer.Option(
        metavar="CODEC",
        help="libx264, libx265, libsvtav1, prores_ks, ffv1. Default: what suits input and target.",
        rich_help_panel=ENCODING,
        autocompletion=codec_names,
    ),
]
Crf = Annotated[
    float | None,
    typer.Option(help="Quality: lower is better and larger.", rich_help_panel=ENCODING),
]
Preset = Annotated[
    str | None,
    typer.Option(help="The encoder's speed preset.", rich_help_panel=ENCODING),
]
PixFmt = Annotated[
    str | None,
    typer.Option(help="Pixel format, such as yuv420p10le.", rich_help_panel=ENCODING),
]
Strict = Annotated[
    bool,
    typer.Option(
        "--strict",
        help="Fail on a dropped stream or a damaged packet instead of saying so.",
        rich_help_panel=RUN,
    ),
]
OutputFormat = Annotated[
    str | None,
    typer.Option(
        "--format",
        help="Container of the output, for a pipe: nut, matroska, mpegts, mp4, y4m, rawvideo.",
        rich_help_panel=ENCODING,
    ),
]
VideoTrack = Annotated[
    int | None,
    typer.Option(
        min=0,
        metavar="N",
        help="Enlarge stream N, as `oasis info` counts them, where a file has several video "
        "tracks. Default: the one the file marks as default, else the first.",
        rich_help_panel=PICTURE,
    ),
]
InputFormat = Annotated[
    str | None,
    typer.Option(help="Container of the input, such as rawvideo.", rich_help_panel=INPUT),
]
InputSize = Annotated[
    str | None,
    typer.Option(metavar="WxH", help="Picture size of raw video.", rich_help_panel=INPUT),
]
InputRate = Annotated[
    str | None,
    typer.Option(help="Frames a second of raw video or pictures.", rich_help_panel=INPUT),
]
InputPixFmt = Annotated[
    str | None,
    typer.Option(help="Pixel format of raw video.", rich_help_panel=INPUT),
]
AllowProtocols = Annotated[
    str,
    typer.Option(
        metavar="NAME,...",
        help="What a playlist may open: file, http, https, tcp, udp, rtp. Default: nothing.",
        rich_help_panel=INPUT,
        show_default=False,
    ),
]
Overwrite = Annotated[
    bool,
    typer.Option("--overwrite", "-y", help="Replace a file that is there.", rich_help_panel=RUN),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="One JSON object a line on stderr.", rich_help_panel=RUN),
]
Quiet = Annotated[
    bool,
    typer.Option("--quiet", "-q", help="Print nothing but errors.", rich_help_panel=RUN),
]
