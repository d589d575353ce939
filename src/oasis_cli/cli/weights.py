"""The commands `oasis weights ...`: what there is, what is inside, and what others published."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from oasis_cli.cli import console, options
from oasis_cli.cli import heads as cli_heads

weights = typer.Typer(
    no_args_is_help=True, help="The trained models: list, show, verify, fold; import Wan2.1's."
)

Output = Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")]


@weights.command("list")
def weights_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models that come with the program."""
    from oasis_cli.checkpoints.format import DEFAULT, registry

    known = registry()
    if as_json:
        rows = [
            {"name": name, "default": name == DEFAULT, "sha256": entry.sha256, "about": entry.about}
            for name, entry in known.items()
        ]
        console.say(console.to_json(rows))
        return
    cells = []
    for name, entry in known.items():
        size = console.size(entry.path.stat().st_size) if entry.path.is_file() else "missing"
        cells.append([name + (" (default)" if name == DEFAULT else ""), size, entry.about])
    console.table("", ["name", "size", "about"], cells)


@weights.command("show")
def weights_show(
    model: Annotated[
        str,
        typer.Argument(
            metavar="NAME|PATH",
            help="A name from `oasis weights list`, or a .safetensors file.",
            autocompletion=options.model_names,
        ),
    ] = options.MODEL,
) -> None:
    """Print what a checkpoint says about itself: config, heads, provenance."""
    from oasis_cli.checkpoints.format import describe

    about = describe(model)
    console.say(console.to_json(about, indent=2))
    if sys.stdout.isatty():
        cli_heads.show_groups(about["heads"]["layers"])


@weights.command("verify")
def weights_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models. [default: all]")] = None,
) -> None:
    """Compare the bundled models with the SHA-256 they were released with."""
    from oasis_cli.checkpoints.format import registry, verify
    from oasis_cli.errors import UsageError, WeightsError

    for name in names or registry():
        if name not in registry():
            raise UsageError(
                f"there is no bundled model called {name!r}",
                hint=f"known models: {', '.join(registry())}",
            )
        right, found = verify(name)
        if not right:
            raise WeightsError(
                f"the weights of {name} are not the released ones: SHA-256 {found}",
                hint="install oasis again",
            )
        console.say(f"{name}: ok ({found})")


PLACE = "FILE|FOLDER|OWNER/NAME"


@weights.command("import")
def weights_import(
    source: Annotated[
        str,
        typer.Argument(
            metavar=PLACE,
            help="Wan2.1's transformer, as published or in the layout of diffusers: a .safetensors "
            "file, an index of shards, a folder, or a name on the hub, @REVISION behind it if need "
            "be. A folder's autoencoder is read too.",
        ),
    ],
    output: Output,
    vae: Annotated[
        str | None,
        typer.Option(metavar=PLACE, help="Wan2.1's autoencoder, if it lies elsewhere."),
    ] = None,
    tiny_decoder: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A decoder of taew2_1's shape, beside the autoencoder's (`oasis upscale --decoder "
            "tiny`), or alone.",
        ),
    ] = None,
    eos: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="The text encoder's output for an empty prompt, one row. Without it the prompt is "
            "padding alone.",
        ),
    ] = None,
    sigma: Annotated[
        float, typer.Option(help="How far the one step goes; its time is 1000 times that.")
    ] = 0.4,
    sha256: Annotated[
        list[str] | None,
        typer.Option(metavar="HEX", help="Refuse unless a file has this sum; give it repeatedly."),
    ] = None,
    offline: Annotated[
        bool, typer.Option("--offline", help="From the hub's cache alone, without network.")
    ] = False,
    overwrite: options.Overwrite = False,
) -> None:
    """Turn Wan2.1-T2V-1.3B's published weights into a checkpoint that training starts from.

    They do not upscale: the map from pixels to latents is new, and the one step was never trained.
    """
    from oasis_cli.checkpoints.wan.checkpoint import ImportOptions, import_wan
    from oasis_cli.media.atomic import check_target

    check_target(output, "", overwrite=overwrite)
    wanted = ImportOptions(
        source=source,
        autoencoder=vae,
        tiny=tiny_decoder,
        end=eos,
        sigma=sigma,
        sha256=tuple(sha256 or ()),
        offline=offline,
    )
    import_wan(wanted, output, console.say)


@weights.command("fold")
def weights_fold(
    output: Output,
    model: options.Model = options.MODEL,
    precision: Annotated[
        str, typer.Option(metavar="fp32|fp16|bf16", help="Of the tensors in the file.")
    ] = "fp16",
    overwrite: options.Overwrite = False,
) -> None:
    """Write a model for use alone: constants of its fixed time are worked into its matrices."""
    from oasis_cli.checkpoints.format import describe, load_model, other_decoders, save_model
    from oasis_cli.errors import UsageError
    from oasis_cli.media.atomic import check_target
    from oasis_cli.model.folding import fold
    from oasis_cli.runtime.devices import PRECISIONS

    check_target(output, "", overwrite=overwrite)
    storable = [name for name in PRECISIONS if name != "fp8"]  # that one is made when loading
    if precision not in storable:
        raise UsageError(
            f"a checkpoint has no tensors of precision {precision!r}",
            hint=f"choose --precision {', '.join(storable)}",
        )
    about = describe(model)
    network = load_model(model)
    fold(network)
    save_model(
        network,
        output,
        name=about["name"],
        provenance=about["provenance"] | {"folded": True},
        dtype=PRECISIONS[precision],
        others=other_decoders(model),
    )
    console.say(f"wrote {output}")


def register(app: typer.Typer) -> None:
    """Add the commands to `oasis`."""
    app.add_typer(weights, name="weights")
