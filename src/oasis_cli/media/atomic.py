"""A target that is either what it was or the complete new file, never something between."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from oasis_cli.errors import MediaError, UsageError

LONGEST_NAME = 255
"""Bytes of a file's name, on nearly every disk."""


def behind(target: Path) -> Path:
    """The file that a link leads to, so that it is written and the link stays; or the target."""
    return target.resolve() if target.is_symlink() else target


def working_name(before: str, name: str, after: str) -> str:
    """A name made of a target's, cut short where it would be longer than a disk takes.

    >>> working_name(".", "out.mp4", ".oasis")
    '.out.mp4.oasis'
    >>> len(working_name(".", 255 * "x", ".oasis"))
    79
    """
    whole = before + name + after
    if len(os.fsencode(whole)) <= LONGEST_NAME:
        return whole
    mark = hashlib.sha256(os.fsencode(name)).hexdigest()[:16]
    start = os.fsencode(name)[:55].decode(errors="ignore")
    return f"{before}{start}-{mark}{after}"


def temporary_beside(target: Path) -> Path:
    """A name in the target's folder (so that renaming is atomic) with the target's suffix."""
    target = behind(target)
    after = f".part-{os.getpid()}{target.suffix}"
    return target.with_name(working_name(".", target.stem, after))


def commit(temporary: Path, target: Path) -> None:
    """Put a finished file in the target's place, so that it survives a power cut."""
    target = behind(target)
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


def check_name(name: str) -> None:
    """Refuse a file's name that no disk takes. Raises UsageError."""
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UsageError(
            f"the name {name[:40]}... is too long",
            hint=f"a name may have {LONGEST_NAME} bytes",
        )


def check_target(target: Path, source: str, *, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written, before any work is done."""
    check_name(target.name)
    folder = behind(target).parent
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist", hint=f"mkdir -p {folder}")
    if target.is_dir():
        raise UsageError(f"{target} is a directory", hint="give the name of a file to write")
    if target.exists() and not target.is_file():
        raise UsageError(
            f"{target} is a pipe or a device, not a file",
            hint=f"write to the standard output and send it there: oasis upscale IN - > {target}",
        )
    if target.exists() and os.path.exists(source) and os.path.samefile(source, target):
        raise UsageError(f"{target} is the input itself", hint="choose another name for the output")
    if target.exists() and not overwrite:
        raise MediaError(
            f"{target} is already there", hint="pass --overwrite, or choose another name"
        )
    if not os.access(folder, os.W_OK):
        raise MediaError(f"the folder {folder} may not be written to")
