"""One command: a table, a JSON file, and the way for other tools' pictures."""

import pytest
from judges.cases import Case, bicubic, read, write

CLIPS = ["--only", "flicker", "--frames", 2, "--first", 1]


@pytest.fixture
def clips(make_clip, tmp_path):
    """A folder of data with one real clip and nothing else."""
    (tmp_path / "data" / "lq").mkdir(parents=True)
    make_clip(tmp_path / "data" / "lq" / "a.mp4", frames=5, size=(48, 40))
    return tmp_path / "data"


def test_a_network_is_judged_beside_bicubic(judge, clips, tiny_weights, tmp_path):
    printed, data = judge(tiny_weights, "--data", clips, *CLIPS)
    assert "| bicubic |" in printed and "| | flicker |" in printed
    line = data["scores"][tiny_weights.stem]["flicker"]
    assert line == pytest.approx(data["scores"]["bicubic"]["flicker"], abs=0.05)  # untrained
    assert list(data["cases"]["bicubic"]["flicker"]) == ["real-a"]


def test_what_another_tool_made_is_judged_by_the_same_code(judge, clips, tmp_path):
    judge("--data", clips, "--write", tmp_path / "in", *CLIPS)
    low = read(tmp_path / "in" / "real-a.mkv")
    assert low.shape == (2, 3, 40, 48)
    made = bicubic(Case(name="real-a", low=low))
    (tmp_path / "made").mkdir()
    write(tmp_path / "made" / "real-a.mkv", made)
    words = ["--data", clips, "--made", f"tool={tmp_path / 'made'}", *CLIPS]
    scores = judge(*words)[1]["scores"]
    assert list(scores) == ["bicubic", "tool"]
    assert scores["tool"]["flicker"] == pytest.approx(scores["bicubic"]["flicker"], rel=1e-3)


def test_what_was_made_can_be_kept(judge, clips, tmp_path):
    judge(
        "--data", clips, "--made", tmp_path, "--save", tmp_path / "kept", "--only", "straightness"
    )
    assert read(tmp_path / "kept" / "bicubic" / "line-30.mkv").shape[-2:] == (384, 384)


def test_a_judge_without_its_data_is_left_out_with_the_reason(judge, clips):
    printed, data = judge("--data", clips, "--made", clips, "--only", "pairs", "flicker")
    assert "pairs left out" in printed and "cannot be read" in data["left_out"]["pairs"]
    assert "flicker" in data["scores"]["bicubic"]
    assert data["scores"]["data"] == {}, "nothing was made there, so there is no score"
