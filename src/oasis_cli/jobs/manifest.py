"""A job's manifest, read as if a stranger had written it.

A manifest lies in a folder where others may write, and outlives the program that wrote it. So
every value that a run uses has its type and its bounds checked here, once; behind this nobody
looks again.
"""

import json
import re
import stat
from collections.abc import Iterator
from itertools import pairwise, zip_longest
from pathlib import Path
from typing import Any

from oasis_cli.checkpoints.registry import registry
from oasis_cli.errors import MediaError, UsageError
from oasis_cli.pipeline.windows import WindowOptions
from oasis_cli.runtime.devices import PRECISIONS

FORMAT = "oasis-job/1"

MANIFEST = "manifest.json"
"""Name of its file."""

MOST_BYTES = 1 << 30
"""Of a manifest: 1000 hours have less."""

MOST_TICKS = 1 << 60
"""Of a time. Sums of them, and times before the first, still have room in 64 bits."""

LONGEST = 1 << 55
"""Ticks from the first frame to the last, and of one frame."""

MOST_FRAMES = 1 << 31
MOST_THREADS = 64
DEEPEST = 8
"""Levels of dicts and lists in what identifies a job; there are four."""

TIME_BASE = re.compile(r"[1-9][0-9]{0,18}(/[1-9][0-9]{0,18})?")
VERSION = re.compile(r"[0-9A-Za-z.+!_-]{1,64}")
HASHES = {"weights", "heads"}
DIGEST = re.compile(r"[0-9a-f]{64}")


class _Wrong(Exception):
    """What is wrong, as half a sentence."""


def read_manifest(path: Path) -> dict[str, Any] | None:
    """The manifest in a file, checked; None when there is no file. Raises MediaError."""
    try:
        about = path.lstat()
        if not stat.S_ISREG(about.st_mode):
            raise _Wrong("it is not a plain file")
        if about.st_size > MOST_BYTES:
            raise _Wrong(f"it has {about.st_size >> 20} MiB")
        manifest = json.loads(path.read_bytes())
        _check(manifest)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (_Wrong, OSError, ValueError, RecursionError, UsageError) as error:
        raise MediaError(
            f"{path} cannot be read: {error}",
            hint="it was made by another version or damaged: --no-resume starts over",
        ) from error
    known: dict[str, Any] = manifest
    return known


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """How another identity differs, in words. before: the identity of a checked manifest."""
    if isinstance(before, dict) and isinstance(now, dict):
        if name == "input" and before != now:
            yield f"input ({before['size']} bytes then, {now['size']} bytes now)"
            return
        for key in {**before, **now}:
            yield from differences(before.get(key), now.get(key), key)
    elif name == "streams" and isinstance(before, list) and isinstance(now, list):
        for then, today in zip_longest(before, now):
            yield from differences(then, today, "plan")
    elif before != now:
        most = 16 if name in HASHES else 80
        then, today, what = (_shown(value, most) for value in (before, now, name))
        if name == "weights":
            known = {entry.sha256: entry.name for entry in registry().values()}
            then, today, what = known.get(before, then), known.get(now, today), "model"
        yield f"{what} ({then} then, {today} now)"


def _shown(value: Any, most: int) -> str:
    """As much of a value as a sentence has room for, on one line."""
    if value is None or isinstance(value, bool):
        text = {None: "none", True: "on", False: "off"}[value]
    elif isinstance(value, list) and [type(part) for part in value] == [int, int]:
        text = "x".join(map(str, value))  # a size
    else:
        text = str(value)
    text = text if len(text) <= most else f"{text[:most]}..."
    return text if text.isprintable() else ascii(text)


def _check(manifest: Any) -> None:
    if _get(manifest, "format", str, "") != FORMAT:
        raise _Wrong(f"its format is not {FORMAT}")
    if not VERSION.fullmatch(_get(manifest, "version", str, "")):
        raise _Wrong("version is none")
    for key in ("created", "source", "target"):
        text = _get(manifest, key, str, "")
        if not text or "\0" in text:
            raise _Wrong(f"{key} is not a name")
    for warning in _get(manifest, "warnings", list, ""):
        _is(warning, str, "warnings")
    _get(manifest, "seekable", bool, "")
    _number(_get(manifest, "encoder_threads", int, ""), "encoder_threads", 1, MOST_THREADS)
    _check_identity(_get(manifest, "identity", dict, ""))
    total = _check_timeline(_get(manifest, "timeline", dict, ""))
    _check_scenes(_get(manifest, "scenes", list, ""), total)
    _check_segments(_get(manifest, "segments", list, ""), total)


def _check_identity(identity: dict[str, Any]) -> None:
    _check_depth(identity, "identity", DEEPEST)
    source = _get(identity, "input", dict, "identity")
    for key in ("size", "mtime_ns"):
        _number(_get(source, key, int, "input"), key, -(1 << 63), 1 << 63)
    if not DIGEST.fullmatch(_get(source, "ends", str, "input")):
        raise _Wrong("input.ends is not a hash")
    _get(identity, "weights", str, "identity")
    model = _get(identity, "model", dict, "identity")
    for key in ("precision", "decoder", "device"):
        _get(model, key, str, "model")
    if model["precision"] not in PRECISIONS:
        raise _Wrong(f"model.precision is not one of {', '.join(PRECISIONS)}")
    windows = _get(model, "windows", dict, "model")
    if windows.keys() != {"frames", "overlap"}:
        raise _Wrong("model.windows has other keys than frames and overlap")
    for key, value in windows.items():
        _number(_is(value, int, key), key, 0, MOST_FRAMES)
    WindowOptions(**windows)


def _check_depth(value: Any, name: str, levels: int) -> None:
    """Comparing goes down as far as there are levels."""
    inside = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    if inside and not levels:
        raise _Wrong(f"{name} is nested too deeply")
    for item in inside:
        _check_depth(item, name, levels - 1)


def _check_timeline(line: dict[str, Any]) -> int:
    """Returns the number of frames."""
    if not TIME_BASE.fullmatch(_get(line, "time_base", str, "timeline")):
        raise _Wrong("timeline.time_base is not a fraction above 0")
    _number(_get(line, "nominal", int, "timeline"), "nominal", 1, LONGEST)
    _number(_get(line, "repaired", int, "timeline"), "repaired", 0, MOST_FRAMES)
    times, durations = (_get(line, key, list, "timeline") for key in ("pts", "durations"))
    for time in times:
        _number(_is(time, int, "pts"), "pts", -MOST_TICKS, MOST_TICKS)
    for duration in durations:
        _number(_is(duration, int, "durations"), "durations", 1, LONGEST)
    if len(times) != len(durations):
        raise _Wrong("there are not as many durations as frames")
    if any(before >= after for before, after in pairwise(times)):
        raise _Wrong("the frames' times do not rise")
    if times and times[-1] - times[0] > LONGEST:
        raise _Wrong("the frames' times are too far apart")
    return len(times)


def _check_scenes(scenes: list[Any], total: int) -> None:
    for scene in scenes:
        _number(_is(scene, int, "scenes"), "scenes", 0, max(0, total - 1))
    if not scenes or scenes[0] != 0 or any(before >= after for before, after in pairwise(scenes)):
        raise _Wrong("the scenes do not rise from 0")


def _check_segments(segments: list[Any], total: int) -> None:
    """They must cover all frames, each once and in order."""
    reached = 0
    for segment in segments:
        if len(_is(segment, list, "segments")) != 2:
            raise _Wrong("a segment is not a pair of numbers")
        start, stop = (_number(_is(x, int, "segments"), "segments", 0, total) for x in segment)
        if start != reached or stop <= start:
            raise _Wrong("the segments do not follow each other")
        reached = stop
    if reached != total:
        raise _Wrong(f"the segments hold {reached} of {total} frames")


def _get(values: Any, key: str, kind: type, where: str) -> Any:
    name = f"{where}.{key}" if where else key
    if not isinstance(values, dict):
        raise _Wrong(f"{where or 'it'} is not an object")
    if key not in values:
        raise _Wrong(f"it has no {name}")
    return _is(values[key], kind, name)


def _is(value: Any, kind: type, name: str) -> Any:
    if type(value) is not kind:  # True is no number here
        raise _Wrong(f"{name} is not of type {kind.__name__}")
    return value


def _number(value: int, name: str, least: int, most: int) -> int:
    if not least <= value <= most:
        raise _Wrong(f"{name} is not between {least} and {most}")
    return value
