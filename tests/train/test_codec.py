"""Codecs in processes of their own, over memory that both see."""

import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from oasis_cli.media.training import Compression
from oasis_cli.train.codec import CodecPool, CodecTask, shared_slot

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def codecs():
    pool = CodecPool(1)
    yield pool
    pool.close()


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().split()[2] != "Z"
    except FileNotFoundError:
        return False


def test_workers_change_shared_memory_in_place_and_only_their_part(codecs):
    slot = shared_slot((2, 4, 96, 96, 3), CPU)
    slot.random_(generator=torch.Generator().manual_seed(0))
    before = slot.clone()
    codecs.wait(codecs.submit(slot, [CodecTask(1, 64, Compression("mpeg4", 0.05))]))
    assert torch.equal(slot[0], before[0])
    assert not torch.equal(slot[1, :, :64, :64], before[1, :, :64, :64])
    assert torch.equal(slot[1, :, 64:], before[1, :, 64:])


def test_a_killed_worker_is_replaced(codecs):
    slot = shared_slot((1, 4, 32, 32, 3), CPU)
    for process in codecs.pool._processes.values():
        os.kill(process.pid, signal.SIGKILL)
    codecs.wait(codecs.submit(slot, [CodecTask(0, 32, Compression("mpeg4", 1.0))]))
    codecs.wait(codecs.submit(slot, [CodecTask(0, 32, Compression("mpeg4", 1.0))]))
    assert codecs.crashes >= 1


def test_workers_end_with_a_killed_training_process(tmp_path):
    script = tmp_path / "run.py"
    script.write_text(
        "import time\nfrom oasis_cli.train.codec import CodecPool\n"
        "if __name__ == '__main__':\n"
        "    pool = CodecPool(1)\n"
        "    print(*pool.pool._processes, flush=True)\n    time.sleep(60)\n"
    )
    run = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    worker = int(run.stdout.readline())
    run.kill()
    run.wait()
    run.stdout.close()
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and _alive(worker):
        time.sleep(0.2)
    assert not _alive(worker)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_slots_give_their_pinned_memory_back():
    for _ in range(20):  # soon one lies where another did
        slot = shared_slot((4, 1 << 20), torch.device("cuda"))
        assert slot.cuda().sum().item() == 0
        del slot
