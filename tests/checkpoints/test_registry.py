"""What the registry says of a model is what its file has, and what ships is in the wheel."""

import tomllib
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import pytest

from oasis_cli.checkpoints import registry
from oasis_cli.checkpoints.format import describe
from oasis_cli.errors import WeightsError

ROOT = Path(__file__).parents[2]
ENTRIES = registry.registry().values()
SHIPPED = [entry for entry in ENTRIES if entry.ships]


def by_name(entry):
    return entry.name


@pytest.mark.parametrize("entry", SHIPPED, ids=by_name)
def test_the_registry_describes_the_file(entry, monkeypatch, capsys):
    """As `tools/registry_entry.py` prints it, whose lines are copied into the registry."""
    tool = run_path(str(ROOT / "tools" / "registry_entry.py"))
    monkeypatch.setattr("sys.argv", ["registry_entry.py", str(entry.path)])
    tool["main"]()
    fields = tomllib.loads(capsys.readouterr().out)[entry.name]
    assert fields.keys() == {"sha256", "size", "parameters", "decoders", "looks"}
    known = tomllib.loads(registry.FILE.read_text())[entry.name]
    assert {key: known[key] for key in fields} == fields
    assert registry.verify(entry.name) == (True, fields["sha256"])


@pytest.mark.parametrize("entry", ENTRIES, ids=by_name)
def test_the_registry_is_complete(entry):
    assert len(entry.sha256) == 64 and int(entry.sha256, 16)
    assert entry.size > 0 and entry.parameters > 0 and entry.licence and entry.about
    assert entry.ships or entry.urls
    assert all(url.startswith("https://") for url in entry.urls)
    assert "faithful" in entry.looks


def test_a_role_has_one_model():
    roles = [entry.role for entry in ENTRIES]
    assert len(set(roles)) == len(roles)
    assert {"small", "dense", "tiny"} <= set(roles)


def test_a_field_too_many_or_too_few_is_refused():
    fields = tomllib.loads(registry.FILE.read_text())["oasis-small"]
    with pytest.raises(TypeError):
        registry.read({"toy": fields | {"colour": "red"}})
    with pytest.raises(TypeError):
        registry.read({"toy": {key: x for key, x in fields.items() if key != "sha256"}})


def test_what_ships_is_in_the_wheel():
    """The wheel takes the whole folder: it holds what ships, and no file that nobody knows."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    wheel = wheel["targets"]["wheel"]
    assert wheel["force-include"]["weights"] == "oasis_cli/_weights"
    assert wheel["packages"] == ["src/oasis_cli"] and "exclude" not in wheel
    assert registry.FILE.is_relative_to(ROOT / "src" / "oasis_cli")
    there = {path.name for path in (ROOT / "weights").glob("*.safetensors")}
    assert there == {entry.file for entry in SHIPPED}


def test_the_model_card_has_every_sum():
    card = (ROOT / "weights" / "README.md").read_text()
    for entry in ENTRIES:
        assert entry.sha256 in card and f"`{entry.name}`" in card


def test_damaged_weights_are_no_reason_to_trust_them(folder, toy):
    folder.mkdir()
    (folder / toy.fetched_name).write_bytes(b"?")
    right, _ = registry.verify("toy")
    assert not right


@pytest.mark.parametrize(
    "variables, wanted",
    [
        ({"OASIS_WEIGHTS": "/w", "XDG_DATA_HOME": "/x"}, "/w"),
        ({"XDG_DATA_HOME": "/x"}, "/x/oasis/weights"),
        ({"XDG_DATA_HOME": "x"}, "/home/me/.local/share/oasis/weights"),
        ({}, "/home/me/.local/share/oasis/weights"),
    ],
)
def test_fetched_files_lie_in_the_users_folder(monkeypatch, variables, wanted):
    for name in ("OASIS_WEIGHTS", "XDG_DATA_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"HOME": "/home/me", **variables}.items():
        monkeypatch.setenv(name, value)
    assert registry.user_folder() == Path(wanted)


def test_a_file_that_is_missing_is_one_sentence_with_the_command_to_fetch_it(folder, monkeypatch):
    lost = replace(registry.entry_of("oasis-small"), file="lost.safetensors")
    for urls, hint in (
        (("https://127.0.0.1/x",), "oasis weights fetch oasis-small"),
        ((), "install oasis again"),
    ):
        monkeypatch.setattr(registry, "_ENTRIES", {"oasis-small": replace(lost, urls=urls)})
        with pytest.raises(WeightsError, match="oasis-small are not on this machine") as error:
            describe("oasis-small")
        assert error.value.hint == hint
