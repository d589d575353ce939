"""Work through a batch in a process of its own: what a hostile file ends is not the batch.

The process is kept from file to file, with its model. When it dies, the file that it worked on has
failed, and another process goes on with the rest. Where several were in work, each of them is tried
again alone, to find the one.
"""

import _thread
import queue
import signal
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import fields
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from types import FrameType
from typing import Any

from oasis_cli.errors import Interrupted, MediaError, OasisError
from oasis_cli.jobs.ahead import child
from oasis_cli.jobs.folders import Item
from oasis_cli.jobs.items import (
    BatchOptions,
    FileResult,
    check_model,
    models_of,
    result_of,
    result_text,
    run_items,
    untold,
    with_model,
)
from oasis_cli.jobs.processes import end_with_parent
from oasis_cli.jobs.scout import Died, Trace, how_it_ended
from oasis_cli.media.atomic import behind, mark, remove_leftovers
from oasis_cli.pipeline.run import Report
from oasis_cli.pipeline.threads import TICK, Stop

GRACE = 10.0
"""Seconds that the process has to end its work when it is asked to stop."""


class Apart:
    """The process, as the batch sees it. Raises what `check_model` raises when it starts, and in
    every method what `stop` was set with."""

    def __init__(self, target: Path, options: BatchOptions, report: Report, stop: Stop) -> None:
        self._target, self._options = target, options
        self._report, self._stop = report, stop
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self._until: float | None = None
        self._ready = False

    def __enter__(self) -> "Apart":
        try:
            self._start()
        except Died as error:
            self._stop.check()
            raise MediaError(f"the process for the files died ({error}) at its start") from error
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *raised: object) -> None:
        self._end()

    def run(self, items: list[Item]) -> list[FileResult]:
        """Work through the items, whatever happens to the process. Returns what became of each."""
        done: dict[Path, FileResult] = {}
        rounds = [items]
        while rounds:
            if not (some := rounds.pop(0)):
                continue
            how = self._round(some, done)
            left = [] if how is None else [item for item in some if item.target not in done]
            in_work, rest = left[: self._options.parallel], left[self._options.parallel :]
            suspects = [item for item in in_work if not self._only_untold(item, done)]
            for item in suspects:
                _clean_up(item)
            self._stop.check()
            if how is not None and len(in_work) == len(suspects) == 1:
                done[suspects[0].target] = self._failed(suspects[0], how)
                suspects = []
            rounds[:0] = [*([item] for item in suspects), rest]
        return [done[item.target] for item in items if item.target in done]

    def _round(self, items: list[Item], done: dict[Path, FileResult]) -> str | None:
        """Fill in what became of the items. Returns how the process died, None if it did not."""
        try:
            if self._process is None or not self._process.is_alive():
                self._end()  # it died between two rounds: no file did that
                self._start()
            self._send("items", items)
            while isinstance(told := self._hear(), dict):
                if told["event"] == "file":
                    facts = {field.name: told[field.name] for field in fields(FileResult)}
                    done[Path(facts["target"])] = FileResult(**facts)
                self._report(told)
            done.update({Path(result.target): result for result in told})
        except Died as error:
            return str(error)
        return None

    def _only_untold(self, item: Item, done: dict[Path, FileResult]) -> bool:
        """Whether the process died when it had only to tell what became of a file, as is done now
        instead."""
        result = untold(item, self._target, self._options)
        if result is not None:
            done[item.target] = result
            self._report(result.to_json() | {"text": result_text(result)})
        return result is not None

    def _failed(self, item: Item, how: str) -> FileResult:
        hint = "it is damaged or hostile in a way that FFmpeg's libraries do not survive"
        if how == "SIGKILL":
            hint = "memory may have been short: try a smaller --window or --tile, or fewer --jobs"
        error = f"{item.source} ended the process that worked on it ({how})"
        result = result_of(item, "failed", error=error, hint=hint)
        self._report(result.to_json() | {"text": result_text(result)})
        return result

    def _start(self) -> None:
        self._ready = False
        try:
            self._process, self._pipe = child(self._target, self._options)
        except OSError as error:
            raise Died("before it listened") from error
        self._options = self._hear()  # with the model that was chosen: the next one takes it too
        self._ready = True

    def _send(self, kind: str, what: Any) -> None:
        assert self._pipe is not None
        try:
            self._pipe.send((kind, what))
        except OSError as error:
            raise Died(self._end()) from error

    def _hear(self) -> Any:
        """What the process says next. Raises Died, and what was raised there."""
        assert self._pipe is not None
        try:
            while not self._pipe.poll(TICK):
                self._pass_on_stop()
            kind, what, *more = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise Died(self._end()) from error
        if kind == "raised":
            raise what from Trace(*more)
        return what

    def _pass_on_stop(self) -> None:
        reason = self._stop.reason
        if reason is None:
            return
        if not self._ready and self._process is not None:
            self._process.kill()  # it has nothing to put in order, and may hear us only later
        elif self._until is None:
            number = reason.exit_code - 128 if isinstance(reason, Interrupted) else signal.SIGTERM
            self._until = time.monotonic() + GRACE
            self._send("stop", number)
        elif time.monotonic() > self._until and self._process is not None:
            self._process.kill()

    def _end(self) -> str:
        """Let the process go. Returns how it ended."""
        process, pipe, self._process, self._pipe = self._process, self._pipe, None, None
        if process is None or pipe is None:
            return "never started"
        pipe.close()  # which tells it that nobody wants more
        process.join(timeout=GRACE)
        if process.is_alive():
            process.kill()
            process.join()
        return how_it_ended(process.exitcode)


def _clean_up(item: Item) -> None:
    """Remove what a process that died left beside the target."""
    target = behind(item.target)
    with suppress(OSError):
        remove_leftovers(target.parent, mark(target))


class _Listener:
    """What the batch says, heard by a thread of the process."""

    def __init__(self, pipe: Connection, stop: Stop) -> None:
        """For the main thread, whose signals it takes."""
        self.orders: queue.SimpleQueue[list[Item] | None] = queue.SimpleQueue()
        """Items to work through; None at the end."""
        self._pipe, self._stop = pipe, stop
        self._asked: int | None = None
        # Ctrl-C and a service's SIGTERM reach this process too, but the batch decides. They are
        # not ignored altogether, since its own workers would inherit that.
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._heed)
        threading.Thread(target=self._listen, name="oasis-orders", daemon=True).start()

    def _heed(self, number: int, frame: FrameType | None) -> None:
        if self._asked is not None and self._stop.reason is None:
            self._stop.on_signal(self._asked, frame)

    def _listen(self) -> None:
        while True:
            try:
                kind, what = self._pipe.recv()
            except (EOFError, OSError):
                self.orders.put(None)
                self._ask_to_stop(signal.SIGTERM)
                return
            if kind == "stop":
                self._ask_to_stop(what)
            else:
                self.orders.put(what)

    def _ask_to_stop(self, number: int) -> None:
        self._asked = number
        _thread.interrupt_main()  # which calls `_heed` there


def serve(pipe: Connection, target: Path, options: BatchOptions) -> None:
    """The life of the process: load the model once, work through what it is given."""
    end_with_parent()
    stop, lock = Stop(), threading.Lock()
    listener = _Listener(pipe, stop)

    def say(*what: Any) -> None:
        with lock:
            pipe.send(what)

    def tell(event: dict[str, Any]) -> None:
        say("event", event)

    def say_raised(error: Exception) -> None:
        if not isinstance(error, OasisError):  # it may not survive the way
            error = RuntimeError(f"{type(error).__name__}: {error}")
        say("raised", error, traceback.format_exc())

    with suppress(BrokenPipeError, ConnectionResetError):  # the batch is gone
        try:
            options = with_model(options)
            check_model(options)
        except Exception as error:
            say_raised(error)
            return
        say("ready", options)
        models = models_of(options)
        while (items := listener.orders.get()) is not None:
            try:
                say("end", run_items(items, target, options, tell, stop, models))
            except Interrupted:
                say("end", [])  # the batch knows why
            except OSError:
                raise
            except Exception as error:
                say_raised(error)
