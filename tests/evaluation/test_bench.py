import json

import pytest
import torch

from oasis_cli.errors import UsageError
from oasis_cli.evaluation.bench import bench, bench_table
from oasis_cli.media.input.probe import probe
from oasis_cli.media.testclip import write_test_clip


@pytest.fixture(scope="module")
def result(tiny_weights):
    return bench(
        model=str(tiny_weights), device="cpu", sizes=[(32, 32), (64, 32)], scale=2, frames=5
    )


def test_every_size_has_a_row_with_its_stages(result):
    assert [(r.source, r.target) for r in result.rows] == [("32x32", "64x64"), ("64x32", "128x64")]
    for row in result.rows:
        assert row.model_fps > 0 and row.total_fps > 0 and row.peak_mb > 10
        assert row.transformer_ms > 0 and row.decoder_ms > 0


def test_the_table_can_be_pasted_and_names_versions(result):
    text = bench_table(result)
    assert "| 32x32 -> 64x64 |" in text and f"torch: {torch.__version__}" in text
    widths = {line.count("|") for line in text.splitlines() if line.startswith("|")}
    assert widths == {7}
    json.dumps(result.to_dict())


def test_too_few_frames_are_refused(tiny_weights):
    with pytest.raises(UsageError, match="too few"):
        bench(model=str(tiny_weights), sizes=[(32, 32)], frames=2)


def test_the_test_clip_is_what_it_should_be(tmp_path):
    video = probe(write_test_clip(tmp_path / "t.mp4", (48, 32), 6)).video
    assert (video.width, video.height, video.claimed_frames) == (48, 32, 6)
