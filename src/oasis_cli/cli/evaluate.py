"""The commands that look at videos: `oasis compare`, `metrics` and `bench`."""

import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oasis_cli.cli import console, options

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oasis_cli.evaluation.measure import Scores

METRICS_HELP = """Score OUTPUT against the REFERENCE it should look like.

PSNR over R, G, B and of the BT.601 luma (dB); SSIM of the luma (Gaussian window of 11, sigma 1.5,
valid pixels); MS-SSIM (five scales); temporal: mean |change of OUTPUT - change of REFERENCE| in
8-bit steps; warp: E*_warp x1000, lower is steadier.

E*_warp: frames in [0, 1] are halved; Farneback motion from frame t to t+1 and back; pixels count
where |f + b'|^2 <= 0.01 (|f|^2 + |b'|^2) + 0.5 and |grad f|^2 <= 0.01 |f|^2 + 0.002 (f forward, b'
backward motion pulled along f); the squared difference to frame t+1 pulled along f, summed over
the colours, is averaged over them. Blur lowers it, so read it beside LPIPS; published tables use
RAFT motion, so compare it only with numbers from oasis.

Sizes or frame counts that differ are refused.
"""


@contextmanager
def counting(quiet: bool) -> "Iterator[Callable[[int], None]]":
    """Progress for commands that count frames and know no total."""
    began = time.monotonic()
    with console.reporter(quiet=quiet) as report:

        def tick(frames: int) -> None:
            fps = frames / max(1e-9, time.monotonic() - began)
            report({"event": "progress", "frames": frames, "fps": round(fps, 3), "total": None})

        yield tick


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
    layout: Annotated[
        str, typer.Option(metavar="sides|wipe", help="How a video shows its inputs.")
    ] = "sides",
    frames: Annotated[
        str, typer.Option(help="Frames of a sheet, such as 0,10,20. [default: telling ones]")
    ] = "",
    budget: Annotated[float, typer.Option(help="MB that a page's pictures may take.")] = 24,
    title: Annotated[str, typer.Option(help="Title of a page.")] = "",
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
) -> None:
    """See two or more videos beside each other: a page, a sheet or a video."""
    from oasis_cli.evaluation.compare.run import compare as make

    with counting(quiet) as tick:
        sentence = make(
            inputs,
            output,
            reference=ref,
            perceptual=perceptual,
            layout=layout,  # type: ignore[arg-type]  # checked there
            frames=_numbers(frames),
            budget=int(budget * 1e6),
            title=title,
            overwrite=overwrite,
            progress=tick,
        )
    if not quiet:
        console.say(sentence)


def _numbers(text: str) -> list[int]:
    from oasis_cli.errors import UsageError

    try:
        return sorted({int(part) for part in text.split(",") if part.strip()})
    except ValueError as error:
        raise UsageError(
            f"{text!r} is no list of frames", hint="write numbers with commas: --frames 0,10,20"
        ) from error


def metrics(
    output: Annotated[Path, typer.Argument(help="The video to score.")],
    ref: Annotated[Path, typer.Option(help="What it should look like.")],
    border: Annotated[int, typer.Option(min=0, help="Pixels left out on each side.")] = 0,
    perceptual: Annotated[
        Path | None,
        typer.Option(help="SqueezeNet features (.safetensors): adds LPIPS-SqueezeNet."),
    ] = None,
    extra: Annotated[
        str,
        typer.Option(help="By pyiqa, when installed: lpips,dists,clipiqa,niqe,musiq."),
    ] = "",
    as_csv: Annotated[bool, typer.Option("--csv", help="Print every frame as CSV.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curves as PNG (needs matplotlib).")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    from oasis_cli.errors import UsageError
    from oasis_cli.evaluation.measure import check_plot, measure
    from oasis_cli.evaluation.measure import plot as draw
    from oasis_cli.pipeline.clips import names_for, open_clip

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", hint="choose one")
    if plot is not None:
        check_plot(plot)
    first, second = names_for([output, ref])
    with counting(quiet) as tick:
        scores = measure(
            open_clip(output, first),
            open_clip(ref, second),
            border=border,
            perceptual=perceptual,
            extra=[name.strip() for name in extra.split(",") if name.strip()],
            progress=tick,
        )
    if plot is not None:
        draw(scores, plot)
    if as_json:
        console.say(console.to_json(scores.to_dict()))
    elif as_csv:
        console.say(scores.to_csv(), nl=False)
    else:
        _print_scores(scores)


metrics.__doc__ = "\n\n".join(" ".join(p.split()) for p in METRICS_HELP.split("\n\n"))


def _print_scores(scores: "Scores") -> None:
    from oasis_cli.evaluation.measure import ABOUT

    rows = [[name, f"{v:.4f}", ABOUT.get(name, "")] for name, v in scores.means().items()]
    title = f"{scores.output} against {scores.reference}: {scores.frames} frames"
    console.table(title, ["score", "mean", "what it is"], rows)
    for note in scores.notes:
        console.say(note)


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
    from oasis_cli.evaluation.bench import table

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
    console.say(console.to_json(result.to_dict()) if as_json else table(result))


def register(app: Any) -> None:
    """Add the commands of this file."""
    app.command()(compare)
    app.command()(metrics)
    app.command()(bench)
