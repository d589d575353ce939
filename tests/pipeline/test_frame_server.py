"""Frames by number: the same whatever was asked before, whoever asks."""

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from torch.nn import functional as F

from oasis_cli.pipeline.frame_server import FrameServer
from oasis_cli.pipeline.windows import WindowOptions

WINDOWS = WindowOptions(frames=9, overlap=2)


class Together:
    """A model whose frames depend on the clip they are in; keeps the clips."""

    def __init__(self):
        self.clips = []

    def __call__(self, low, size, tile=None):
        self.clips.append(low[0])
        return F.interpolate(low[0], size=size)[None] + 0.3 * low.mean()


class OneAtATime(Together):
    """Refuses a call during another one: a model's buffers are not for two."""

    def __init__(self):
        super().__init__()
        self.turn = threading.Lock()

    def __call__(self, low, size, tile=None):
        assert self.turn.acquire(blocking=False)
        try:
            time.sleep(0.002)
            return super().__call__(low, size, tile)
        finally:
            self.turn.release()


def clip(frames=60, cuts=(22, 25)):
    """Frame n has levels that rise with n, and other ones in each scene."""
    scene = [sum(cut <= n for cut in cuts) for n in range(frames)]
    return [
        np.full((16, 24, 3), 40 + 80 * (scene[n] % 3) + n // 2, np.uint8) for n in range(frames)
    ]


def serve(frames, model=None):
    return FrameServer(
        frames.__getitem__, len(frames), model or Together(), (48, 32), windows=WINDOWS
    )


@pytest.fixture
def in_order():
    frames = clip()
    server = serve(frames)
    return [server[n] for n in range(len(frames))]


@pytest.mark.parametrize("seed", range(3))
def test_any_order_gives_the_same_frames(in_order, seed):
    server, numbers = serve(clip()), list(range(60))
    random.Random(seed).shuffle(numbers)
    for number in numbers:
        assert np.array_equal(server[number], in_order[number])


def test_threads_get_the_frames_they_ask_for(in_order):
    server, numbers = serve(clip(), OneAtATime()), list(range(60)) * 2
    random.Random(4).shuffle(numbers)
    with ThreadPoolExecutor(8) as pool:
        for number, frame in zip(numbers, pool.map(server.__getitem__, numbers), strict=True):
            assert np.array_equal(frame, in_order[number])


def test_frames_in_order_cost_what_a_run_costs():
    model, frames = Together(), clip(cuts=())
    asked = []
    server = FrameServer(
        lambda n: asked.append(n) or frames[n], 60, model, (48, 32), windows=WINDOWS
    )
    for number in range(60):
        server[number]
    assert len(model.clips) == 9  # windows at 0, 7, ... 56; the last slides back
    assert sorted(asked) == list(range(60))  # each frame is asked for once
    assert all(len(c) == WINDOWS.frames for c in model.clips)


def test_no_clip_crosses_a_cut_and_all_are_as_long_as_their_scene_allows():
    model = Together()
    server = serve(clip(), model)
    for number in range(60):
        server[number]
    for low in model.clips:
        assert (low.mean((1, 2, 3)).diff().abs() < 0.1).all()
    lengths = {len(c) for c in model.clips}
    assert lengths == {3, 9}  # the scene [22, 25) has three frames


def test_windows_are_cross_faded():
    server = serve(clip(cuts=()))
    values = [int(server[n][5, 5, 0]) for n in range(7)]
    whole = [int(server[n][5, 5, 0]) for n in range(7, 9)]
    after = int(server[9][5, 5, 0])
    assert values[-1] <= whole[0] <= whole[1] <= after


@pytest.mark.parametrize("frames", [1, 4, 9, 10, 18])
def test_clips_of_any_length_are_served(frames):
    server = serve(clip(frames, cuts=()))
    assert len(server) == frames
    assert server[frames - 1].shape == (32, 48, 3)
    with pytest.raises(IndexError, match=f"there is no frame {frames}"):
        server[frames]
