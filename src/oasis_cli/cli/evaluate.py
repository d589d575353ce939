"""The commands that look at videos: `oasis compare` and `bench`, with `metrics`."""

import math
import secrets
from pathlib import Path
from typing import Annotated, Any

import typer

from oasis_cli.cli import console, metrics, options
from oasis_cli.errors import UsageError


def compare(
    inputs: Annotated[
        list[Path], typer.Argument(help="Two or more videos of the same scene.", show_default=False)
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="A page (.html), a sheet (.png, .webp) or a video (.mp4)."
        ),
    ],
    ref: Annotated[
        Path | None, typer.Option(help="What the others should look like: adds PSNR and SSIM.")
    ] = None,
    perceptual: Annotated[
        Path | None, typer.Option(help="SqueezeNet features (.safetensors): adds LPIPS.")
    ] = None,
    extra: Annotated[str, typer.Option(help="More curves of a page: flicker,hatching.")] = "",
    layout: Annotated[
        str, typer.Option(metavar="sides|wipe", help="How a video shows its inputs.")
    ] = "sides",
    frames: Annotated[
        str, typer.Option(help="Frames of a sheet, such as 0,10,20; telling ones by default.")
    ] = "",
    budget: Annotated[float, typer.Option(help="MB that a page's pictures may take.")] = 24,
    title: Annotated[str, typer.Option(help="Title of a page.")] = "",
    blind: Annotated[
        bool,
        typer.Option("--blind", help="A page that asks which is better and hides whose it is."),
    ] = False,
    places: Annotated[int, typer.Option(min=1, help="Places that --blind asks about.")] = 24,
    seed: Annotated[
        int | None,
        typer.Option(help="Draws places, order and sides of --blind; by default anew."),
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """See two or more videos beside each other: a page, a sheet or a video."""
    from oasis_cli.evaluation.compare.blind import BlindOptions
    from oasis_cli.evaluation.compare.run import compare as make

    if not math.isfinite(budget):
        raise UsageError(f"--budget {budget} is no number of MB", hint="choose --budget 24, say")
    test = BlindOptions(places=places, seed=secrets.randbits(32) if seed is None else seed)
    with console.counting(quiet) as tick:
        sentence = make(
            inputs,
            output,
            reference=ref,
            perceptual=perceptual,
            extra=options.parse_words(extra),
            layout=layout,  # type: ignore[arg-type]  # checked there
            frames=_numbers(frames),
            budget=int(budget * 1e6),
            title=title,
            blind=test if blind else None,
            overwrite=overwrite,
            progress=tick,
        )
    if not quiet:
        console.say(sentence)


def _numbers(text: str) -> list[int]:
    try:
        return sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no list of frames", hint="write numbers with commas: --frames 0,10,20"
        ) from error


def bench(
    model: options.ModelOrAuto = options.MODEL,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    sizes: Annotated[
        str, typer.Option(metavar="WxH,...", help="Sizes of the input, 16x16 or larger.")
    ] = "320x180,640x360",
    scale: Annotated[float, typer.Option(min=1, max=4, help="Enlarge by this.")] = 4,
    frames: Annotated[int, typer.Option(help="Frames of the clip that is timed.")] = 17,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Time it here: the network alone and file to file, stage by stage, with peak memory.

    The table is Markdown: paste it into a bug report.
    """
    from oasis_cli.evaluation.bench import bench as measure
    from oasis_cli.evaluation.bench import bench_table

    with console.reporter(quiet=quiet) as report:
        result = measure(
            model=model,
            device=device,
            precision=precision,
            sizes=[options.parse_size(part) for part in sizes.split(",")],
            scale=scale,
            frames=frames,
            say=lambda text: report({"event": "note", "text": text}),
        )
    console.say(console.to_json(result.to_dict()) if as_json else bench_table(result))


def register(app: Any) -> None:
    """Add the commands of this file."""
    app.command()(compare)
    metrics.register(app)
    app.command()(bench)
