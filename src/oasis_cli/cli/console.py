"""Everything that is printed. Results go to stdout; progress, notes and errors to stderr.

Work reports itself as events: plain dicts with an "event" key. `--json` prints each as one line;
a terminal shows a progress bar; anything else gets a line now and then.

    note      text                                          something the user should know
    progress  frames, total or null, fps, eta, limiting     fps in frames/s, eta in seconds
    looking   frames                                        read before a long job starts
    fetching  bytes, total                                  of a model that is downloaded
    estimate  seconds, text                                 what a run will need
    worker    number, pid                                   a process that renders has started
    file      source, target, status, ...                   one file of a batch is over
    done      what was made, with numbers
    error     message, hint, exit_code
"""

import io
import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from oasis_cli.errors import OasisError

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

Event = Mapping[str, Any]
Report = Callable[[Event], None]

MOVING = ("progress", "looking", "fetching")
"""Events that move the bar."""

LINE_EVERY = 10.0
"""Seconds between two progress lines when stderr is no terminal."""


def silent(event: Event) -> None:
    """A Report that drops everything."""


_HIDDEN = re.compile("[\0-\x08\n-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
"""What a terminal obeys instead of showing it, turns text around, or is no character at all."""


def visible(text: str, keep: str = "\n") -> str:
    r"""Text of a file or its name, with escape sequences and the like written out.

    keep: control characters that stay.

    >>> visible("a\x1b[2Jb\nc"), visible("two\nlines", keep="")
    ('a\\x1b[2Jb\nc', 'two\\nlines')
    """

    def written(match: re.Match[str]) -> str:
        char = match[0]
        if char in keep:
            return char
        if "\udc80" <= char <= "\udcff":  # a byte of a name that is no UTF-8
            return f"\\x{ord(char) - 0xDC00:02x}"
        return char.encode("unicode_escape").decode()

    return _HIDDEN.sub(written, text)


def to_json(value: object, indent: int | None = None) -> str:
    """JSON, by default in one line; what JSON does not know is written as text."""
    text = json.dumps(value, default=str, ensure_ascii=False, indent=indent)
    # JSON itself escapes but the first 32.
    return _HIDDEN.sub(lambda m: m[0] if m[0] == "\n" else f"\\u{ord(m[0]):04x}", text)


def say(text: str, nl: bool = True) -> None:
    """Print a result on stdout."""
    from typer import echo

    echo(visible(text), nl=nl)


def prepare_streams() -> None:
    """Let nothing else get the number of a standard stream that was closed, and no character that
    the locale lacks end a run."""
    # Written to, a closed stdout must fail; a closed stderr need not: nobody reads it.
    for number, mode in ((0, os.O_RDONLY), (1, os.O_RDONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, mode)  # takes the lowest number that is free
    if sys.stdout is None:
        sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
    if sys.stderr is None:
        sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def stdout_fails() -> bool:
    """Whether the standard output takes nothing, a line tried. Then nothing more is sent there."""
    try:
        sys.stdout.flush()
        os.write(1, b"\n")
    except OSError:
        silence(1)
        return True
    return False


def silence(number: int) -> None:
    """Send a standard stream nowhere, or Python complains once more when it flushes."""
    with suppress(OSError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), number)


def _to_stderr(text: str) -> None:
    """A full disk behind stderr must not end a run."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except OSError:
        silence(2)


def print_error(error: OasisError) -> None:
    """Two lines on stderr: what is wrong, and what to try."""
    print_error_text(str(error), error.hint)


def print_error_text(message: str, hint: str = "") -> None:
    """The same for a message that has no exception."""
    message, hint = visible(message, keep=""), visible(hint, keep="")
    _to_stderr(f"error: {message}\n" + (f"hint:  {hint}\n" if hint else ""))


def duration(seconds: float) -> str:
    """A span of time as people say it.

    >>> duration(7.26), duration(75), duration(7384)
    ('7.3 s', '1 min 15 s', '2 h 03 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    return f"{minutes // 60} h {minutes % 60:02d} min"


def size(count: float) -> str:
    """Bytes as people say them.

    >>> size(900), size(2_500_000), size(3 * 2**30)
    ('900 B', '2.4 MiB', '3.0 GiB')
    """
    units = ["B", "KiB", "MiB", "GiB", "TiB"]
    while count >= 1024 and len(units) > 1:
        count /= 1024
        units.pop(0)
    return f"{count:.0f} B" if units[0] == "B" else f"{count:.1f} {units[0]}"


def progress_line(event: Event) -> str:
    """A progress event in words, or one of looking through the input.

    >>> numbers = {"frames": 30, "total": 90, "fps": 1.5, "eta": 40.0, "limiting": "model"}
    >>> progress_line({"event": "progress"} | numbers)
    '30/90 frames, 1.5 frames/s, 40.0 s left, limited by model'
    """
    if event["event"] == "looking":
        return f"looked at {event['frames']} frames"
    if event["event"] == "fetching":
        return f"fetched {size(event['bytes'])} of {size(event['total'])}"
    total = f"/{event['total']}" if event.get("total") else ""
    parts = [f"{event['frames']}{total} frames", f"{event['fps']:.3g} frames/s"]
    if event.get("eta") is not None:
        parts.append(f"{duration(event['eta'])} left")
    if event.get("limiting"):
        parts.append(f"limited by {event['limiting']}")
    return ", ".join(parts)


@contextmanager
def reporter(*, as_json: bool = False, quiet: bool = False) -> Iterator[Report]:
    """The Report that suits the options and the place stderr goes to.

    With as_json an OasisError is reported as an event too, and leaves as the exit code alone.
    """
    if as_json:
        with _json_errors():
            yield _json_line
    elif quiet:
        yield silent
    elif sys.stderr.isatty():
        with Live() as live:
            yield live
    else:
        yield Lines()


@contextmanager
def _json_errors() -> Iterator[None]:
    from typer import Exit

    try:
        yield
    except OasisError as error:
        _json_line(
            {
                "event": "error",
                "message": str(error),
                "hint": error.hint,
                "exit_code": error.exit_code,
            }
        )
        raise Exit(error.exit_code) from error


def _json_line(event: Event) -> None:
    _to_stderr(to_json(event) + "\n")


class Lines:
    """Progress as lines of text, one every few seconds."""

    def __init__(self, write: Callable[[str], object] = _to_stderr) -> None:
        self._write = write
        self._printed = time.monotonic()

    def __call__(self, event: Event) -> None:
        """Print what is worth a line."""
        text = event.get("text")
        if event["event"] in MOVING:
            if time.monotonic() - self._printed < LINE_EVERY:
                return
            self._printed = time.monotonic()
            text = progress_line(event)
        if text:
            self._write(f"{visible(text)}\n")


class Live:
    """Progress as a bar at the foot of the terminal."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def _bar(self) -> "Progress":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn

        return Progress(
            BarColumn(),
            TextColumn("{task.fields[line]}"),
            console=Console(stderr=True, highlight=False, soft_wrap=True),
            transient=True,
        )

    def __call__(self, event: Event) -> None:
        """Move the bar, or print above it."""
        if event["event"] in MOVING:
            if self._progress is None:
                self._progress = self._bar()
                self._progress.start()
                self._task = self._progress.add_task("", total=None, line="")
            assert self._task is not None
            self._progress.update(
                self._task,
                total=event.get("total"),
                completed=event.get("frames", event.get("bytes")),
                line=progress_line(event),
            )
        elif text := event.get("text"):
            if event["event"] == "done":
                self.close()
            self._print(str(text))

    def _print(self, text: str) -> None:
        if self._progress is None:
            _to_stderr(f"{visible(text)}\n")
        else:
            self._progress.console.print(visible(text), markup=False)

    def close(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None

    def __enter__(self) -> "Live":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def table(title: str, columns: list[str], rows: list[list[str]]) -> None:
    """Print a table on stdout."""
    from rich.console import Console
    from rich.table import Table

    grid = Table(title=title or None, title_justify="left", box=None, pad_edge=False)
    for column in columns:
        grid.add_column(column, overflow="fold")
    for row in rows:
        grid.add_row(*(_plain(cell) for cell in row))
    Console(highlight=False).print(grid)


def _plain(text: str) -> str:
    return visible(text, keep="").replace("[", r"\[")


@contextmanager
def counting(quiet: bool) -> Iterator[Callable[[int], None]]:
    """Progress for commands that count frames and know no total."""
    began = time.monotonic()
    with reporter(quiet=quiet) as report:

        def tick(frames: int) -> None:
            fps = frames / max(1e-9, time.monotonic() - began)
            report({"event": "progress", "frames": frames, "fps": round(fps, 3), "total": None})

        yield tick
