"""`oasis metrics` and `oasis compare` as a user types them."""

import json

import pytest
from toys import invoke


def test_the_metrics_command_prints_scores(run, pair):
    code, out, _ = run("metrics", pair[0], "--ref", pair[0], "--quiet")
    assert code == 0 and "psnr_y" in out and "100.0000" in out and "no MS-SSIM" in out
    code, out, _ = run("metrics", pair[0], "--ref", pair[0], "--json", "--quiet")
    assert json.loads(out)["mean"]["psnr"] == 100
    code, out, _ = run("metrics", pair[0], "--ref", pair[0], "--csv", "--quiet")
    assert len(out.splitlines()) == 10


def test_the_metrics_command_refuses_clearly(run, pair, tmp_path):
    code, _, err = run("metrics", pair[0], "--ref", pair[1])
    assert code == 2 and "small.mp4 is 32x24, large.mp4 is 64x48" in err and "hint:" in err
    assert run("metrics", pair[0], "--ref", pair[0], "--json", "--csv")[0] == 2
    assert run("metrics", tmp_path / "none.mp4", "--ref", pair[0])[0] == 2


def test_the_compare_command_writes_a_page(run, pair, tmp_path):
    code, out, err = run("compare", *pair, "-o", tmp_path / "r.html", "--quiet")
    assert (code, out, err) == (0, "", "")
    assert (tmp_path / "r.html").exists()
    code, _, err = run("compare", *pair, "-o", tmp_path / "s.png", "--frames", "a")
    assert code == 2 and "no list of frames" in err


@pytest.mark.parametrize("budget", ["nan", "inf"])
def test_a_budget_that_is_no_number_is_refused(tmp_path, budget):
    page = tmp_path / "page.html"
    result = invoke("compare", "a.mp4", "b.mp4", "-o", page, "--budget", budget)
    assert result.exit_code == 2 and f"error: --budget {budget} is no number" in result.stderr
    assert not page.exists()
