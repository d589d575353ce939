"""Render segments in several processes, each with a model of its own on its own device.

The parent hands out segments and listens. A worker goes on with the neighbour of its last segment
while that is missing: nothing is read or computed twice, and it need not wait for its encoder. A
worker that dies is replaced and its segments are given out again; three deaths or failures of one
segment end the run, with everything finished kept.
"""

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Container, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs.job import Job, Segment, runs
from oasis_cli.jobs.render import render
from oasis_cli.jobs.scout import how_it_ended
from oasis_cli.pipeline.plan import Plan, device_of
from oasis_cli.pipeline.run import ProgressMeter, Report, load, make_runner
from oasis_cli.pipeline.threads import TICK, Stop
from oasis_cli.runtime.devices import capabilities
from oasis_cli.runtime.processors import processors

PR_SET_PDEATHSIG = 1
"""Of Linux's prctl: the signal that a process gets when the thread that made it ends."""

TRIES = 3
"""Times that one segment may fail before the run ends."""


class CannotStart(MediaError):
    """Workers died again and again before their first segment."""


def threads_for(count: int) -> int:
    """CPU threads for each of `count` workers in this process's place."""
    return max(1, processors() // count)


def render_in_processes(
    job: Job, plan: Plan, count: int, meter: ProgressMeter, report: Report, stop: Stop
) -> None:
    """Render the missing segments with `count` processes. Raises when one cannot be made."""
    missing = job.missing()
    crew = _Crew(job, plan, min(count, max(1, len(missing))), missing, report)
    failures: dict[Segment, int] = {}
    try:
        while missing or crew.busy():
            stop.check()
            crew.hand_out()
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
    finally:
        crew.dismiss()
        job.forget_parts()


def _gave_up(segment: Segment, sentence: str, hint: str) -> OasisError:
    return MediaError(
        f"frames {segment.start} to {segment.stop} failed {TRIES} times: {sentence}",
        hint=hint or "the finished segments are kept; the same command continues",
    )


def choose_segment(missing: Sequence[Segment], ahead: Container[int]) -> Segment:
    """Where a worker without a neighbour begins: in the longest run of missing segments.

    ahead: frames that another worker comes to. Where one comes to the run's beginning, it is left
    the first half.

    >>> four = [Segment(0, 5), Segment(5, 9), Segment(9, 15), Segment(15, 20)]
    >>> choose_segment(four, ahead=())
    Segment(start=0, stop=5)
    >>> choose_segment(four[1:], ahead={5})
    Segment(start=9, stop=15)
    """
    longest = max(runs(missing), key=len)
    return longest[len(longest) // 2] if longest[0].start in ahead else longest[0]


@dataclass
class _Worker:
    """A process, as its parent sees it."""

    number: int
    process: BaseProcess
    pipe: Connection
    segments: list[Segment] = field(default_factory=list)
    """Given and not complete: the one that is written, and the one that is read by now."""
    frames: int = 0
    """Made of them."""
    ready: bool = False

    def give(self, segment: Segment | None) -> None:
        """Hand out a segment, or none to one that asks for a neighbour."""
        if segment is not None:
            self.segments.append(segment)
        with suppress(OSError):  # it died: `listen` finds out
            self.pipe.send(segment)


class _Crew:
    """The worker processes."""

    def __init__(
        self, job: Job, plan: Plan, count: int, missing: list[Segment], report: Report
    ) -> None:
        """missing: what nobody has begun; kept up to date, in order."""
        self._job, self._plan, self._count, self._report = job, plan, count, report
        self._missing = missing
        self._failed: set[Segment] = set()
        """Segments that a failed worker left. They are made one by one, to find the bad one."""
        self._context = multiprocessing.get_context("spawn")  # CUDA does not survive a fork
        self._deaths_before_ready = 0
        self._workers = [self._hire(number) for number in range(count)]

    def _hire(self, number: int) -> _Worker:
        mine, theirs = self._context.Pipe()
        plan = replace(self._plan, devices=(device_of(self._plan.devices, number),))
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
        return any(worker.segments for worker in self._workers)

    def hand_out(self) -> None:
        """Give missing segments to those who have nothing to do."""
        for worker in self._workers:
            if self._missing and worker.ready and not worker.segments:
                ahead = {w.segments[-1].stop for w in self._workers if w.segments}
                worker.give(self._take(choose_segment(self._missing, ahead)))

    def _take(self, segment: Segment) -> Segment:
        self._missing.remove(segment)
        return segment

    def _go_on(self, worker: _Worker) -> None:
        """Answer a worker that has nearly read its last segment."""
        last = worker.segments[-1]
        found = [segment for segment in self._missing if segment.start == last.stop]
        alone = last in self._failed or not found or found[0] in self._failed
        worker.give(None if alone else self._take(found[0]))

    def _take_back(self, worker: _Worker, sentence: str, hint: str) -> list[tuple[Any, ...]]:
        """What a worker has not finished is missing again; its first segment has failed."""
        begun, lost = worker.segments, worker.frames
        worker.segments, worker.frames = [], 0
        self._failed.update(begun)
        self._missing[:] = sorted([*self._missing, *begun], key=lambda segment: segment.start)
        return [("failed", begun[0], lost, sentence, hint)] if begun else []

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
            elif kind == "next":
                self._go_on(worker)
            elif kind == "done":
                worker.segments.remove(details[0])
                worker.frames -= details[0].frames
            elif kind == "failed":
                heard += self._take_back(worker, *details)
            else:
                heard.append((kind, *details))
        return heard

    def _replace(self, worker: _Worker) -> list[tuple[Any, ...]]:
        worker.process.join()
        worker.pipe.close()
        sentence = f"worker {worker.number} died ({how_it_ended(worker.process.exitcode)})"
        if not worker.ready:
            self._deaths_before_ready += 1
            if self._deaths_before_ready >= TRIES:
                raise CannotStart(
                    f"{sentence} before it could start, {TRIES} times",
                    hint="there may be too little memory for so many workers: try --workers 1",
                )
        self._workers[self._workers.index(worker)] = self._hire(worker.number)
        return self._take_back(worker, sentence, "")

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


def work(pipe: Connection, plan: Plan, folder: str, threads: int) -> None:
    """The life of a worker process: load the model, render what it is given."""
    end_with_parent()
    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # Ctrl-C reaches the whole group: the parent decides
    if capabilities(plan.device).host:
        torch.set_num_threads(threads)
    say = _Say(pipe)
    job = Job.load(Path(folder))
    assert job is not None

    def neighbours(segment: Segment | None) -> Iterator[Segment]:
        while segment is not None:
            yield segment
            say("next")
            segment = pipe.recv()

    try:
        runner = make_runner(plan, load(plan), lambda event: say("note", event["text"]))
        say("ready")
        while True:
            segments = neighbours(pipe.recv())
            try:
                render(job, plan, segments, runner, Stop(), lambda _: say("frames", 1),
                       lambda segment: say("done", segment))  # fmt: skip
            except OasisError as error:
                say("failed", str(error), error.hint)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the parent is gone: nobody wants the rest


def end_with_parent() -> None:
    """End this process when its parent ends, however, and whatever is being done: a new run may
    have begun, and a worker of the old one takes its memory and its devices.

    Linux does it at once. Elsewhere a thread waits for the end of the parent, which closes a pipe;
    it gets its turn within moments, since long work leaves Python's lock.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    threading.Thread(
        target=_watch, args=(parent.sentinel,), name="oasis-parent", daemon=True
    ).start()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent.pid:
            os._exit(1)  # it ended before that


def _watch(sentinel: int) -> None:
    wait([sentinel])
    os._exit(1)


class _Say:
    """Sends to the parent, from any thread."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe, self._lock = pipe, threading.Lock()

    def __call__(self, *what: Any) -> None:
        with self._lock:
            self._pipe.send(what)
