"""Larger frames of a clip by number, in any order and from any thread: for frame servers.

Which frames go through the model together depends on their numbers and on the scene cuts near them,
on nothing else. So a frame is the same whoever asks for it, and whatever was asked before.
"""

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from oasis_cli.pipeline.clips import to_pixels
from oasis_cli.pipeline.scenes import CutDetector, thumbnail
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.backend import Model

Picture = NDArray[np.uint8]
"""(H, W, 3) uint8, RGB."""

KEPT = 3
"""Clips whose results are kept: two that overlap, and one more where a scene ends."""


class FrameServer:
    """`server[n]` is frame n, enlarged. Threads take turns.

    Window k lies at frame k * stride; the overlap of two is cross-faded. Where a scene cut is in a
    window, each side of it is a clip of its own, which reaches on into its scene until it is as
    long as a window. The results of the last clips are kept, so frames in order cost what a run
    costs; a jump costs a window or two.
    """

    def __init__(
        self,
        get: Callable[[int], Picture],
        count: int,
        model: Model,
        size: tuple[int, int],
        *,
        windows: WindowOptions | None = None,
        tile: int | None = None,
        device: str | torch.device = "cpu",
    ) -> None:
        """get: returns frame n of the clip, 0 <= n < count. size: (width, height) of the results.
        model: as for `oasis_cli.stream.enlarge_frames`, on `device`."""
        self.windows = windows or WindowOptions()
        self.count = count
        self.size = size
        """(width, height) of the results."""
        self._get = get
        self._enlarge = WindowRunner(model, (size[1], size[0]), self.windows, tile=tile)
        self._device = torch.device(device)
        self._turn = threading.Lock()
        self._frames: OrderedDict[int, Picture] = OrderedDict()
        self._opens: dict[int, bool] = {}
        self._made: OrderedDict[tuple[int, int], list[Picture]] = OrderedDict()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, number: int) -> Picture:
        """(H, W, 3) uint8. Raises IndexError outside of the clip."""
        if not 0 <= number < self.count:
            raise IndexError(f"there is no frame {number}: the clip has {self.count}")
        with self._turn:
            window, place = divmod(number, self.windows.stride)
            picture = self._of(number, window)
            if window == 0 or place >= self.windows.overlap:
                return picture
            weight = np.float32((place + 1) / (self.windows.overlap + 1))
            before = self._of(number, window - 1)
            return np.rint(before * (1 - weight) + picture * weight).astype(np.uint8)

    def _of(self, number: int, window: int) -> Picture:
        """A frame as one window makes it."""
        first, last = self._clip(number, window)
        if (first, last) not in self._made:
            low = np.stack([self._source(n) for n in range(first, last)])
            clip = torch.from_numpy(low).to(self._device).permute(0, 3, 1, 2).float() / 127.5 - 1
            high = self._enlarge(clip)
            self._made[first, last] = [to_pixels(frame).cpu().numpy() for frame in high]
            _keep(self._made, KEPT)
        self._made.move_to_end((first, last))
        return self._made[first, last][number - first]

    def _clip(self, number: int, window: int) -> tuple[int, int]:
        """The frames [first, last) that go through the model for a frame of a window."""
        begin = window * self.windows.stride
        end = min(begin + self.windows.frames, self.count)
        first, last = number, number + 1
        while first > begin and not self._opens_scene(first):
            first -= 1
        while last < end and not self._opens_scene(last):
            last += 1
        wanted = self.windows.frames
        while last - first < wanted and last < self.count and not self._opens_scene(last):
            last += 1
        while last - first < wanted and first > 0 and not self._opens_scene(first):
            first -= 1
        return first, last

    def _opens_scene(self, number: int) -> bool:
        """Whether a scene starts with frame `number`, which is not the first."""
        if number not in self._opens:
            detect = CutDetector()
            detect(self._thumbnail(number - 1))
            self._opens[number] = detect(self._thumbnail(number))
        return self._opens[number]

    def _thumbnail(self, number: int) -> NDArray[np.float32]:
        return thumbnail(self._source(number).mean(2), 255.0)

    def _source(self, number: int) -> Picture:
        if number not in self._frames:
            self._frames[number] = self._get(number)
            _keep(self._frames, 3 * self.windows.frames)
        self._frames.move_to_end(number)
        return self._frames[number]


def _keep(found: OrderedDict[Any, Any], most: int) -> None:
    """Drop what was used longest ago."""
    while len(found) > most:
        found.popitem(last=False)
