"""Who may import whom: the rooms of docs/architecture.md, from the bottom to the top."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "oasis_cli"

# A room, and what else of ours it may import. `errors` and the version are for all of them.
TABLE: dict[str, set[str]] = {
    "runtime": set(),
    "media": {"runtime"},
    "model": {"runtime"},
    "checkpoints": {"model"},
    "metrics": set(),
    "train": {"checkpoints", "media", "metrics", "model"},
    "pipeline": {"checkpoints", "media", "model", "runtime"},
    "jobs": {"checkpoints", "media", "pipeline", "runtime"},
    "upscaler": {"evaluation", "jobs", "media", "pipeline", "runtime"},
    "evaluation": {"checkpoints", "media", "metrics", "model", "pipeline", "runtime", "upscaler"},
    "cli": {
        *("checkpoints", "evaluation", "jobs", "media", "model"),
        *("pipeline", "runtime", "train", "upscaler"),
    },
}
FREE = {"errors", "__version__", ""}
EARLIER = {"upscale", "weights", "clips", "measure"}
"""Modules that only give a room's names as they were documented before."""
LATER = {
    "checkpoints/fetch.py": {"media"},  # how a file is put in place
    "pipeline/run.py": {"upscaler"},  # the function `upscale` without a model
    "jobs/items.py": {"upscaler"},
    "stream.py": {"pipeline", "runtime"},
    "upscaler.py": {"stream"},
    "__main__.py": {"cli"},
}
"""Single files that may do more than their room."""

HEAVY = {"torch", "av", "numpy", "einops", "safetensors", "huggingface_hub", "matplotlib"}

FILES = sorted(SOURCE.rglob("*.py"))


def room(parts: Sequence[str]) -> str:
    """The row of the table for a path or a dotted name below the package."""
    return "metrics" if tuple(parts[:2]) == ("evaluation", "metrics") else parts[0]


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in the file."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import; name the file"
            if node.module == "oasis_cli":
                yield from (f"oasis_cli.{alias.name}" for alias in node.names)
            else:
                yield node.module or ""


def name(path: Path) -> str:
    return str(path.relative_to(SOURCE))


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_follow_the_table(path):
    own = room(path.relative_to(SOURCE).with_suffix("").parts)
    if own == "__init__" or own in EARLIER:
        return  # the public names, from wherever they are
    may = FREE | {own} | TABLE.get(own, set()) | LATER.get(name(path), set())
    for module in imports(path):
        package, *parts = module.split(".")
        if package == "oasis_cli" and parts:
            assert room(parts) in may, f"{name(path)} imports {module}"


def test_every_room_has_a_row():
    rooms = {path.parent.name for path in SOURCE.glob("*/__init__.py")}
    assert rooms <= TABLE.keys()


def test_few_modules_lie_outside_the_rooms():
    outside = {path.stem for path in SOURCE.glob("*.py")}
    assert outside == {"__init__", "__main__", "errors", "stream", "upscaler"} | EARLIER


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_media_knows_the_media_library(path):
    if name(path).split("/")[0] != "media" and name(path) != "cli/doctor.py":
        assert not [m for m in imports(path) if m.split(".")[0] == "av"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_stay_readable(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 420, f"{name(path)} has {len(lines)} lines: split it"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.body[0].lineno  # a command's options are a list
            assert length <= 60, f"{name(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name == "__init__.py" and p.parent != SOURCE], ids=name
)
def test_folders_re_export_nothing(path):
    assert not list(imports(path))


def test_the_command_line_starts_without_heavy_imports():
    code = f"import sys, oasis_cli.cli.main; print(sorted({HEAVY!r} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
