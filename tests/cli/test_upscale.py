"""`--preview`, whose time may be left out."""

import pytest
from toys import invoke

from oasis_cli.cli.upscale import Upscale


def upscale(*words):
    return invoke("upscale", *words)


@pytest.mark.parametrize(
    ("words", "at"),
    [
        ("in out --preview", "middle"),
        ("in out --preview -y", "middle"),
        ("--preview in out", "middle"),
        ("in --preview --scale 2 out", "middle"),
        ("in out --preview 1:30", "1:30"),
        ("--preview 5 in out", "5"),
        ("in out --preview=3", "3"),
        ("in out", None),
        ("--preview -- in out", "middle"),
        ("-y -- --preview out", None),
    ],
)
def test_a_preview_without_a_time_is_of_the_middle(words, at, monkeypatch):
    seen = []
    monkeypatch.setattr(Upscale, "run", lambda command: seen.append(command))
    result = upscale(*words.split())
    assert result.exit_code == 0, result.output
    assert (seen[0].preview, seen[0].target) == (at, "out")
    assert seen[0].source == ("--preview" if words.startswith("-y") else "in")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("in out --preview 1h", "'1h' is not a time"),
        ("in out --preview soon", "unexpected extra argument"),
        ("in --preview", "missing argument 'target'"),
        ("in out --preview --wrong", "no such option: --wrong"),
    ],
)
def test_what_is_wrong_beside_a_preview_is_said(words, said):
    result = upscale(*words.split())
    assert result.exit_code == 2 and said in result.stderr
    assert "middle" not in result.stderr


def test_the_help_says_that_the_time_may_be_left_out():
    assert "--preview" in (text := upscale("--help").stdout) and "[TIME]" in text
