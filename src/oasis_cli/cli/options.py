"""What the commands' options are made of, and those that several commands have.

Nothing here imports torch or PyAV.
"""

import re
from abc import ABC, abstractmethod
from typing import Annotated, Any

import typer

from oasis_cli.checkpoints.registry import AUTO, registry
from oasis_cli.errors import UsageError

PICTURE, SPEED, ENCODING, RUN = "Picture", "Speed and memory", "Encoding", "Run"
INPUT, JOBS = "Input without a header", "Long jobs"

MODEL, LOOK = AUTO, AUTO
"""The defaults of --model, where a video is enlarged, and of --look."""

LOOKS = ("faithful", "sharp")
"""The names that every release knows; a checkpoint may hold others."""


class Command(ABC):
    """A command as a dataclass: Typer makes one from what the user typed, `Commands` runs it."""

    @abstractmethod
    def run(self) -> None:
        """Do it. Raises OasisError."""


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
    return tuple(parse_words(text.lower()))


def parse_words(text: str) -> list[str]:
    """ "lpips, PSNR" -> ["lpips", "PSNR"].

    >>> parse_words("lpips, PSNR,")
    ['lpips', 'PSNR']
    """
    return [word for part in text.split(",") if (word := part.strip())]


def model_names() -> list[str]:
    """Names for shell completion."""
    return list(registry())


def models_or_auto() -> list[str]:
    """The same where the model may be left to the device."""
    return [*registry(), AUTO]


def look_names() -> list[str]:
    """Names for shell completion."""
    return sorted({LOOK, *LOOKS, *(look for entry in registry().values() for look in entry.looks)})


def decoder_names() -> list[str]:
    """The same. Written out, for what knows the decoders needs seconds to import."""
    looks = [look for look in look_names() if look not in (LOOK, "faithful")]
    return ["auto", "fast", "tiny", "wan", *looks]


def codec_names() -> list[str]:
    """Names for shell completion."""
    return ["libx264", "libx265", "libsvtav1", "prores_ks", "ffv1"]


def option(panel: str, help: str, *names: str, **more: Any) -> Any:
    """An option of the command line, as the metadata of a field or parameter.

    panel: the part of --help that it stands in. names: such as "--quiet" and "-q"; without them the
    field's. more: as for `typer.Option`.

        crf: Annotated[float | None, option(ENCODING, "Quality: lower is better.")] = None
    """
    return typer.Option(*names, help=help, rich_help_panel=panel, **more)


Model = Annotated[
    str,
    option(
        PICTURE,
        "A name from `oasis weights list`, or a .safetensors file.",
        metavar="NAME|PATH",
        autocompletion=model_names,
    ),
]
ModelOrAuto = Annotated[
    str,
    option(
        PICTURE,
        "auto: the one for the device. oasis-tiny: 0.4 of the time on a CPU, less detail. Or "
        "another name from `oasis weights list`, or a .safetensors file.",
        metavar="auto|NAME|PATH",
        autocompletion=models_or_auto,
    ),
]
Device = Annotated[
    str,
    option(
        SPEED,
        "auto, cpu, cuda, cuda:N, xpu, xpu:N, mps; several: cuda:0,cuda:1.",
        metavar="DEVICE",
    ),
]
Precision = Annotated[
    str,
    option(
        SPEED,
        "auto (fp16 on CUDA, bf16 on CPUs with units for it, else fp32), fp32, fp16, bf16. "
        "fp8: bf16 with 8-bit linear layers, on newer cards. "
        "int8: bf16 with 8-bit convolutions and linear layers, on CPUs with units for both.",
        metavar="PRECISION",
    ),
]
AllowProtocols = Annotated[
    str,
    option(
        INPUT,
        "What a playlist may open: file, http, https, tcp, udp, rtp. Default: nothing.",
        metavar="NAME,...",
        show_default=False,
    ),
]
Overwrite = Annotated[bool, option(RUN, "Replace a file that is there.", "--overwrite", "-y")]
Json = Annotated[bool, option(RUN, "One JSON object a line on stderr.", "--json")]
Quiet = Annotated[bool, option(RUN, "Print nothing but errors.", "--quiet", "-q")]
