"""Who may import whom. `media`, `windows` and `model` never meet; only the verbs join them."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "oasis_cli"

STAGES = {
    "errors",
    "media",
    "windows",
    "scenes",
    "stages",
    "fidelity",
    "model",
    "runtime",
    "weights",
    "metrics",
}
VERBS = {
    "upscale",
    "upscaler",
    "plan",
    "jobs",
    "batch",
    "calibrate",
    "compare",
    "bench",
    "measure",
    "preview",
    "stream",
    "frame_server",
    "clips",
    "head_pictures",
    "enlarge",
    "estimate",
    "inspect",
    "doctor",
    "segmented",
    "folders",
    "render",
    "workers",
    "cluster",
    "scout",
}

# A file or folder, and what else of ours it may import. A new one needs a row here first.
TABLE: dict[str, set[str]] = {
    "errors": set(),
    "metrics": set(),
    "runtime": {"errors"},
    "media": {"errors", "runtime"},
    "windows": {"errors"},
    "scenes": {"errors"},
    "stages": {"errors"},
    "model": {"errors", "runtime"},
    "console": {"errors"},
    "options": {"errors", "weights"},
    "fidelity": {"errors"},
    "terminal": set(),
    "weights": {"errors", "model"},
    "wan": {"errors", "model", "weights"},
    **{verb: STAGES | VERBS for verb in VERBS},
    "memory": STAGES | {"enlarge"},
    "fitting": STAGES | {"enlarge", "memory"},
    "plan": STAGES | {"enlarge", "memory", "fitting"},
    "upscale": STAGES | {"enlarge", "plan", "upscaler"},
    "scout": STAGES,
    "manifest": {"errors", "runtime", "windows"},
    "jobs": STAGES | {"manifest", "plan", "__version__"},
    "estimate": STAGES | {"enlarge", "memory", "plan", "upscale"},
    "render": STAGES | {"enlarge", "jobs", "plan", "upscale"},
    **dict.fromkeys(
        ("workers", "cluster"), STAGES | {"enlarge", "jobs", "plan", "upscale", "render", "scout"}
    ),
    "show": STAGES | {"console", "estimate", "plan", "upscale"},
    "shared": STAGES | {"options", "plan", "segmented"},
    "enlarge": STAGES,
    "train": {"errors", "media", "model", "weights", "metrics"},
    "cli": STAGES | VERBS | {"console", "options", "shared", "show", "terminal", "train", "wan"},
    "__init__": STAGES | VERBS,
    "__main__": {"cli"},
}

HEAVY = {"torch", "av", "numpy", "einops", "safetensors", "huggingface_hub", "matplotlib"}

FILES = sorted(SOURCE.rglob("*.py"))


def layer(path: Path) -> str:
    """The row of the table that a file belongs to."""
    name = path.relative_to(SOURCE).parts[0].removesuffix(".py")
    return "cli" if name.startswith("cli_") else name


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
    own = layer(path)
    assert own in TABLE, f"{own} has no row in the import table of {__file__}"
    for module in imports(path):
        package, _, rest = module.partition(".")
        other = rest.partition(".")[0]
        other = "cli" if other.startswith("cli_") else other
        if package != "oasis_cli" or other in ("", "__version__", own):
            continue
        assert other in TABLE[own], f"{name(path)} imports {module}"


@pytest.mark.parametrize("path", FILES, ids=name)
def test_only_media_knows_the_media_library(path):
    if layer(path) not in ("media", "doctor", "cli"):
        assert not [m for m in imports(path) if m.split(".")[0] == "av"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_files_stay_readable(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 420, f"{name(path)} has {len(lines)} lines: split it"
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or 0) - node.body[0].lineno  # a command's options are a list
            assert length <= 70, f"{name(path)}: {node.name} has {length} lines"


@pytest.mark.parametrize(
    "path", [p for p in FILES if p.name == "__init__.py" and p.parent != SOURCE], ids=name
)
def test_folders_re_export_nothing(path):
    assert not list(imports(path))


def test_the_command_line_starts_without_heavy_imports():
    code = f"import sys, oasis_cli.cli; print(sorted({HEAVY!r} & set(sys.modules)))"
    if not (SOURCE / "cli.py").exists():
        pytest.skip("no command line yet")
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"
