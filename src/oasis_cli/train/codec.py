"""Real codec damage in worker processes, through memory they share with the training process.

The training process only launches and copies: encoding, in Python or not, happens elsewhere, or
the training step would wait for it.
"""

import os
import threading
import time
import weakref
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context

import numpy as np
import torch
from torch import Tensor

from oasis_cli.errors import MediaError
from oasis_cli.media.training import Compression, compress
from oasis_cli.runtime.devices import capabilities


@dataclass(frozen=True, slots=True)
class CodecTask:
    """Compress the upper left `size` x `size` pixels of clip `number` of a slot, in place."""

    number: int
    size: int
    how: Compression


class CodecPool:
    """Worker processes and the slots of clips that they share with us."""

    def __init__(self, workers: int) -> None:
        self.workers = workers
        self.crashes = 0
        """Times a codec took its worker down; the clips it had stay undamaged. The log says it."""
        self.pool = self._start()

    def _start(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(
            self.workers, mp_context=get_context("spawn"), initializer=_watch_parent
        )
        list(pool.map(_warm, range(self.workers)))
        return pool

    def submit(self, slot: Tensor, tasks: list[CodecTask]) -> list["Future[None]"]:
        """Start compressing clips of `slot`, (n, T, S, S, 3) uint8 in shared memory."""
        # Longest first, dealt round: no worker ends with all the large clips.
        ordered = sorted(tasks, key=lambda task: -task.size)
        shares = [ordered[first :: self.workers] for first in range(self.workers)]
        try:
            return [self.pool.submit(_work, slot, share) for share in shares if share]
        except BrokenExecutor:
            self._restart()
            return []

    def wait(self, running: list["Future[None]"]) -> None:
        """Wait for what `submit` started."""
        try:
            for future in running:
                future.result()
        except BrokenExecutor:
            self._restart()

    def _restart(self) -> None:
        """Replace workers of which one has died."""
        self.crashes += 1
        broken, self.pool = self.pool, self._start()
        broken.shutdown(wait=False, cancel_futures=True)

    def close(self) -> None:
        """End the workers."""
        self.pool.shutdown(cancel_futures=True)


def shared_slot(shape: tuple[int, ...], device: torch.device) -> Tensor:
    """A uint8 tensor in shared memory, pinned so that GPU copies need no staging."""
    slot = torch.zeros(shape, dtype=torch.uint8).share_memory_()
    if capabilities(device).streams:
        status = torch.cuda.cudart().cudaHostRegister(slot.data_ptr(), slot.numel(), 0)
        if int(status):
            raise MediaError(f"shared memory cannot be pinned (CUDA error {int(status)})")
        # The next to get these addresses could not pin them again.
        unpin = torch.cuda.cudart().cudaHostUnregister
        weakref.finalize(slot, unpin, slot.data_ptr()).atexit = False
    return slot


def _work(slot: Tensor, tasks: list[CodecTask]) -> None:
    for task in tasks:
        clip = slot[task.number, :, : task.size, : task.size].numpy()
        clip[:] = compress(np.ascontiguousarray(clip), task.how)


def _warm(_: int) -> None:
    """Import what a worker needs before the clock of training starts."""
    compress(np.zeros((1, 16, 16, 3), np.uint8), Compression("mpeg4", 1.0))


def _watch_parent() -> None:
    """End this worker when the training process is gone, however it went."""
    torch.set_num_threads(1)
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
