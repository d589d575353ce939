"""What the first window on CUDA would wait for, begun early, beside imports and the plan.

Triton hashes itself, half a gigabyte: a compiled kernel is found again by that hash. On a new
machine it also compiles its way to the driver. CUDA's libraries for convolutions, products and
attention are loaded by their first call.
"""

import atexit
import threading
from collections.abc import Callable
from contextlib import suppress

import torch
import torch.nn.functional as F

from oasis_cli.runtime.devices import PRECISIONS, count

PATIENCE = 2.0
"""Seconds at most that the end of a process waits: Python may not end in the middle of a call."""

_begun: list[threading.Thread] = []


def begin(index: int, precision: str) -> None:
    """Begin, once in a process, in threads.

    index: of the CUDA device that will be used; precision: as for `--precision`. What fails here
    fails once more where it is needed, and is told there.
    """
    if _begun or index >= count("cuda"):
        return
    device, dtype = torch.device("cuda", index), PRECISIONS.get(precision, torch.float16)
    atexit.register(finish, PATIENCE)
    _start("oasis-cuda", lambda: first_calls(device, dtype))
    with suppress(ImportError):  # no Triton, or another one that keeps these elsewhere
        from triton.runtime import driver  # not in the threads: all would import Triton
        from triton.runtime.cache import triton_key

        _start("oasis-triton", triton_key)
        _start("oasis-triton-driver", lambda: driver.active)


def finish(seconds: float | None = None) -> None:
    """Wait for what was begun, which the first window would do once more. It is then alone on its
    device, as always. seconds: for each thread at most."""
    for thread in _begun:
        thread.join(seconds)


def first_calls(device: torch.device, dtype: torch.dtype) -> None:
    """One small call into each library: a convolution, a product, attention.

    A thread has its own current device, stream and inference mode: the main thread's stay.
    """
    with torch.inference_mode():
        x = torch.zeros(1, 64, 16, 16, device=device, dtype=dtype)
        weight = torch.zeros(64, 64, 3, 3, device=device, dtype=dtype)
        layout = torch.channels_last  # the decoder's
        F.conv2d(x.contiguous(memory_format=layout), weight.contiguous(memory_format=layout))
        F.linear(x, x[0, 0])
        heads = x.view(1, 4, 64, 64)
        F.scaled_dot_product_attention(heads, heads, heads)


def _start(name: str, work: Callable[[], object]) -> None:
    def quietly() -> None:
        with suppress(Exception):
            work()

    _begun.append(threading.Thread(target=quietly, daemon=True, name=name))
    _begun[-1].start()
