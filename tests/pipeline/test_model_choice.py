"""`--model auto`: which model, and why."""

from dataclasses import replace

import pytest

from oasis_cli.checkpoints import registry
from oasis_cli.errors import UsageError
from oasis_cli.pipeline import model_choice
from oasis_cli.pipeline.model_choice import ModelChoice, choose_model, model_for
from oasis_cli.runtime.devices import KINDS, capabilities

SMALL = registry.entry_of("oasis-small")
BASE = replace(SMALL, name="oasis-base", role="base", file="base.safetensors", ships=False)
GB = 10**9


CUDA, XPU, MPS, CPU = (capabilities(kind) for kind in KINDS)
BOTH = {"oasis-small", "oasis-base"}


@pytest.mark.parametrize(
    "devices, free, there, name, why",
    [
        ([CUDA], [4 * GB], BOTH, "oasis-base", "4.0 GB of the card's memory are free"),
        ([CUDA], [80 * GB], BOTH, "oasis-base", "80.0 GB"),
        ([CUDA], [4 * GB - 1], BOTH, "oasis-small", "oasis-base takes 4"),
        ([CUDA], [0], BOTH, "oasis-small", "0.0 GB"),
        ([CUDA], [None], BOTH, "oasis-small", "does not tell"),
        ([CUDA], [80 * GB], {"oasis-small"}, "oasis-small", "`oasis weights fetch oasis-base`"),
        ([CPU], [80 * GB], BOTH, "oasis-small", "for NVIDIA and AMD cards"),
        ([MPS], [None], BOTH, "oasis-small", "for NVIDIA and AMD cards"),
        ([XPU], [80 * GB], BOTH, "oasis-small", "for NVIDIA and AMD cards"),
        ([CUDA, CUDA], [80 * GB, 6 * GB], BOTH, "oasis-base", "6.0 GB"),
        ([CUDA, CUDA], [80 * GB, 2 * GB], BOTH, "oasis-small", "2.0 GB"),
        ([CUDA, CPU], [80 * GB, 80 * GB], BOTH, "oasis-small", "for NVIDIA and AMD cards"),
    ],
)
def test_the_base_model_is_for_cards_with_room_for_it(devices, free, there, name, why):
    choice = choose_model(devices, free, SMALL, BASE, there)
    assert choice.name == name and why in choice.why
    short = name == "oasis-small" and "GB" in choice.why
    assert bool(choice.note) == short  # another day's pictures will be others: that is said


@pytest.mark.parametrize("devices, free", [([CPU], [GB]), ([CUDA], [80 * GB])])
def test_a_release_without_a_base_model_says_nothing_alarming(devices, free):
    choice = choose_model(devices, free, SMALL, None, {"oasis-small"})
    assert choice == ModelChoice("oasis-small", "this release has no larger model")


@pytest.mark.parametrize("kind", KINDS)
def test_auto_never_takes_the_tiny_model(monkeypatch, kind):
    tiny = replace(SMALL, name="oasis-tiny", role="tiny")
    monkeypatch.setattr(registry, "_ENTRIES", {"oasis-tiny": tiny, "oasis-small": SMALL})
    monkeypatch.setattr(model_choice, "choose_devices", lambda name: [name])
    monkeypatch.setattr(model_choice, "free_memory", lambda name: 0)
    assert model_for("auto", kind).name == "oasis-small"
    assert model_for("auto", kind, elsewhere=True).name == "oasis-small"


def test_a_named_model_is_taken_as_it_is():
    assert model_for("mine.safetensors", "cuda:7") == ModelChoice("mine.safetensors")


def test_a_device_that_is_none_is_refused_before_a_model_is_chosen():
    with pytest.raises(UsageError, match="not a device"):
        model_for("auto", "abacus")


def test_auto_asks_the_device_and_the_disk(monkeypatch, tmp_path):
    """On a stand-in for a card, for the tests run without one."""
    monkeypatch.setattr(registry, "_ENTRIES", {"oasis-small": SMALL, "oasis-base": BASE})
    monkeypatch.setattr(model_choice, "choose_devices", lambda name: [name])
    monkeypatch.setattr(model_choice, "capabilities", lambda name: CUDA)
    monkeypatch.setattr(model_choice, "free_memory", lambda name: 5 * GB)
    monkeypatch.setenv(registry.FOLDER, str(tmp_path))
    assert model_for("auto", "cuda").name == "oasis-small"
    (tmp_path / BASE.fetched_name).touch()
    assert model_for("auto", "cuda").name == "oasis-base"
    assert model_for("auto", "cuda", elsewhere=True).name == "oasis-small"
