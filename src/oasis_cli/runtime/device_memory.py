"""Memory of a device: what is free, what was used at most, and giving back what is unused."""

import ctypes
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import torch

from oasis_cli.runtime.devices import capabilities
from oasis_cli.runtime.groups import GROUPS, ROOT, groups_of


def _backend(device: torch.device) -> Any:
    """PyTorch's module for an accelerator's memory, or None."""
    module = getattr(torch, device.type, None)
    return module if hasattr(module, "mem_get_info") else None


def free_memory(device: torch.device) -> int | None:
    """Bytes that this process can have of the device, or None where nobody knows."""
    if (backend := _backend(device)) is not None:
        try:
            free, total = backend.mem_get_info(device)
        except RuntimeError:  # some Intel drivers do not tell
            return None
        held = backend.memory_allocated(device)  # what is reserved beyond that can be used again
        limit = getattr(backend, "get_per_process_memory_fraction", lambda number: 1.0)
        share = limit(device.index)  # takes a number, or None for the current device
        return int(min(free + backend.memory_reserved(device), round(share * total)) - held)
    if device.type == "mps":  # the CPU's memory, of which the system lets a GPU have a part
        with suppress(AttributeError, RuntimeError):
            return torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory()
        return None
    if capabilities(device).host:
        with suppress(OSError, StopIteration, ValueError):  # Linux only
            lines = Path("/proc/meminfo").read_text().splitlines()
            line = next(line for line in lines if line.startswith("MemAvailable:"))
            return min([int(line.split()[1]) * 1024, *left_to_groups()])
    return None


def left_to_groups(groups: Path = GROUPS, root: Path = ROOT) -> Iterator[int]:
    """Bytes left under each limit on this process's memory: a container's, a batch job's.

    Linux kills who takes more, without a word. Files that were read and can be forgotten are free.
    """
    for version, group in groups_of("memory", groups, root):
        with suppress(OSError, KeyError, ValueError):  # no such group, or no limit
            yield _left(group, *FILES[version])


FILES = {
    1: ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    2: ("memory.max", "memory.current", "inactive_file"),
}
"""By version of control groups: the limit, what is used, and the name of cached files."""


def _left(group: Path, limit: str, used: str, cached: str) -> int:
    """Bytes left to a group: its limit less what it uses, but for cached files."""
    counts = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
    taken = int((group / used).read_text()) - int(counts[cached])
    return max(0, int((group / limit).read_text()) - taken)


def peak_bytes(where: torch.device) -> int:
    """Peak memory so far: of the device where it counts, else of this process; 0 where nobody
    tells."""
    if (backend := _backend(where)) is not None:
        return int(backend.max_memory_allocated(where))
    with suppress(OSError, StopIteration, ValueError):  # Linux: ru_maxrss begins at the parent's
        lines = Path("/proc/self/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM:")).split()[1]) * 1024
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes


def forget_peak(where: torch.device) -> None:
    """Begin to count a device's peak anew; a process's cannot be."""
    if (backend := _backend(where)) is not None:
        backend.reset_peak_memory_stats(where)


def release_unused(where: torch.device) -> None:
    """Give back what PyTorch keeps of a device's memory and does not use."""
    empty: Callable[[], None] | None
    if empty := getattr(getattr(torch, where.type, None), "empty_cache", None):
        with suppress(RuntimeError):
            empty()


def release_freed_memory() -> None:
    """Give freed memory back to the system where the C library would keep it: glibc does."""
    if trim := _malloc_trim():
        trim(0)


@cache
def _malloc_trim() -> Callable[[int], int] | None:
    if not sys.platform.startswith("linux"):
        return None
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim
