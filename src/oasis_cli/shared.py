"""The options of `oasis upscale` that `oasis batch` takes too: declared once, in `shared`."""

import inspect
from collections.abc import Callable
from fractions import Fraction
from functools import wraps
from typing import TYPE_CHECKING, Any, get_args

from oasis_cli import options as o
from oasis_cli.errors import UsageError

if TYPE_CHECKING:
    from oasis_cli.plan import Options


def shared(
    scale: o.Scale = None,
    size: o.Size = None,
    model: o.Model = o.MODEL,
    heads: o.Heads = None,
    strength: o.Strength = 1.0,
    color_fix: o.ColorFix = "none",
    start: o.Start = None,
    end: o.End = None,
    deinterlace: o.Deinterlace = "auto",
    bake_rotation: o.BakeRotation = False,
    device: o.Device = "auto",
    precision: o.Precision = "auto",
    window: o.Window = 17,
    overlap: o.Overlap = 4,
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
) -> "Options":
    """What the user typed, checked, as Options. Raises UsageError."""
    from oasis_cli.fidelity import COLOR_FIXES
    from oasis_cli.media.output import EncodeOptions
    from oasis_cli.media.reader import ReadOptions
    from oasis_cli.media.source import RawInput
    from oasis_cli.plan import Options
    from oasis_cli.windows import WindowOptions

    return Options(
        scale=scale,
        size=None if size is None else o.parse_size(size),
        model=model,
        heads=heads,
        strength=strength,
        color_fix=_one_of("--color-fix", color_fix, COLOR_FIXES),
        device=device,
        precision=precision,
        windows=WindowOptions(frames=window, overlap=overlap),
        tile=tile,
        raw=RawInput(format=input_format, size=input_size, rate=input_rate, pix_fmt=input_pix_fmt),
        read=ReadOptions(
            start=None if start is None else Fraction(o.parse_time(start)).limit_denominator(10**6),
            end=None if end is None else Fraction(o.parse_time(end)).limit_denominator(10**6),
            deinterlace=_one_of("--deinterlace", deinterlace, ("auto", "off", "bob")),
            bake_rotation=bake_rotation,
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


def _one_of(name: str, value: str, choices: tuple[str, ...]) -> Any:
    if value not in choices:
        raise UsageError(f"{name} {value} is not possible", hint=f"choose {', '.join(choices)}")
    return value


def takes_shared(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the parameters of `shared`; it receives them as one `options: Options`.

    They come after the command's own arguments and before its own options, in the help too.
    """
    own = dict(inspect.signature(command).parameters)
    own.pop("options")
    theirs = inspect.signature(shared).parameters
    positional = {name: p for name, p in own.items() if _is_argument(p)}
    merged = {**positional, **theirs, **own}

    @wraps(command)
    def run(**values: Any) -> None:
        mine = {name: values[name] for name in own}
        command(**mine, options=shared(**{name: values[name] for name in theirs}))

    run.__signature__ = inspect.Signature(list(merged.values()))  # type: ignore[attr-defined]
    run.__annotations__ = {name: p.annotation for name, p in merged.items()} | {"return": None}
    return run


def _is_argument(parameter: inspect.Parameter) -> bool:
    return any(type(part).__name__ == "ArgumentInfo" for part in get_args(parameter.annotation))
