"""Inputs as PyAV is given them: always open files, so that FFmpeg opens nothing by itself."""

from __future__ import annotations

import os
import select
import signal
import stat
import sys
from pathlib import Path
from typing import Any

from oasis_cli.errors import Interrupted, MediaError, UsageError
from oasis_cli.media.input.parts import CHUNK, Cutter, form_of, starts_of

TICK = 100
"""Milliseconds between two looks at whether somebody still waits for the data."""
HEAD = 4096
"""Bytes of the beginning that are looked at before anything reads them."""


def passes_once(path: str | Path) -> bool:
    """Whether an input can be read only once, from its beginning: `-`, a FIFO, a device.

    What is not there, or may not be looked at, is left to whoever opens it.
    """
    if str(path) == "-":
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


class SeekableFile:
    """A regular file as PyAV wants it, or its bytes from `start` to `stop`. It closes when its
    container goes away."""

    def __init__(self, path: str | Path, start: int = 0, stop: int | None = None) -> None:
        self.name = f"file:{path}"  # what the names in a playlist are relative to
        self._path, self._start, self._stop = str(path), start, stop
        self._handle = -1
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self.seek(0)

    def close(self) -> None:
        """As every file; again does nothing."""
        handle, self._handle = self._handle, -1
        if handle >= 0:
            os.close(handle)

    def __del__(self) -> None:
        self.close()

    def head(self) -> bytes:
        """Its first bytes."""
        found = self.read(HEAD)
        self.seek(0)
        return found

    def cut(self, form: str | None) -> None:
        """End where another file begins, if there are several, one behind the other.

        form: the demuxer that the user names; None for the one that fits.
        """
        found = form_of(self.head(), form)
        if found is not None:
            self._stop = next(iter(starts_of(self._path, found)), None)

    def read(self, size: int) -> bytes:
        """The next bytes; b"" at the end."""
        if self._stop is not None:
            size = min(size, max(0, self._stop - self._start - self.tell()))
        try:
            return os.read(self._handle, size)
        except KeyboardInterrupt:  # PyAV would swallow it
            raise Interrupted(signal.SIGINT) from None

    def seek(self, offset: int, whence: int = 0) -> int:
        """As every file."""
        if whence == os.SEEK_END and self._stop is not None:
            offset, whence = offset + self._stop - self._start, os.SEEK_SET
        offset += self._start if whence == os.SEEK_SET else 0
        return os.lseek(self._handle, offset, whence) - self._start

    def tell(self) -> int:
        """As every file."""
        return os.lseek(self._handle, 0, os.SEEK_CUR) - self._start


class Pipe:
    """What passes once: only `read`, so that nothing tries to seek. No wait is longer than a tick
    without a look at signals and at `cancel`.

    Of files written one behind the other, `read` ends with the first: see `next_part`.
    """

    def __init__(self, path: str | Path) -> None:
        self.name = "<pipe>"
        self._cancelled, self._own = False, False
        self._ahead = b""
        self._cutter: Cutter | None = None
        self._handle: int | None = None
        self._file: Any = None
        if str(path) != "-":
            # A FIFO that nobody writes to yet would block here, where no signal is looked at.
            # Only Linux tells later whether a writer has come: elsewhere that looks like the end.
            waits = sys.platform == "linux"
            self._handle = os.open(path, os.O_RDONLY | (os.O_NONBLOCK if waits else 0))
            self._own = True
            if waits:
                os.set_blocking(self._handle, True)
            return
        if sys.stdin is None:
            raise UsageError("there is no standard input to read", hint="pipe a video into it")
        self._file = sys.stdin.buffer
        try:
            self._handle = self._file.fileno()
        except (AttributeError, OSError):
            return  # not a file of the system: it is read as it is

    def __del__(self) -> None:
        if self._own and self._handle is not None:
            os.close(self._handle)

    def head(self) -> bytes:
        """Its first bytes, which `read` still gives."""
        while len(self._ahead) < HEAD and (piece := self._next(HEAD)):
            self._ahead += piece
        return self._ahead

    def read(self, size: int) -> bytes:
        """The next bytes, as many as are there; b"" at the end."""
        if self._cutter is None:
            return self._uncut(size)
        while not (found := self._cutter.take(size)) and not self._cutter.at_end:
            self._cutter.feed(self._uncut(size))
        return found

    def cut(self, form: str | None) -> None:
        """The same for `read`. Asked before anything is read."""
        found = form_of(self.head(), form)
        if found is not None:
            self._cutter = Cutter(found)

    @property
    def is_cut(self) -> bool:
        """Whether another file may follow the one that is read."""
        return self._cutter is not None

    @property
    def missing(self) -> int:
        """Bytes that the file which is read tells of and that did not come, at its end."""
        return 0 if self._cutter is None else self._cutter.missing

    def next_part(self) -> int | None:
        """Let `read` go on with the next file, past what is left of this one. Returns the byte at
        which it begins, None without another."""
        if self._cutter is None:
            return None
        while self.read(CHUNK):
            pass
        return self._cutter.next_part()

    def cancel(self) -> None:
        """Let whoever waits for data give up."""
        self._cancelled = True

    def _uncut(self, size: int) -> bytes:
        if self._ahead:
            found, self._ahead = self._ahead[:size], self._ahead[size:]
            return found
        return self._next(size)

    def _next(self, size: int) -> bytes:
        try:
            self._wait()
            data: bytes = (
                self._file.read(size) if self._handle is None else os.read(self._handle, size)
            )
            return data
        except KeyboardInterrupt:  # PyAV would swallow it
            raise Interrupted(signal.SIGINT) from None

    def _wait(self) -> None:
        if self._handle is None or not hasattr(select, "poll"):
            return
        poll = select.poll()
        poll.register(self._handle, select.POLLIN)
        while not poll.poll(TICK):
            if self._cancelled:
                raise MediaError("reading the pipe was given up")
