"""Build the wheel and the sdist, and use each as a stranger would: python tools/release_check.py

    python tools/release_check.py [--out dist] [--quick]

Each is installed into an empty environment. Only the distributions that it declares are linked into
that, from the environment that runs this script; so a dependency that was forgotten is missed, and
nothing is downloaded. Where Linux allows it (`unshare`), the installed command has no network at
all. It enlarges its sample, verifies its weights, and reports its version.

Needs `build`, `hatchling` and `cyclonedx-bom` beside what oasis needs: `make release-check`
installs them. Writes into OUT: the two artefacts, the bill of materials (CycloneDX JSON: the Python
distributions that the wheel runs with and its weights; not the libraries inside PyAV's and
PyTorch's wheels) and SHA256SUMS.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tomllib
import venv
from collections.abc import Iterable, Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution, metadata
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from packaging.requirements import Requirement

from oasis_cli.checkpoints.registry import Entry, registry, sha256

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "samples" / "demo.mp4"
SCALE = 4
LARGEST = 130 * 10**6
"""Bytes of an artefact. What does not fit belongs to a release's own files: CONTRIBUTING.md."""


class Failed(Exception):
    """The release is not good; says why."""


def closure(requirements: Iterable[str]) -> dict[str, Distribution]:
    """The distributions that requirements ask for here, and what those ask for, by name.

    Raises Failed for one that is not here.
    """
    found: dict[str, Distribution] = {}
    waiting = asked(requirements)
    done: set[tuple[str, str]] = set()
    while waiting:
        wanted = waiting.pop()
        for extra in ("", *wanted.extras):
            if (wanted.name, extra) in done:
                continue
            done.add((wanted.name, extra))
            try:
                here = distribution(wanted.name)
            except PackageNotFoundError as error:
                raise Failed(f"{wanted.name} is needed and is not in this environment") from error
            found[here.metadata["Name"]] = here
            waiting += asked(here.requires or [], extra)
    return found


def asked(requirements: Iterable[str], extra: str = "") -> list[Requirement]:
    """Those requirements that hold on this system, for an extra."""
    every = [Requirement(text) for text in requirements]
    return [one for one in every if not one.marker or one.marker.evaluate({"extra": extra})]


def link(distributions: Iterable[Distribution], site: Path) -> None:
    """Make distributions of this environment visible in another one's site-packages."""
    for each in distributions:
        for top in {file.parts[0] for file in each.files or []} - {"..", "__pycache__"}:
            target = site / top
            if not target.exists():
                target.symlink_to(Path(str(each.locate_file(top))))


def build(out: Path) -> list[Path]:
    """The sdist, and the wheel that is built from it."""
    stage = out / "new"
    shutil.rmtree(stage, ignore_errors=True)
    run([sys.executable, "-m", "build", "--no-isolation", "--outdir", stage, ROOT])
    made = []
    for path in sorted(stage.iterdir()):
        if path.name.endswith((".whl", ".tar.gz")):
            made.append(path.replace(out / path.name))
    shutil.rmtree(stage)
    if len(made) != 2:
        raise Failed(f"a wheel and an sdist were to be built, not {[p.name for p in made]}")
    return made


def too_large(paths: Iterable[Path], most: int = LARGEST) -> list[str]:
    """What is said about files that have more bytes than an artefact's may."""
    return [
        f"{path.name} has {path.stat().st_size / 1e6:.0f} MB, more than {most / 1e6:.0f}: publish "
        "its weights beside the release (CONTRIBUTING.md, Large weights)"
        for path in paths
        if path.stat().st_size > most
    ]


def installed(artefact: Path, home: Path) -> Path:
    """An empty environment with an artefact and what it declares. Returns its Python."""
    venv.create(home, symlinks=os.name != "nt")
    python = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(run([python, "-c", code]).strip())
    needed = list(metadata("oasis-cli").get_all("Requires-Dist") or [])
    if artefact.name.endswith(".tar.gz"):
        with (ROOT / "pyproject.toml").open("rb") as file:
            needed += tomllib.load(file)["build-system"]["requires"]
    link(closure(needed).values(), site)
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python]
    alone = ["--no-index", "--no-deps", "--no-build-isolation", "--quiet"]
    run([*pip, "install", *alone, artefact])
    run([*pip, "check"])
    return python


def cut_off() -> list[str]:
    """The words before a command that take its network away; none where that is not possible."""
    words = ["unshare", "--map-root-user", "--net"]
    able = shutil.which("unshare") and not subprocess.run([*words, "true"]).returncode
    return words if able else []


def use(python: Path, folder: Path, *, quick: bool) -> None:
    """Do with an installed oasis what a user does first. Raises Failed."""
    oasis: list[str | Path] = [*cut_off(), python.with_name("oasis")]
    where = run([python, "-c", "import oasis_cli; print(oasis_cli.__file__)"], folder).strip()
    if not Path(where).is_relative_to(python.parents[1]):
        raise Failed(f"the environment is not clean: oasis_cli is {where}")
    version, known = run([*oasis, "--version"], folder).split()[-1], metadata("oasis-cli")
    if version != known["Version"]:
        raise Failed(f"it calls itself {version}, and the checkout is {known['Version']}")
    print(run([*oasis, "weights", "verify"], folder).rstrip())
    shutil.copy(SAMPLE, folder / "in.mp4")
    some = ["--end", "1"] if quick else []
    run([*oasis, "upscale", "in.mp4", "out.mp4", "--scale", str(SCALE), *some], folder)
    before, after = (
        json.loads(run([*oasis, "info", "--json", "--count", name], folder))
        for name in ("in.mp4", "out.mp4")
    )
    for problem in differences(before, after, whole=not quick):
        raise Failed(f"the sample came out wrong: {problem}")


def differences(before: dict[str, Any], after: dict[str, Any], *, whole: bool) -> list[str]:
    """What is not as it should be, in what `oasis info --json --count` says of both files."""
    found = []
    size, wanted = (
        (video["width"] * scale, video["height"] * scale)
        for video, scale in ((after["video"], 1), (before["video"], SCALE))
    )
    if size != wanted:
        found.append(f"{size[0]}x{size[1]} pixels, not {wanted[0]}x{wanted[1]}")
    if whole and after["frames"] != before["frames"]:
        found.append(f"{after['frames']} frames, not {before['frames']}")
    kinds, known = ([s["kind"] for s in about["streams"]] for about in (after, before))
    if kinds != known:
        found.append(f"streams {', '.join(kinds)}, not {', '.join(known)}")
    return found


def bill_of_materials(python: Path, target: Path) -> int:
    """Write what an environment holds as CycloneDX, and the weights; returns how many parts."""
    words = [sys.executable, "-m", "cyclonedx_py", "environment", "--output-reproducible"]
    run([*words, "--pyproject", ROOT / "pyproject.toml", "--output-file", target, python])
    bill = json.loads(target.read_text(encoding="utf-8"))
    bill["metadata"]["component"]["version"] = metadata("oasis-cli")["Version"]
    parts = bill["components"]
    parts += [weights(entry) for entry in registry().values() if entry.ships]
    target.write_text(json.dumps(bill, indent=2) + "\n", encoding="utf-8")
    for part in sorted(parts, key=lambda part: str(part["name"]).lower()):
        print(f"  {part['name']} {part.get('version', '')}: {licences(part)}")
    return len(parts)


def weights(entry: Entry) -> dict[str, Any]:
    """A model that ships, as a component."""
    return {
        "type": "machine-learning-model",
        "bom-ref": f"weights/{entry.file}",
        "name": entry.name,
        "description": entry.about,
        "hashes": [{"alg": "SHA-256", "content": entry.sha256}],
        "licenses": [{"license": {"id": entry.licence}}],
    }


def licences(part: dict[str, Any]) -> str:
    """The licences of a component, as its makers wrote them."""
    named = [
        entry.get("expression") or entry["license"].get("id") or entry["license"].get("name")
        for entry in part.get("licenses", [])
    ]
    lines = [str(name).strip().splitlines()[0] for name in named if name]
    short = {line.rsplit("::", 1)[-1].strip() for line in lines}
    return ", ".join(sorted(short)) or "no licence is stated"


def check(out: Path, *, quick: bool) -> None:
    """All of it. Raises Failed."""
    made = build(out)
    for problem in too_large(made):
        raise Failed(problem)
    if not cut_off():
        print("note: `unshare` cannot cut the network here; the commands ran with it")
    bill = out / f"oasis-cli-{metadata('oasis-cli')['Version']}.cdx.json"
    for artefact in made:
        with TemporaryDirectory() as work:
            folder = Path(work) / "desk"
            folder.mkdir()
            print(f"{artefact.name}: installing, verifying, enlarging the sample")
            python = installed(artefact, Path(work) / "environment")
            use(python, folder, quick=quick)
            if artefact.suffix == ".whl":
                count = bill_of_materials(python, bill)
                print(f"{bill.name}: {count} parts")
    text = sums([*made, bill])
    (out / "SHA256SUMS").write_text(text, encoding="utf-8")
    print(text, end="")


def run(words: Sequence[str | Path], folder: Path | None = None) -> str:
    """What a command prints. It sees nothing of the checkout. Raises Failed."""
    hidden = ("PYTHONPATH", "PYTHONHOME", "OASIS_WEIGHTS")
    environment = {key: text for key, text in os.environ.items() if key not in hidden}
    command = [str(word) for word in words]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)
    if done.returncode:
        raise Failed(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def sums(paths: Iterable[Path]) -> str:
    """Lines that `sha256sum --check` reads."""
    return "".join(f"{sha256(path)}  {path.name}\n" for path in paths)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="folder for what is made")
    parser.add_argument("--quick", action="store_true", help="one second of the sample each")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    try:
        check(args.out.absolute(), quick=args.quick)
    except Failed as problem:
        sys.exit(f"error: {problem}")


if __name__ == "__main__":
    main()
