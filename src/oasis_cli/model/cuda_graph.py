"""A network's launches on a GPU, captured as a CUDA graph and replayed.

Launching takes longer than computing in a small network, and it holds Python's lock, which the
threads that read and write want too.
"""

import threading
from collections import deque
from collections.abc import Callable
from typing import cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

Shapes = tuple[object, ...]
"""All that a captured graph depends on."""

Replay = Callable[[Tensor], Tensor]
"""The captured network: low -> high, of the one shape. The caller owns the result."""

Capture = Callable[[nn.Module, Tensor, tuple[int, int], int | None], Replay]
"""Captures a network's call. Raises RuntimeError where that is not possible."""


class CudaGraph:
    """One captured call. Its buffers are overwritten by each replay, so calls must not overlap."""

    def __init__(
        self, network: nn.Module, low: Tensor, size: tuple[int, int], tile: int | None
    ) -> None:
        self._low = low.clone()
        torch.cuda.empty_cache()  # the graph has memory of its own, beside the allocator's
        self._graph = torch.cuda.CUDAGraph()
        # Other threads may use the device meanwhile: a decoder does.
        with (
            torch.cuda.device(low.device),
            torch.cuda.graph(self._graph, capture_error_mode="thread_local"),
        ):
            self._high = network(self._low, size, tile)

    def __call__(self, low: Tensor) -> Tensor:
        """low -> high in float32, a copy."""
        self._low.copy_(low)
        self._graph.replay()
        return self._high.to(torch.float32, copy=True)


class CudaGraphModel(nn.Module):
    """A network that is captured at the second call with the same shapes, and replayed after that.

    Several threads may call it: they take turns. One graph is held for each shape that a living
    thread asked for last. Everything runs without a graph once a capture has failed; `notes` says
    so once.
    """

    def __init__(self, network: nn.Module, capture: Capture = CudaGraph) -> None:
        super().__init__()
        self.network = network
        self.notes: deque[str] = deque()
        """Sentences for the user. Whoever shows one takes it out."""
        self._capture = capture
        self._turn = threading.Lock()
        self._last: WeakKeyDictionary[threading.Thread, Shapes] = WeakKeyDictionary()
        self._graphs: dict[Shapes, Replay] = {}
        self._refused = False

    def forward(self, low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
        """As the network, in float32; the result belongs to the caller."""
        with self._turn:
            try:
                return self._run(low, size, tile)
            except torch.OutOfMemoryError:  # a graph's own memory would be missing again
                held = bool(self._graphs)
                self._refuse("memory is short")
                if not held:
                    raise
            torch.cuda.empty_cache()
            return self._run(low, size, tile)

    def _run(self, low: Tensor, size: tuple[int, int], tile: int | None) -> Tensor:
        shapes = (low.shape, low.dtype, low.device, size, tile)
        known = self._asked_for(shapes)
        if known and shapes not in self._graphs and not self._refused:
            self._try_capture(shapes, low, size, tile)
        if replay := self._graphs.get(shapes):
            return replay(low)
        return cast(Tensor, self.network(low, size, tile)).float()

    def _asked_for(self, shapes: Shapes) -> bool:
        """Note what this thread needs, and drop what nobody needs now. Returns whether somebody
        asked for these shapes before."""
        known = shapes in self._last.values()
        self._last[threading.current_thread()] = shapes
        needed = {last for thread, last in self._last.items() if thread.is_alive()}
        self._graphs = {own: graph for own, graph in self._graphs.items() if own in needed}
        return known

    def _try_capture(
        self, shapes: Shapes, low: Tensor, size: tuple[int, int], tile: int | None
    ) -> None:
        try:
            self._graphs[shapes] = self._capture(self.network, low, size, tile)
            return
        except torch.OutOfMemoryError:
            reason = "memory is short"
        except RuntimeError as error:
            reason = str(error).strip().partition("\n")[0]
        # No earlier: the exception held what was computed so far.
        self._refuse(reason)
        torch.cuda.empty_cache()

    def _refuse(self, reason: str) -> None:
        """No graphs any more: nothing is lost but speed."""
        self._graphs.clear()
        if not self._refused:
            self.notes.append(f"working without CUDA graphs, which may be slower: {reason}")
        self._refused = True
