"""The command `oasis calibrate-heads`: options in, one call, a table and its pictures out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oasis_cli.checkpoints.registry import DENSE
from oasis_cli.cli import console, options

if TYPE_CHECKING:
    from oasis_cli.model.heads.assignment import Rule

DECIDING, MEASURING, OUTPUT = "Deciding", "Measuring", "Output"


Clips = Annotated[
    list[Path] | None,
    typer.Argument(help="Low-quality clips, each of one scene; the sample if none."),
]
Output = Annotated[
    Path, typer.Option("--output", "-o", help="The table to write.", rich_help_panel=OUTPUT)
]
Plot = Annotated[
    Path | None,
    typer.Option(help="Write the pictures as PNG (needs matplotlib).", rich_help_panel=OUTPUT),
]
Html = Annotated[
    bool, typer.Option("--html", help="Write a page beside the table.", rich_help_panel=OUTPUT)
]
AlsoFor = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME|PATH",
        help="A checkpoint trained from the model: the table will be taken for it too.",
        rich_help_panel=OUTPUT,
    ),
]
Frames = Annotated[
    int, typer.Option(help="Frames of a clip, 5 or more.", rich_help_panel=MEASURING)
]
Parts = Annotated[
    int, typer.Option(help="Clips from each file, one after another.", rich_help_panel=MEASURING)
]
Scale = Annotated[
    float, typer.Option(help="How much clips are enlarged, 1 to 4.", rich_help_panel=MEASURING)
]
Queries = Annotated[
    int, typer.Option(help="Tokens looked at in each clip.", rich_help_panel=MEASURING)
]
Seed = Annotated[
    int, typer.Option(help="Of the tokens and the bootstrap.", rich_help_panel=MEASURING)
]
RuleName = Annotated[
    str,
    typer.Option(
        metavar="budget|threshold|proportion|argmin",
        help="How KLs become groups.",
        rich_help_panel=DECIDING,
    ),
]
Budget = Annotated[
    float,
    typer.Option(help="Attention FLOPs as a share of all-global ones.", rich_help_panel=DECIDING),
]
Tau = Annotated[
    float | None,
    typer.Option(
        help="Largest KL of a local head, nats (threshold, argmin); log 2 if not given.",
        rich_help_panel=DECIDING,
    ),
]
Proportion = Annotated[
    str | None,
    typer.Option(
        metavar="G,I,W",
        help="Global, intra-frame and window heads in each layer.",
        rich_help_panel=DECIDING,
    ),
]
MinGlobal = Annotated[
    int, typer.Option(help="Global heads in each layer at least.", rich_help_panel=DECIDING)
]
Resamples = Annotated[
    int, typer.Option(help="Bootstrap resamples; 0 for none.", rich_help_panel=DECIDING)
]


def calibrate_heads(
    clips: Clips = None,
    output: Output = Path("heads.json"),
    plot: Plot = None,
    html: Html = False,
    model: options.Model = DENSE,
    also_for: AlsoFor = None,
    frames: Frames = 17,
    parts: Parts = 1,
    scale: Scale = 4.0,
    queries: Queries = 512,
    seed: Seed = 0,
    rule: RuleName = "budget",
    budget: Budget = 0.35,
    tau: Tau = None,
    proportion: Proportion = None,
    min_global: MinGlobal = 1,
    resamples: Resamples = 1000,
    device: options.Device = "auto",
    overwrite: options.Overwrite = False,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Find which heads need the whole clip, which their frame, which a window; write a table."""
    from oasis_cli.evaluation.calibrate import CalibrateOptions, calibrate
    from oasis_cli.evaluation.head_pictures import check_matplotlib
    from oasis_cli.media.atomic import check_target
    from oasis_cli.runtime.devices import choose_device

    if plot:
        check_matplotlib()
    targets = [output] + ([plot] if plot else []) + ([output.with_suffix(".html")] if html else [])
    for target in targets:
        check_target(target, "", overwrite=overwrite)
    wanted = CalibrateOptions(
        model=model,
        also_for=tuple(also_for or ()),
        frames=frames,
        parts=parts,
        scale=scale,
        queries=queries,
        seed=seed,
        resamples=resamples,
        device=choose_device(device),
        rule=_rule(rule, budget, tau, proportion, min_global),
    )
    with console.reporter(as_json=as_json, quiet=quiet) as report:
        document = calibrate(clips or [], wanted, report)
        _write(document, output, plot, html)
        files = ", ".join(str(target) for target in targets)
        report({"event": "done", "text": f"wrote {files}", "files": [str(t) for t in targets]})
    if not quiet:
        show(document)


def _rule(
    name: str, budget: float, tau: float | None, proportion: str | None, min_global: int
) -> "Rule":
    from oasis_cli.model.heads.assignment import Rule

    more: dict[str, Any] = {} if tau is None else {"tau_intra": tau, "tau_window": tau}
    if proportion is not None:
        more["proportion"] = parse_proportion(proportion)
    return Rule(name=name, budget=budget, min_global=min_global, **more)


def parse_proportion(text: str) -> tuple[int, int, int]:
    """ "1,1,2" -> (1, 1, 2): global, intra-frame and window heads. Raises UsageError."""
    from oasis_cli.errors import UsageError

    try:
        g, i, w = (int(part) for part in text.split(","))
    except ValueError as error:
        raise UsageError(
            f"{text!r} is not a proportion",
            hint="write three counts, for example --proportion 2,2,2",
        ) from error
    return g, i, w


def _write(document: dict[str, Any], output: Path, plot: Path | None, html: bool) -> None:
    from oasis_cli.evaluation.head_pictures import to_html, to_png
    from oasis_cli.media.atomic import write_output
    from oasis_cli.model.heads.table_file import dump

    write_output(output, dump(document).encode())
    if plot:
        write_output(plot, to_png(document))
    if html:
        write_output(output.with_suffix(".html"), to_html(document).encode())


def show(document: dict[str, Any]) -> None:
    """The table on stdout: in colour on a terminal, as plain text elsewhere."""
    from rich.console import Console

    from oasis_cli.evaluation.head_pictures import kl_grid, summary

    out = Console(highlight=False, soft_wrap=True)
    out.print(kl_grid(document))
    for sentence in summary(document):
        out.print(sentence, markup=False)


def show_groups(layers: list[str]) -> None:
    """The groups alone, on stdout, as coloured letters."""
    from rich.console import Console

    from oasis_cli.evaluation.head_pictures import group_grid

    Console(highlight=False).print(group_grid(layers))


def register(app: typer.Typer) -> None:
    """Add the command to `oasis`."""
    app.command("calibrate-heads")(calibrate_heads)
