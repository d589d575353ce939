"""Targets that are no plain files, and long names."""

import os
from pathlib import Path

import pytest

from oasis_cli.errors import UsageError
from oasis_cli.media.input.probe import probe
from oasis_cli.media.output.plan import EncodeOptions, plan_output

LONG = [245, 250, 254, 255]
posix = pytest.mark.skipif(os.name == "nt", reason="no FIFOs and devices there")


@posix
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_target_that_is_no_file_is_refused_and_stays(kit, tmp_path, kind):
    source = kit.video(tmp_path / "in.mkv")
    target = tmp_path / "out.mkv"
    if kind == "fifo":
        os.mkfifo(target)
    else:
        target = Path("/dev/null")
    before = target.stat().st_mode
    with pytest.raises(UsageError, match="not a file"):
        plan_output(probe(source), target, (64, 48), EncodeOptions(overwrite=True, format="nut"))
    assert target.stat().st_mode == before


@posix
@pytest.mark.parametrize("name", ["out.mkv", "out.png"])
@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed_to_the_file_behind_it(kit, tmp_path, name, there):
    source = kit.video(tmp_path / "in.mkv", frames=1)
    (tmp_path / "far").mkdir()
    behind, link = tmp_path / "far" / f"real{Path(name).suffix}", tmp_path / name
    if name.endswith("png"):
        kit.enlarge(source, tmp_path / "in_%01d.png")
        source = tmp_path / "in_1.png"
    if there:
        behind.write_bytes(b"old")
    link.symlink_to(behind)

    kit.enlarge(source, link)

    assert link.is_symlink() and link.resolve() == behind
    assert behind.stat().st_size > 100
    assert names(tmp_path / "far") == [behind.name]


@pytest.mark.parametrize("length", LONG)
@pytest.mark.parametrize("letter", ["x", "é"])
def test_long_names_are_written(kit, tmp_path, length, letter):
    name = letter * ((length - 4) // len(letter.encode()))
    name = name + "x" * (length - 4 - len(name.encode())) + ".mkv"
    assert len(name.encode()) == length
    source = kit.video(tmp_path / "in.mkv")
    (tmp_path / "out").mkdir()
    kit.enlarge(source, tmp_path / "out" / name)
    assert names(tmp_path / "out") == [name]


@pytest.mark.parametrize("name", ["x" * 251 + "_%05d.png", "x" * 247 + "%05d.png"])
def test_names_that_no_disk_takes_are_refused(kit, tmp_path, name):
    source = kit.video(tmp_path / "in.mkv")
    with pytest.raises(UsageError, match="too long"):
        kit.enlarge(source, tmp_path / name)
    with pytest.raises(UsageError, match="too long"):
        kit.enlarge(source, tmp_path / ("x" * 300 + ".mkv"))


def test_long_names_of_pictures_are_written(kit, tmp_path):
    source = kit.video(tmp_path / "in.mkv", frames=2)
    (tmp_path / "out").mkdir()
    kit.enlarge(source, tmp_path / "out" / ("100%_" + "x" * 241 + "%05d.png"))
    assert len(names(tmp_path / "out")) == 2
    assert all(len(name) == 255 for name in names(tmp_path / "out"))


def names(folder):
    return sorted(p.name for p in folder.iterdir())
