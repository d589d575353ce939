"""What the registry says of a model is what its file has, and what ships is in the wheel."""

import math
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest
from safetensors import safe_open

from oasis_cli.checkpoints import registry
from oasis_cli.checkpoints.format import BESIDE, OTHERS, describe, looks, networks
from oasis_cli.errors import WeightsError

ROOT = Path(__file__).parents[2]
ENTRIES = registry.registry().values()
SHIPPED = [entry for entry in ENTRIES if entry.ships]


def by_name(entry):
    return entry.name


@pytest.mark.parametrize("entry", SHIPPED, ids=by_name)
def test_the_registry_describes_the_file(entry):
    assert entry.path.stat().st_size == entry.size
    assert registry.verify(entry.name) == (True, entry.sha256)
    assert describe(entry.name)["name"] == entry.name
    assert tuple(networks(entry.name)) == entry.decoders
    assert tuple(looks(entry.name)) == entry.looks
    with safe_open(entry.path, "pt") as file:
        shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    own = [x for name, x in shapes.items() if not name.startswith((BESIDE, OTHERS))]
    assert sum(map(math.prod, own)) == entry.parameters


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
    assert {"small", "dense"} <= set(roles)


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
