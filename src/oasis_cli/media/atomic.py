"""A target that is either what it was or the complete new file, never something between.

Beside a target that is being written lie files whose names are short, however long its own is:

    .oasis-MARK.lock               held by the run that writes it
    .oasis-MARK-TOKEN.part.mp4     what it writes

MARK stands for the target's name. TOKEN is random and the file is made by whoever writes it, so
that no two runs write one file: a process number is the same in every container.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media import locks

LONGEST_SUFFIX = 16

PART = re.compile(r"\.oasis-(?P<mark>[0-9a-f]{12})-[0-9a-f]{16}\.part")
LOCK = re.compile(r"\.oasis-(?P<mark>[0-9a-f]{12})\.lock$")

LONGEST_NAME = 255
"""Bytes of a file's name, on nearly every disk."""


def behind(target: Path) -> Path:
    """The file that a link leads to, so that it is written and the link stays; or the target."""
    return target.resolve() if target.is_symlink() else target


def mark(target: Path) -> str:
    """The target's mark in the names of its working files.

    >>> mark(Path("/videos/out.mp4"))
    'da1f77a499ff'
    """
    return hashlib.sha256(os.fsencode(target.name)).hexdigest()[:12]


def temporary_beside(target: Path, *, folder: bool = False, suffix: str | None = None) -> Path:
    """Make an empty file, or a folder, of a new name in the target's folder, so that renaming is
    atomic. suffix: of its name; a file has the target's when None. Raises OSError."""
    if suffix is None:
        suffix = "" if folder or len(target.suffix) > LONGEST_SUFFIX else target.suffix
    while True:
        path = target.parent / f".oasis-{mark(target)}-{secrets.token_hex(8)}.part{suffix}"
        with suppress(FileExistsError):
            if folder:
                path.mkdir()
            else:
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
            return path


@contextmanager
def in_work(target: Path) -> Iterator[None]:
    """Around everything that makes a target: nobody else writes it meanwhile, and what a process
    that died left of it is removed.

    Raises MediaError while another run holds it, of this process or of any other.
    """
    if target.exists() and not (target.is_file() or target.is_dir()):
        yield  # a device or a pipe: there is nothing beside it
        return
    path = target.parent / f".oasis-{mark(target)}.lock"
    try:
        lock = locks.take(path)
    except OSError as error:
        raise MediaError(f"{target} cannot be written: {error.strerror or error}") from error
    if lock is None:
        raise MediaError(
            f"another run is writing {target}", hint="wait for it, or write to another target"
        )
    try:
        if lock.sure:
            for part in leftovers(target.parent, mark(target)):
                with suppress(OSError):
                    discard(part)
        yield
    finally:
        lock.release(remove=True)


def leftovers(folder: Path, of: str | None = None) -> list[Path]:
    """Files that runs are writing in a folder, or that died before they were complete.

    of: only those of the target with this mark.
    """
    found = []
    with os.scandir(folder) as entries:
        for entry in entries:
            known = PART.match(entry.name)
            if known and of in (None, known["mark"]):
                found.append(Path(entry.path))
    return sorted(found)


def remove_leftovers(folder: Path, of: str | None = None) -> list[tuple[Path, bool]]:
    """Remove what runs that died left in a folder. Returns what there was, and whether it is gone:
    what a run is writing is left alone. of: as for `leftovers`. Raises OSError."""
    names = os.listdir(folder)
    marks = {known["mark"] for name in names if (known := PART.match(name) or LOCK.match(name))}
    found: list[tuple[Path, bool]] = []
    for each in sorted(marks & {of} if of else marks):
        lock, parts = None, leftovers(folder, each)
        with suppress(MediaError):  # a link lies there: nothing that is ours
            lock = locks.take(folder / f".oasis-{each}.lock")
        dead = lock is not None and lock.sure
        for part in parts if dead else ():
            discard(part)
        found += [(part, dead) for part in parts]
        if lock is not None:
            lock.release(remove=True)
    return found


def write_whole(target: Path, data: bytes) -> None:
    """Write a file that is complete or not there. Raises OSError."""
    temporary = temporary_beside(target)
    try:
        temporary.write_bytes(data)
        commit(temporary, target)
    finally:
        discard(temporary)


def write_output(target: Path, data: bytes) -> None:
    """Write a file that a user named, through a link to it: it is complete, or what it was.

    Raises MediaError while another run writes it, or when it cannot be written.
    """
    target = behind(target)
    try:
        with in_work(target):
            write_whole(target, data)
    except OSError as error:
        raise MediaError(f"{target} cannot be written: {error.strerror or error}") from error


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
    """Remove a temporary file or folder, if it is there; of a link, the link."""
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary)
    else:
        temporary.unlink(missing_ok=True)


def check_name(name: str) -> None:
    """Refuse a file's name that no disk takes. Raises UsageError."""
    if len(os.fsencode(name)) > LONGEST_NAME:
        raise UsageError(
            f"the name {name[:40]}... is too long",
            hint=f"a name may have {LONGEST_NAME} bytes",
        )


def check_kind(target: Path) -> None:
    """Refuse a target that is there and neither a file nor a folder. Raises UsageError."""
    if target.exists() and not target.is_file() and not target.is_dir():
        raise UsageError(
            f"{target} is a pipe or a device, not a file",
            hint=f"write to the standard output and send it there: oasis upscale IN - > {target}",
        )


def check_target(target: Path, source: str, *, overwrite: bool) -> None:
    """Refuse a target that cannot or must not be written, before any work is done."""
    check_name(target.name)
    folder = behind(target).parent
    if not folder.is_dir():
        raise UsageError(f"the folder {folder} does not exist", hint=f"mkdir -p {folder}")
    if target.is_dir():
        raise UsageError(f"{target} is a directory", hint="give the name of a file to write")
    check_kind(target)
    if target.exists() and os.path.exists(source) and os.path.samefile(source, target):
        raise UsageError(f"{target} is the input itself", hint="choose another name for the output")
    if target.exists() and not overwrite:
        raise MediaError(
            f"{target} is already there", hint="pass --overwrite, or choose another name"
        )
    if not os.access(folder, os.W_OK):
        raise MediaError(f"the folder {folder} may not be written to")
