"""The command `oasis train`: a preset or a file in, a run in a folder out."""

from pathlib import Path
from typing import Annotated

import typer

from oasis_cli.cli import console
from oasis_cli.errors import UsageError

LENGTH, WHERE, FILES = "Length", "Where it runs", "Files"

Config = Annotated[
    str | None, typer.Argument(metavar="CONFIG.toml", help="A file that changes a preset.")
]
Preset = Annotated[
    str | None, typer.Option(help="A preset by name: small, base, sharp, tiny, paper.")
]
Data = Annotated[
    Path,
    typer.Option(
        help="Folder of photographs and videos.",
        exists=True,
        file_okay=False,
        rich_help_panel=FILES,
    ),
]
Out = Annotated[Path, typer.Option(help="Folder of the run.", rich_help_panel=FILES)]
Perceptual = Annotated[
    Path | None,
    typer.Option(help="SqueezeNet's features, for the LPIPS loss.", rich_help_panel=FILES),
]
Vgg = Annotated[
    Path | None, typer.Option(help="VGG-16's features, for the VGG loss.", rich_help_panel=FILES)
]
Teacher = Annotated[
    Path | None,
    typer.Option(help="A checkpoint to learn from, for the teacher loss.", rich_help_panel=FILES),
]
Encoder = Annotated[
    Path | None,
    typer.Option(help="Wan2.1's autoencoder, for --preset paper.", rich_help_panel=FILES),
]
StartFrom = Annotated[
    Path | None,
    typer.Option(help="Checkpoint to go on from, past the warm-up.", rich_help_panel=FILES),
]
Minutes = Annotated[float | None, typer.Option(min=0.01, rich_help_panel=LENGTH)]
Steps = Annotated[int | None, typer.Option(min=1, rich_help_panel=LENGTH)]
Resume = Annotated[
    bool, typer.Option("--resume", help="Continue the run in --out.", rich_help_panel=LENGTH)
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=WHERE)]
Workers = Annotated[int, typer.Option(min=1, help="Codec processes.", rich_help_panel=WHERE)]
Compile = Annotated[
    bool, typer.Option("--compile", help="Compile the network first.", rich_help_panel=WHERE)
]
Sheet = Annotated[
    Path | None,
    typer.Option(help="Write a PNG of training clips and stop.", rich_help_panel=FILES),
]


def train(
    data: Data,
    config: Config = None,
    preset: Preset = None,
    out: Out = Path("run"),
    max_minutes: Minutes = None,
    max_steps: Steps = None,
    resume: Resume = False,
    perceptual: Perceptual = None,
    vgg: Vgg = None,
    teacher: Teacher = None,
    encoder: Encoder = None,
    start_from: StartFrom = None,
    device: Device = "cpu",
    workers: Workers = 2,
    compile_: Compile = False,
    sheet: Sheet = None,
) -> None:
    """Train a model: dense warm-up, head calibration, then routed stages. See docs/training.md."""
    if (config is None) == (preset is None):
        raise UsageError("give either a CONFIG.toml or --preset", hint="oasis train --preset small")
    from oasis_cli.train.presets import read_config

    chosen = read_config(str(config or preset))
    if sheet is not None:
        from oasis_cli.train.sheet import contact_sheet

        contact_sheet(chosen, data, sheet, varying=0.5)
        return
    from oasis_cli.train.loop import Trainer
    from oasis_cli.train.options import RunOptions

    options = RunOptions(
        data=data,
        out=out,
        max_minutes=max_minutes,
        max_steps=max_steps,
        resume=resume,
        start_from=start_from,
        perceptual=perceptual,
        vgg=vgg,
        teacher=teacher,
        encoder=encoder,
        device=device,
        workers=workers,
        compile=compile_,
    )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"{out} cannot be made: {error.strerror}") from error
    Trainer(chosen, options, console.say).run()


def register(app: typer.Typer) -> None:
    """Add the command to `oasis`."""
    app.command("train")(train)
