"""Wan2.1's published files in, one checkpoint that training starts from out.

Wan2.1 makes video from text. Its weights know what video looks like, not how to upscale: the map
from pixels to latents is new, and the one step has never been trained.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from oasis_cli.checkpoints.format import BESIDE, save_model
from oasis_cli.checkpoints.wan import convert
from oasis_cli.checkpoints.wan.convert import Size, State
from oasis_cli.checkpoints.wan.files import (
    AUTOENCODER,
    TINY,
    TRANSFORMER,
    Source,
    find_in,
    locate,
    resolve,
)
from oasis_cli.checkpoints.wan.names import autoencoder
from oasis_cli.errors import UsageError, WeightsError
from oasis_cli.model.decoders import kinds as decoders
from oasis_cli.model.decoders.kinds import AnyDecoder
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.latent import ToLatent
from oasis_cli.model.oasis import PAPER, Oasis, OasisConfig

NAME = "wan2.1-start"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportOptions:
    """What to read, each a file, a folder or a name on the hub, and what to make of it."""

    source: str
    """The transformer, and in a folder the autoencoder too."""
    autoencoder: str | None = None
    tiny: str | None = None
    """A tiny decoder, beside the autoencoder's, or alone."""
    end: Path | None = None
    """A file with the encoded end-of-sentence token."""
    sigma: float = PAPER.sigma
    sha256: tuple[str, ...] = ()
    """Sums that files must have, in any order."""
    offline: bool = False

    def __post_init__(self) -> None:
        if not 0 < self.sigma <= 1:
            raise UsageError(
                f"a sigma of {self.sigma:g} is not possible", hint="choose --sigma above 0, up to 1"
            )


def import_wan(options: ImportOptions, target: Path, say: Callable[[str], None]) -> None:
    """Write the checkpoint, complete or not at all; `say` hears what was read.

    Raises UsageError for what cannot be found and WeightsError for what does not fit.
    """
    found = _find(options)
    record = {name: _record(source) for name, source in found.items()}
    _compare(options.sha256, record)
    state, size = _transformer(found["transformer"], options, record, say)
    config, more, encoder, others = _decoders(found, record, say)
    config = replace(config, dit=size.config, sigma=options.sigma)
    state |= more | _new("to_latent", lambda: ToLatent(config.dit.latent_channels))
    model = Oasis.from_checkpoint(config, state, HeadTable.dense(size.layers, size.heads))
    provenance = {"upscales": False, "sources": record}
    save_model(
        model,
        target,
        name=NAME,
        provenance=provenance,
        dtype=torch.float32,
        beside=encoder,
        others=others,
    )
    parameters = sum(tensor.numel() for tensor in model.parameters())
    say(f"wrote {target}: {parameters:,} parameters, float32")
    say(
        "These are Wan2.1's own weights. They do not upscale: they are what training starts from,\n"
        f"oasis train --preset paper --start-from {target}"
        + (f" --encoder {target}" if encoder else "")
        + " --data DIR --perceptual FILE --max-steps 30000"
    )


def _find(options: ImportOptions) -> dict[str, Source]:
    """Every source, before any of them is read."""
    where, called = resolve(options.source, offline=options.offline)
    found = {"transformer": locate(where, TRANSFORMER, called)}
    if options.autoencoder:
        path, name = resolve(options.autoencoder, offline=options.offline)
        found["autoencoder"] = locate(path, AUTOENCODER, name)
    elif where.is_dir() and (beside := find_in(where, AUTOENCODER, called)):
        found["autoencoder"] = beside
    if options.tiny:
        path, name = resolve(options.tiny, offline=options.offline)
        found["tiny decoder"] = locate(path, TINY, name)
    if options.end:
        if not options.end.is_file():
            raise UsageError(f"there is no file called {str(options.end)!r}")
        found["end of sentence"] = Source(place=str(options.end), files=(options.end,))
    return found


def _record(source: Source) -> dict[str, Any]:
    return {"from": source.place, "sha256": source.hashes()}


def _compare(wanted: tuple[str, ...], record: dict[str, Any]) -> None:
    """Raise WeightsError when a sum that was asked for belongs to no file."""
    sums = [pair for part in record.values() for pair in part["sha256"].items()]
    for sha256 in wanted:
        if sha256.lower() not in [found for _, found in sums]:
            seen = ", ".join(f"{file} {found}" for file, found in sums)
            raise WeightsError(f"no file has the SHA-256 {sha256}", hint=f"they have: {seen}")


def _transformer(
    source: Source, options: ImportOptions, record: dict[str, Any], say: Callable[[str], None]
) -> tuple[State, Size]:
    size = Size.of(source.config)
    known = convert.known_transformer(size)
    raw, layout = convert.checked(source.tensors(), known, convert.original_name, source.place)
    record["transformer"]["layout"] = layout
    end = _end_of_sentence(options.end, size.text) if options.end else None
    say(
        f"transformer: {len(raw)} tensors, {layout} layout, {size.layers} layers of {size.width}, "
        f"{size.heads} heads, from {source.place}"
    )
    say(
        f"time: {1000 * options.sigma:g} of 1000, worked into the modulation; prompt: empty, "
        + ("two rows" if end is not None else "padding alone (no --eos)")
    )
    return convert.transformer(raw, size, time=1000 * options.sigma, end=end), size


def _end_of_sentence(path: Path, width: int) -> Tensor:
    """The one row of a file that is not zero."""
    tensors = Source(place=str(path), files=(path,)).tensors()
    rows = [row for x in tensors.values() if x.shape[-1:] == (width,) for row in x.view(-1, width)]
    rows = [row.float() for row in rows if row.any()]
    if len(rows) != 1 or not rows[0].isfinite().all():
        raise WeightsError(
            f"{path} does not hold one encoded token of {width} numbers",
            hint="it is the text encoder's output for an empty prompt: one row, then zeros if any",
        )
    return rows[0]


def _decoders(
    found: dict[str, Source], record: dict[str, Any], say: Callable[[str], None]
) -> tuple[OasisConfig, State, State, dict[str, AnyDecoder]]:
    """The paper's config with the decoder there is, its tensors, those of the encoder, and the tiny
    decoder where it comes second."""
    config = PAPER
    state: State | None = None
    encoder: State = {}
    others: dict[str, AnyDecoder] = {}
    if source := found.get("autoencoder"):
        tensors = source.tensors()
        size = convert.autoencoder_config(tensors)
        known = convert.known_autoencoder(size)
        raw, layout = convert.checked(tensors, known, autoencoder, source.place)
        record["autoencoder"]["layout"] = layout
        own = convert.own_autoencoder(raw, size)
        encoder = {name: x for name, x in own.items() if name.startswith(BESIDE)}
        state = {name: x for name, x in own.items() if name not in encoder}
        config = replace(PAPER, decoder=size)
        say(f"autoencoder: {len(raw)} tensors, {layout} layout, from {source.place}")
    if source := found.get("tiny decoder"):
        tensors = source.tensors()
        tiny = convert.tiny_config(tensors)
        known = convert.known_tiny(tiny)
        tensors = convert.same_frames(tensors, known)
        raw, _ = convert.checked(tensors, known, str, source.place)
        own = convert.own_tiny(raw)
        if state is None:
            state, config = own, replace(PAPER, decoder=tiny)
        else:
            others["tiny"] = decoders.build(tiny)
            others["tiny"].load_state_dict(
                {name.removeprefix("decoder."): x for name, x in own.items()}
            )
        say(f"tiny decoder: {len(raw)} tensors, from {source.place}")
    if state is None:
        state = _new("decoder", lambda: decoders.build(PAPER.decoder))
        say("decoder: a new one, as no autoencoder was given (--vae)")
    return config, state, encoder, others


def _new(prefix: str, make: Callable[[], torch.nn.Module]) -> State:
    """The tensors of an untrained part, the same every time."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        part = make()
    return {f"{prefix}.{name}": tensor for name, tensor in part.state_dict().items()}
