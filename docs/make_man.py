"""Print a manual page of every command, from the options' own help: python docs/make_man.py"""

import re
from typing import Any

import typer

from oasis_cli import __version__
from oasis_cli.cli.main import app


def escape(text: str) -> str:
    """Plain text for troff."""
    text = re.sub(r"\s+", " ", text.replace("\\", r"\e")).strip().replace("-", r"\-")
    return r"\&" + text if text.startswith((".", "'")) else text


def option_lines(parameter: Any) -> list[str]:
    """One option or argument."""
    if parameter.param_type_name == "argument":
        name = rf"\fI{escape(parameter.name.upper())}\fR"
    else:
        flags = ", ".join(rf"\fB{escape(flag)}\fR" for flag in parameter.opts)
        kind = getattr(parameter.type_descriptor.annotation, "__name__", "value")
        takes = "" if parameter.is_flag else parameter.metavar or kind.upper()
        name = f"{flags} {escape(takes)}".strip()
    about = getattr(parameter, "help", "") or ""
    default = parameter.default
    shown = default not in (None, False, "", ()) and not callable(default)
    return [".TP", name, escape(about + (f" Default: {default}." if shown else ""))]


def command_lines(name: str, command: Any) -> list[str]:
    """A command and, for a group, everything in it."""
    lines = [f".SS {escape(name)}", escape(command.help or "")]
    for parameter in command.params:
        if not getattr(parameter, "hidden", False):
            lines += option_lines(parameter)
    for child, found in getattr(command, "commands", {}).items():
        lines += command_lines(f"{name} {child}", found)
    return lines


def page() -> str:
    """The whole page, troff with the man macros."""
    root: Any = typer.main.get_command(app)
    lines = [
        f'.TH OASIS 1 "" "oasis {__version__}" "User Commands"',
        ".SH NAME",
        r"oasis \- make video sharper and larger",
        ".SH SYNOPSIS",
        r".B oasis",
        r"\fICOMMAND\fR [\fIOPTIONS\fR] ...",
        ".SH DESCRIPTION",
        escape(root.help or ""),
        ".SH COMMANDS",
    ]
    for name, command in root.commands.items():
        lines += command_lines(f"oasis {name}", command)
    lines += [
        ".SH EXIT STATUS",
        "0 done; 1 failed; 2 wrong usage; 130 or 143 interrupted by a signal; 141 the reader of a",
        "pipe went away.",
        ".SH SHELL COMPLETION",
        r".B oasis \-\-install\-completion",
    ]
    return "\n".join(line for line in lines if line) + "\n"


if __name__ == "__main__":
    print(page(), end="")
