"""Nothing that oasis starts gets a real-time priority: the machine would stand still."""

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import numpy as np
import pytest

from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.encoders import opens
from oasis_cli.media.output.plan import EncodeOptions, plan_output
from oasis_cli.media.output.segments import SegmentWriter
from oasis_cli.media.output.trial import encode_for_size
from oasis_cli.media.output.writer import Writer
from oasis_cli.media.scheduling import usual_scheduling
from oasis_cli.media.timeline import Timeline

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
REAL_TIME = (os.SCHED_FIFO, os.SCHED_RR) if sys.platform == "linux" else ()


def real_time_threads():
    threads = [int(name) for name in os.listdir("/proc/self/task")]
    return [thread for thread in threads if os.sched_getscheduler(thread) in REAL_TIME]


def be_real_time():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def may_be_real_time():
    """Whether this process may; asked in a thread of its own, which then ends."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(be_real_time).exception() is None


allowed = pytest.mark.skipif(
    sys.platform == "linux" and not may_be_real_time(), reason="real-time priority is not allowed"
)


def written(plan, info, folder):
    with Writer(plan, info, Timeline(Fraction(1, 25), nominal=1)):
        yield


def cut(plan, info, folder):
    with SegmentWriter(plan, folder / "segment.mkv", threads=4):
        yield


def tried(plan, info, folder):
    black = tuple(np.zeros(shape, np.uint8) for shape in plan.spec.plane_shapes())
    encode_for_size(plan, [black])
    yield


def opened(plan, info, folder):
    assert opens(plan.codec) is None
    yield


@allowed
@pytest.mark.parametrize("way", [written, cut, tried, opened])
def test_an_encoder_leaves_all_threads_as_they_were(tiny_clip, tmp_path, way):
    """SVT-AV1 gives itself, the thread that opens it and all that this one starts priority 99."""
    info = probe(tiny_clip)
    plan = plan_output(info, tmp_path / "out.mkv", (64, 48), EncodeOptions(codec="av1"))

    for _ in way(plan, info, tmp_path):
        assert not real_time_threads()
    assert not real_time_threads()


@allowed
def test_what_began_real_time_stays_so_and_what_was_opened_there_does_not():
    begun, done = threading.Event(), threading.Event()

    def stay():
        be_real_time()
        begun.set()
        done.wait()

    def opens():
        with usual_scheduling():
            be_real_time()  # as SVT-AV1 does, and then it starts threads of its own
            threads.append(threading.Thread(target=done.wait))
            threads[-1].start()
        return os.sched_getscheduler(0), os.sched_getscheduler(threads[-1].native_id)

    threads = [threading.Thread(target=stay)]
    threads[0].start()
    begun.wait()
    try:
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(opens).result() == (os.SCHED_OTHER, os.SCHED_OTHER)
        assert os.sched_getscheduler(threads[0].native_id) == os.SCHED_FIFO
    finally:
        done.set()
        for thread in threads:
            thread.join()
