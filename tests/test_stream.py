import numpy as np
import pytest
import torch
from toys import bicubic

from oasis_cli.errors import UsageError
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.stream import enlarge_frames

WINDOWS = WindowOptions(frames=5, overlap=2)


@pytest.mark.parametrize("count", [0, 1, 4, 5, 6, 13])
def test_as_many_frames_come_out_in_order(count):
    frames = [np.full((16, 20, 3), 10 * n, np.uint8) for n in range(count)]
    out = list(enlarge_frames(frames, bicubic, scale=2, windows=WINDOWS))
    assert [int(f[16, 20, 0]) for f in out] == [10 * n for n in range(count)]
    assert all(f.shape == (32, 40, 3) and f.dtype == np.uint8 for f in out)


def test_tensors_come_back_as_tensors_of_the_size_asked_for():
    frames = torch.rand(6, 3, 16, 16) * 2 - 1
    out = list(enlarge_frames(frames, bicubic, size=(30, 24), windows=WINDOWS))
    torch.testing.assert_close(torch.stack(out), bicubic_upsample(frames, (24, 30)))


def test_frames_stream_through():
    asked = 0

    def endless():
        nonlocal asked
        while True:
            asked += 1
            yield np.zeros((16, 16, 3), np.uint8)

    stream = enlarge_frames(endless(), bicubic, scale=1, windows=WINDOWS)
    next(stream)
    assert asked == 5


@pytest.mark.parametrize(
    "frame", [np.zeros((16, 16), np.uint8), np.zeros((16, 16, 3)), torch.zeros(16, 16, 3)]
)
def test_other_pictures_are_refused(frame):
    with pytest.raises(UsageError, match="frame is"):
        list(enlarge_frames([frame], bicubic))
