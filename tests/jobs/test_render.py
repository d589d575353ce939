"""Segments on their way to the disk."""

import time
from itertools import islice

import pytest
from job_runs import go
from toys import sharpen

from oasis_cli.errors import MediaError
from oasis_cli.jobs import render
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.media.output.segments import SegmentWriter

pytestmark = pytest.mark.usefixtures("known_weights")


def test_a_shorter_input_than_the_job_began_with_is_named(clip, tmp_path, monkeypatch):
    whole = render.frames_from
    monkeypatch.setattr(render, "frames_from", lambda *a: islice(whole(*a), 20))
    with pytest.raises(MediaError, match="the input ends at frame 20; it had 40"):
        go(clip, tmp_path / "out.mkv")


def test_the_model_goes_on_while_a_segment_is_flushed(clip, tmp_path, monkeypatch):
    """Files appear in order, each while frames of the next ones are made."""
    close, made, at_close = SegmentWriter.close, [], []

    def slow_close(self):
        time.sleep(0.3)
        at_close.append(len(made))
        close(self)

    def counting(low, size, tile=None):
        made.append(low.shape[1])
        return sharpen(low, size)

    monkeypatch.setattr(SegmentWriter, "close", slow_close)
    go(clip, tmp_path / "out.mkv", JobOptions(resume=True, segment_frames=20), model=counting)
    assert at_close == [len(made), len(made)]  # 20 frames are made in less than 0.3 s
