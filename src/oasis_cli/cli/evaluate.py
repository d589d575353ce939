"""The commands that look at videos: `oasis compare`, `metrics` and `bench`."""

import math
import secrets
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oasis_cli.cli import console, options
from oasis_cli.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from oasis_cli.evaluation.measure import Rules, Scores
    from oasis_cli.evaluation.sets import SetScores

METRICS_HELP = """Score OUTPUT against the REFERENCE it should look like, or by its looks alone.

PSNR over R, G, B and of the BT.601 luma (dB); SSIM of the luma (Gaussian window of 11, sigma 1.5,
valid pixels); MS-SSIM (five scales); temporal: mean |change of OUTPUT - change of REFERENCE| in
8-bit steps; warp: E*_warp x1000, lower is steadier.

E*_warp: frames in [0, 1] are halved; Farneback motion from frame t to t+1 and back; pixels count
where |f + b'|^2 <= 0.01 (|f|^2 + |b'|^2) + 0.5 and |grad f|^2 <= 0.01 |f|^2 + 0.002 (f forward, b'
backward motion pulled along f); the squared difference to frame t+1 pulled along f, summed over
the colours, is averaged over them. Blur lowers it, so read it beside LPIPS; published tables use
RAFT motion, so compare it only with numbers from oasis.

A shift of OUTPUT above 0.1 pixel, or by a frame, is told and, with --align, taken out: it costs
decibels that nobody sees. Sizes that differ are refused, and so are frame counts; with --align they
may differ by 3.

Without --ref: sharpness, blockiness, change from frame to frame and warp of OUTPUT; with --input,
what it was made from, flicker and hatching too. None of them tells how near OUTPUT is to the truth.

--set DIR: DIR holds GT (or HR, truth) and one folder of results, each with a folder of pictures or
a video for every clip; or a folder for every clip, with these inside. --set RESULTS --ref
REFERENCES: clips belong together by their names.
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
    with counting(quiet) as tick:
        sentence = make(
            inputs,
            output,
            reference=ref,
            perceptual=perceptual,
            extra=_words(extra),
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


def metrics(
    output: Annotated[
        Path | None, typer.Argument(help="The video to score, or use --set.", show_default=False)
    ] = None,
    ref: Annotated[
        Path | None,
        typer.Option(
            help="What it should look like; with --set, a folder of that.", show_default=False
        ),
    ] = None,
    made_from: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="What OUTPUT was made from, when there is no --ref: adds flicker and hatching.",
            show_default=False,
        ),
    ] = None,
    as_set: Annotated[
        Path | None,
        typer.Option(
            "--set",
            metavar="DIR",
            help="Score every clip of a folder, instead of OUTPUT: one row each.",
        ),
    ] = None,
    align: Annotated[
        bool, typer.Option("--align", help="Take out a shift in space and time before scoring.")
    ] = False,
    border: Annotated[int, typer.Option(min=0, help="Pixels left out on each side.")] = 0,
    rgb: Annotated[
        bool, typer.Option("--rgb", help="SSIM and MS-SSIM over R, G and B instead of the luma.")
    ] = False,
    matlab: Annotated[
        bool,
        typer.Option("--matlab", help="The luma in 8 bits, rounded, as by MATLAB's rgb2ycbcr."),
    ] = False,
    only: Annotated[
        str, typer.Option(metavar="NAME,...", help="These scores alone, such as psnr_y,ssim.")
    ] = "",
    perceptual: Annotated[
        Path | None,
        typer.Option(help="SqueezeNet features (.safetensors): adds LPIPS-SqueezeNet."),
    ] = None,
    extra: Annotated[
        str,
        typer.Option(
            help="sharpness,blockiness,change,flicker,hatching; by pyiqa, when installed: "
            "lpips,dists,clipiqa,niqe,musiq."
        ),
    ] = "",
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: every frame, or every clip of a set.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print rows of a Markdown table.")
    ] = False,
    as_latex: Annotated[bool, typer.Option("--latex", help="Print rows of a LaTeX table.")] = False,
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curves as PNG (needs matplotlib).")
    ] = None,
    quiet: options.Quiet = False,
) -> None:
    from oasis_cli.evaluation import sets
    from oasis_cli.evaluation.measure import Rules, check_plot
    from oasis_cli.evaluation.measure import plot as draw

    forms = {"--csv": as_csv, "--json": as_json, "--markdown": as_markdown, "--latex": as_latex}
    form = _one_of(forms)
    needs = {"--align": align, "--rgb": rgb, "--matlab": matlab, "--perceptual": perceptual}
    _check_inputs(output, ref, made_from, as_set, plot)
    if as_set is None and ref is None:
        _refuse_without_ref(needs)
    if plot is not None:
        check_plot(plot)
    rules = Rules(border=border, align=align, rgb=rgb, matlab=matlab, only=tuple(_words(only)))
    with counting(quiet) as tick:
        more: Any = {"perceptual": perceptual, "extra": _words(extra), "progress": tick}
        if as_set is not None:
            pairs = sets.find_pairs(as_set, ref)
            notes = sets.about_lonely(as_set, pairs) if ref is not None else []
            found = sets.score_set(pairs, rules, notes=notes, **more)
        else:
            assert output is not None  # checked above
            scores = _score_one(output, ref, made_from, rules, more)
            found = sets.SetScores({scores.output: scores})
            if plot is not None:
                draw(scores, plot)
    _print_found(found, whole_set=as_set is not None, form=form)


metrics.__doc__ = "\n\n".join(" ".join(p.split()) for p in METRICS_HELP.split("\n\n"))


def _words(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _one_of(forms: dict[str, bool]) -> str:
    """The option that was given; empty for none. Raises UsageError for several."""
    asked = [name for name, given in forms.items() if given]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join(asked)} exclude each other", hint="choose one")
    return "".join(asked)


def _refuse_without_ref(needs: dict[str, Any]) -> None:
    for name, given in needs.items():
        if given:
            raise UsageError(f"{name} needs a reference", hint="name it with --ref")


def _score_one(
    output: Path, ref: Path | None, made_from: Path | None, rules: "Rules", more: dict[str, Any]
) -> "Scores":
    from oasis_cli.evaluation.looks import measure_looks
    from oasis_cli.evaluation.measure import measure
    from oasis_cli.pipeline.clips import names_for, open_clip

    paths = [path for path in (output, ref, made_from) if path is not None]
    clips = [open_clip(path, name) for path, name in zip(paths, names_for(paths), strict=True)]
    if ref is not None:
        return measure(clips[0], clips[1], rules, **more)
    words = {"extra": more["extra"], "progress": more["progress"]}
    return measure_looks(*clips, border=rules.border, only=rules.only, **words)


def _check_inputs(
    output: Path | None,
    ref: Path | None,
    made_from: Path | None,
    as_set: Path | None,
    plot: Path | None,
) -> None:
    """Refuse a wrong mixture of OUTPUT, --ref, --input and --set."""
    if as_set is None and output is None:
        raise UsageError(
            "what is to be scored?", hint="oasis metrics OUTPUT --ref REFERENCE, or --set DIR"
        )
    if made_from is not None and (ref is not None or as_set is not None):
        raise UsageError(
            f"--input is for scores without {'--ref' if ref is not None else '--set'}",
            hint="leave one of them out",
        )
    if as_set is not None and output is not None:
        raise UsageError(f"--set {as_set} leaves no use for {output}", hint="name one of them")
    if as_set is not None and plot is not None:
        raise UsageError("--plot draws one clip, not a set", hint="leave --plot or --set out")


def _print_found(found: "SetScores", *, whole_set: bool, form: str) -> None:
    """form: the option that chooses how, such as --csv; empty for a table to read."""
    from oasis_cli.evaluation import sets

    single = None if whole_set else next(iter(found.rows.values()))
    if form == "--json":
        console.say(console.to_json((single or found).to_dict()))
    elif form == "--csv":
        console.say(single.to_csv() if single else sets.as_csv(found.table()), nl=False)
    elif form:
        rows = sets.as_latex if form == "--latex" else sets.as_markdown
        console.say(rows(found.table()))
    elif single:
        _print_scores(single)
    else:
        _print_set(found)


def _print_scores(scores: "Scores") -> None:
    from oasis_cli.evaluation.measure import ABOUT

    rows = [[name, f"{v:.4f}", ABOUT.get(name, "")] for name, v in scores.means().items()]
    against = f" against {scores.reference}" if scores.reference else ""
    made = f", made from {scores.source}" if scores.source else ""
    title = f"{scores.output}{against}{made}: {scores.frames} frames"
    console.table(title, ["score", "mean", "what it is"], rows)
    for note in scores.notes:
        console.say(note)


def _print_set(found: "SetScores") -> None:
    from oasis_cli.evaluation.sets import written

    rows = [
        [name, *(written(score, value) for score, value in row.items())]
        for name, row in found.table().items()
    ]
    frames = sum(row.frames for row in found.rows.values())
    title = f"{len(found.rows)} clips, {frames} frames"
    console.table(title, ["clip", *found.columns], rows)
    for name, row in found.rows.items():
        for note in row.notes:
            console.say(f"{name}: {note}")
    for note in found.notes:
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
    app.command()(metrics)
    app.command()(bench)
