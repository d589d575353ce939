"""tools/release_check.py: what it would let pass, on toy files. The whole runs by hand."""

import hashlib
import importlib.util
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "tools" / "release_check.py"


@pytest.fixture(scope="module")
def release():
    spec = importlib.util.spec_from_file_location("release_check", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_empty_environment_gets_what_is_declared_and_nothing_else(release, tmp_path):
    found = release.closure(["typer>=0.9", "rich; python_version < '3'"])
    names = {name.lower() for name in found}
    assert {"typer", "rich", "shellingham"} <= names
    assert not {"pytest", "torch", "numpy"} & names
    release.link(found.values(), tmp_path)
    assert (tmp_path / "typer" / "__init__.py").is_file()
    assert not (tmp_path / "pytest").exists() and not (tmp_path / "__pycache__").exists()


def test_a_dependency_that_is_not_here_is_named(release):
    with pytest.raises(release.Failed, match="no-such-thing"):
        release.closure(["no-such-thing>=1"])


def test_the_hashes_are_those_of_the_files(release, tmp_path):
    (tmp_path / "a.whl").write_bytes(b"wheel")
    line = release.sums([tmp_path / "a.whl"])
    assert line == f"{hashlib.sha256(b'wheel').hexdigest()}  a.whl\n"


def test_an_artefact_with_large_weights_is_refused(release, tmp_path):
    (tmp_path / "a.whl").write_bytes(bytes(101))
    assert not release.too_large([tmp_path / "a.whl"])
    (problem,) = release.too_large([tmp_path / "a.whl"], most=100)
    assert "a.whl" in problem and "CONTRIBUTING.md" in problem


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({}, []),
        ({"video": {"width": 8, "height": 8}}, ["8x8 pixels, not 16x8"]),
        ({"frames": 2}, ["2 frames, not 3"]),
        ({"streams": [{"kind": "video"}]}, ["streams video, not video, audio"]),
    ],
)
def test_a_sample_that_came_out_wrong_is_seen(release, change, said):
    before = {
        "video": {"width": 4, "height": 2},
        "frames": 3,
        "streams": [{"kind": "video"}, {"kind": "audio"}],
    }
    after = before | {"video": {"width": 16, "height": 8}} | change
    assert release.differences(before, after, whole=True) == said


def test_a_command_that_fails_stops_the_check_and_says_what_it_said(release):
    with pytest.raises(release.Failed, match="no good"):
        release.run([sys.executable, "-c", "raise SystemExit('no good')"])
    code = "import os; print('PYTHONPATH' in os.environ)"
    assert release.run([sys.executable, "-c", code]).strip() == "False"
