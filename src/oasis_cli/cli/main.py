"""The `oasis` command. Each command checks its options, makes one call, reports one result.

torch takes seconds to import; `--help` and a typo should not pay for it. So what needs torch or
PyAV is imported inside the commands.
"""

import atexit
import os
import re
import sys
import warnings
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from oasis_cli import __version__
from oasis_cli.cli import console
from oasis_cli.cli import evaluate as cli_look
from oasis_cli.cli import export as cli_export
from oasis_cli.cli import heads as cli_heads
from oasis_cli.cli import jobs as cli_jobs
from oasis_cli.cli import options as options_
from oasis_cli.cli import train as cli_train
from oasis_cli.cli import upscale as cli_upscale
from oasis_cli.cli import weights as cli_weights
from oasis_cli.errors import Interrupted, OasisError
from oasis_cli.runtime.processors import allowed, processors

EXIT_READER_GONE = 141

ENVIRONMENT = {
    # PyTorch's threads on a CPU wait for each other asleep. By default they spin, and hold up each
    # other, the encoder and whatever else wants a core: beside two busy programs on two cores a
    # start took 11 s instead of 2.
    "OMP_WAIT_POLICY": "PASSIVE",
    # An operator that a device lacks runs on the CPU.
    "PYTORCH_ENABLE_MPS_FALLBACK": "1",
    "PYTORCH_ENABLE_XPU_FALLBACK": "1",
}
"""Read when PyTorch is loaded, later. What a user has set stays."""


def environment() -> dict[str, str]:
    """`ENVIRONMENT`, and as many threads as a container's share of the processors is worth.

    PyTorch counts the processors it may run on. With a share of a few in many, its threads would
    use that up at once, and then all of them would stand still until the next share.
    """
    few = processors()
    return ENVIRONMENT | ({"OMP_NUM_THREADS": str(few)} if few < allowed() else {})


class Commands(TyperGroup):
    """Says in two lines what a user got wrong, with the right exit code; bugs keep a traceback."""

    def main(self, args: Sequence[str] | None = None, *rest: Any, **extra: Any) -> Any:
        """Run the command line and leave with its exit code."""
        extra["standalone_mode"] = False
        for name, value in environment().items():
            os.environ.setdefault(name, value)
        # Once for each operator: `oasis doctor` lists them, and a run has one note.
        warnings.filterwarnings("ignore", message=".*will fall ?back to run on the CPU")
        console.prepare_streams()
        try:
            code = super().main(args, *rest, **extra)
            sys.stdout.flush()
        except OasisError as error:
            if not isinstance(error, Interrupted):
                console.print_error(error)
            code = error.exit_code
        except TyperException as error:
            if sentence := _sentence(error):  # there is none when the help was printed instead
                console.print_error_text(sentence, _help_hint(error))
            code = error.exit_code
        except (_ReaderGone, BrokenPipeError):
            console.silence(1)
            code = EXIT_READER_GONE
        except OSError as error:
            if not console.stdout_fails():
                raise
            console.print_error_text(f"the standard output cannot be written: {error.strerror}")
            code = 1
        except (typer.Abort, KeyboardInterrupt):
            code = 130
        sys.exit(code if isinstance(code, int) else 0)

    def invoke(self, ctx: Any) -> Any:
        """Run what the command line names: a function, or a `Command` that it makes."""
        try:
            made = super().invoke(ctx)
            return made.run() if isinstance(made, options_.Command) else made
        except BrokenPipeError as error:  # Typer would end with 1: hide it under another name
            raise _ReaderGone from error


class _ReaderGone(Exception):
    """Whoever read our standard output went away."""


def _sentence(error: TyperException) -> str:
    """What the parser says, as a part of our sentence.

    >>> _sentence(TyperException("Invalid value for '--crf': Input should be a number, not so."))
    "invalid value for '--crf': it should be a number"
    """
    text = error.format_message().rstrip(".")
    text = re.sub(r": Input (should[^,]*).*", r": it \1", text)
    return text[:1].lower() + text[1:]


def _help_hint(error: TyperException) -> str:
    context = getattr(error, "ctx", None)
    return f"see `{context.command_path if context else 'oasis'} --help`"


def command() -> None:
    """What the shell calls: the command line. After `oasis upscale` the process ends at once.

    Python would first take apart all modules, PyTorch's thousands among them, and free what the
    system frees anyway: half a second, and a whole one on a busy machine.
    """
    codes: list[int] = []
    # What is registered first is called last, when threads have ended, temporary files are gone and
    # the traceback of a bug is printed. Where somebody was faster, who measures coverage or
    # debugs, Python ends the process in its own way.
    if sys.argv[1:2] == ["upscale"] and not atexit._ncallbacks():
        atexit.register(_end_with, codes)
    try:
        app()
    except SystemExit as ended:
        codes += [ended.code] if isinstance(ended.code, int) else []
        raise
    except Exception:
        codes.append(1)
        raise


def _end_with(codes: Sequence[int]) -> None:
    """End the process, if it is known how. An output that takes nothing is Python's to report."""
    with suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
        if codes:
            os._exit(codes[0])


app = typer.Typer(
    cls=Commands,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        console.say(f"oasis {__version__}")
        raise typer.Exit


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_version, is_eager=True)
    ] = False,
) -> None:
    """Make video sharper and larger; keep its sound, subtitles and timing."""


cli_upscale.register(app)


@app.command()
def info(
    source: Annotated[str, typer.Argument(help="A file, a folder of pictures, or - for a pipe.")],
    count: Annotated[bool, typer.Option("--count", help="Count the frames by decoding.")] = False,
    allow_protocols: options_.AllowProtocols = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is inside a video: streams, picture, colour, rotation, timing."""
    from oasis_cli.cli.info import count_frames, info_lines
    from oasis_cli.media.input.probe import probe
    from oasis_cli.media.input.raw import RawInput
    from oasis_cli.pipeline.threads import stop_on_signals

    raw = RawInput(protocols=options_.parse_names(allow_protocols))
    with stop_on_signals() as stop, stop.at_once(hard=True):
        about = probe(source, raw)
        frames = count_frames(about) if count else None
    if as_json:
        console.say(console.to_json(about.to_json() | ({"frames": frames} if count else {})))
    else:
        console.say("\n".join(info_lines(about, frames)))


@app.command()
def doctor(
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Check the installation: torch, devices, PyAV, encoders that really open, weights, and that
    each device makes the frames that the CPU makes."""
    from oasis_cli.cli.doctor import examine, to_report

    checks = examine()
    if as_json:
        console.say(console.to_json([check.to_dict() for check in checks]))
    else:
        for check in checks:
            console.say(f"{'ok  ' if check.ok else 'FAIL'}  {check.name}: {check.found}")
        if ask := to_report():
            console.say(ask)
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


cli_jobs.register(app)
cli_look.register(app)
cli_heads.register(app)
cli_export.register(app)
cli_train.register(app)
cli_weights.register(app)
