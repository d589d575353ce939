"""Films and sheets: inputs side by side."""

import numpy as np
import pytest
import torch

from oasis_cli.errors import OasisError, UsageError
from oasis_cli.evaluation.compare.films import compose, film_size, sheet
from oasis_cli.evaluation.compare.run import compare
from oasis_cli.pipeline.clips import Clip, open_clip


def test_a_film_of_both_has_the_first_ones_times_and_sound(pair, tmp_path, look):
    target = tmp_path / "both.mp4"
    sentence = compare(pair, target)
    assert "8 frames" in sentence and "small.mp4, large.mp4" in sentence
    assert look.frames(target)[0].shape == (48, 128, 3)
    assert look.times(target) == look.times(pair[0])
    assert look.audio(target) == look.audio(pair[0])


def test_a_wipe_shows_the_right_one_first_and_the_left_one_after_half_a_round():
    left, right = -torch.ones(60, 3, 16, 32), torch.ones(60, 3, 16, 32)
    clips = [Clip.of("l", left, rate=10), Clip.of("r", right, rate=10)]
    pictures = list(compose(clips, "wipe", film_size(clips, "wipe")))
    assert pictures[0][..., 5:].min() == 1
    assert pictures[20][..., :-5].max() == -1
    assert len(pictures) == 60


def test_wide_rows_are_shrunk_together():
    clips = [Clip.of(n, torch.zeros(1, 3, 2160, 3840)) for n in "abc"]
    width, height = film_size(clips, "sides")
    assert width <= 7680 and width % 6 == 0 and height == width // 3 * 2160 // 3840 // 2 * 2


def test_a_sheet_has_a_row_for_each_frame_and_a_column_for_each_input(pair, tmp_path):
    target = tmp_path / "sheet.png"
    assert "frames 1, 6" in compare(pair, target, frames=[1, 6])
    from PIL import Image

    assert np.asarray(Image.open(target)).shape == (96, 128, 3)
    clips = [open_clip(p) for p in pair]
    with pytest.raises(UsageError, match="no frame 99: the inputs have 8"):
        sheet(clips, [1, 99])
    with pytest.raises(OasisError, match="no frame in common"):
        sheet([clips[0], Clip.of("none", torch.zeros(0, 3, 24, 32))], [0])
