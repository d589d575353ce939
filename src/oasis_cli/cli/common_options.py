"""The options of `oasis upscale` that `oasis batch` takes too.

An option is a field: its name, type, help and default stand here and nowhere else in `cli`. The
library's dataclasses take those with a name of theirs.
"""

from dataclasses import dataclass, fields, replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from oasis_cli.cli import options as o
from oasis_cli.cli.options import ENCODING, INPUT, JOBS, PICTURE, RUN, SPEED, option
from oasis_cli.errors import UsageError

if TYPE_CHECKING:
    from oasis_cli.jobs.execute import JobOptions
    from oasis_cli.pipeline.plan import Options
    from oasis_cli.pipeline.windows import WindowOptions


@dataclass(kw_only=True)
class RunCommand(o.Command):
    """A command that enlarges."""

    scale: Annotated[
        float | None, option(PICTURE, "Enlarge by this, 1 to 4; 1.5 is fine. Default: 4.")
    ] = None
    size: Annotated[str | None, option(PICTURE, "Exact output size instead.", metavar="WxH")] = None
    model: o.ModelOrAuto = o.MODEL
    look: Annotated[
        str,
        option(
            PICTURE,
            "faithful: only details that the input tells. sharp: more contrast in them, of which "
            "less was in the input. auto: faithful, or what a begun job draws.",
            metavar="auto|faithful|sharp",
            autocompletion=o.look_names,
        ),
    ] = o.LOOK
    heads: Annotated[
        str | None,
        option(
            PICTURE,
            "Another table of attention groups, from `oasis calibrate-heads`.",
            metavar="FILE",
        ),
    ] = None
    decoder: Annotated[
        str,
        option(
            PICTURE,
            "Another decoder, of a checkpoint that holds several: fast, tiny, wan or a look. "
            "auto: --look's, or where memory is short one that needs less.",
            metavar="auto|NAME",
            autocompletion=o.decoder_names,
        ),
    ] = "auto"
    strength: Annotated[
        float, option(PICTURE, "0 is bicubic, 1 all that the model adds.", min=0, max=1)
    ] = 1.0
    color_fix: Annotated[
        str,
        option(PICTURE, "Pull colours back to the input's.", metavar="none|wavelet|adain"),
    ] = "none"
    start: Annotated[
        str | None, option(PICTURE, "Begin here: seconds or h:mm:ss.", metavar="TIME")
    ] = None
    end: Annotated[str | None, option(PICTURE, "Stop before this time.", metavar="TIME")] = None
    video_track: Annotated[
        int | None,
        option(
            PICTURE,
            "Enlarge stream N, as `oasis info` counts them, where a file has several video "
            "tracks. Default: the one the file marks as default, else the first.",
            min=0,
            metavar="N",
        ),
    ] = None
    deinterlace: Annotated[
        str,
        option(
            PICTURE,
            "auto: interlaced frames only; bob: every field becomes a frame.",
            metavar="auto|off|bob",
        ),
    ] = "auto"
    bake_rotation: Annotated[
        bool,
        option(
            PICTURE,
            "Turn the pixels instead of keeping the turn as metadata.",
            "--bake-rotation",
        ),
    ] = False
    hwaccel: Annotated[
        str,
        option(PICTURE, "cuda: decode on an NVIDIA card, where it can.", metavar="auto|none|cuda"),
    ] = "auto"
    device: o.Device = "auto"
    precision: o.Precision = "auto"
    window: Annotated[
        int | None,
        option(
            SPEED,
            "Frames seen at once: 4k + 1; by default 17, or fewer where memory is short.",
        ),
    ] = None
    overlap: Annotated[
        int | None,
        option(SPEED, "Frames that two windows share and cross-fade; 4 by default."),
    ] = None
    tile: Annotated[
        int | None,
        option(SPEED, "Work on tiles of this many pixels: less memory, same picture."),
    ] = None
    codec: Annotated[
        str | None,
        option(
            ENCODING,
            "libx264, libx265, libsvtav1, prores_ks, ffv1. Default: what suits input and target.",
            metavar="CODEC",
            autocompletion=o.codec_names,
        ),
    ] = None
    crf: Annotated[float | None, option(ENCODING, "Quality: lower is better and larger.")] = None
    preset: Annotated[str | None, option(ENCODING, "The encoder's speed preset.")] = None
    pix_fmt: Annotated[str | None, option(ENCODING, "Pixel format, such as yuv420p10le.")] = None
    output_format: Annotated[
        str | None,
        option(
            ENCODING,
            "Container of the output, for a pipe: nut, matroska, mpegts, mp4, y4m, rawvideo.",
            "--format",
        ),
    ] = None
    strict: Annotated[
        bool,
        option(
            RUN,
            "Fail on a dropped stream or a damaged packet instead of saying so.",
            "--strict",
        ),
    ] = False
    overwrite: o.Overwrite = False
    input_format: Annotated[
        str | None, option(INPUT, "Container of the input, such as rawvideo.")
    ] = None
    input_size: Annotated[
        str | None, option(INPUT, "Picture size of raw video.", metavar="WxH")
    ] = None
    input_rate: Annotated[
        str | None, option(INPUT, "Frames a second of raw video or pictures.")
    ] = None
    input_pix_fmt: Annotated[str | None, option(INPUT, "Pixel format of raw video.")] = None
    allow_protocols: o.AllowProtocols = ""
    resume: Annotated[
        bool | None,
        option(
            JOBS,
            "Work in segments even when it is short; or forget what was begun. "
            "By default long jobs work in segments, and the same command continues them.",
            "--resume/--no-resume",
            show_default=False,
        ),
    ] = None
    work_dir: Annotated[
        Path | None, option(JOBS, "Folder for segments; beside TARGET by default.")
    ] = None
    workers: Annotated[
        int | None,
        option(
            JOBS,
            "Processes that render; by default one for each device, or several where the encoder "
            "is slower than a GPU.",
            min=1,
        ),
    ] = None
    engine: Annotated[str, option(JOBS, "Who renders the segments.", metavar="local|ray")] = "local"
    address: Annotated[str, option(JOBS, "Ray cluster to join.", metavar="HOST:PORT")] = "auto"
    segment_frames: Annotated[
        int | None,
        option(JOBS, "Frames in a segment; about a minute of work by default.", min=1),
    ] = None

    def to_options(self) -> "Options":
        """How to upscale, checked. Raises UsageError."""
        from oasis_cli.media.input.raw import RawInput
        from oasis_cli.media.input.reader import ReadOptions
        from oasis_cli.media.output.plan import EncodeOptions
        from oasis_cli.pipeline.fidelity import COLOR_FIXES
        from oasis_cli.pipeline.plan import Options

        return self._as(
            Options,
            size=None if self.size is None else o.parse_size(self.size),
            color_fix=_one_of("--color-fix", self.color_fix, COLOR_FIXES),
            elsewhere=self.engine == "ray" and self.device == "cuda",
            windows=_windows(self.window, self.overlap),
            fit_windows=self.window is None and self.overlap is None,
            raw=RawInput(
                format=self.input_format,
                size=self.input_size,
                rate=self.input_rate,
                pix_fmt=self.input_pix_fmt,
                track=self.video_track,
                protocols=o.parse_names(self.allow_protocols),
            ),
            read=self._as(
                ReadOptions,
                start=_time(self.start),
                end=_time(self.end),
                deinterlace=_one_of("--deinterlace", self.deinterlace, ("auto", "off", "bob")),
                hwaccel=_one_of("--hwaccel", self.hwaccel, ("auto", "none", "cuda")),
            ),
            encode=self._as(EncodeOptions, format=self.output_format),
        )

    def to_jobs(self) -> "JobOptions":
        """How a long job is made, checked. Raises UsageError."""
        from oasis_cli.jobs.execute import JobOptions

        folder = self.work_dir
        if folder is not None and not folder.is_dir():
            raise UsageError(f"the folder {folder} does not exist", hint=f"mkdir -p {folder}")
        return self._as(
            JobOptions,
            work_dir=None if folder is None else str(folder),
            engine=_one_of("--engine", self.engine, ("local", "ray")),
        )

    def _as(self, kind: Any, **other: Any) -> Any:
        """A dataclass of the library: others, and from here what has the same name."""
        own = {field.name for field in fields(RunCommand)}
        same = {f.name: getattr(self, f.name) for f in fields(kind) if f.name in own}
        return kind(**{**same, **other})


def _windows(frames: int | None, overlap: int | None) -> "WindowOptions":
    from oasis_cli.pipeline.windows import WindowOptions

    windows = WindowOptions() if frames is None else WindowOptions().of(frames)
    return windows if overlap is None else replace(windows, overlap=overlap)


def _time(text: str | None) -> Fraction | None:
    return None if text is None else Fraction(o.parse_time(text)).limit_denominator(10**6)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise UsageError(f"{name} {value} is not possible", hint=f"choose {', '.join(choices)}")
    return value
