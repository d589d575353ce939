"""Where the time of a run goes, and the means of its losses, between two lines of the log."""

import time
from typing import Any

import torch
from torch import Tensor

from oasis_cli.runtime.devices import capabilities


class Meter:
    """Call `data`, `train`, `end` in every step, in this order; `read` once in a while."""

    def __init__(self, device: torch.device) -> None:
        self.events = capabilities(device).streams
        self.waited = 0.0
        self.reset()

    def reset(self) -> None:
        self.began, self.steps = time.monotonic(), 0
        self.marks: list[Any] = []
        self.sums: dict[str, list[Tensor]] = {}

    def _mark(self) -> None:
        if self.events:
            event = torch.cuda.Event(enable_timing=True)
            event.record()
            self.marks.append(event)
        else:
            self.marks.append(time.perf_counter())

    data = train = _mark

    def end(self, losses: dict[str, Tensor]) -> None:
        self._mark()
        self.steps += 1
        for name, loss in losses.items():
            self.sums.setdefault(name, []).append(loss)

    def read(self, waited: float) -> dict[str, Any]:
        """Means since the last call; `waited` is the pool's total of seconds waited."""
        if self.events:
            torch.cuda.synchronize()
        seconds = time.monotonic() - self.began
        spans = [
            a.elapsed_time(b) / 1000 if self.events else b - a
            for a, b in zip(self.marks[:-1], self.marks[1:], strict=True)
        ]
        data = sum(spans[0::3])
        line: dict[str, Any] = {
            "steps_per_second": round(self.steps / seconds, 2),
            "data_share": round(data / seconds, 3),
            "wait_share": round((waited - self.waited) / seconds, 3),
        }
        line |= {name: round(float(torch.stack(x).mean()), 5) for name, x in self.sums.items()}
        self.waited = waited
        self.reset()
        return line
