"""Manifests: no edit of one gives more than a sentence."""

import copy
import json
import os
import random
import shutil

import pytest
from job_runs import begin, go, linux, names
from toys import Killed, dies_after, invoke

from oasis_cli.errors import MediaError, OasisError
from oasis_cli.jobs import manifest
from oasis_cli.jobs.execute import JobOptions
from oasis_cli.jobs.job import Job, folder_for
from oasis_cli.media.output.plan import EncodeOptions

pytestmark = pytest.mark.usefixtures("known_weights")

EDITS = int(os.environ.get("OASIS_TEST_EDITS", "160"))
SEED = int(os.environ.get("OASIS_TEST_SEED", "25"))
VALUES = [
    None, True, False, 0, 1, -1, 2, 7, 1 << 31, 1 << 63, -(1 << 63), 10**30, 0.5, -1e308, 1e999,
    float("nan"), "", "x", "0", "1/0", "0/1", "-1/25", "1e9", "\0", "\x1b[2J", "9" * 5000,
    [], [0], [[0, 1]], [[1, 0]], [None], {}, {"frames": 5}, [[]] * 3, "\ud800",
]  # fmt: skip


def test_no_edit_of_a_manifest_gives_more_than_a_sentence(make_clip, tmp_path, look):
    """Each is refused in a sentence, or the run makes what it should."""
    source = make_clip(frames=12, size=(32, 24))
    target, draw = tmp_path / "out.mkv", random.Random(SEED)
    wanted = {"resume": True, "segment_frames": 5}
    encode = EncodeOptions(preset="ultrafast")
    with pytest.raises(Killed):
        go(source, target, JobOptions(**wanted), model=dies_after(3), encode=encode)
    folder = folder_for(str(target), None)
    shutil.copytree(folder, tmp_path / "kept")
    whole = json.loads((folder / "manifest.json").read_bytes())
    refused = made = 0
    for number in range(EDITS):
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "kept", folder)
        text = damaged(whole, draw) if number % 5 == 0 else edited(whole, draw)
        path = folder / "manifest.json"
        path.write_bytes(text) if isinstance(text, bytes) else path.write_text(text)
        listed = invoke("jobs", "list", tmp_path, "--json")
        assert listed.exit_code == 0, (number, text, listed.exception)
        assert len(json.loads(listed.stdout)) == 1, (number, text)
        try:
            go(source, target, JobOptions(**wanted), encode=encode)
        except OasisError as error:
            refused += 1
            assert len(str(error)) < 1000, number
        else:
            made += 1
            assert len(look.frames(target)) == 12, (number, text)
            target.unlink()
    assert refused > EDITS / 2 and made
    assert names(tmp_path) == [".out.mkv.oasis", "in.mp4", "kept"]


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, "[]", "null", "1", '"x"', ""])
def test_what_is_no_manifest_at_all_is_refused(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(MediaError, match="cannot be read"):
        Job.load(tmp_path)


@linux
def test_a_manifest_that_is_no_file_or_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "manifest.json"
    os.mkfifo(path)
    with pytest.raises(MediaError, match="not a plain file"):
        Job.load(tmp_path)
    path.unlink()
    with path.open("wb") as file:
        file.truncate(manifest.MOST_BYTES + 1)
    with pytest.raises(MediaError, match="MiB"):
        Job.load(tmp_path)


def test_one_bad_manifest_does_not_hide_the_other_jobs(clip, tmp_path):
    bad = begin(clip, tmp_path / "bad.mp4")
    good = begin(clip, tmp_path / "good.mp4")
    (bad / "manifest.json").write_text("{}")
    listed = json.loads(invoke("jobs", "list", tmp_path, "--json").stdout)
    assert {job["folder"] for job in listed} == {str(good), str(bad)}
    assert "manifest.json cannot be read" in listed[-1]["error"]
    shown = invoke("jobs", "list", tmp_path)
    assert "good.mp4" in shown.stdout and "bad.mp4.oasis" in shown.stderr
    refused = invoke("jobs", "show", bad)
    assert isinstance(refused.exception, MediaError) or refused.exit_code == 1
    invoke("jobs", "clean", tmp_path)
    assert names(tmp_path) == ["in.mp4"]


def places(value, way=()):
    """Every place of a manifest, with one number of a long list standing for all."""
    yield way
    if isinstance(value, dict):
        for key, inside in value.items():
            yield from places(inside, (*way, key))
    elif isinstance(value, list) and value:
        yield from places(value[len(value) // 2], (*way, len(value) // 2))


def edited(whole, draw):
    """A manifest with one value replaced, removed, doubled or nested."""
    data = copy.deepcopy(whole)
    way = draw.choice([place for place in places(whole) if place])
    inside = data
    for key in way[:-1]:
        inside = inside[key]
    how = draw.choice(["replace", "replace", "replace", "remove", "repeat", "nest"])
    if how == "replace":
        inside[way[-1]] = draw.choice(VALUES)
    elif how == "remove":
        del inside[way[-1]]
    elif how == "repeat":
        inside[way[-1]] = [inside[way[-1]]] * 2
    else:
        for _ in range(draw.choice([1, 20, 400])):
            inside[way[-1]] = {"windows": inside[way[-1]], "x": [1]}
    return json.dumps(data)


def damaged(whole, draw):
    """Its bytes cut short or changed."""
    data = bytearray(json.dumps(whole).encode())
    if draw.random() < 0.3:
        return bytes(data[: draw.randrange(len(data))])
    for _ in range(draw.choice([1, 3, 30])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)
