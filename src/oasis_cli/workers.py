"""Render segments in several processes, each with a model of its own on its own device.

The parent hands out segments and listens. A worker that dies is replaced and its segment is given
out again; three deaths or failures of one segment end the run, with everything finished kept.
"""

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs import Job, Segment
from oasis_cli.plan import Plan
from oasis_cli.stages import TICK, Stop
from oasis_cli.upscale import Meter, Report, load, make_enlarger

TRIES = 3
"""Times that one segment may fail before the run ends."""


def device_of(plan: Plan, number: int) -> str:
    """Workers take the devices in turn."""
    return plan.devices[number % len(plan.devices)]


def threads_for(count: int) -> int:
    """CPU threads for each of `count` workers on this machine."""
    return max(1, (os.cpu_count() or 1) // count)


def render_in_processes(
    job: Job, plan: Plan, count: int, meter: Meter, report: Report, stop: Stop
) -> None:
    """Render the missing segments with `count` processes. Raises when one cannot be made."""
    missing = deque(job.missing())
    crew = _Crew(job, plan, min(count, max(1, len(missing))), report)
    failures: dict[Segment, int] = {}
    try:
        while missing or crew.busy():
            stop.check()
            for worker in crew.idle():
                if missing:
                    worker.give(missing.popleft())
            for kind, *details in crew.listen():
                if kind == "frames":
                    meter.tick("model", details[0])
                elif kind == "note":
                    report({"event": "note", "text": details[0]})
                elif kind == "failed":
                    segment, lost, sentence, hint = details
                    meter.tick("model", -lost)
                    failures[segment] = failures.get(segment, 0) + 1
                    if failures[segment] >= TRIES:
                        raise _gave_up(segment, sentence, hint)
                    report(
                        {"event": "note", "text": f"note: {sentence}; trying {segment.name} again"}
                    )
                    missing.appendleft(segment)
    finally:
        crew.dismiss()
        job.forget_parts()


def _gave_up(segment: Segment, sentence: str, hint: str) -> OasisError:
    return MediaError(
        f"frames {segment.start} to {segment.stop} failed {TRIES} times: {sentence}",
        hint=hint or "the finished segments are kept; the same command continues",
    )


@dataclass
class _Worker:
    """A process, as its parent sees it."""

    number: int
    process: BaseProcess
    pipe: Connection
    segment: Segment | None = None
    frames: int = 0
    """Made of the current segment."""
    ready: bool = False

    def give(self, segment: Segment) -> None:
        """Hand out a segment."""
        self.segment, self.frames = segment, 0
        with suppress(OSError):  # it died: `listen` finds out
            self.pipe.send(segment)


class _Crew:
    """The worker processes."""

    def __init__(self, job: Job, plan: Plan, count: int, report: Report) -> None:
        self._job, self._plan, self._count, self._report = job, plan, count, report
        self._context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._deaths_before_ready = 0
        self._workers = [self._hire(number) for number in range(count)]

    def _hire(self, number: int) -> _Worker:
        mine, theirs = self._context.Pipe()
        plan = replace(self._plan, devices=(device_of(self._plan, number),))
        process = self._context.Process(
            target=work,
            args=(theirs, plan, str(self._job.folder), threads_for(self._count)),
            name=f"oasis-worker-{number}",
            daemon=True,
        )
        process.start()
        theirs.close()
        self._report({"event": "worker", "number": number, "pid": process.pid})
        return _Worker(number, process, mine)

    def busy(self) -> bool:
        """Whether a segment is being rendered."""
        return any(worker.segment is not None for worker in self._workers)

    def idle(self) -> list[_Worker]:
        """Workers that wait for a segment."""
        return [w for w in self._workers if w.ready and w.segment is None]

    def listen(self) -> list[tuple[Any, ...]]:
        """What workers said since the last call; a death is told as a failure."""
        heard: list[tuple[Any, ...]] = []
        pipes = {worker.pipe: worker for worker in self._workers}
        for pipe in wait(list(pipes), timeout=TICK):
            worker = pipes[pipe]  # type: ignore[index]
            try:
                kind, *details = worker.pipe.recv()
            except (EOFError, OSError):
                heard += self._replace(worker)
                continue
            if kind == "ready":
                worker.ready = True
                self._deaths_before_ready = 0
            elif kind == "frames":
                worker.frames += details[0]
                heard.append((kind, *details))
            elif kind == "done":
                worker.segment = None
            elif kind == "failed":
                heard.append((kind, worker.segment, worker.frames, *details))
                worker.segment = None
            else:
                heard.append((kind, *details))
        return heard

    def _replace(self, worker: _Worker) -> list[tuple[Any, ...]]:
        worker.process.join()
        worker.pipe.close()
        sentence = f"worker {worker.number} died ({_how(worker.process.exitcode)})"
        if not worker.ready:
            self._deaths_before_ready += 1
            if self._deaths_before_ready >= TRIES:
                raise MediaError(
                    f"{sentence} before it could start, {TRIES} times",
                    hint="there may be too little memory for so many workers: try --workers 1",
                )
        self._workers[self._workers.index(worker)] = self._hire(worker.number)
        if worker.segment is None:
            return []
        return [("failed", worker.segment, worker.frames, sentence, "")]

    def dismiss(self) -> None:
        """End all workers. What they were making is dropped; what they finished stays."""
        for worker in self._workers:
            worker.process.terminate()
            worker.pipe.close()
        for worker in self._workers:
            worker.process.join(timeout=5)
            if worker.process.is_alive():
                worker.process.kill()
                worker.process.join()


def _how(exitcode: int | None) -> str:
    if exitcode is not None and exitcode < 0:
        return signal.Signals(-exitcode).name
    return f"exit code {exitcode}"


def work(pipe: Connection, plan: Plan, folder: str, threads: int) -> None:
    """The life of a worker process: load the model, render what it is given."""
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group: the parent decides
    import torch

    from oasis_cli.segmented import render

    if plan.device.type == "cpu":
        torch.set_num_threads(threads)
    say: Callable[[Any], None] = pipe.send
    job = Job.load(Path(folder))
    assert job is not None
    try:
        enlarge = make_enlarger(plan, load(plan), lambda event: say(("note", event["text"])))
        say(("ready",))
        while True:
            segment = pipe.recv()
            try:
                render(job, plan, [segment], enlarge, Stop(), lambda _: say(("frames", 1)))
            except OasisError as error:
                say(("failed", str(error), error.hint))
            else:
                say(("done",))
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone: nobody wants the rest
