"""`oasis jobs`: list, show, clean."""

import json
from pathlib import Path

import pytest
from job_runs import go
from toys import Killed, dies_after, invoke

from oasis_cli.jobs.job import folder_for

pytestmark = pytest.mark.usefixtures("known_weights")


@pytest.fixture
def clip(make_clip):
    return make_clip(frames=40, cuts=(11, 26), size=(64, 48))


def test_jobs_list_show_clean(clip, tmp_path):
    def jobs(*args):
        return invoke("jobs", *args)

    target = tmp_path / "out.mp4"
    assert "no unfinished jobs" in jobs("list", tmp_path).stdout
    with pytest.raises(Killed):
        go(clip, target, model=dies_after(10))

    (about,) = json.loads(jobs("list", tmp_path, "--json").stdout)
    assert Path(about["target"]) == target
    assert 0 < about["segments_done"] < about["segments"]
    assert "missing" in jobs("show", target).stdout
    assert jobs("show", tmp_path / "no.mp4").exit_code == 2
    assert "removed" in jobs("clean", target).stdout
    assert not folder_for(str(target), None).exists()
