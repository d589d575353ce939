"""The command `oasis export`: the network as an ONNX file, for other engines."""

from pathlib import Path
from typing import Annotated

import typer

from oasis_cli.checkpoints.registry import DEFAULT
from oasis_cli.cli import console, options


def export(
    output: Annotated[Path, typer.Option("--output", "-o", help="The .onnx file to write.")],
    model: options.Model = DEFAULT,
    frames: Annotated[int, typer.Option(min=1, max=129, help="Frames of the window.")] = 9,
    size: Annotated[
        str, typer.Option(metavar="WxH", help="Size of the input: a picture, or a tile of one.")
    ] = "128x128",
    scale: Annotated[float, typer.Option(min=1, max=4, help="Enlarge by this.")] = 4,
    overwrite: options.Overwrite = False,
) -> None:
    """Write a model as ONNX for windows of one size. Needs the extra `export`.

    Input `low` (1, F, 3, h, w) and output `high` are float32, RGB in [-1, 1]. Cutting a clip into
    windows and tiles, and joining them, is left to you.
    """
    from oasis_cli.checkpoints.export import OPSET, WindowShape, check_export, to_onnx
    from oasis_cli.media.atomic import check_target, write_output

    check_target(output, "", overwrite=overwrite)
    check_export()
    given = options.parse_size(size)
    target = round(given[0] * scale), round(given[1] * scale)
    made = to_onnx(model, WindowShape(frames=frames, size=given, target=target))
    write_output(output, made)
    console.say(
        f"{output}: {model}, {frames} frames of {size} to {target[0]}x{target[1]}, "
        f"opset {OPSET}, {console.size(len(made))}"
    )


def register(app: typer.Typer) -> None:
    """Add the command of this file."""
    app.command()(export)
