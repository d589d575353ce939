"""Photographs and shots: read once, and filmed where there is detail."""

import numpy as np
import pytest
import torch

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.train import losses
from oasis_cli.train.camera import (
    UNKNOWN,
)
from oasis_cli.train.footage import Picture, _detail, load_footage, sample_clips

CPU = torch.device("cpu")


def test_footage_too_small_is_refused(footage_folder):
    with pytest.raises(MediaError, match="no photograph of 200x200"):
        load_footage(footage_folder, CPU, 200, 5)


def test_footage_in_linked_folders_is_read_once(footage_folder, tmp_path):
    (tmp_path / "pictures").symlink_to(footage_folder)
    (tmp_path / "round").symlink_to(tmp_path)
    found, plain = (load_footage(folder, CPU, 48, 5) for folder in (tmp_path, footage_folder))
    assert len(found.photos) == len(plain.photos) == 3
    assert all(map(torch.equal, *([p.pixels for p in f.photos] for f in (found, plain))))


def test_files_that_are_wanted_often_are_filmed_often(footage_folder):
    """Of three photographs one counts six times, one never."""
    often = (("1.*", 6.0), ("2.png", 0.0))
    footage = load_footage(footage_folder, CPU, 48, 5)
    weighed = footage.weighed(often)
    assert weighed.photo_chances == pytest.approx([1 / 7, 6 / 7, 0])
    clips = [
        sample_clips(f, 4, 5, 48, np.random.default_rng(1))[0] for f in (weighed, weighed, footage)
    ]
    assert torch.equal(clips[0], clips[1]) and not torch.equal(clips[0], clips[2])


@pytest.mark.parametrize(
    ("often", "said"),
    [
        ((("nobody*", 2.0),), "matches no file"),
        ((("*", 0.0),), "no photograph has a weight"),
        ((("*", -1.0),), "less than never"),
    ],
)
def test_weights_that_choose_nothing_are_refused(footage_folder, often, said):
    with pytest.raises(UsageError, match=said):
        load_footage(footage_folder, CPU, 48, 5).weighed(often)


def test_detailed_places_are_filmed_more_often():
    """A picture of which one quarter has texture: by chance a quarter of the places would be it."""
    pixels = torch.full((256, 256, 3), 128, dtype=torch.uint8)
    pixels[:128, :128] = torch.randint(0, 255, (128, 128, 3), dtype=torch.uint8)
    picture = Picture(pixels, _detail(pixels))
    assert picture.detail.shape == (8, 8)
    rng = np.random.default_rng(0)
    places = np.array([picture.place(64, rng) for _ in range(400)])
    assert places.min() >= 0 and places.max() <= 192
    textured = (places < 96).all(1).mean()
    assert 0.4 < textured < 0.9
    assert (places >= 128).any(1).mean() > 0.05  # flat places are still seen


def test_filmed_clips_move(footage_folder):
    footage = load_footage(footage_folder, CPU, 48, 5)
    clips, _ = sample_clips(footage, 12, 5, 48, np.random.default_rng(1))
    assert clips.shape == (12, 5, 3, 48, 48) and clips.dtype == torch.uint8
    moving = (clips[:, 0] != clips[:, 4]).flatten(1).any(1).float().mean()
    assert moving > 0.6


def test_the_known_motion_of_a_filmed_photograph_brings_a_frame_onto_the_next(footage_folder):
    """And the loss that uses it hears an error that stands still while the picture moves."""
    footage = load_footage(footage_folder, CPU, 64, 5)
    clips, motion = sample_clips(footage, 24, 5, 64, np.random.default_rng(2))
    assert motion.shape == (24, 4, 2, 16, 16)
    clips = clips.float() / 127.5 - 1
    assert losses.warping(clips, clips, motion) == 0
    # The error of `2 * clips` is the clip itself.
    along = losses.warping(2 * clips, clips, motion)
    assert along < 0.6 * losses.warping(2 * clips, clips, torch.zeros_like(motion))

    fastest = int(motion.square().mean((1, 2, 3, 4)).argmax())
    clip, moves = clips[[fastest]], motion[[fastest]]
    torch.manual_seed(0)
    pattern = 0.1 * torch.randn(1, 1, 3, 64, 64).expand_as(clip)
    assert losses.warping(clip + pattern, clip, moves) > 0.05
    assert losses.warping(clip + 0.1, clip, moves) < 1e-3
    assert losses.warping(clip + pattern, clip, torch.full_like(moves, UNKNOWN)) == 0
