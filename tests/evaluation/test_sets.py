import json

import numpy as np
import pytest

from oasis_cli.errors import UsageError
from oasis_cli.evaluation.measure import Rules
from oasis_cli.evaluation.sets import as_latex, as_markdown, find_pairs, match, score_set
from oasis_cli.media.pictures import encode_picture


@pytest.fixture
def frames(tmp_path):
    """frames("GT/000", noise=0) -> a folder of three pictures of 24x16, the same but for noise."""
    scene = np.random.default_rng(0).integers(40, 200, (3, 16, 24, 3))

    def write(name, noise=0, size=1, first=0):
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for number, pixels in enumerate(scene):
            some = pixels + np.random.default_rng(number).integers(-noise, noise + 1, pixels.shape)
            some = some.repeat(size, 0).repeat(size, 1).astype(np.uint8)
            (folder / f"{number + first:08}.png").write_bytes(encode_picture(some))
        return folder

    return write


def names(pairs, root):
    return [
        (p.name, str(p.result.relative_to(root)), str(p.reference.relative_to(root))) for p in pairs
    ]


KIND_FIRST = {
    "UDM10": ("GT", "BIx4", "oasis"),
    "REDS4": ("GT", "sharp_bicubic", "SR"),
    "Vid4": ("GT", "BDx4", "results"),
    "YouHQ40": ("HQ", "LQ", "mine"),
}


@pytest.mark.parametrize("name", KIND_FIRST)
def test_sets_with_a_folder_for_each_kind_are_read(frames, tmp_path, name):
    reference, low, result = KIND_FIRST[name]
    for kind in KIND_FIRST[name]:
        for clip in ("011", "002"):
            frames(f"{name}/{kind}/{clip}")
    root = tmp_path / name
    assert names(find_pairs(root), root) == [
        (clip, f"{result}/{clip}", f"{reference}/{clip}") for clip in ("002", "011")
    ]
    assert low not in {p.result.parent.name for p in find_pairs(root)}


def test_sets_with_a_folder_for_each_clip_are_read(frames, tmp_path):
    """As SPMCS is given out."""
    for clip in ("car05_001", "hdclub_003"):
        for kind in ("truth", "input4", "oasis"):
            frames(f"SPMCS/{clip}/{kind}")
    root = tmp_path / "SPMCS"
    assert names(find_pairs(root), root) == [
        (clip, f"{clip}/oasis", f"{clip}/truth") for clip in ("car05_001", "hdclub_003")
    ]


def test_results_and_references_of_two_folders_belong_together_by_name(frames, make_clip, tmp_path):
    frames("ref/calendar"), frames("ref/calendar2")
    for name in ("Calendar_x4.mp4", "calendar2.mp4", "more.mp4"):
        make_clip(name, frames=1)
    assert names(find_pairs(tmp_path, tmp_path / "ref"), tmp_path) == [
        ("calendar", "Calendar_x4.mp4", "ref/calendar"),
        ("calendar2", "calendar2.mp4", "ref/calendar2"),
    ]


def test_a_clip_without_a_reference_is_not_left_out_of_the_mean(frames, tmp_path):
    frames("a/GT/1"), frames("a/one/1"), frames("a/one/2")
    frames("b/1/truth"), frames("b/1/mine"), frames("b/2/mine")
    for folder in ("a", "b"):
        with pytest.raises(UsageError, match="no reference for 2"):
            find_pairs(tmp_path / folder)
    assert len(find_pairs(tmp_path / "a/one", tmp_path / "a/GT")) == 1


def test_sets_that_mean_nothing_certain_are_refused(frames, tmp_path):
    frames("a/GT/1"), frames("a/GT/2"), frames("a/one/1")
    with pytest.raises(UsageError, match="no result for 2"):
        find_pairs(tmp_path / "a")
    frames("a/two/1")
    with pytest.raises(UsageError, match="several results: one, two"):
        find_pairs(tmp_path / "a")
    frames("b/mine/1")
    with pytest.raises(UsageError, match="no folder of references"):
        find_pairs(tmp_path / "b")
    frames("c/GT/1"), frames("c/LQ/1")
    with pytest.raises(UsageError, match="no results, beside GT"):
        find_pairs(tmp_path / "c")
    with pytest.raises(UsageError, match="there is no folder"):
        find_pairs(tmp_path / "d")
    with pytest.raises(UsageError, match="1_a and 1_b are both named after 1"):
        match({"1_a": tmp_path, "1_b": tmp_path}, {"1": tmp_path})


def test_a_clip_of_another_size_is_refused_before_any_is_scored(frames, tmp_path):
    for clip, size in (("1", 1), ("2", 2)):
        frames(f"GT/{clip}")
        frames(f"mine/{clip}", size=size)
    seen = []
    with pytest.raises(UsageError, match="2 is 48x32, its reference is 24x16"):
        score_set(find_pairs(tmp_path), progress=seen.append)
    assert seen == []


def test_the_mean_is_that_of_the_clips_and_rows_are_ready_for_a_paper(frames, tmp_path):
    for clip, noise in (("a_1", 4), ("b", 12)):
        frames(f"GT/{clip}")
        frames(f"mine/{clip}", noise=noise, first=1)  # numbered from another number on
    found = score_set(find_pairs(tmp_path), Rules(only=("psnr_y", "ssim")))
    one, two = (row.means()["psnr_y"] for row in found.rows.values())
    assert found.means()["psnr_y"] == pytest.approx((one + two) / 2) and one > two + 5
    assert as_markdown(found.table()).splitlines()[0] == "| clip | psnr_y | ssim |"
    assert as_markdown(found.table()).splitlines()[2].startswith(f"| a_1 | {one:.2f} | 0.")
    latex = as_latex(found.table()).splitlines()
    assert latex[0] == r"% clip & psnr_y & ssim \\"
    assert latex[1].startswith(rf"a\_1 & {one:.2f} & ") and latex[3].startswith("mean & ")


def test_the_metrics_command_scores_a_set(run, frames, tmp_path):
    for clip in ("a", "b"):
        frames(f"set/GT/{clip}"), frames(f"set/mine/{clip}", noise=5)
    words = ["metrics", "--set", tmp_path / "set", "--only", "psnr_y", "--quiet"]
    code, out, _ = run(*words)
    assert code == 0 and "2 clips" in out and "mean" in out
    data = json.loads(run(*words, "--json")[1])
    assert set(data["clips"]) == {"a", "b"} and data["mean"]["psnr_y"] > 30
    assert run(*words, "--csv")[1].splitlines()[0] == "clip,psnr_y"
    assert "| mean | " in run(*words, "--markdown")[1]
    assert r"\\" in run(*words, "--latex")[1]
    pair = [tmp_path / "set" / "mine" / "a", "--ref", tmp_path / "set" / "GT" / "a"]
    assert len(run("metrics", *pair, "--markdown", "--quiet")[1].splitlines()) == 3


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ([], "what is to be scored"),
        (["a.mp4", "--align"], "--align needs a reference"),
        (["a.mp4", "--only", "psnr_y"], "psnr_y needs the video that OUTPUT should look like"),
        (["a.mp4", "--extra", "lpips"], "lpips needs the video"),
        (["a.mp4", "--only", "flicker"], "flicker is told against a reference"),
        (["a.mp4", "--extra", "vmaf"], "no score called 'vmaf'"),
        (["a.mp4", "--ref", "b.mp4", "--input", "c.mp4"], "--input is for scores without --ref"),
        (["--set", "b", "--input", "c.mp4"], "--input is for scores without --set"),
        (["a.mp4", "--set", "b"], "leaves no use for a.mp4"),
        (["--set", "b", "--plot", "c.png"], "draws one clip"),
        (["a.mp4", "--ref", "b.mp4", "--markdown", "--latex"], "exclude each other"),
        (["a.mp4", "--ref", "b.mp4", "--only", "vmaf"], "no score called 'vmaf'"),
    ],
)
def test_the_metrics_command_refuses_what_it_cannot_mean(
    run, words, sentence, make_clip, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    make_clip("a.mp4", frames=1)
    code, _, err = run("metrics", *words)
    assert code == 2 and sentence in err


def test_results_that_have_no_reference_are_named(run, frames, tmp_path):
    frames("GT/a"), frames("mine/a"), frames("mine/b"), frames("mine/c10")
    words = ["metrics", "--set", tmp_path / "mine", "--ref", tmp_path / "GT", "--only", "psnr"]
    assert "left out, since they have no reference: b, c10" in run(*words, "--quiet")[1]
    assert "b, c10" in json.loads(run(*words, "--quiet", "--json")[1])["notes"][0]
