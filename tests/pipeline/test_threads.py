import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from oasis_cli.errors import Interrupted
from oasis_cli.pipeline.threads import TURN, Stop, ThreadedPipeline, stop_on_signals


def through(items, work=lambda x: x, take=None, stop=None, depth=3):
    out = []
    with ThreadedPipeline(stop or Stop(), depth) as stages:
        put = stages.sink(take or out.append)
        for item in stages.source(items):
            put(work(item))
    return out


def test_everything_comes_out_in_order():
    assert through(range(100), lambda x: x * 2) == [2 * x for x in range(100)]


def test_the_three_stages_run_in_three_threads():
    names = set()

    def items():
        names.add(threading.current_thread().name)
        yield 1

    def work(item):
        names.add(threading.current_thread().name)
        return item

    through(items(), work, lambda _: names.add(threading.current_thread().name))
    assert len(names) == 3


def test_the_source_waits_for_the_sink():
    made, gate = [], threading.Event()

    def items():
        for number in range(1000):
            made.append(number)
            if number == 500:
                raise AssertionError("the source ran ahead")
            yield number

    def take(item):
        if item == 0:
            gate.wait(0.3)
            assert len(made) < 20
            raise EOFError

    with pytest.raises(EOFError):
        through(items(), take=take)


@pytest.mark.parametrize("where", ["source", "work", "sink"])
def test_an_error_anywhere_ends_all_and_is_raised(where):
    def fail_at(name):
        def fail(item):
            if where == name and item == 7:
                raise OSError(f"broken {name}")
            return item

        return fail

    items = map(fail_at("source"), range(10_000))
    with pytest.raises(OSError, match=f"broken {where}"):
        through(items, fail_at("work"), fail_at("sink"))
    assert not [t for t in threading.enumerate() if t.name.startswith("oasis-")]


def test_a_caller_that_reads_no_further_ends_the_source():
    with ThreadedPipeline(Stop(), 2) as stages:
        for item in stages.source(range(10**9)):
            if item == 3:
                break
    assert not [t for t in threading.enumerate() if t.name.startswith("oasis-")]


def test_one_failed_run_does_not_stop_the_next():
    stop = Stop()
    with pytest.raises(ZeroDivisionError):
        through([0], lambda x: 1 / x, stop=stop)
    assert through([1], stop=stop) == [1]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_run(number):
    before = signal.getsignal(number)

    def work(item):
        if item == 5:
            os.kill(os.getpid(), number)
        return item

    with pytest.raises(Interrupted) as caught, stop_on_signals() as stop:
        through(range(10**9), work, stop=stop)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before


def test_a_signal_leaves_a_long_call_at_once():
    reached = []
    with pytest.raises(Interrupted), stop_on_signals() as stop, Stop(stop).at_once():
        os.kill(os.getpid(), signal.SIGINT)
        stop.wait(5)
        reached.append(True)
    assert not reached


def test_the_stage_that_limits_is_named():
    import time

    with ThreadedPipeline(Stop(), 2) as stages:
        put = stages.sink(lambda _: time.sleep(0.01))
        for item in stages.source(range(20)):
            put(item)
        assert stages.limiting() == "writing"


def test_a_source_that_waits_for_ever_is_left_behind_after_a_signal():
    stop, gate, cancelled = Stop(), threading.Event(), threading.Event()

    def items():
        yield 1
        gate.wait()  # as FFmpeg does in a live playlist
        yield 2

    began = time.monotonic()
    with pytest.raises(Interrupted), ThreadedPipeline(stop) as stages:
        for item in stages.source(items(), cancelled.set):
            assert item == 1
            stop.set(Interrupted(signal.SIGTERM))
    assert time.monotonic() - began < 5
    assert cancelled.is_set()
    gate.set()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_a_main_thread_that_python_cannot_reach_is_ended_where_nothing_is_begun():
    code = (
        "import os, signal, time\n"
        "from oasis_cli.pipeline.threads import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    signal.signal(signal.SIGTERM, lambda *a: time.sleep(60))  # stands for a stuck call\n"
        "    with stop.at_once(hard=True):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], timeout=30)
    assert done.returncode == 128 + signal.SIGTERM


# The whole process's switches ------------------------------------------------------------------


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_runs_that_overlap_leave_the_switch_interval_as_it_was(first_to_end):
    before = sys.getswitchinterval()
    runs = [ThreadedPipeline(Stop()), ThreadedPipeline(Stop())]
    for run in runs:
        run.__enter__()
    runs.pop(first_to_end).__exit__(None, None, None)
    assert sys.getswitchinterval() == pytest.approx(TURN)  # the other one still works
    runs.pop().__exit__(None, None, None)
    assert sys.getswitchinterval() == before


def test_a_run_that_fails_leaves_the_switch_interval_as_it_was():
    before = sys.getswitchinterval()
    with pytest.raises(ZeroDivisionError):
        through([0], lambda x: 1 / x)
    with pytest.raises(OSError, match="sink"):
        through(range(9), take=lambda x: (_ for _ in ()).throw(OSError("sink")))
    assert sys.getswitchinterval() == before


@pytest.mark.parametrize("first_to_end", [0, 1])
def test_listeners_that_overlap_leave_the_signals_as_they_were(first_to_end):
    before = signal.getsignal(signal.SIGINT)
    contexts = [stop_on_signals(), stop_on_signals()]
    stops = [context.__enter__() for context in contexts]
    contexts.pop(first_to_end).__exit__(None, None, None)
    ended, left = stops.pop(first_to_end), stops.pop()
    os.kill(os.getpid(), signal.SIGINT)
    assert left.wait(5) and ended.reason is None
    contexts.pop().__exit__(None, None, None)
    assert signal.getsignal(signal.SIGINT) is before


def test_work_in_another_thread_does_not_keep_a_signal_from_the_main_thread():
    reached = []
    with pytest.raises(Interrupted), stop_on_signals() as stop, stop.at_once():
        beside = threading.Thread(target=lambda: stop.at_once().__enter__())
        beside.start()
        beside.join()
        os.kill(os.getpid(), signal.SIGINT)
        stop.wait(5)
        reached.append(True)
    assert not reached


def test_a_signal_in_the_middle_of_a_wait_is_heeded():
    """A handler runs between any two lines of its thread, also where that holds a lock."""
    stop = Stop()

    def interrupt(frame, event, argument):
        inside = frame.f_code.co_filename == threading.__file__ == frame.f_back.f_code.co_filename
        if inside and frame.f_code.co_name == "wait":  # of the condition in an event
            stop.set(Interrupted(signal.SIGTERM))
        return interrupt

    def wait():
        sys.settrace(interrupt)
        stop.wait(0.2)

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
