"""A name or a path in, a loaded network out; and the one way a checkpoint is written.

A checkpoint is one .safetensors file that describes itself. Its metadata holds, as JSON, the
network's config, the head table and where the tensors came from. Loading is strict.

Beside the network's own decoder a checkpoint may hold others that read the same latents.
"""

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from oasis_cli.checkpoints.registry import DEFAULT, find, registry
from oasis_cli.errors import UsageError, WeightsError
from oasis_cli.model.decoders import kinds as decoders
from oasis_cli.model.decoders.kinds import AnyDecoder
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.oasis import Oasis, OasisConfig

FORMAT = "oasis-checkpoint/1"
BESIDE = "encoder."
"""Prefix of an encoder's tensors. A file holds them for training; nothing else reads them."""
OTHERS = "decoders."
"""What tensors of other decoders are called; the decoder's name follows: its kind, or its look."""
FAITHFUL = "faithful"
"""The look of the network's own decoder."""
CUT_SHORT = "it may be cut short: compare its size and SHA-256 with where it came from"


def load_model(
    name_or_path: str = DEFAULT,
    *,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    decoder: str = "auto",
) -> Oasis:
    """Load a network for inference.

    decoder: as for `networks`. Raises UsageError for an unknown name or decoder and WeightsError
    for a file that is not a whole, matching checkpoint.
    """
    path = find(name_or_path)
    about = describe(name_or_path)
    config = next(iter(networks(name_or_path, decoder).values()))
    table = HeadTable(tuple(about["heads"]["layers"]))
    shape = (len(table.layers), len(table.layers[0]))
    if shape != (config.dit.layers, config.dit.heads):
        raise WeightsError(
            f"{path} has {config.dit.layers} layers of {config.dit.heads} heads, and a head table "
            f"for {shape[0]} of {shape[1]}",
            hint=CUT_SHORT,
        )
    others, prefixes = about.get("decoders", {}), dict[str, str | None]()
    if decoder in others:
        prefixes |= {f"{OTHERS}{decoder}.": "decoder.", "decoder.": None}
    prefixes |= {OTHERS: None} if others else {}
    beside = _metadata(path).get("beside")
    prefixes |= {beside: None} if beside else {}
    state = _in(dtype, _tensors(path, prefixes), path)
    _check(state, Oasis.without_data(config), path)
    model = Oasis.from_checkpoint(config, state, table)
    channels_last(model)
    return model.to(device).eval().requires_grad_(False)


def networks(name_or_path: str, decoder: str = "auto") -> dict[str, OasisConfig]:
    """The network with each decoder that a checkpoint holds, by the decoder's kind.

    decoder: the kind that comes first; "auto" is the checkpoint's own. Raises UsageError for one
    that it does not hold, and WeightsError when the description cannot be read.
    """
    about = describe(name_or_path)
    own = OasisConfig.from_dict(about["config"])
    others = {
        kind: OasisConfig.from_dict(about["config"] | {"decoder": config})
        for kind, config in about.get("decoders", {}).items()
    }
    known = {decoders.decoder_kind(own.decoder): own} | others
    if decoder == "auto":
        return known
    if decoder not in known:
        raise UsageError(
            f"{name_or_path} has no decoder called {decoder!r}",
            hint=f"it has {', '.join(known)}{_who_has(decoder)}",
        )
    return {decoder: known[decoder]} | known


def looks(name_or_path: str) -> dict[str, str]:
    """The decoder behind each look that a checkpoint has.

    The network's own decoder is the faithful one; "auto" stands for it and for the kinds beside it,
    which draw the same with less memory. Every other decoder has a look's name.
    """
    beside = describe(name_or_path).get("decoders", {})
    return {FAITHFUL: "auto"} | {name: name for name in beside if is_look(name)}


def is_look(decoder: str) -> bool:
    """Whether a decoder's name is a look's, not a kind's."""
    return decoder not in decoders.KINDS


def decoder_for(name_or_path: str, look: str) -> str:
    """The decoder behind a look. Raises UsageError for one that the checkpoint does not have."""
    known = looks(name_or_path)
    if look not in known:
        raise UsageError(
            f"{name_or_path} has no look {look!r}: it has {', '.join(known)}",
            hint=f"choose --look {' or '.join(known)}{_who_has(look)}",
        )
    return known[look]


def _who_has(decoder: str) -> str:
    """The end of a hint: the models here that have a decoder or look."""
    entries = [entry for entry in registry().values() if entry.path]
    names = [f"--model {e.name}" for e in entries if decoder in (*e.decoders, *e.looks)]
    if not names:
        return ""
    return f"; {' and '.join(names)} {'has' if len(names) == 1 else 'have'} {decoder}"


def other_decoders(name_or_path: str) -> dict[str, AnyDecoder]:
    """The decoders that a checkpoint holds beside its network's own, in float32, by kind."""
    path, (_, *others) = find(name_or_path), networks(name_or_path).items()
    found = {}
    for kind, config in others:
        state = _tensors(path, {f"{OTHERS}{kind}.": "", "": None})
        with torch.device("meta"):
            found[kind] = decoders.build(config.decoder)
        _check(state, found[kind], path)
        found[kind].load_state_dict(_in(torch.float32, state, path), assign=True)
    return found


def check_trained(name_or_path: str) -> None:
    """Raise WeightsError for weights that only training can start from: they do not upscale."""
    about = describe(name_or_path)
    if not about["provenance"].get("upscales", True):
        raise WeightsError(
            f"{name_or_path} holds {about['name']}, which was never trained and does not upscale",
            hint=f"start training from it: oasis train --start-from {name_or_path}",
        )


def channels_last(model: torch.nn.Module) -> None:
    """Lay out convolution weights for speed: twice as fast on a CPU."""
    layouts = {torch.nn.Conv2d: torch.channels_last, torch.nn.Conv3d: torch.channels_last_3d}
    for module in model.modules():
        for kind, layout in layouts.items():
            if isinstance(module, kind):
                weight = module.weight.detach().contiguous(memory_format=layout)
                module.weight = torch.nn.Parameter(weight)


def describe(name_or_path: str) -> dict[str, Any]:
    """The metadata of a checkpoint without its tensors: name, config, heads, provenance, and
    the configs of other decoders, if it has any, by kind."""
    path = find(name_or_path)
    metadata = _metadata(path)
    if metadata.get("format") != FORMAT:
        raise WeightsError(
            f"{path} is a safetensors file, but not an oasis checkpoint",
            hint="use one that oasis wrote; `oasis weights list` names those that come with it",
        )
    try:
        keys = ["name", "config", "heads", "provenance", *({"decoders"} & metadata.keys())]
        about = {key: json.loads(metadata[key]) for key in keys}
        _check_description(about)
        return about
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise WeightsError(f"the description inside {path} is damaged: {error}") from error


def _check_description(about: dict[str, Any]) -> None:
    """Raise TypeError where what others rely on has another type."""
    for key, value in about.items():
        if not isinstance(value, str if key == "name" else dict):
            raise TypeError(f"{key} is of another type")
    rows = about["heads"].get("layers")
    if not isinstance(rows, list) or not rows or not all(isinstance(row, str) for row in rows):
        raise TypeError("heads.layers is not a list of rows")


def save_model(
    model: Oasis,
    path: Path,
    *,
    name: str,
    provenance: dict[str, Any],
    dtype: torch.dtype = torch.float16,
    beside: dict[str, Tensor] | None = None,
    others: dict[str, AnyDecoder] | None = None,
) -> None:
    """Write a checkpoint, heads in checkpoint order, complete or not at all.

    beside: tensors called `encoder.*` that are no part of the network. others: further decoders, by
    kind, of the same latents. Raises WeightsError when the file cannot be written.
    """
    others = others or {}
    state = model.checkpoint_state() | (beside or {})
    for kind, decoder in others.items():
        state |= {f"{OTHERS}{kind}.{key}": x for key, x in decoder.state_dict().items()}
    state = {key: x.detach().to("cpu", dtype).contiguous() for key, x in state.items()}
    about = {
        "name": name,
        "config": model.config.to_dict(),
        "heads": {"layers": list(model.dit.table.layers)},
        "provenance": provenance,
    }
    if others:
        about["decoders"] = {kind: decoders.to_dict(x.config) for kind, x in others.items()}
    metadata = {"format": FORMAT} | {key: json.dumps(value) for key, value in about.items()}
    if beside:
        metadata["beside"] = BESIDE
    try:
        handle, name = tempfile.mkstemp(".part", ".oasis-", path.parent)
        os.close(handle)
        part = Path(name)
        try:
            save_file(state, part, metadata)
            part.chmod(0o644)  # else only its owner can read it
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{path} cannot be written: {error}") from error


def _metadata(path: Path) -> dict[str, str]:
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error


def _tensors(path: Path, prefixes: dict[str, str | None]) -> dict[str, Tensor]:
    """The tensors of a file.

    prefixes: what names that begin with a key begin with instead, the first that fits; None leaves
    them out.
    """
    state = {}
    try:
        with safe_open(path, "pt") as file:
            for name in file.keys():  # noqa: SIM118
                old = next((prefix for prefix in prefixes if name.startswith(prefix)), "")
                new = prefixes.get(old, "")
                if new is not None:
                    state[new + name.removeprefix(old)] = file.get_tensor(name)
    except (SafetensorError, OSError) as error:
        raise _unreadable(path, error) from error
    return state


def _in(dtype: torch.dtype, state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The tensors in a type to compute in. Raises WeightsError for NaN and infinity: they make
    black frames, and nothing else would say why."""
    found = {}
    for name, tensor in state.items():
        found[name] = tensor.to(dtype)
        if torch.isfinite(found[name]).all():
            continue
        if torch.isfinite(tensor.to(torch.float32)).all():
            short = str(dtype).removeprefix("torch.")
            raise WeightsError(
                f"{path} has numbers too large for {short} in {name}", hint="try --precision fp32"
            )
        raise WeightsError(
            f"{path} has NaN or infinity in {name}: with it every frame would be black",
            hint="it is damaged, or its training failed: use an earlier checkpoint",
        )
    return found


def _unreadable(path: Path, error: Exception) -> WeightsError:
    return WeightsError(
        f"{path} is not a whole .safetensors file ({error})",
        hint=CUT_SHORT,
    )


def _check(state: dict[str, Tensor], model: torch.nn.Module, path: Path) -> None:
    """Names and shapes must be those of the model, no more and no less."""
    wanted = {name: tensor.shape for name, tensor in model.state_dict().items()}
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    wrong = sorted(n for n in wanted.keys() & state.keys() if wanted[n] != state[n].shape)
    for what, names in (("lacks", missing), ("has unknown", extra), ("has misshapen", wrong)):
        if names:
            shown = ", ".join(names[:3]) + (" ..." if len(names) > 3 else "")
            raise WeightsError(
                f"{path} does not fit its own config: it {what} {len(names)} tensors ({shown})"
            )
