"""Three stages in three threads: a source, the caller's own thread, and a sink.

    source thread -> bounded queue -> caller -> bounded queue -> sink thread

The bounded queues are the back-pressure and the memory limit. Every wait is short and looks at one
Stop, so an error or a signal anywhere ends all three; the caller's thread raises what happened.
"""

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from types import FrameType
from typing import Any, Generic, TypeVar

from oasis_cli.errors import Interrupted

Item = TypeVar("Item")

TICK = 0.1
"""Seconds between two looks at the Stop."""

PATIENCE = 1.0
"""Seconds that a reader which waits for its input gets to end after a signal."""

TURN = 0.0005
"""Seconds for which a thread may keep Python's lock while others want it; Python's own 5 ms are
longer than a frame takes, and each stage needs the lock several times a frame."""


class Stop:
    """One flag for everything that runs; remembers why it was raised.

    It has no lock: a signal's handler raises it, and may run while its own thread holds one.
    """

    def __init__(self, parent: "Stop | None" = None) -> None:
        self._parent = parent
        self._reason: BaseException | None = None
        self._at_once = False

    def set(self, reason: BaseException) -> None:
        """Ask everyone to stop; the first reason counts."""
        if self._reason is None:
            self._reason = reason

    @property
    def reason(self) -> BaseException | None:
        """Why to stop, or None while there is no reason to."""
        return self._reason or (self._parent.reason if self._parent else None)

    def wait(self, seconds: float) -> bool:
        """Sleep until asked to stop; returns whether that happened."""
        until = time.monotonic() + seconds
        while self.reason is None and (left := until - time.monotonic()) > 0:
            time.sleep(min(TICK, left))
        return self.reason is not None

    def check(self) -> None:
        """Raise the reason if somebody asked to stop."""
        if (reason := self.reason) is not None:
            raise reason

    @contextmanager
    def at_once(self, *, hard: bool = False) -> Iterator[None]:
        """Around long work of the main thread that may be left at any point: a model's call.

        hard: end the whole process when FFmpeg still waits for its input `PATIENCE` seconds after
        a signal. Nothing may have been begun then.
        """
        self.check()
        if threading.current_thread() is not threading.main_thread():  # signals come to that one
            yield
            return
        root = self
        while root._parent:
            root = root._parent
        root._at_once = True
        try:
            with _watched(root) if hard else nullcontext():
                yield
        finally:
            root._at_once = False

    def on_signal(self, number: int, frame: FrameType | None) -> None:
        """First signal: stop cleanly. Second: the user means it."""
        if isinstance(self._reason, Interrupted):
            os._exit(128 + number)
        self.set(Interrupted(number))
        if self._at_once:
            self._at_once = False
            raise Interrupted(number)


class _Handlers:
    """SIGINT and SIGTERM go to the Stop that began listening last, of those that still do."""

    def __init__(self) -> None:
        self._stops: list[Stop] = []
        self._before: dict[int, Any] = {}

    def add(self, stop: Stop) -> None:
        """`stop` listens. Only for the main thread, as is `remove`."""
        for number in (signal.SIGINT, signal.SIGTERM):
            found = signal.signal(number, stop.on_signal)
            if not self._stops:
                self._before[number] = signal.SIG_DFL if found is None else found
        self._stops.append(stop)

    def remove(self, stop: Stop) -> None:
        """`stop` listens no more. After the last one, everything is as before the first."""
        self._stops.remove(stop)
        for number, before in self._before.items():
            signal.signal(number, self._stops[-1].on_signal if self._stops else before)


_handlers = _Handlers()


@contextmanager
def _watched(stop: Stop) -> Iterator[None]:
    """End the process when a signal is not acted on: Python cannot while FFmpeg waits."""
    if os.name == "nt":  # which wants a socket here
        yield
        return
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)

    def watch() -> None:
        while number := os.read(reading, 1):
            if number[0] in (signal.SIGINT, signal.SIGTERM):
                time.sleep(PATIENCE)
                if stop.reason is None:
                    os._exit(128 + number[0])
        os.close(reading)

    threading.Thread(target=watch, name="oasis-watch", daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writing)


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """A Stop that SIGINT and SIGTERM set, for the main thread; the old handlers come back after."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    _handlers.add(stop)
    try:
        yield stop
    finally:
        _handlers.remove(stop)


class _Turns:
    """Python's switch interval while any threads of ours work: several runs may overlap."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 0.0

    def __enter__(self) -> None:
        with self._lock:
            if not self._users:
                self._before = sys.getswitchinterval()
                sys.setswitchinterval(TURN)
            self._users += 1

    def __exit__(self, *raised: object) -> None:
        with self._lock:
            self._users -= 1
            if not self._users:
                sys.setswitchinterval(self._before)


_turns = _Turns()


class BoundedQueue(Generic[Item]):
    """A bounded queue that never waits past a Stop. Times spent blocked are in seconds."""

    def __init__(self, size: int, stop: Stop) -> None:
        self._queue: queue.Queue[Item | _End] = queue.Queue(size)
        self._stop = stop
        self._abandoned = False
        self.waited_to_put = 0.0
        self.waited_to_get = 0.0

    def abandon(self) -> None:
        """Nobody reads any more: whoever puts is done."""
        self._abandoned = True

    def put(self, item: Item) -> None:
        """Hand one item on, waiting for room."""
        self._put(item)

    def close(self) -> None:
        """No more items: the reader's loop ends after those already there."""
        self._put(_END)

    def _put(self, item: "Item | _End") -> None:
        began = time.monotonic()
        while True:
            self._stop.check()
            if self._abandoned:
                raise _Abandoned
            try:
                self._queue.put(item, timeout=TICK)
                break
            except queue.Full:
                continue
        self.waited_to_put += time.monotonic() - began

    def __iter__(self) -> Iterator[Item]:
        started = False  # waiting for the very first item says nothing about speed
        while True:
            began = time.monotonic()
            item: Item | _End | None = None
            while item is None:
                self._stop.check()
                with suppress(queue.Empty):
                    item = self._queue.get(timeout=TICK)
            if started:
                self.waited_to_get += time.monotonic() - began
            started = True
            if isinstance(item, _End):
                return
            yield item


class _End:
    pass


_END = _End()


class _Abandoned(Exception):
    """The other end of a channel went away, as planned."""


class ThreadedPipeline:
    """Runs the source and the sink around the caller.

    with ThreadedPipeline(stop) as stages:
        put = stages.sink(writer.write)
        for item in stages.source(reader):
            put(work(item))

    Leaving the block waits until the sink has taken everything; an exception in the block or in a
    thread stops the others, and is raised here.
    """

    def __init__(self, stop: Stop, depth: int = 8) -> None:
        self.stop = Stop(stop)
        self.depth = depth
        self._threads: list[threading.Thread] = []
        self._sources: list[tuple[threading.Thread, Callable[[], None]]] = []
        self._out: list[BoundedQueue[object]] = []
        self._in: list[BoundedQueue[object]] = []

    def source(
        self, items: Iterable[Item], cancel: Callable[[], None] = lambda: None
    ) -> Iterator[Item]:
        """Iterate `items` in a thread of its own. cancel: ends its wait for the next one, if it
        can: one that still waits after a signal is left behind."""
        channel: BoundedQueue[Item] = BoundedQueue(self.depth, self.stop)
        self._in.append(channel)  # type: ignore[arg-type]

        def work() -> None:
            for item in items:
                channel.put(item)
            channel.close()

        self._sources.append((self._start("source", work), cancel))
        return iter(channel)

    def sink(self, take: Callable[[Item], object]) -> Callable[[Item], None]:
        """Returns `put`; what is put is taken by `take` in a thread of its own, in order."""
        channel: BoundedQueue[Item] = BoundedQueue(self.depth, self.stop)
        self._out.append(channel)  # type: ignore[arg-type]

        def work() -> None:
            for item in channel:
                take(item)

        self._threads.append(self._start("sink", work))
        return channel.put

    def limiting(self) -> str:
        """Which stage the others wait for: "reading", "model" or "writing"."""
        starved = sum(channel.waited_to_get for channel in self._in)
        blocked = sum(channel.waited_to_put for channel in self._out)
        idle_sink = sum(channel.waited_to_get for channel in self._out)
        worst = max(starved, blocked, idle_sink)
        if worst == idle_sink and starved < 0.5 * idle_sink:
            return "model"
        return "reading" if starved >= blocked else "writing"

    def _start(self, name: str, work: Callable[[], None]) -> threading.Thread:
        def guarded() -> None:
            try:
                work()
            except _Abandoned:
                pass
            except BaseException as error:  # carried to the caller's thread, which raises it
                self.stop.set(error)

        thread = threading.Thread(target=guarded, name=f"oasis-{name}", daemon=True)
        thread.start()
        return thread

    def __enter__(self) -> "ThreadedPipeline":
        _turns.__enter__()
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            self._end(kind, error)
        finally:
            _turns.__exit__()

    def _end(self, kind: object, error: BaseException | None) -> None:
        for source in self._in:
            source.abandon()
        if error is None:
            try:
                for sink in self._out:
                    sink.close()
            except BaseException as stopped:
                error = stopped
        if error is not None:
            self.stop.set(error)
        signalled = isinstance(self.stop.reason, Interrupted)
        for thread, cancel in self._sources:
            if self.stop.reason is not None:
                cancel()
            thread.join(PATIENCE if signalled else None)
        for thread in self._threads:
            thread.join()
        if self.stop.reason is not None and self.stop.reason is not error:
            raise self.stop.reason
        if error is not None and kind is None:
            raise error
