"""The options of `oasis upscale` that `oasis batch` takes too: declared once, here."""

import inspect
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from functools import wraps
from typing import TYPE_CHECKING, Any, get_args

from oasis_cli.cli import options as o
from oasis_cli.errors import UsageError

if TYPE_CHECKING:
    from oasis_cli.jobs.execute import JobOptions
    from oasis_cli.pipeline.plan import Options
    from oasis_cli.pipeline.windows import WindowOptions


def shared(
    scale: o.Scale = None,
    size: o.Size = None,
    model: o.ModelOrAuto = o.MODEL,
    look: o.Look = o.LOOK,
    heads: o.Heads = None,
    decoder: o.Decoder = "auto",
    strength: o.Strength = 1.0,
    color_fix: o.ColorFix = "none",
    start: o.Start = None,
    end: o.End = None,
    video_track: o.VideoTrack = None,
    deinterlace: o.Deinterlace = "auto",
    bake_rotation: o.BakeRotation = False,
    hwaccel: o.HwAccel = "auto",
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    window: o.Window = None,
    overlap: o.Overlap = None,
    tile: o.Tile = None,
    codec: o.Codec = None,
    crf: o.Crf = None,
    preset: o.Preset = None,
    pix_fmt: o.PixFmt = None,
    output_format: o.OutputFormat = None,
    strict: o.Strict = False,
    overwrite: o.Overwrite = False,
    input_format: o.InputFormat = None,
    input_size: o.InputSize = None,
    input_rate: o.InputRate = None,
    input_pix_fmt: o.InputPixFmt = None,
    allow_protocols: o.AllowProtocols = "",
) -> "Options":
    """What the user typed, checked, as Options. Raises UsageError."""
    from oasis_cli.media.input.reader import ReadOptions
    from oasis_cli.media.input.source import RawInput
    from oasis_cli.media.output.plan import EncodeOptions
    from oasis_cli.pipeline.fidelity import COLOR_FIXES
    from oasis_cli.pipeline.plan import Options

    return Options(
        scale=scale,
        size=None if size is None else o.parse_size(size),
        model=model,
        heads=heads,
        decoder=decoder,
        look=look,
        strength=strength,
        color_fix=_one_of("--color-fix", color_fix, COLOR_FIXES),
        device=device,
        precision=precision,
        windows=_windows(window, overlap),
        fit_windows=window is None and overlap is None,
        tile=tile,
        raw=RawInput(
            format=input_format,
            size=input_size,
            rate=input_rate,
            pix_fmt=input_pix_fmt,
            track=video_track,
            protocols=o.parse_names(allow_protocols),
        ),
        read=ReadOptions(
            start=None if start is None else Fraction(o.parse_time(start)).limit_denominator(10**6),
            end=None if end is None else Fraction(o.parse_time(end)).limit_denominator(10**6),
            deinterlace=_one_of("--deinterlace", deinterlace, ("auto", "off", "bob")),
            bake_rotation=bake_rotation,
            hwaccel=_one_of("--hwaccel", hwaccel, ("auto", "none", "cuda")),
            strict=strict,
        ),
        encode=EncodeOptions(
            codec=codec,
            crf=crf,
            preset=preset,
            pix_fmt=pix_fmt,
            format=output_format,
            strict=strict,
            overwrite=overwrite,
        ),
    )


def _windows(frames: int | None, overlap: int | None) -> "WindowOptions":
    from oasis_cli.pipeline.windows import WindowOptions

    windows = WindowOptions() if frames is None else WindowOptions().of(frames)
    return windows if overlap is None else replace(windows, overlap=overlap)


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise UsageError(f"{name} {value} is not possible", hint=f"choose {', '.join(choices)}")
    return value


def shared_jobs(
    resume: o.Resume = None,
    work_dir: o.WorkDir = None,
    workers: o.Workers = None,
    engine: o.Engine = "local",
    address: o.Address = "auto",
    segment_frames: o.SegmentFrames = None,
) -> "JobOptions":
    """What the user typed about long jobs. Raises UsageError."""
    from oasis_cli.jobs.execute import JobOptions

    if work_dir is not None and not work_dir.is_dir():
        raise UsageError(f"the folder {work_dir} does not exist", hint=f"mkdir -p {work_dir}")
    return JobOptions(
        resume=resume,
        work_dir=None if work_dir is None else str(work_dir),
        workers=workers,
        engine=_one_of("--engine", engine, ("local", "ray")),
        address=address,
        segment_frames=segment_frames,
    )


GROUPS: dict[str, Callable[..., Any]] = {"options": shared, "jobs": shared_jobs}


def takes_shared(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the parameters of `shared` and `shared_jobs`.

    It receives them as `options: Options` and `jobs: JobOptions`. They come after its own
    arguments and before its own options, in the help too.
    """
    own = dict(inspect.signature(command).parameters)
    groups = {name: inspect.signature(make).parameters for name, make in GROUPS.items()}
    for name in groups:
        own.pop(name)
    merged = {name: p for name, p in own.items() if _is_argument(p)}
    for parameters in groups.values():
        merged |= parameters
    merged |= own

    @wraps(command)
    def run(**values: Any) -> None:
        made = {
            name: make(**{key: values[key] for key in groups[name]})
            for name, make in GROUPS.items()
        }
        if made["jobs"].engine == "ray" and made["options"].device == "cuda":
            made["options"] = replace(made["options"], elsewhere=True)
        command(**{name: values[name] for name in own}, **made)

    run.__signature__ = inspect.Signature(list(merged.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in merged.items()} | {"return": None}
    return run


def _is_argument(parameter: inspect.Parameter) -> bool:
    return any(type(part).__name__ == "ArgumentInfo" for part in get_args(parameter.annotation))
