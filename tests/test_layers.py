"""Who may import whom: the rooms of docs/architecture.md, from the bottom to the top."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
SOURCE = TESTS.parent / "src" / "oasis_cli"

# A room, and what else of ours it may import. `errors` and the version are for all of them.
TABLE: dict[str, set[str]] = {
    "runtime": set(),
    "media": {"runtime"},
    "model": {"runtime"},
    "checkpoints": {"model"},
    "metrics": set(),
    "train": {"checkpoints", "media", "metrics", "model", "runtime"},
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

TESTED_IN = {
    "__main__": "cli/test_main",
    "checkpoints/wan/convert": "checkpoints/wan/test_checkpoint",
    "cli/export": "checkpoints/test_export",
    "cli/formatting": "cli/test_main",
    "cli/heads": "evaluation/test_calibrate",
    "cli/metrics": "cli/test_evaluate",
    "cli/options": "cli/test_common_options",
    "cli/train": "train/test_command",
    "cli/weights": "checkpoints/test_fetch",
    "errors": "cli/test_main",
    "evaluation/head_pictures": "evaluation/test_calibrate",
    "evaluation/metrics/features": "evaluation/metrics/test_perceptual",
    "evaluation/metrics/hatching": "judging/test_real_clips",
    "evaluation/metrics/shift": "evaluation/test_align",
    "jobs/ahead": "jobs/test_scout",
    "jobs/apart": "jobs/test_scout",
    "jobs/folders": "jobs/test_batch",
    "jobs/items": "jobs/test_batch",
    "media/files": "jobs/test_batch",
    "media/info": "media/input/test_probe",
    "media/input/codecs": "media/input/test_joins",
    "media/input/lookahead": "media/test_captions",
    "media/input/packets": "media/test_faults",
    "media/input/parts": "media/input/test_joins",
    "media/input/pieces": "media/input/test_joins",
    "media/input/read_report": "media/test_faults",
    "media/input/tracks": "media/input/test_joins",
    "media/locks": "jobs/test_job",
    "media/native": "media/output/test_convert",
    "media/output/containers": "media/output/test_writer",
    "media/output/mux": "media/output/test_writer",
    "media/output/pictures_out": "media/input/test_stills",
    "media/output/rehearse": "media/output/test_passthrough",
    "media/output/trial": "jobs/test_estimate",
    "media/testclip": "evaluation/test_bench",
    "model/decoders/wan_layers": "model/decoders/test_wan",
    "model/heads/table_file": "evaluation/test_calibrate",
    "model/kernels/ahead": "model/kernels/test_window",
    "model/kernels/token": "model/kernels/test_window",
    "model/kernels/wan": "model/kernels/test_window",
    "model/operators": "model/kernels/test_window",
    "model/plain": "checkpoints/test_format",
    "runtime/groups": "runtime/test_processors",
    "train/__main__": "train/test_command",
    "train/begin": "train/test_loop",
    "train/config_file": "train/test_presets",
    "train/data_config": "train/test_presets",
    "train/meter": "train/test_loop",
    "train/optim": "train/test_start",
    "train/options": "train/test_command",
    "train/sheet": "train/test_command",
}
"""Modules without a test file of their own name, and the file where they are tested: commands
beside what they command, and what only shows together with something else."""

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


@pytest.mark.parametrize("path", FILES, ids=name)
def test_every_module_has_its_test_file_where_the_module_has_its_place(path):
    """`media/icc.py` is tested in `tests/media/test_icc.py`, or the table says where."""
    own = path.relative_to(SOURCE).with_suffix("")
    if own.name == "__init__" or str(own) in EARLIER:
        return
    mirrored = TESTS / own.with_name(f"test_{own.name}.py")
    if elsewhere := TESTED_IN.get(own.as_posix()):
        assert (TESTS / f"{elsewhere}.py").exists() and not mirrored.exists()
    else:
        assert mirrored.exists(), f"{own} has no test file: {mirrored}"


@pytest.mark.parametrize("module", sorted(EARLIER))
def test_names_from_before_still_import(module):
    assert [n for n in vars(import_module(f"oasis_cli.{module}")) if not n.startswith("_")]


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
