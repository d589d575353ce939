"""Wake a GPU's driver while PyTorch is being imported: each takes about a second.

Nothing heavy is imported here.
"""

import ctypes
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

LIBRARY = "nvcuda.dll" if os.name == "nt" else "libcuda.so.1"


def first_cuda(devices: str) -> int | None:
    """The number of the first of some devices, named as for `--device`, if CUDA may run it.

    None for other devices, and for a PyTorch without CUDA. Whether it is there is not asked.
    """
    kind, _, number = devices.partition(",")[0].strip().partition(":")
    if kind not in ("auto", "cuda") or not _torch_is_for_cuda():
        return None
    return int(number) if number.isdecimal() else 0


def wake(index: int) -> threading.Thread:
    """Begin to make the context of a device, in the thread that is returned.

    PyTorch finds the context and uses it. Where there is none to make, PyTorch says why, later.
    """
    os.environ.setdefault("CUDA_MODULE_LOADING", "LAZY")  # as PyTorch does; the driver reads it now
    thread = threading.Thread(target=make_context, args=(index,), daemon=True, name="oasis-driver")
    thread.start()
    return thread


def make_context(index: int, load: Callable[[str], Any] = ctypes.CDLL) -> None:
    """The primary context of a device, which everybody in this process shares, by CUDA's driver."""
    with suppress(OSError, AttributeError):  # no such driver, or one that lacks a function
        driver, device, context = load(LIBRARY), ctypes.c_int(), ctypes.c_void_p()
        if driver.cuInit(0) == 0 and driver.cuDeviceGet(ctypes.byref(device), index) == 0:
            driver.cuDevicePrimaryCtxRetain(ctypes.byref(context), device)


def _torch_is_for_cuda() -> bool:
    """Whether the PyTorch that will be imported has CUDA in it, by its files."""
    spec = find_spec("torch")
    folders = spec.submodule_search_locations if spec else None
    return any(any(Path(folder, "lib").glob("*torch_cuda.*")) for folder in folders or ())
