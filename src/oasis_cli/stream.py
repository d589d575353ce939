"""Frames in, larger frames out, one by one: for programs that have their own reader and writer.

>>> import numpy as np
>>> from oasis_cli.model.latent import bicubic_upsample
>>> bicubic = lambda low, size, tile=None: bicubic_upsample(low, size)  # stands for load_model()
>>> clip = (np.zeros((24, 32, 3), np.uint8) for _ in range(7))
>>> [frame.shape for frame in enlarge_frames(clip, bicubic, scale=2)][:2]
[(48, 64, 3), (48, 64, 3)]
"""

from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from oasis_cli.errors import UsageError
from oasis_cli.pipeline.clips import to_pixels
from oasis_cli.pipeline.scenes import CutDetector, thumbnail
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import Blend, WindowOptions, cut
from oasis_cli.runtime.backend import Model

Picture = TypeVar("Picture", NDArray[np.uint8], Tensor)
"""(H, W, 3) uint8 as numpy has it, or (3, H, W) float in [-1, 1] as torch has it; RGB."""


def enlarge_frames(
    frames: Iterable[Picture],
    model: Model,
    *,
    scale: float = 4,
    size: tuple[int, int] | None = None,
    windows: WindowOptions | None = None,
    tile: int | None = None,
    device: str | torch.device = "cpu",
    say: Callable[[str], None] = lambda text: None,
) -> Iterator[Picture]:
    """Yield a larger frame for each frame, in order and of the same kind.

    A frame comes out when its window is complete, so the first output needs `windows.frames`
    inputs; memory is one window. Scene cuts are found on the way and never crossed. size: (width,
    height), instead of scale. model: from `oasis_cli.checkpoints.format.load_model`, on `device`;
    `oasis_cli.Upscaler.frames` chooses both. say: told what short memory changes.
    """
    windows = windows or WindowOptions()
    detect = CutDetector()
    blend = Blend(windows.overlap)
    runner: WindowRunner | None = None

    def is_cut(frame: Picture) -> bool:
        luma = as_clip(frame).mean(0) / 2 + 0.5
        return detect(thumbnail(luma.cpu().float().numpy(), 1.0))

    as_numpy = True
    for window in cut(frames, windows, is_cut):
        as_numpy = isinstance(window.frames[0], np.ndarray)
        low = torch.stack([as_clip(frame) for frame in window.frames]).to(device)
        runner = runner or WindowRunner(
            model, _target(low, scale, size), windows, tile=tile, say=say
        )
        for _, high in blend.add(window, runner(low).unbind()):
            yield _like(high, as_numpy)  # type: ignore[misc]
    for _, high in blend.flush():
        yield _like(high, as_numpy)  # type: ignore[misc]


def as_clip(frame: NDArray[np.uint8] | Tensor) -> Tensor:
    """(3, H, W) float32 in [-1, 1]. Raises UsageError for what is no such picture."""
    if isinstance(frame, Tensor):
        if frame.ndim != 3 or frame.shape[0] != 3 or not frame.is_floating_point():
            raise UsageError(f"a tensor frame is (3, H, W) float, not {tuple(frame.shape)}")
        return frame.float()
    if frame.ndim != 3 or frame.shape[2] != 3 or frame.dtype != np.uint8:
        raise UsageError(f"a numpy frame is (H, W, 3) uint8, not {frame.shape} {frame.dtype}")
    return torch.from_numpy(np.ascontiguousarray(frame)).permute(2, 0, 1).float() / 127.5 - 1


def _target(low: Tensor, scale: float, size: tuple[int, int] | None) -> tuple[int, int]:
    """(H, W) of the output."""
    if size is not None:
        return size[1], size[0]
    return round(low.shape[-2] * scale), round(low.shape[-1] * scale)


def _like(high: Tensor, as_numpy: bool) -> NDArray[np.uint8] | Tensor:
    return to_pixels(high).cpu().numpy() if as_numpy else high
