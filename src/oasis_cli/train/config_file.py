"""The values of a TOML file, each checked against the type of the setting that it changes."""

import dataclasses
import difflib
import tomllib
import typing
from pathlib import Path
from types import UnionType
from typing import Any

from oasis_cli.errors import UsageError

MOST_SHOWN = 40
"""Characters of a wrong value that a sentence has room for."""

LARGEST = 1 << 63
"""Whole numbers of TOML have 64 bits."""

FORMS = {
    int: "a whole number, such as 4",
    float: "a number, such as 0.5",
    str: 'text in quotes, such as "a"',
    bool: "true or false",
}


class _Wrong(Exception):
    """What is wrong, as half a sentence, and what to do."""


def read_toml(path: Path) -> dict[str, Any]:
    """What a file holds. Raises UsageError where it is no TOML or cannot be read."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{path} is not a TOML file: {error}") from error


def changed(config: Any, data: dict[str, Any], path: Path) -> Any:
    """A copy of a dataclass with the values of a file; tables go down into its fields.

    Raises UsageError for a setting that does not exist, a value that is none for its setting, and
    values that do not go together.
    """
    try:
        return _filled(type(config), config, data, "")
    except _Wrong as wrong:
        sentence, hint = wrong.args
        raise UsageError(f"{path}: {sentence}", hint=hint) from wrong


def _filled(kind: Any, old: Any, data: dict[str, Any], name: str) -> Any:
    """A dataclass of a kind: what `old` holds, or the kind's defaults, and the values of `data`.

    name: of its table, with the tables above it; empty for the file.
    """
    hints, fields = typing.get_type_hints(kind), dataclasses.fields(kind)
    values = {} if old is None else {field.name: getattr(old, field.name) for field in fields}
    for key, value in data.items():
        whole = f"{name}.{key}" if name else key
        if key not in hints:
            near = difflib.get_close_matches(key, hints, cutoff=0)
            raise _Wrong(f"there is no setting called {whole}", f"the nearest: {', '.join(near)}")
        values[key] = _value(hints[key], values.get(key), value, whole)
    for field in fields:
        missing = field.default is field.default_factory is dataclasses.MISSING
        if missing and field.name not in values:
            raise _Wrong(f"{name} has no {field.name}", f"write {field.name} = ... below it")
    try:
        return kind(**values)
    except ValueError as error:
        raise _Wrong(f"{name}: {error}", "change one of these values") from error


def _value(kind: Any, old: Any, value: Any, name: str) -> Any:
    """A value of TOML, as a setting's type has it. old: what the setting was; None for nothing."""
    kinds = typing.get_args(kind) if isinstance(kind, UnionType) else (kind,)
    first, parts = kinds[0], typing.get_args(kinds[0])
    if dataclasses.is_dataclass(first):
        if isinstance(value, dict):
            return _filled(first if old is None else type(old), old, value, name)
    elif parts and isinstance(value, list):
        each = parts[:1] * len(value) if parts[-1] is Ellipsis else parts
        if len(each) == len(value):
            items = enumerate(zip(each, value, strict=True))
            return tuple(_value(kind, None, item, f"{name}[{at}]") for at, (kind, item) in items)
    elif _fits(first, value):
        return first(value)
    raise _Wrong(f"{name} cannot be {_shown(value)}", f"it is {_form(first, name)}")


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(value, int | float):  # NaN is not equal to itself
        in_range = value == value and (isinstance(value, float) or abs(value) < LARGEST)
        return in_range and type(value) in ((int, float) if kind is float else (kind,))
    return type(value) is kind


def _form(kind: Any, name: str) -> str:
    """What a setting's value is."""
    parts = typing.get_args(kind)
    if dataclasses.is_dataclass(kind):
        return f"a table: write [{name}] above its settings"
    if not parts:
        return FORMS[kind]
    if dataclasses.is_dataclass(parts[0]):
        return f"a list of tables: write [[{name}]] above the settings of each"
    return f"a list, such as {_example(kind)}"


def _example(kind: Any) -> str:
    parts = [part for part in typing.get_args(kind) if part is not Ellipsis]
    if parts:
        return f"[{', '.join(map(_example, parts))}]"
    return FORMS[kind].rpartition(" ")[2]


def _shown(value: Any) -> str:
    """As much of a value as a sentence has room for."""
    try:
        text = repr(value)
    except ValueError:  # Python writes no numbers of thousands of digits
        text = "so large a number"
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}..."
