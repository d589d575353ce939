"""Files that say "in use": one holder at a time, and free again however its process ends.

A lock file is empty, and it is removed by whoever held it last. So a lock counts only while the
file that was locked is still the one under the name; `take` looks, and tries again where it is not.
"""

from __future__ import annotations

import errno
import os
import random
import stat
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from oasis_cli.errors import MediaError

PATIENCE, BRIEFLY = 5.0, 0.5
"""Seconds to wait for somebody who only looks whether a file is locked; and for who holds it, since
who removes leftovers needs it for a moment only."""

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP}
"""Error numbers of file systems without locks."""

NO_LINKS = getattr(os, "O_NOFOLLOW", 0)


@dataclass(frozen=True, slots=True)
class Lock:
    """A lock that is held."""

    path: Path
    handle: int
    sure: bool
    """Whether nobody else holds it; False where the file system has no locks."""

    def release(self, *, remove: bool) -> None:
        """Let it go; remove: and take the file away, before anybody else can hold it."""
        if remove and os.name != "nt":
            with suppress(OSError):
                self.path.unlink()
        os.close(self.handle)
        if remove and os.name == "nt":  # where an open file cannot be removed
            with suppress(OSError):
                self.path.unlink()


def take(path: Path) -> Lock | None:
    """Lock the file `path`, which is made where there is none; None while another holds it.

    Raises MediaError where it is a link or not a plain file, and OSError where it cannot be made.
    """
    began = time.monotonic()
    while True:
        handle = _open(path)
        try:
            state = _lock(handle)
            if state is not None and _is_under_name(handle, path):
                return Lock(path, handle, state)
            patience = BRIEFLY if state is None and _is_held(handle) else PATIENCE
            if state is None and time.monotonic() - began > patience:
                os.close(handle)
                return None
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        time.sleep(random.uniform(0.005, 0.02))  # somebody looked, or removed the file just now


def is_held(path: Path) -> bool:
    """Whether somebody holds the lock `path`. Keeps nobody from taking it."""
    try:
        handle = os.open(path, os.O_RDONLY | NO_LINKS)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(handle).st_mode) and _is_held(handle)
    finally:
        os.close(handle)


def _open(path: Path) -> int:
    """Never through a link: in a folder that others write to, it may lead to any file."""
    try:
        try:
            handle = os.open(path, os.O_RDWR | os.O_CREAT | NO_LINKS, 0o666)
        except PermissionError:  # another user's, left by a run that was killed
            handle = os.open(path, os.O_RDONLY | NO_LINKS)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise _not_ours(path) from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise _not_ours(path)
    return handle


def _not_ours(path: Path) -> MediaError:
    return MediaError(
        f"{path} is not a plain file: oasis did not make it, and does not write to it",
        hint="remove it, or choose another folder that nobody else writes to",
    )


def _is_under_name(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _lock(handle: int) -> bool | None:
    """True when it is locked until it is closed, False where there are no locks, else None."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return False if error.errno in NO_LOCKS else None
    return True


def _is_held(handle: int) -> bool:
    """Whether a run holds it. A shared lock, so that who looks is never taken for one."""
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
            msvcrt.locking(handle, msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
            fcntl.flock(handle, fcntl.LOCK_UN)
    except OSError as error:
        return error.errno not in NO_LOCKS
    return False
