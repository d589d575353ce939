"""Configs from plain data, as checkpoints hold them: every field's type and bounds are checked.

A checkpoint may come from anywhere. A number that shapes the network is believed only up to a
limit: a network of 10 million layers would be built for hours before its tensors are missed.
"""

import math
from dataclasses import fields
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

Config = TypeVar("Config")

MOST = 1 << 16
"""Of channels, rows and tiles: 40 times what the largest known network has."""

MOST_OF = dict.fromkeys(("layers", "heads", "blocks", "low_blocks", "high_blocks", "window"), 512)
MOST_OF |= {"ffn_kernel": 31, "low_frames": 31, "reach": 31, "search": 31}
MAY_BE_NONE = {"context_rows", "low_blocks", "high_blocks", "low_frames", "dit_tile", "dit_overlap"}

LARGEST = 1e3
"""Of numbers that are no counts, such as gates: all known ones are at most 1."""


def from_plain(kind: type[Config], data: Any) -> Config:
    """The config of a dataclass from a dict of its fields; those that lack have their defaults.

    Raises TypeError or ValueError when a field is unknown, of another type or out of bounds.
    """
    if not isinstance(data, dict):
        raise TypeError(f"{kind.__name__} is not an object")
    hints = get_type_hints(kind)
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    if unknown := sorted(str(key) for key in data.keys() - known):
        raise ValueError(f"{kind.__name__} has no {', '.join(unknown[:3])}")
    return kind(**{name: _value(name, hints[name], value) for name, value in data.items()})


def _value(name: str, hint: Any, value: Any) -> Any:
    if get_origin(hint) is tuple:
        kinds = get_args(hint)
        if not isinstance(value, (list, tuple)) or len(value) != len(kinds):
            raise ValueError(f"{name} is not a list of {len(kinds)}")
        return tuple(_value(name, *both) for both in zip(kinds, value, strict=True))
    if hint is float and type(value) in (int, float):
        if not math.isfinite(value) or not -LARGEST <= value <= LARGEST:
            raise ValueError(f"{name} is not between {-LARGEST:g} and {LARGEST:g}")
        return float(value)
    if hint is int and type(value) is int:
        least, most = int(name not in MAY_BE_NONE), MOST_OF.get(name, MOST)
        if not least <= value <= most:
            raise ValueError(f"{name} is not between {least} and {most}")
        return value
    if type(value) is not hint:  # True is no number here
        raise TypeError(f"{name} is not of type {getattr(hint, '__name__', hint)}")
    return value
