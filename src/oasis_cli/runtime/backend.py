"""What runs a network. PyTorch does (`pipeline/torch_backend.py`); another library may.

Windows are torch tensors on the device that was planned, whoever computes them.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


class Model(Protocol):
    """Anything that enlarges a window.

    When memory runs out, a call raises MemoryError, or a RuntimeError that says "out of memory".
    It is then called again with a smaller tile or fewer frames.
    """

    def __call__(self, low: Tensor, size: tuple[int, int], tile: int | None = None) -> Tensor:
        """low: (1, T, 3, h, w) in [-1, 1]. size: (H, W). tile: pixels of the target to work on at a
        time; the result does not depend on it. Returns (1, T, 3, H, W)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """All that a loaded model depends on; settled, with no "auto" but for the decoder."""

    name: str
    """Of the registry, or a path."""
    heads: str | None
    """A table of attention groups, instead of the checkpoint's own."""
    device: torch.device
    precision: str
    decoder: str


class Backend(Protocol):
    """Loads models and lets them go.

    Plans hold one and travel to other processes, so a backend is hashable and can be pickled.
    """

    @property
    def name(self) -> str:
        """Jobs begun by one backend are not continued by another."""

    def load(self, spec: ModelSpec) -> Model:
        """A model that several threads may call. Raises OasisError."""

    def release(self, device: torch.device) -> None:
        """Give back the memory of models that nobody holds any more."""
