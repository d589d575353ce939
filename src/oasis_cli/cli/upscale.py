"""The command `oasis upscale`, and its previews."""

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from oasis_cli.cli import console, options
from oasis_cli.cli import jobs as cli_jobs
from oasis_cli.cli.common_options import RunCommand
from oasis_cli.cli.options import RUN, option
from oasis_cli.errors import UsageError
from oasis_cli.runtime.driver import first_cuda, wake

if TYPE_CHECKING:
    from oasis_cli.jobs.execute import JobOptions
    from oasis_cli.pipeline.plan import Options, Plan

MIDDLE = "middle"
"""What --preview without a TIME stands for."""


@dataclass(kw_only=True)
class Upscale(RunCommand):
    """Enlarge SOURCE and write it to TARGET with its sound, subtitles and timing.

    A folder of videos as SOURCE is what `oasis batch` is for: it is done the same way.
    """

    source: Annotated[
        str, typer.Argument(help="A video, a folder or pattern of pictures, or - for a pipe.")
    ]
    target: Annotated[str, typer.Argument(help="The file to write, or - for a pipe.")]
    dry_run: Annotated[bool, option(RUN, "Print the plan and stop.", "--dry-run")] = False
    preview: Annotated[
        str | None,
        option(
            RUN,
            "Make one window around TIME only, or the middle: TARGET, as .png, shows before and "
            "after.",
            metavar="[TIME]",
        ),
    ] = None
    seams: Annotated[
        bool,
        option(
            RUN,
            "Then print the jump at each window border against the change beside it.",
            "--seams",
        ),
    ] = False
    as_json: options.Json = False
    quiet: options.Quiet = False

    def run(self) -> None:
        """A file, a preview of it, or a folder."""
        if self.preview is None and cli_jobs.is_folder_of_videos(self.source):
            self._run_folder()
            return
        number = first_cuda(self.device) if self.engine == "local" else None
        if number is not None:
            wake(number)
        wanted, jobs = self.to_options(), self.to_jobs()  # loads PyTorch
        if number is not None:
            from oasis_cli.model.kernels import ahead

            ahead.begin(number, self.precision)
        if self.preview is not None:
            self._refuse_beside("--preview")
            self._show_preview(wanted, self.preview)
        else:
            self._run_file(wanted, jobs)

    def _run_folder(self) -> None:
        from oasis_cli.jobs.ahead import started_ahead

        with started_ahead():
            wanted, jobs = self.to_options(), self.to_jobs()
            self._refuse_beside("a folder")
            folders = Path(self.source), Path(self.target)
            cli_jobs.run_folder(*folders, wanted, jobs, self.as_json, self.quiet)

    def _refuse_beside(self, what: str) -> None:
        """Raise UsageError for options that only one whole file knows."""
        for name, given in (("--dry-run", self.dry_run), ("--seams", self.seams)):
            if given:
                raise UsageError(
                    f"{name} and {what} do not go together", hint=f"{name} is for one video file"
                )

    def _run_file(self, wanted: "Options", jobs: "JobOptions") -> None:
        from oasis_cli.cli.formatting import job_lines, notes, plan_lines, result_line
        from oasis_cli.jobs.estimate import with_advice
        from oasis_cli.jobs.execute import share_left, waiting_job
        from oasis_cli.pipeline.threads import stop_on_signals
        from oasis_cli.upscaler import Upscaler

        with (
            console.reporter(as_json=self.as_json, quiet=self.quiet) as report,
            stop_on_signals() as stop,
        ):
            upscaler = Upscaler(wanted, report=report)
            with stop.at_once(hard=bool(wanted.raw.protocols)):
                plan = upscaler.plan(self.source, self.target, jobs)
            if self.dry_run:
                needs = None if wanted.elsewhere else upscaler.estimate(plan, stop=stop)
                job = waiting_job(plan.target, jobs)
                plan = with_advice(plan, needs) if needs and job is None else plan
                if self.as_json:
                    about = {"estimate": needs and asdict(needs), "job": job and job.to_json()}
                    console.say(console.to_json(plan.to_json() | about))
                else:
                    lines = plan_lines(plan, needs, share_left(job)) + job_lines(plan, jobs, job)
                    console.say("\n".join(lines))
                return
            for line in notes(plan):
                report({"event": "note", "text": line})
            result = upscaler.run(plan, jobs, stop=stop)
            report(result.to_json() | {"text": result_line(result)})
            if self.seams:
                print_seams(plan)

    def _show_preview(self, wanted: "Options", at: str) -> None:
        """Write a preview, and show it where the terminal can."""
        from oasis_cli.cli import terminal
        from oasis_cli.upscaler import Upscaler

        moment = None if at == MIDDLE else options.parse_time(at)
        with console.reporter(as_json=self.as_json, quiet=self.quiet) as report:
            made = Upscaler(wanted, report=report).preview(self.source, self.target, moment)
            text = f"{made.target}: before and after at {made.seconds:.2f} s"
            if self.as_json:
                done = {"event": "done", "target": str(made.target), "seconds": made.seconds}
                report(done | {"text": text})
                return
        shown = sys.stdout.isatty() and not self.quiet
        how = terminal.protocol(os.environ) if shown else None
        if how is not None:
            sys.stdout.flush()
            sys.stdout.buffer.write(terminal.encode(how, made.picture.numpy(), made.png))
        if not self.quiet:
            console.say(text)


def print_seams(plan: "Plan") -> None:
    """Measure the seams of the run that just ended."""
    from oasis_cli.evaluation.preview import seam_lines, seams

    if plan.output.is_pipe or plan.output.muxer == "images" or plan.info.is_pipe:
        raise UsageError("--seams needs files to read again", hint="write a video file")
    console.say("\n".join(seam_lines(seams(plan))))


class OptionalTime(TyperCommand):
    """A command whose --preview may be followed by a TIME or not.

    Typer 0.29 brings its own Click, whose options always take a value, and has no other public
    place for this than the one below.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """As Typer, with the middle for a --preview that names no time."""
        return super().parse_args(ctx, list(with_times(args)))


def with_times(args: Sequence[str]) -> Iterator[str]:
    """The words of a command line, with a time behind each --preview that has none.

    What is no time is a file or another option.

    >>> " ".join(with_times("--preview in.mp4 out.png --scale 2".split()))
    '--preview middle in.mp4 out.png --scale 2'
    >>> " ".join(with_times("in.mp4 out.png --preview 1:30".split()))
    'in.mp4 out.png --preview 1:30'
    """
    ends = args.index("--") if "--" in args else len(args)  # behind it, all are files
    for word, following in zip_longest(args[:ends], args[1:ends], fillvalue=""):
        yield word
        if word == "--preview" and following != MIDDLE and not following[:1].isdigit():
            yield MIDDLE
    yield from args[ends:]


def register(app: Any) -> None:
    """Add the command of this file."""
    app.command("upscale", cls=OptionalTime)(Upscale)
