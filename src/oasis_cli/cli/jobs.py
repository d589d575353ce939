"""The commands for much work: `oasis batch` and `oasis jobs`."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from oasis_cli.cli import console
from oasis_cli.cli import options as o
from oasis_cli.cli.common_options import RunCommand
from oasis_cli.cli.options import option
from oasis_cli.errors import OasisError, UsageError

if TYPE_CHECKING:
    from oasis_cli.jobs.execute import JobOptions
    from oasis_cli.jobs.items import BatchOptions, FileResult
    from oasis_cli.jobs.job import Job
    from oasis_cli.pipeline.plan import Options

FILES = "Files"


@dataclass(kw_only=True)
class Batch(RunCommand):
    """Enlarge every video in SOURCE into TARGET; skip what is done already.

    One bad file does not stop the rest; the exit code is 1 when any failed.
    """

    source: Annotated[Path, typer.Argument(help="A folder of videos.")]
    target: Annotated[Path, typer.Argument(help="The folder to write to.")]
    recursive: Annotated[bool, option(FILES, "Go into folders.", "--recursive", "-r")] = False
    include: Annotated[list[str] | None, option(FILES, "Only names like this: *.avi")] = None
    exclude: Annotated[list[str] | None, option(FILES, "No names like this.")] = None
    suffix: Annotated[str, option(FILES, "Added to each name, such as -x4.")] = ""
    extension: Annotated[str | None, option(FILES, "Of all outputs, such as .mkv.")] = None
    shard: Annotated[str, option(FILES, "Every N-th file, from the I-th on.", metavar="I/N")] = (
        "1/1"
    )
    parallel: Annotated[int, option(FILES, "Files at a time.", "--jobs", "-j", min=1)] = 1
    watch: Annotated[bool, option(FILES, "Go on: take what appears.", "--watch")] = False
    settle: Annotated[float, option(FILES, "Watching: seconds a file must rest.", min=0)] = 3.0
    report_file: Annotated[Path | None, option(FILES, "Write the results as JSON.", "--report")] = (
        None
    )
    as_json: o.Json = False
    quiet: o.Quiet = False

    def run(self) -> None:
        """All files of the folder."""
        from oasis_cli.jobs.ahead import started_ahead

        with started_ahead():
            self._run()

    def _run(self) -> None:
        from oasis_cli.jobs.folders import FolderOptions, parse_shard
        from oasis_cli.jobs.items import BatchOptions

        if self.watch and self.report_file is not None:
            raise UsageError(
                "--report is written at the end, and --watch has none",
                hint="--json tells what became of each file, at once",
            )
        wanted, jobs = self.to_options(), self.to_jobs()
        folders = FolderOptions(
            recursive=self.recursive,
            include=tuple(self.include or ()),
            exclude=tuple(self.exclude or ()),
            suffix=self.suffix,
            extension=_extension(self.extension),
            shard=parse_shard(self.shard),
        )
        everything = BatchOptions(
            folders=folders,
            upscale=wanted,
            jobs=jobs,
            parallel=self.parallel,
            settle=self.settle,
            apart=True,
        )
        _run(self.source, self.target, everything, watch=self.watch,
             report_file=self.report_file, as_json=self.as_json, quiet=self.quiet)  # fmt: skip


def _extension(text: str | None) -> str | None:
    if text is None:
        return None
    if not text.strip(".").isalnum():
        raise UsageError(f"{text!r} is not an extension", hint="write .mkv or .mp4")
    return "." + text.strip(".").lower()


def is_folder_of_videos(source: str) -> bool:
    """Whether a SOURCE means many videos; a folder of pictures is one video."""
    path = Path(source)
    if source == "-" or not os.path.isdir(source):
        return False
    from oasis_cli.jobs.folders import VIDEOS

    return any(p.suffix.lower() in VIDEOS and not p.name.startswith(".") for p in path.iterdir())


def run_folder(
    source: Path, target: Path, options: "Options", jobs: "JobOptions", as_json: bool, quiet: bool
) -> None:
    """`oasis upscale FOLDER FOLDER`."""
    from oasis_cli.jobs.folders import VIDEOS, FolderOptions
    from oasis_cli.jobs.items import BatchOptions

    if target.suffix.lower() in VIDEOS and not target.is_dir():
        raise UsageError(
            f"{source} is a folder of videos, and {target} is one file",
            hint="name a folder to write to, or one video to read",
        )
    everything = BatchOptions(folders=FolderOptions(), upscale=options, jobs=jobs, apart=True)
    _run(source, target, everything, watch=False, report_file=None, as_json=as_json, quiet=quiet)


def _run(
    source: Path,
    target: Path,
    options: "BatchOptions",
    *,
    watch: bool,
    report_file: Path | None,
    as_json: bool,
    quiet: bool,
) -> None:
    from oasis_cli.jobs import batch as work
    from oasis_cli.media.atomic import check_target, write_output
    from oasis_cli.pipeline.threads import stop_on_signals

    if report_file is not None:
        check_target(report_file, "", overwrite=True)

    with console.reporter(as_json=as_json, quiet=quiet) as report, stop_on_signals() as stop:
        if watch:
            work.watch(source, target, options, report, stop)
        results = work.batch(source, target, options, report, stop)
        if report_file is not None:
            facts = console.to_json([result.to_json() for result in results])
            write_output(report_file, facts.encode())
        if not quiet and not as_json:
            _summary(results)
        work.check_results(results)


def _summary(results: "list[FileResult]") -> None:
    failed = [r for r in results if r.status == "failed"]
    counts = {s: sum(r.status == s for r in results) for s in ("done", "skipped", "failed")}
    if failed:
        console.table("", ["failed", "why"], [[r.source, r.error] for r in failed])
    frames, seconds = sum(r.frames for r in results), sum(r.seconds for r in results)
    words = ", ".join(f"{count} {status}" for status, count in counts.items())
    console.say(f"{words}; {frames} frames in {console.duration(seconds)}")


jobs_app = typer.Typer(no_args_is_help=True, help="Unfinished long jobs: list, show, clean.")

Place = Annotated[
    Path, typer.Argument(help="A folder with targets, a --work-dir, a target or a job's folder.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _jobs(place: Path) -> "tuple[list[Job], dict[Path, OasisError]]":
    """The jobs at a place, and what is wrong with those that cannot be read; folders that hold
    none yet are left out."""
    from oasis_cli.jobs.job import Job

    folders = _folders(place)
    if not folders and not place.is_dir():
        raise UsageError(
            f"there is no job at {place}", hint="`oasis jobs list FOLDER` shows those in a folder"
        )
    jobs, bad = [], {}
    for folder in folders:
        try:
            jobs.append(Job.load(folder))
        except OasisError as error:
            bad[folder] = error
    return [job for job in jobs if job is not None], bad


def _folders(place: Path) -> list[Path]:
    from oasis_cli.jobs.job import find_jobs, folder_for

    if place.is_dir():
        return find_jobs(place)
    folder = folder_for(str(place), None)
    return [folder] if folder.is_dir() else []


@jobs_app.command("list")
def jobs_list(place: Place = Path("."), as_json: AsJson = False) -> None:
    """List the unfinished jobs in a folder."""
    from oasis_cli.media.atomic import leftovers

    jobs, bad = _jobs(place)
    found = [job.to_json() for job in jobs]
    if as_json:
        wrong = [{"folder": str(folder), "error": str(error)} for folder, error in bad.items()]
        console.say(console.to_json(found + wrong))
        return
    for error in bad.values():
        typer.echo(console.visible(f"note: {error}"), err=True)
    if place.is_dir() and (parts := leftovers(place)):
        typer.echo(
            f"note: {len(parts)} files that runs are writing, or left when they were killed: "
            "`oasis jobs clean` removes what nobody writes",
            err=True,
        )
    if not found:
        console.say(f"no unfinished jobs in {place}")
        return
    rows = [
        [
            job["target"],
            f"{job['frames_done']}/{job['frames']}",
            f"{job['segments_done']}/{job['segments']}",
            console.size(job["bytes"]),
            "running" if job["running"] else "stopped",
        ]
        for job in found
    ]
    console.table("", ["target", "frames", "segments", "size", "state"], rows)


@jobs_app.command("show")
def jobs_show(place: Place, as_json: AsJson = False) -> None:
    """Show one job: what it makes, from what, and how far it is."""
    jobs, bad = _jobs(place)
    if bad and not jobs:
        raise next(iter(bad.values()))
    if len(jobs) != 1:
        raise UsageError(f"{place} has {len(jobs)} jobs", hint="name one target or job folder")
    about = jobs[0].to_json()
    if as_json:
        console.say(console.to_json(about | {"identity": jobs[0].manifest["identity"]}))
        return
    for key, value in about.items():
        console.say(
            f"{key.replace('_', ' '):14} {console.size(value) if key == 'bytes' else value}"
        )
    missing = [f"{s.start}-{s.stop}" for s in jobs[0].missing()]
    console.say(f"{'missing':14} {', '.join(missing) or 'nothing: the next run joins it'}")


@jobs_app.command("clean")
def jobs_clean(place: Place) -> None:
    """Delete the finished segments of jobs that nobody works on, and half-written files that runs
    left when they were killed."""
    from oasis_cli.jobs.job import Busy, locked, remove
    from oasis_cli.media.atomic import mark, remove_leftovers

    folders = _folders(place)
    for folder in folders:
        try:
            with locked(folder):
                remove(folder)
            console.say(f"{folder}: removed")
        except Busy:
            console.say(f"{folder}: running, left alone")
    inside, only = (place, None) if place.is_dir() else (place.parent, mark(place))
    try:
        parts = remove_leftovers(inside, only) if inside.is_dir() else []
    except OSError as error:
        raise OasisError(f"{inside} cannot be cleaned: {error.strerror or error}") from error
    for part, gone in parts:
        console.say(f"{part}: {'removed' if gone else 'running, left alone'}")
    if not folders and not parts:
        console.say(f"no unfinished jobs at {place}")


def register(app: Any) -> None:
    """Add the commands of this file."""
    app.command("batch")(Batch)
    app.add_typer(jobs_app, name="jobs")
