"""The commands `oasis weights ...`: what there is, what is inside, and what others published."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from oasis_cli.checkpoints.registry import DEFAULT, Entry, entry_of, find, registry, verify
from oasis_cli.cli import console, options
from oasis_cli.cli import heads as cli_heads
from oasis_cli.errors import WeightsError

weights = typer.Typer(
    no_args_is_help=True,
    help="The trained models: list, find, fetch, show, verify, fold; import Wan2.1's.",
)

Output = Annotated[Path, typer.Option("--output", "-o", help="The .safetensors file to write.")]


Named = Annotated[str, typer.Argument(metavar="NAME", autocompletion=options.model_names)]
NameOrPath = Annotated[
    str,
    typer.Argument(
        metavar="NAME|PATH",
        help="A name from `oasis weights list`, or a .safetensors file.",
        autocompletion=options.model_names,
    ),
]


@weights.command("list")
def weights_list(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the models that have a name."""
    if as_json:
        rows = [
            asdict(entry) | {"path": entry.path, "default": entry.name == DEFAULT}
            for entry in registry().values()
        ]
        console.say(console.to_json(rows))
        return
    cells = [
        [entry.name, console.size(entry.size), where(entry), ", ".join(entry.looks), entry.about]
        for entry in registry().values()
    ]  # fmt: skip
    console.table("", ["name", "size", "is", "looks", "about"], cells)


def where(entry: Entry) -> str:
    """Whether a model's file is on this disk."""
    if entry.path is None:
        return f"not here: {entry.remedy}"
    return "here, fetched" if entry.fetched else "here"


@weights.command("find")
def weights_find(model: NameOrPath) -> None:
    """Print the path of a model's file."""
    console.say(str(find(model)))


@weights.command("show")
def weights_show(model: NameOrPath = DEFAULT) -> None:
    """Print what a checkpoint says about itself: config, heads, provenance."""
    from oasis_cli.checkpoints.format import describe

    about = describe(model)
    console.say(console.to_json(about, indent=2))
    if sys.stdout.isatty():
        cli_heads.show_groups(about["heads"]["layers"])


@weights.command("verify")
def weights_verify(
    names: Annotated[list[str] | None, typer.Argument(help="Models; all by default.")] = None,
) -> None:
    """Compare the models on this disk with the SHA-256 they were released with."""
    wrong: list[WeightsError] = []
    for entry in [entry_of(name) for name in names or registry()]:
        if not names and not entry.ships and entry.path is None:
            console.say(f"{entry.name}: {where(entry)}")
            continue
        try:
            right, found = verify(entry.name)
        except WeightsError as error:
            wrong.append(error)
            console.say(f"{entry.name}: {where(entry)}")
            continue
        console.say(f"{entry.name}: {'ok' if right else 'not as released'} ({found})")
        if not right:
            sentence = f"the weights of {entry.name} are not the released ones: SHA-256 {found}"
            wrong.append(WeightsError(sentence, hint=entry.remedy))
    if wrong:
        raise wrong[0]


@weights.command("fetch")
def weights_fetch(
    name: Named,
    source: Annotated[
        str | None, typer.Option("--from", metavar="URL", help="From here instead.")
    ] = None,
    as_json: options.Json = False,
    quiet: options.Quiet = False,
) -> None:
    """Download a model that does not come with oasis, and check its SHA-256.

    The file goes to ~/.local/share/oasis/weights, or to the folder that OASIS_WEIGHTS names. What
    was cut off goes on with the same command. Proxies are taken from HTTPS_PROXY and the like.
    """
    from oasis_cli.checkpoints.fetch import fetch

    with console.reporter(as_json=as_json, quiet=quiet) as report:
        entry = entry_of(name)

        def tell(done: int, total: int) -> None:
            report({"event": "fetching", "bytes": done, "total": total})

        path = fetch(entry, source, tell)
        done = {"event": "done", "name": name, "path": path, "bytes": entry.size}
        report(done | {"text": f"{name}: {path} ({console.size(entry.size)}, SHA-256 as released)"})


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
    model: options.Model = DEFAULT,
    precision: Annotated[
        str, typer.Option(metavar="fp32|fp16|bf16", help="Of the tensors in the file.")
    ] = "fp16",
    overwrite: options.Overwrite = False,
) -> None:
    """Write a model for inference only: its constant modulation goes into its matrices."""
    from oasis_cli.checkpoints.format import describe, load_model, other_decoders, save_model
    from oasis_cli.errors import UsageError
    from oasis_cli.media.atomic import check_target
    from oasis_cli.model.folding import fold
    from oasis_cli.runtime.devices import PRECISIONS, SIXTEEN

    check_target(output, "", overwrite=overwrite)
    if precision not in SIXTEEN:  # others are made when loading
        raise UsageError(
            f"a checkpoint has no tensors of precision {precision!r}",
            hint=f"choose --precision {', '.join(SIXTEEN)}",
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
