"""The models that have a name: what each is, where its file lies, whether it is the right one.

`registry.toml` holds them. Nothing here imports torch: the command's help and completion use it.

A file is looked for in two places: the user's folder, where `oasis weights fetch` puts files, and
the program's own, the wheel's or the checkout's. In the user's folder its name holds the beginning
of its SHA-256, so another release's file of the same model is never taken for it.
"""

import hashlib
import os
import tomllib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from oasis_cli.errors import UsageError, WeightsError

AUTO = "auto"
"""Instead of a name: the model that suits the device."""

FOLDER = "OASIS_WEIGHTS"
"""The environment variable that names the user's folder."""

FILE = Path(__file__).with_suffix(".toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """A model of the registry; `registry.toml` says what the fields mean."""

    name: str
    role: str
    file: str
    ships: bool
    urls: tuple[str, ...]
    sha256: str
    size: int
    parameters: int
    decoders: tuple[str, ...]
    looks: tuple[str, ...]
    licence: str
    about: str

    @property
    def fetched(self) -> bool:
        """Whether its file lies in the user's folder, which comes before what shipped."""
        return self.path is not None and self.path.name == self.fetched_name

    @property
    def remedy(self) -> str:
        """What to do where its file is missing or damaged."""
        if self.fetched and not self.urls:
            return f"delete {self.path}"
        if self.ships and not self.urls:
            return "install oasis again"
        return f"oasis weights fetch {self.name}"

    @property
    def fetched_name(self) -> str:
        """The name of its file in the user's folder."""
        stem, suffix = os.path.splitext(self.file)
        return f"{stem}-{self.sha256[:8]}{suffix}"

    @property
    def path(self) -> Path | None:
        """Its file on this disk, or None."""
        folder = user_folder()
        places = [folder / self.fetched_name] if folder else []
        places += [Path(__file__).parents[1] / "_weights" / self.file]
        places += [Path(__file__).parents[3] / "weights" / self.file]
        return next((place for place in places if place.is_file()), None)


def read(data: dict[str, Any]) -> dict[str, Entry]:
    """The entries of a registry's tables. Raises TypeError for a field too many or too few."""
    entries = {}
    for name, fields in data.items():
        values: dict[str, Any] = {
            key: tuple(x) if isinstance(x, list) else x for key, x in fields.items()
        }
        entries[name] = Entry(name=name, **values)
    return entries


_ENTRIES = read(tomllib.loads(FILE.read_text(encoding="utf-8")))


def registry() -> dict[str, Entry]:
    """The models that have a name, by name."""
    return dict(_ENTRIES)


def by_role(role: str) -> Entry | None:
    """The model of a role, or None where this release has none."""
    return next((entry for entry in _ENTRIES.values() if entry.role == role), None)


def _name_of(role: str) -> str:
    entry = by_role(role)
    assert entry is not None, f"{FILE} has no model of the role {role}"
    return entry.name


DEFAULT, DENSE = _name_of("small"), _name_of("dense")
"""The model for every device; and the one with all heads global, to calibrate."""


def user_folder() -> Path | None:
    """Where fetched files lie; it need not be there. None where the user has no home."""
    if own := os.environ.get(FOLDER):
        return Path(own).absolute()
    data = os.environ.get("LOCALAPPDATA" if os.name == "nt" else "XDG_DATA_HOME", "")
    if os.path.isabs(data):  # XDG: others are to be ignored
        return Path(data) / "oasis" / "weights"
    try:
        return Path.home() / ".local" / "share" / "oasis" / "weights"
    except RuntimeError:
        return None


def entry_of(name: str) -> Entry:
    """The model of a name. Raises UsageError when there is none."""
    if name not in _ENTRIES:
        raise UsageError(
            f"oasis has no model called {name!r}", hint=f"known models: {', '.join(_ENTRIES)}"
        )
    return _ENTRIES[name]


def find(name_or_path: str) -> Path:
    """The file behind a name or a path. Raises UsageError when there is none of that name, and
    WeightsError for a known model whose file is not on this disk."""
    if name_or_path in _ENTRIES:
        path = _ENTRIES[name_or_path].path
        if path is None:
            raise WeightsError(
                f"the weights of {name_or_path} are not on this machine",
                hint=_ENTRIES[name_or_path].remedy,
            )
        return path
    path = Path(name_or_path)
    if not path.is_file():
        raise UsageError(
            f"there is no model called {name_or_path!r} and no file of that name",
            hint=f"known models: {', '.join(_ENTRIES)}",
        )
    return path


def verify(name: str) -> tuple[bool, str]:
    """Whether a model's file has the SHA-256 it was released with, and what it has."""
    found = sha256(find(name))
    return found == entry_of(name).sha256, found


def sha256(path: Path) -> str:
    """SHA-256 of a file, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_hash(path: Path) -> str:
    """`sha256` of a file that is asked for again and again: read anew when it was written to."""
    about = path.stat()
    return _hash_of(path, (about.st_size, about.st_mtime_ns, about.st_ctime_ns, about.st_ino))


@lru_cache(maxsize=8)
def _hash_of(path: Path, written: tuple[int, ...]) -> str:
    return sha256(path)
