"""A target that is either what it was or the complete new file, never something between."""

from __future__ import annotations

import os
from pathlib import Path

from oasis_cli.errors import MediaError, UsageError


def temporary_beside(target: Path) -> Path:
    """A name in the target's folder (so that renaming is atomic) with the target's suffix."""
    return target.with_name(f".{target.stem}.part-{os.getpid()}{target.suffix}")


def commit(temporary: Path, target: Path) -> None:
    """Put a finished file in the target's place, so that it survives a power cut."""
    sync(temporary)
    os.replace(temporary, target)
    sync(target.parent)


def sync(path: Path) -> None:
    """fsync a file or a folder. Windows can do neither through a handle for reading."""
    if os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def discard(temporary: Path) -> None:
    """Remove a temporary file or folder of files, if it is there."""
    if temporary.is_dir():
        for path in temporary.iterdir():
            path.unlink(missing_ok=True)
        temporary.rmdir()
    else:
        temporary.unlink(missing_ok=True)


def check_target(target: Path, source: str, *, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written, before any work is done."""
    folder = target.parent
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist", hint=f"mkdir -p {folder}")
    if target.is_dir():
        raise UsageError(f"{target} is a directory", hint="give the name of a file to write")
    if target.exists() and os.path.exists(source) and os.path.samefile(source, target):
        raise UsageError(f"{target} is the input itself", hint="choose another name for the output")
    if target.exists() and not overwrite:
        raise MediaError(
            f"{target} is already there", hint="pass --overwrite, or choose another name"
        )
    if not os.access(folder, os.W_OK):
        raise MediaError(f"the folder {folder} may not be written to")
