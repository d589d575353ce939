"""Look at a file in a process of its own: what a hostile file ends is not the batch.

The process is started for the first file and kept for those that follow. One that dies is reported
by its file's name and started again for the next one.
"""

import os
import signal
import threading
import traceback
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs.ahead import started
from oasis_cli.media.info import MediaInfo
from oasis_cli.media.input.probe import probe
from oasis_cli.media.input.raw import RawInput
from oasis_cli.media.input.reader import ReadOptions
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.pipeline.threads import TICK, Stop

TOLD = 1.0
"""Seconds in which a signal that the other process got comes here too."""


class Died(Exception):
    """A process ended in the middle of its work. Its text says how."""


class Trace(Exception):
    """What the other process printed, as the cause of the error that it sent."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Elsewhere:
    """Calls one function, in another process that is kept from call to call.

    The function, what it takes and what it gives must be picklable. Threads wait for each other.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None

    def __call__(self, *arguments: Any, stop: Stop) -> Any:
        """What the function returns or raises. Raises Died, and what `stop` was set with."""
        with self._lock:
            try:
                pipe = self._started()
                pipe.send((os.getcwd(), arguments))
                while not pipe.poll(TICK):
                    stop.check()
                ok, answer, trace = pipe.recv()
            except (EOFError, OSError) as error:
                how = self._buried()
                if how == "SIGTERM" and stop.wait(TOLD):  # who ends all of us, says it to all
                    stop.check()
                raise Died(how) from error
            except BaseException:
                self._buried()  # it is in the middle of something: the next call needs a new one
                raise
        if ok:
            return answer
        raise answer from Trace(trace)

    def _started(self) -> Connection:
        if self._process is None or self._pipe is None:
            self._process, self._pipe = started(
                _serve, self._function, name="oasis-scout", daemon=True
            )
        return self._pipe

    def _buried(self) -> str:
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        assert process is not None and pipe is not None
        pipe.close()
        process.join(timeout=1)
        how = how_it_ended(process.exitcode)
        if process.is_alive():
            process.kill()
            process.join()
        return how


def how_it_ended(exitcode: int | None) -> str:
    """The name of the signal that ended a process, or its exit code.

    >>> how_it_ended(-11), how_it_ended(3)
    ('SIGSEGV', 'exit code 3')
    """
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit code {exitcode}"


def _serve(pipe: Connection, function: Callable[..., Any]) -> None:
    """The life of the other process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches both: the parent decides
    while True:
        try:
            folder, arguments = pipe.recv()
        except (EOFError, OSError):
            return  # the parent is gone
        try:
            os.chdir(folder)  # relative paths mean what they mean there
            answer = True, function(*arguments), ""
        except Exception as error:
            answer = False, error, traceback.format_exc()
        try:
            pipe.send(answer)
        except OSError:
            return
        except Exception as error:  # not picklable: its words are
            pipe.send((False, RuntimeError(f"{type(error).__name__}: {error}"), answer[2]))


def look(
    source: Path, target: Path, raw: RawInput, read: ReadOptions, encode: EncodeOptions
) -> MediaInfo:
    """Describe a file, and try on it everything that a plan tries. Raises what `probe` raises."""
    info = probe(source, raw)
    try:
        size = info.video.size(bake_rotation=read.bake_rotation)
        plan_output(info, target, size, replace(encode, overwrite=True, strict=False), read)
    except OasisError:
        pass  # the plan that follows says it
    return info


_SCOUT = Elsewhere(look)


def probe_safely(
    source: Path, target: Path, raw: RawInput, read: ReadOptions, encode: EncodeOptions, stop: Stop
) -> MediaInfo:
    """`probe`, where neither a crash nor a hang reaches this process.

    Raises what `probe` raises, MediaError where the other process died, and what `stop` says.
    """
    try:
        info: MediaInfo = _SCOUT(source, target, raw, read, encode, stop=stop)
    except Died as error:
        raise MediaError(
            f"{source} ended the process that read it ({error})",
            hint="it is damaged or hostile in a way that FFmpeg's libraries do not survive",
        ) from error
    return info
