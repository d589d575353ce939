"""Encoders get no real-time priority.

SVT-AV1, if it may (as root, say in a container), moves the thread that opens it to the highest
real-time priority (SCHED_FIFO, 99), and all threads of its own. From then on that thread passes the
priority on to every thread and process it starts. Real-time threads never take turns: those that
wait for another in a loop, as matrix products do, can keep the one they wait for from ever running.
A machine of few cores then stands still, with everything else on it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

TASKS = "/proc/self/task"


@contextmanager
def usual_scheduling() -> Iterator[None]:
    """Whatever is opened within, this process's threads are scheduled afterwards as before.

    Threads that began meanwhile are scheduled as the calling one. Who starts oasis under `chrt`
    keeps that. Linux only; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        yield
        return
    policy, parameters = os.sched_getscheduler(0), os.sched_getparam(0)
    before = _real_time()
    try:
        yield
    finally:
        for thread in _real_time() - before:
            with suppress(OSError):  # it has ended
                os.sched_setscheduler(thread, policy, parameters)


def _real_time() -> set[int]:
    """The ids of this process's threads that have a real-time policy."""
    found = set()
    with suppress(OSError):  # no /proc
        for name in os.listdir(TASKS):
            with suppress(OSError):
                if os.sched_getscheduler(int(name)) in (os.SCHED_FIFO, os.SCHED_RR):
                    found.add(int(name))
    return found
