"""A file, a folder, an index of shards or a name on the hub in; tensors by their names out.

A folder is laid out as one of Wan2.1's two publications: the original one, with everything in one
folder, or that of diffusers, with a folder for each part. A config.json beside the tensors says
what size they have.
"""

import json
import pickle
import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from oasis_cli.checkpoints.format import CUT_SHORT
from oasis_cli.checkpoints.registry import sha256
from oasis_cli.errors import UsageError, WeightsError

PICKLES = (".pth", ".pt", ".bin", ".ckpt")
SUFFIXES = (".safetensors", *PICKLES)
INDEX = ".safetensors.index.json"
TENSORS = "diffusion_pytorch_model*"
"""Prefixes of the tensors of a part, in both publications."""

HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")
WANTED = ("config.json", TENSORS, "Wan2.1_VAE.pth", "transformer/*", "vae/*")
"""Of a repository on the hub: not the text encoder."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of Wan2.1 and where it lies in a folder."""

    name: str
    folder: str
    """Its own folder in the layout of diffusers."""
    pattern: str
    """Its file in the folder of the original layout."""
    classes: tuple[str, ...]
    """What its config.json names as its class."""


TRANSFORMER = Part(
    name="transformer",
    folder="transformer",
    pattern=TENSORS,
    classes=("WanModel", "WanTransformer3DModel"),
)
AUTOENCODER = Part(
    name="autoencoder",
    folder="vae",
    pattern="Wan2.1_VAE.*",
    classes=("WanVAE", "AutoencoderKLWan"),
)

TINY = Part(name="tiny decoder", folder="taew2_1", pattern="taew2_1.*", classes=())


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Files that hold one part, and what is known about them."""

    place: str
    """What the user called it; from the hub with its commit."""
    files: tuple[Path, ...]
    config: dict[str, Any] = field(default_factory=dict)
    """The config.json beside the files; empty if there is none of this part."""

    def hashes(self) -> dict[str, str]:
        """SHA-256 of each file, by its name. Raises WeightsError when the hub's record differs."""
        found = {file.name: sha256(file) for file in self.files}
        for file in self.files:
            # The hub's cache links to a file that is called by the hash the hub has on record.
            recorded = file.resolve().name
            if re.fullmatch("[0-9a-f]{64}", recorded) and recorded != found[file.name]:
                raise WeightsError(
                    f"{file} is damaged: its SHA-256 is {found[file.name]}, not {recorded}",
                    hint=f"delete {file.resolve()} and import again",
                )
        return found

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, left on the disk where the format allows.

        Raises WeightsError for a file that cannot be read and a name that occurs twice.
        """
        found: dict[str, Tensor] = {}
        for file in self.files:
            for name, tensor in _read(file):
                if name in found:
                    raise WeightsError(f"{file} has {name} again, which another shard has too")
                found[name] = tensor
        return found


def resolve(place: str, *, offline: bool = False) -> tuple[Path, str]:
    """The file or folder that `place` means, and what to call it in reports.

    place: a file, an index of shards, a folder, or OWNER/NAME[@REVISION] on the hub. Raises
    UsageError when there is no such thing.
    """
    path = Path(place)
    if path.exists():
        return path, place
    if HUB_NAME.fullmatch(place) and path.suffix not in SUFFIXES:
        path = _download(place, offline=offline)
        return path, f"{place.partition('@')[0]}@{path.name}"
    raise UsageError(
        f"there is no file or folder called {place!r}",
        hint="on the hub it would be OWNER/NAME, such as Wan-AI/Wan2.1-T2V-1.3B",
    )


def locate(path: Path, part: Part, called: str) -> Source:
    """The files of a part at a path. Raises UsageError when a folder has none."""
    source = find_in(path, part, called) if path.is_dir() else _source(path, part, called)
    if source is None:
        raise UsageError(
            f"{called} holds no {part.name} of Wan2.1",
            hint=f"it would be called {part.pattern}, or lie in a folder called {part.folder}",
        )
    return source


def find_in(folder: Path, part: Part, called: str) -> Source | None:
    """The part that lies in a folder, or None. Raises UsageError when there are several."""
    own = _config(folder).get("_class_name") in part.classes
    for inside, pattern in (
        (folder / part.folder, TENSORS),
        (folder, TENSORS if own else part.pattern),
    ):
        for suffix in (INDEX, ".safetensors", *PICKLES):
            files = sorted(inside.glob(pattern.removesuffix(".*") + suffix))
            if len(files) > 1:
                raise UsageError(
                    f"{inside} holds several: {', '.join(file.name for file in files)}",
                    hint="name one of them",
                )
            if files:
                return _source(files[0], part, called)
    return None


def _source(file: Path, part: Part, called: str) -> Source:
    config = _config(file.parent)
    if config.get("_class_name") not in part.classes:
        config = {}
    files = _shards(file) if file.name.endswith(".json") else (file,)
    return Source(place=called, files=files, config=config)


def _shards(index: Path) -> tuple[Path, ...]:
    """The files that an index names, which lie beside it."""
    try:
        names = sorted(set(_json(index)["weight_map"].values()))
        shards = tuple(index.parent / Path(name).name for name in names)
    except (KeyError, AttributeError, TypeError) as error:
        raise WeightsError(f"{index} is not an index of shards") from error
    missing = [shard.name for shard in shards if not shard.is_file()]
    if missing or not shards:
        raise WeightsError(f"{index} names shards that are not there: {', '.join(missing)}")
    return shards


def _config(folder: Path) -> dict[str, Any]:
    """The folder's config.json, or nothing."""
    path = folder / "config.json"
    found = _json(path) if path.is_file() else {}
    return found if isinstance(found, dict) else {}


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} cannot be read as JSON: {error}") from error


def _read(path: Path) -> Iterator[tuple[str, Tensor]]:
    if path.suffix == ".safetensors":
        try:
            with safe_open(path, "pt") as file:
                for name in file.keys():  # noqa: SIM118
                    yield name, file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise WeightsError(
                f"{path} is not a whole .safetensors file ({error})", hint=CUT_SHORT
            ) from error
    elif path.suffix in PICKLES:
        yield from _unpickle(path).items()
    else:
        raise UsageError(f"{path} is no file of tensors", hint=f"they end in {', '.join(SUFFIXES)}")


def _unpickle(path: Path) -> dict[str, Tensor]:
    """A torch file of named tensors. It may hold nothing else, so that no code of it runs."""
    try:
        # Old files are no zip archives and cannot stay on the disk.
        found = torch.load(
            path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path)
        )
    except pickle.UnpicklingError as error:
        raise WeightsError(
            f"{path} is damaged, or holds more than tensors and was not opened",
            hint="a file of tensors alone is safe; this one could run code",
        ) from error
    except (RuntimeError, OSError, EOFError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a whole torch file", hint=CUT_SHORT) from error
    if not isinstance(found, dict) or not all(isinstance(x, Tensor) for x in found.values()):
        raise WeightsError(f"{path} does not hold tensors by name")
    return found


def _download(name: str, *, offline: bool) -> Path:
    """The folder of a repository's files in the hub's cache, downloaded if need be."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (  # type: ignore[attr-defined]
        HFValidationError,
        HTTPError,
        LocalEntryNotFoundError,
    )

    repository, _, revision = name.partition("@")
    try:
        return Path(
            snapshot_download(
                repository,
                revision=revision or None,
                allow_patterns=list(WANTED),
                local_files_only=offline,
            )
        )
    except LocalEntryNotFoundError as error:
        raise WeightsError(
            f"{name} is not in the hub's cache" + ("" if offline else ", and the hub is silent"),
            hint="import it without --offline" if offline else "check the network; or name a file",
        ) from error
    except (OSError, HTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WeightsError(
            f"{name} cannot be had from the hub: {reason}",
            hint="check the name, OWNER/NAME or OWNER/NAME@REVISION",
        ) from error
