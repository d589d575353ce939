"""What FFmpeg reports, turned into sentences.

PyAV's exceptions double as builtins (`InvalidDataError` is a ValueError, `FileNotFoundError` is
the builtin one), so every place that touches a file goes through `reading` or `writing`.
"""

from __future__ import annotations

import errno
import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.media.input.pipes import passes_once

RAW_SUFFIXES = (".raw", ".yuv", ".rgb")

NOT_STREAMABLE = (
    "an mp4 with its index at the end cannot be piped: write it with -movflags +faststart, or "
    "give the file; raw video needs --input-format"
)


def shown(path: str | Path) -> str:
    """The path as a sentence shows it: `-` is a pipe."""
    return "the pipe" if str(path) == "-" else str(path)


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn failures to open or probe `path` into UsageError (2) or MediaError (1)."""
    try:
        yield
    except (UsageError, MediaError, KeyboardInterrupt):
        raise
    except FileNotFoundError as error:
        raise UsageError(f"{shown(path)} does not exist", hint=missing_hint(path)) from error
    except IsADirectoryError as error:
        raise UsageError(f"{path} is a directory, not a video") from error
    except PermissionError as error:
        raise UsageError(
            f"{path} may not be read", hint="`ls -l` shows who owns it and who may read it"
        ) from error
    except EOFError as error:
        raise MediaError(
            f"{shown(path)} is empty or ends before its header",
            hint="it may still be downloading, or its writer never finished it",
        ) from error
    except av.FFmpegError as error:
        raise MediaError(
            f"{shown(path)} is not a video this program can read ({error.strerror})",
            hint=unreadable_hint(
                path, "a recording that was cut off lacks its index: see whether a player opens it"
            ),
        ) from error
    except OSError as error:
        raise MediaError(f"{shown(path)} cannot be read: {error.strerror or error}") from error


def missing_hint(path: str | Path) -> str:
    """What to try when there is no such file: a pattern in quotes reaches us as it is."""
    found = len(glob.glob(str(path)))
    if not found and not any(c in str(path) for c in "*?"):
        return "check the spelling"
    return (
        f"in quotes the shell leaves a pattern as it is (this one matches {found or 'no'} "
        f"file{'s' * (found != 1)}): leave them out for one film, give `oasis batch` a folder for "
        "several; numbered pictures are f_%05d.png"
    )


def unreadable_hint(path: str | Path, usual: str) -> str:
    """Why an input may not be readable, where its name tells; else what is usual."""
    if passes_once(path):
        return NOT_STREAMABLE
    if Path(path).suffix.lower() in RAW_SUFFIXES:
        return "raw pixels have no header: --input-format rawvideo --input-size WxH says what it is"
    return usual


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn failures to write `path` into MediaError; a reader that went away stays BrokenPipeError.

    PyAV hides the errno of a Python file object's failure inside PyAVCallbackError, so the chain
    of causes is searched.
    """
    try:
        yield
    except (UsageError, MediaError, KeyboardInterrupt, BrokenPipeError):
        raise
    except (OSError, RuntimeError, ValueError, av.FFmpegError) as error:
        number = _errno_of(error)
        if number == errno.EPIPE:
            raise BrokenPipeError(errno.EPIPE, "the reader went away") from error
        if number in (errno.ENOSPC, errno.EDQUOT):
            raise MediaError(
                f"the disk is full: {shown(path)} cannot be written",
                hint="free some space, or write to another disk",
            ) from error
        if isinstance(error, (OSError, av.FFmpegError)):
            what = os.strerror(number) if number and number > 0 else str(error)
            raise MediaError(f"{shown(path)} cannot be written: {what}") from error
        raise


def _errno_of(error: BaseException | None) -> int | None:
    while error is not None:
        number = getattr(error, "errno", None)
        if isinstance(number, int) and number > 0:
            return number
        error = error.__cause__ or error.__context__
    return None
