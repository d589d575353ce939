"""What Triton does once before its first kernel, begun early: it hashes itself, half a gigabyte.

A compiled kernel is found again by that hash, so it takes a second even where nothing is compiled.
"""

import threading

from oasis_cli.runtime.devices import may_run_triton

_hashing: list[threading.Thread] = []


def begin() -> None:
    """Hash in a thread, where Triton will run; once in a process."""
    if may_run_triton() and not _hashing:
        _hashing.append(threading.Thread(target=_hash, daemon=True, name="oasis-triton"))
        _hashing[0].start()


def finish() -> None:
    """Wait for what was begun, or the first kernel would do it once more."""
    for thread in _hashing:
        thread.join()


def _hash() -> None:
    try:
        from triton.runtime.cache import triton_key
    except ImportError:  # no Triton, or another one that keeps it elsewhere
        return
    triton_key()
