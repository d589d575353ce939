"""The command `oasis metrics`."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oasis_cli.cli import console, options
from oasis_cli.cli.options import Command
from oasis_cli.errors import UsageError

if TYPE_CHECKING:
    from oasis_cli.evaluation.measure import Rules, Scores
    from oasis_cli.evaluation.sets import SetScores

HELP = """Score OUTPUT against the REFERENCE it should look like, or by its looks alone.

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


@dataclass(kw_only=True)
class Metrics(Command):
    """Scores of a video, or of every clip of a set. `HELP` says which."""

    output: Annotated[
        Path | None, typer.Argument(help="The video to score, or use --set.", show_default=False)
    ] = None
    ref: Annotated[
        Path | None,
        typer.Option(
            help="What it should look like; with --set, a folder of that.", show_default=False
        ),
    ] = None
    made_from: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="What OUTPUT was made from, when there is no --ref: adds flicker and hatching.",
            show_default=False,
        ),
    ] = None
    as_set: Annotated[
        Path | None,
        typer.Option(
            "--set",
            metavar="DIR",
            help="Score every clip of a folder, instead of OUTPUT: one row each.",
        ),
    ] = None
    align: Annotated[
        bool, typer.Option("--align", help="Take out a shift in space and time before scoring.")
    ] = False
    border: Annotated[int, typer.Option(min=0, help="Pixels left out on each side.")] = 0
    rgb: Annotated[
        bool, typer.Option("--rgb", help="SSIM and MS-SSIM over R, G and B instead of the luma.")
    ] = False
    matlab: Annotated[
        bool,
        typer.Option("--matlab", help="The luma in 8 bits, rounded, as by MATLAB's rgb2ycbcr."),
    ] = False
    only: Annotated[
        str, typer.Option(metavar="NAME,...", help="These scores alone, such as psnr_y,ssim.")
    ] = ""
    perceptual: Annotated[
        Path | None,
        typer.Option(help="SqueezeNet features (.safetensors): adds LPIPS-SqueezeNet."),
    ] = None
    extra: Annotated[
        str,
        typer.Option(
            help="sharpness,blockiness,change,flicker,hatching; by pyiqa, when installed: "
            "lpips,dists,clipiqa,niqe,musiq."
        ),
    ] = ""
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print CSV: every frame, or every clip of a set.")
    ] = False
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False
    as_markdown: Annotated[
        bool, typer.Option("--markdown", help="Print rows of a Markdown table.")
    ] = False
    as_latex: Annotated[bool, typer.Option("--latex", help="Print rows of a LaTeX table.")] = False
    plot: Annotated[
        Path | None, typer.Option(help="Draw the curves as PNG (needs matplotlib).")
    ] = None
    quiet: options.Quiet = False

    def run(self) -> None:
        """Score what is asked for, and print it."""
        form = self._form()
        self._check_inputs()
        if self.as_set is None and self.ref is None:
            self._refuse_what_needs_a_reference()
        found = self._found()
        _print_found(found, whole_set=self.as_set is not None, form=form)

    def _form(self) -> str:
        """The option that chooses how to print; empty for none. Raises UsageError for several."""
        forms = {
            "--csv": self.as_csv,
            "--json": self.as_json,
            "--markdown": self.as_markdown,
            "--latex": self.as_latex,
        }
        asked = [name for name, given in forms.items() if given]
        if len(asked) > 1:
            raise UsageError(f"{' and '.join(asked)} exclude each other", hint="choose one")
        return "".join(asked)

    def _check_inputs(self) -> None:
        """Refuse a wrong mixture of OUTPUT, --ref, --input and --set."""
        if self.as_set is None and self.output is None:
            raise UsageError(
                "what is to be scored?", hint="oasis metrics OUTPUT --ref REFERENCE, or --set DIR"
            )
        if self.made_from is not None and (self.ref is not None or self.as_set is not None):
            raise UsageError(
                f"--input is for scores without {'--ref' if self.ref is not None else '--set'}",
                hint="leave one of them out",
            )
        if self.as_set is not None and self.output is not None:
            raise UsageError(
                f"--set {self.as_set} leaves no use for {self.output}", hint="name one of them"
            )
        if self.as_set is not None and self.plot is not None:
            raise UsageError("--plot draws one clip, not a set", hint="leave --plot or --set out")

    def _refuse_what_needs_a_reference(self) -> None:
        needs = {
            "--align": self.align,
            "--rgb": self.rgb,
            "--matlab": self.matlab,
            "--perceptual": self.perceptual,
        }
        for name, given in needs.items():
            if given:
                raise UsageError(f"{name} needs a reference", hint="name it with --ref")

    def _found(self) -> "SetScores":
        """The scores of every clip of the set, or those of OUTPUT, whose curves are drawn."""
        from oasis_cli.evaluation import sets
        from oasis_cli.evaluation.measure import Rules, check_plot
        from oasis_cli.evaluation.measure import plot as draw

        if self.plot is not None:
            check_plot(self.plot)
        rules = Rules(
            border=self.border,
            align=self.align,
            rgb=self.rgb,
            matlab=self.matlab,
            only=tuple(options.parse_words(self.only)),
        )
        extra = options.parse_words(self.extra)
        with console.counting(self.quiet) as tick:
            more: Any = {"perceptual": self.perceptual, "extra": extra, "progress": tick}
            if self.as_set is not None:
                pairs = sets.find_pairs(self.as_set, self.ref)
                notes = sets.about_lonely(self.as_set, pairs) if self.ref is not None else []
                return sets.score_set(pairs, rules, notes=notes, **more)
            scores = self._score_one(rules, more)
            if self.plot is not None:
                draw(scores, self.plot)
        return sets.SetScores({scores.output: scores})

    def _score_one(self, rules: "Rules", more: dict[str, Any]) -> "Scores":
        from oasis_cli.evaluation.looks import measure_looks
        from oasis_cli.evaluation.measure import measure
        from oasis_cli.pipeline.clips import names_for, open_clip

        paths = [path for path in (self.output, self.ref, self.made_from) if path is not None]
        clips = [open_clip(path, name) for path, name in zip(paths, names_for(paths), strict=True)]
        if self.ref is not None:
            return measure(clips[0], clips[1], rules, **more)
        words = {"extra": more["extra"], "progress": more["progress"]}
        return measure_looks(*clips, border=rules.border, only=rules.only, **words)


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


def register(app: Any) -> None:
    """Add the command of this file."""
    text = "\n\n".join(" ".join(part.split()) for part in HELP.split("\n\n"))
    app.command("metrics", help=text)(Metrics)
