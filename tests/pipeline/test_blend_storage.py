import pytest
import torch

from oasis_cli.pipeline.blend_storage import Compact, Copies


@pytest.mark.parametrize("waiting", [Copies(), Compact()])
def test_frames_that_wait_come_back_and_hold_no_window(waiting):
    window = torch.linspace(-1.1, 1.1, 4 * 3 * 300 * 8).view(4, 3, 300, 8)

    held = waiting.keep(window[2])

    assert held.untyped_storage().nbytes() <= window[2].nbytes
    assert (waiting.release(held) - window[2]).abs().max() <= 2**-15
    faded = waiting.fade(held, window[0].clone(), 0.25)
    assert torch.allclose(faded, 0.75 * window[2] + 0.25 * window[0], atol=2**-14)


def test_what_overshoots_stays_white_and_black():
    waiting = Compact()
    held = waiting.keep(torch.tensor([[[-9.0, -2, 1.5, 2, 9]]]))
    assert waiting.release(held).flatten().tolist() == [-2, -2, 1.5, 2 - 2**-14, 2 - 2**-14]
