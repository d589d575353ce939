import io
import json

import pytest
import typer

from oasis_cli.cli import console
from oasis_cli.cli.console import Lines, Live, reporter
from oasis_cli.errors import MediaError

PROGRESS = {
    "event": "progress",
    "frames": 5,
    "total": 9,
    "fps": 2.0,
    "eta": 2.0,
    "limiting": "model",
}


def test_lines_come_now_and_then(monkeypatch):
    stream, now = io.StringIO(), [0.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    lines = Lines(stream.write)
    for second in range(25):
        now[0] = float(second)
        lines(PROGRESS | {"frames": second})
    lines({"event": "done", "text": "all there"})
    assert stream.getvalue().splitlines() == [
        "10/9 frames, 2 frames/s, 2.0 s left, limited by model",
        "20/9 frames, 2 frames/s, 2.0 s left, limited by model",
        "all there",
    ]


def test_events_without_words_print_nothing():
    stream = io.StringIO()
    Lines(stream.write)({"event": "worker", "number": 1, "pid": 2})
    assert stream.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away(capsys):
    with Live() as live:
        live({"event": "note", "text": "note: before [bold]"})
        live({"event": "looking", "frames": 3})
        live(PROGRESS)
        live({"event": "note", "text": "note: during [bold]"})
        live({"event": "done", "text": "all there"})
    shown = capsys.readouterr()
    assert shown.out == ""
    for words in ("note: before [bold]", "note: during [bold]", "all there"):
        assert words in shown.err


def test_json_reports_errors_as_events(capsys):
    with pytest.raises(typer.Exit) as caught, reporter(as_json=True) as report:
        report(PROGRESS)
        raise MediaError("no", hint="try yes")
    assert caught.value.exit_code == 1
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert lines[0] == PROGRESS
    assert lines[1] == {"event": "error", "message": "no", "hint": "try yes", "exit_code": 1}


def test_quiet_drops_everything(capsys):
    with reporter(quiet=True) as report:
        report(PROGRESS)
        report({"event": "done", "text": "done"})
    assert capsys.readouterr() == ("", "")


def test_a_table_shows_brackets_as_they_are(capsys):
    console.table("", ["name"], [["clip [1080p].mkv"]])
    assert "clip [1080p].mkv" in capsys.readouterr().out
