"""`--model auto`: the model for a device."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from oasis_cli.checkpoints.registry import AUTO, Entry, by_role
from oasis_cli.errors import UsageError
from oasis_cli.runtime.device_memory import free_memory
from oasis_cli.runtime.devices import Capabilities, capabilities, choose_devices

BASE_MEMORY = 4 * 10**9
"""Free bytes of a card's memory from which on the base model is chosen. Larger pictures may still
need tiles: the plan sees to that."""


@dataclass(frozen=True, slots=True)
class ModelChoice:
    """A model, and why it is that one."""

    name: str
    """Of the registry, or a path."""
    why: str = ""
    """Half a sentence; empty when the user named it."""
    note: str = ""
    """What the user should know, for a better model is at hand and too large for the device."""


def choose_model(
    devices: Sequence[Capabilities],
    free: Sequence[int | None],
    small: Entry,
    base: Entry | None,
    there: Collection[str],
) -> ModelChoice:
    """The base model where every device is for it and has room; the small one elsewhere.

    free: bytes on each device; None where nobody knows. base: None in a release without one. there:
    names of the models whose files are on this disk.
    """
    if base is None:
        return ModelChoice(small.name, "this release has no larger model")
    if not all(device.large_models for device in devices):
        return ModelChoice(small.name, f"{base.name} is for NVIDIA and AMD cards")
    if base.name not in there:
        why = f"{base.name} is not on this machine: `oasis weights fetch {base.name}` brings it"
        return ModelChoice(small.name, why)
    if any(bytes_ is None for bytes_ in free):
        return ModelChoice(small.name, "the card does not tell how much memory is free")
    least = min(bytes_ for bytes_ in free if bytes_ is not None)
    room = f"{least / 1e9:.1f} GB of the card's memory are free"
    if least < BASE_MEMORY:
        why = f"{room}, and {base.name} takes {BASE_MEMORY / 1e9:.0f}"
        return ModelChoice(small.name, why, f"{small.name} is used: {why}")
    return ModelChoice(base.name, room)


def model_for(name: str, device: str, *, elsewhere: bool = False) -> ModelChoice:
    """The choice for `--model` and `--device`. Raises UsageError for what is no device.

    elsewhere: the device is one of other machines, whose memory and files nobody knows here.
    """
    if name != AUTO:
        return ModelChoice(name)
    small, base = by_role("small"), by_role("base")
    if small is None:
        raise UsageError("this oasis has no model", hint="pass --model FILE")
    if elsewhere:
        return ModelChoice(small.name, "what other machines have is not known here")
    devices = choose_devices(device)
    there = [entry.name for entry in (small, base) if entry and entry.path]
    free = [free_memory(each) if base else None for each in devices]
    return choose_model([capabilities(each) for each in devices], free, small, base, there)
