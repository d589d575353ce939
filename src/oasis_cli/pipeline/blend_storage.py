"""How the frames of an overlap wait for the next window, in little memory."""

import torch
from torch import Tensor

from oasis_cli.pipeline.windows import Waiting

ROWS = 128
"""Rows of a frame that are packed at a time: little scratch, and still few calls."""


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
