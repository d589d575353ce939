"""A plan: sizes, options, and what is refused before any work."""

from dataclasses import replace

import pytest
from toys import nearest

from oasis_cli.errors import MediaError, UsageError
from oasis_cli.pipeline.run import Options, upscale


@pytest.mark.parametrize(("options", "size"), [
    (Options(scale=1), (32, 24)),
    (Options(scale=1.5), (48, 36)),
    (Options(size=(100, 60)), (100, 60)),
    (Options(), (128, 96)),
])  # fmt: skip
def test_any_scale_or_size(tiny_clip, tmp_path, options, size, look):
    assert upscale(tiny_clip, tmp_path / "out.mp4", options, model=nearest).size == size
    assert look.frames(tmp_path / "out.mp4")[0].shape == (size[1], size[0], 3)


@pytest.mark.parametrize("wrong", [
    {"scale": 0.5}, {"scale": 5}, {"scale": 2, "size": (64, 48)}, {"tile": 3},
])  # fmt: skip
def test_wrong_options_are_refused(wrong):
    with pytest.raises(UsageError):
        Options(**wrong)


@pytest.mark.parametrize("size", [(16, 12), (1000, 96), (32, 20)])
def test_a_size_out_of_reach_is_refused(tiny_clip, tmp_path, size):
    with pytest.raises(UsageError):
        upscale(tiny_clip, tmp_path / "out.mp4", Options(size=size), model=nearest)


def test_an_existing_target_is_kept(tiny_clip, tmp_path):
    target = tmp_path / "out.mp4"
    target.write_bytes(b"precious")
    with pytest.raises(MediaError, match="already there"):
        upscale(tiny_clip, target, model=nearest)
    assert target.read_bytes() == b"precious"


def test_options_are_values():
    assert replace(Options(), scale=2) == Options(scale=2)
