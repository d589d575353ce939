"""The model on one window, and what to do when memory runs out."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from oasis_cli.checkpoints.format import load_model
from oasis_cli.errors import OasisError
from oasis_cli.model.cuda_graph import CudaGraphModel
from oasis_cli.model.heads.routing import HeadTable
from oasis_cli.model.inference import prepare
from oasis_cli.model.oasis import Oasis
from oasis_cli.model.trust import keep_working_kernels
from oasis_cli.model.winograd import use_winograd
from oasis_cli.pipeline.windows import SHORT, Blend, Waiting, WindowOptions, cut
from oasis_cli.runtime.device_memory import release_unused
from oasis_cli.runtime.devices import PRECISIONS, capabilities

TILES = (1024, 512, 256, 128)
"""Tile sizes to fall back to, in target pixels."""

ROWS = 128
"""Rows of a frame that are packed at a time: little scratch, and still few calls."""


class Model(Protocol):
    """Anything that enlarges: low (1, T, 3, h, w) in [-1, 1] -> (1, T, 3, H, W)."""

    def __call__(self, low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
        """size: (H, W)."""


def load_network(
    name: str,
    device: torch.device,
    precision: str,
    table: HeadTable | None = None,
    decoder: str = "auto",
) -> Oasis:
    """A named model, routed by `table` if given, in a settled precision, with `notes` for the user.
    decoder: as for `load_model`."""
    network = load_model(name, device=device, dtype=PRECISIONS[precision], decoder=decoder)
    if table:
        network.dit.route(table)
    if capabilities(device).fused_kernels or precision == "fp8":
        prepare(network.dit, fp8=precision == "fp8")
    card, notes = capabilities(device), [keep_working_kernels(device)]
    if card.host:
        use_winograd(network)
    elif not (card.tried or card.fused_kernels):
        notes.append(
            f"{device}: nobody tried such a device; what it lacks runs on the CPU, and "
            "`oasis doctor` compares the two"
        )
    network.notes = deque(filter(None, notes))
    return network


def as_run(network: Oasis, device: torch.device) -> Model:
    """A network as a run calls it, also from several threads: its launches are replayed where that
    is possible."""
    if not capabilities(device).graphs:
        return network
    replayed = CudaGraphModel(network)
    replayed.notes.extend(getattr(network, "notes", ()))
    return replayed


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


class Enlarger:
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
        self._ahead: tuple[Tensor, Tensor] | None = None
        self.spent = 0.0
        """Seconds that `ahead` took."""
        self._looked = False

    @property
    def kept(self) -> Tensor | None:
        """What `ahead` made and nobody asked for yet: (T, 3, H, W)."""
        return self._ahead[1] if self._ahead else None

    def ahead(self, low: Tensor) -> float:
        """Enlarge a window that will be asked for first; it is kept. Returns seconds."""
        self._ahead = None
        began = time.perf_counter()
        high = self._with_less(low)
        high.flatten()[0].item()  # waits until a GPU has really made it
        self._ahead = low, high
        seconds = time.perf_counter() - began
        self.spent += seconds
        return seconds

    def __call__(self, low: Tensor) -> Tensor:
        """low: (T, 3, h, w) in [-1, 1]. Returns (T, 3, H, W) float32, not clamped."""
        ahead, self._ahead = self._ahead, None
        if ahead is not None and ahead[0].shape == low.shape and torch.equal(ahead[0], low):
            return ahead[1]
        del ahead
        return self._with_less(low)

    @torch.inference_mode()
    def _with_less(self, low: Tensor) -> Tensor:
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


class Copies(Waiting):
    """Frames wait as copies, so that their window can go; they are faded in place."""

    def keep(self, frame: Tensor) -> Tensor:
        """A copy."""
        return frame.clone()

    @torch.inference_mode()
    def fade(self, held: Tensor, frame: Tensor, weight: float) -> Tensor:
        """Overwrites `frame`: pictures of this size cost more to allocate than to compute."""
        return frame.mul_(weight).add_(held, alpha=1 - weight)


class Compact(Copies):
    """Frames wait in 16 bits, half the memory; up to `depth` bits the difference is not seen.

    >>> picture = torch.linspace(-1.2, 1.2, 12).view(3, 2, 2)
    >>> bool((Compact().release(Compact().keep(picture)) - picture).abs().max() <= 2**-15)
    True
    """

    depth = 12
    """Bits a sample in whose rounding 2**-15 of the range [-1, 1] vanishes."""

    unit = 1 << 14
    """Steps for 1.0: leaves room for what a model overshoots, to 2.0."""

    def __init__(self) -> None:
        self._spare: list[Tensor] = []
        """Used again: made anew in every window, they would lie scattered over the heap."""

    @torch.inference_mode()
    def keep(self, frame: Tensor) -> Tensor:
        """int16; what exceeds [-2, 2) is clamped, and would be in any picture."""
        held = self._spare.pop() if self._spare else torch.empty(0)
        if held.shape != frame.shape:
            held = torch.empty(frame.shape, dtype=torch.int16, device=frame.device)
        for rows, store in zip(frame.split(ROWS, -2), held.split(ROWS, -2), strict=True):
            store.copy_((rows * self.unit).round_().clamp_(-2 * self.unit, 2 * self.unit - 1))
        return held

    @torch.inference_mode()
    def fade(self, held: Tensor, frame: Tensor, weight: float) -> Tensor:
        """Overwrites `frame`."""
        self._spare.append(held)
        return frame.mul_(weight).add_(held, alpha=(1 - weight) / self.unit)

    def release(self, held: Tensor) -> Tensor:
        """float32."""
        self._spare.append(held)
        return held.float().div_(self.unit)


def same_for_any_thread_count(model: torch.nn.Module) -> None:
    """Replace the 1x1 convolutions by matrix products.

    On a CPU a 1x1 convolution sums in an order that depends on the number of threads, a product
    does not. Without this a segment made by one of two workers would differ, in the last bit, from
    the same segment made by one.
    """
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            if isinstance(child, torch.nn.Conv2d) and child.kernel_size == (1, 1):
                setattr(parent, name, Product1x1(child))


class Product1x1(torch.nn.Module):
    """A 1x1 convolution as a matrix product, with the same parameters."""

    def __init__(self, layer: torch.nn.Conv2d) -> None:
        super().__init__()
        self.weight, self.bias = layer.weight, layer.bias

    def forward(self, x: Tensor) -> Tensor:
        """x: (N, C, H, W). Returns (N, C', H, W), channels last in memory."""
        out = F.linear(x.movedim(1, -1), self.weight[:, :, 0, 0], self.bias)
        return out.movedim(-1, 1)
