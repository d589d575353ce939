"""The model on one window, and what to do when memory runs out."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress

import torch
from torch import Tensor

from oasis_cli.errors import OasisError
from oasis_cli.pipeline.blend_storage import Copies
from oasis_cli.pipeline.windows import SHORT, Blend, WindowOptions, cut
from oasis_cli.runtime.backend import Model
from oasis_cli.runtime.device_memory import release_unused
from oasis_cli.runtime.devices import capabilities

TILES = (1024, 512, 256, 128)
"""Tile sizes to fall back to, in target pixels."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception means that a device or the machine has no memory left."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(
        words in text for words in ("out of memory", "can't allocate memory", "not enough memory")
    )


def smaller_tiles(size: tuple[int, int], tile: int | None = None) -> list[int]:
    """The tiles of `TILES`, largest first, that cut a picture further than `tile` does."""
    return [side for side in TILES if side < min(tile or max(size), max(size))]


class WindowRunner:
    """Enlarges one window after the other; steps down when memory runs out, and says so.

    First the decoder's tiles get smaller, which changes nothing in the picture. Then a window is
    computed in shorter, cross-faded parts; tiles below `least_tile`, which save little, come before
    very short ones. The windows of the run stay where they are.
    """

    def __init__(
        self,
        model: Model,
        size: tuple[int, int],
        windows: WindowOptions,
        *,
        tile: int | None = None,
        least_tile: int = 0,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.model = model
        self.size = size
        self.windows = windows
        self.tile = tile
        self._least_tile = least_tile
        self._say = say
        self._warm: tuple[Tensor, Tensor] | None = None
        self.warm_seconds = 0.0
        """Seconds that `warm_up` took."""
        self._looked = False

    @property
    def warm_output(self) -> Tensor | None:
        """The window that `warm_up` made, until it is asked for: (T, 3, H, W)."""
        return self._warm[1] if self._warm else None

    def warm_up(self, low: Tensor) -> float:
        """Enlarge a window that will be asked for first; it is kept. Returns seconds."""
        self._warm = None
        began = time.perf_counter()
        high = self._run_with_fallback(low)
        high.flatten()[0].item()  # waits until a GPU has really made it
        self._warm = low, high
        seconds = time.perf_counter() - began
        self.warm_seconds += seconds
        return seconds

    def __call__(self, low: Tensor) -> Tensor:
        """low: (T, 3, h, w) in [-1, 1]. Returns (T, 3, H, W) float32, not clamped."""
        warm, self._warm = self._warm, None
        if warm is not None and warm[0].shape == low.shape and torch.equal(warm[0], low):
            return warm[1]
        del warm
        return self._run_with_fallback(low)

    @torch.inference_mode()
    def _run_with_fallback(self, low: Tensor) -> Tensor:
        """Enlarge, with less memory after each failure."""
        while True:
            try:
                return self._checked(self._enlarge(low))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                cause = error.with_traceback(None)  # its frames keep all that was computed alive
            self._step_down(low, cause)

    def _checked(self, high: Tensor) -> Tensor:
        """The first window, if it holds nothing but numbers; on a CPU, where it costs nothing,
        any. A GPU would have to be waited for."""
        if self._looked and not capabilities(high.device).host:
            return high
        self._looked = True
        if not math.isfinite(high.sum().item()):
            raise OasisError(
                "the model made a window that is not finite (NaN or infinity): it would be black",
                hint="try --precision fp32; if that does not help, the weights are damaged",
            )
        return high

    def _enlarge(self, low: Tensor) -> Tensor:
        if len(low) <= self.windows.frames:
            return self._call(low[None])
        # All that is alive beside one part is the result: memory is short.
        blend, out = Blend(self.windows.overlap, Copies()), low.new_empty(len(low), 3, *self.size)

        def keep(frames: Iterable[tuple[int, Tensor]]) -> None:
            for number, frame in frames:
                out[number] = frame

        for part in cut(low, self.windows):
            clip = torch.stack(part.frames)[None]
            keep(blend.add(part, self._call(clip).unbind()))
        keep(blend.flush())
        return out

    def _call(self, clip: Tensor) -> Tensor:
        """(1, T, 3, h, w) -> (T, 3, H, W). Passes on what the model has to say."""
        high = self.model(clip, self.size, self.tile)[0].float()
        notes: deque[str] = getattr(self.model, "notes", deque())
        with suppress(IndexError):  # the model may be another thread's, too
            while True:
                self._say(notes.popleft())
        return high

    def _step_down(self, low: Tensor, cause: BaseException) -> None:
        height, width = self.size
        tiles = smaller_tiles(self.size, self.tile)
        frames = min(self.windows.frames, (len(low) + 2) // 4 * 4 + 1)
        shorter = (frames // 2) // 4 * 4 + 1
        if tiles and (tiles[0] >= self._least_tile or shorter < SHORT):
            self.tile = tiles[0]
            self._say(f"out of memory: going on with tiles of {self.tile} pixels")
        elif frames > 1:
            self.windows = self.windows.of(shorter)
            self._say(f"out of memory: going on with {shorter} frames at once")
        else:
            raise OasisError(
                f"out of memory on {low.device}: one frame of {width}x{height} does not fit",
                hint="close other programs, choose a smaller --scale, or --device cpu",
            ) from cause
        release_unused(low.device)
