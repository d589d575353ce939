"""A batch's process, started before it is needed: it imports PyTorch while the batch does too.

Nothing heavy is imported here.
"""

import multiprocessing
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from typing import Any

Child = tuple[BaseProcess, Connection]

_waiting: list[Child] = []
"""At most one that was started ahead and is not in use yet."""

_STARTING = threading.Lock()


@contextmanager
def started_ahead() -> Iterator[None]:
    """Within it the next `child` is there already. One that nobody took is ended."""
    _waiting.append(_start())
    try:
        yield
    finally:
        while _waiting:
            process, pipe = _waiting.pop()
            pipe.close()
            process.kill()
            process.join()


def child(*orders: Any) -> Child:
    """A process that runs `apart.serve` with the pipe's other end and `orders`.

    Raises OSError when it ends at once.
    """
    process, pipe = _waiting.pop() if _waiting else _start()
    if not process.is_alive():  # somebody ended it
        process, pipe = _start()
    pipe.send(orders)
    return process, pipe


def started(target: Callable[..., None], *given: Any, name: str, daemon: bool) -> Child:
    """A new process that runs `target` with a pipe's end and what is given; the pipe's other end.

    It does not import the main module. A script without `if __name__ == "__main__"` would run there
    once more, and one that came through a pipe has no file to import.
    """
    context = multiprocessing.get_context("spawn")  # CUDA and held locks do not survive a fork
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *given), name=name, daemon=daemon)
    main: dict[str, Any] = sys.modules["__main__"].__dict__
    with _STARTING:  # or one thread takes for the module what another has hidden
        names = {"__spec__", "__file__"} & main.keys()
        hidden = {name: main.pop(name) for name in names}
        main["__spec__"] = None
        try:
            process.start()
        finally:
            del main["__spec__"]
            main.update(hidden)
    theirs.close()
    return process, ours


def _start() -> Child:
    return started(_serve, name="oasis-batch", daemon=False)  # it has processes of its own


def _serve(pipe: Connection) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the batch decides; `apart` listens to it
    from oasis_cli.jobs.apart import serve

    try:
        orders = pipe.recv()
    except (EOFError, OSError):
        return  # the batch was refused
    serve(pipe, *orders)
