"""Sentences about plans and results, for `oasis upscale` and `--dry-run`."""

from oasis_cli.checkpoints.format import FAITHFUL
from oasis_cli.cli.console import duration, size, visible
from oasis_cli.jobs.estimate import Estimate
from oasis_cli.jobs.execute import JobOptions, share_left
from oasis_cli.jobs.job import Job, folder_for
from oasis_cli.media.info import rate_text
from oasis_cli.media.output.segments import obstacle
from oasis_cli.pipeline.plan import Plan
from oasis_cli.pipeline.run import Result


def notes(plan: Plan) -> list[str]:
    """What the user should know before a run starts."""
    lines = [f"note: {note}" for note in (*plan.notes, *plan.output.notes)]
    return lines + [f"lost: {loss}" for loss in plan.output.losses]


def plan_lines(plan: Plan, needs: Estimate | None = None, left: float = 1) -> list[str]:
    """What a run will do. needs: what its first window told. left: how much is to be made."""
    output, options = plan.output, plan.options
    video = plan.info.video
    windows = options.windows
    decoder = f" with its {plan.decoder} decoder" if options.decoder != "auto" else ""
    look = f", the {options.look} look" if options.look != FAITHFUL else ""
    chosen = [f"auto: {options.model} ({plan.model_why})"] if plan.model_why else []
    tiles = f", tiles of {options.tile} pixels" if options.tile else ""
    frames = f"about {plan.frames}" if plan.frames else "an unknown number of"
    lines = [
        f"input: {plan.source} ({plan.info.format}), {video.codec} {video.pix_fmt} "
        f"{video.width}x{video.height}, {rate_text(video.rate)} frames/s, {frames} frames",
        f"model: {options.model}{decoder}{look} on {', '.join(plan.devices)} in {plan.precision}, "
        f"windows of {windows.frames} frames overlapping by {windows.overlap}{tiles}",
        *chosen,
        *[line for line in output.lines() if not line.startswith(("note:", "lost:"))],
        f"memory: about {size(plan.memory)} beside the model",
    ]
    disk = needs.disk if needs else plan.disk
    if disk is not None:
        lines.append(f"disk: about {size(disk)}, twice that while segments are joined")
    if why := obstacle(plan.output, plan.info):
        lines.append(f"resume: not possible, a run that is killed begins anew: {why}")
    if needs is not None:
        rest = " for what is left" if left < 1 else ""
        lines.append(f"time: about {duration(needs.seconds * left)}{rest}, by the first window")
    return [visible(line, keep="") for line in lines + notes(plan)]


def job_lines(plan: Plan, jobs: JobOptions, job: Job | None) -> list[str]:
    """What becomes of the unfinished job of a target. job: the one that the run goes on with."""
    folder = folder_for(plan.target, jobs.work_dir)
    if job is not None:
        there = len(job.segments) - len(job.missing())
        what = f"goes on at {1 - share_left(job):.0%}: {there} of {len(job.segments)} segments are "
        return [visible(f"job: {what}in {folder}", keep="")]
    if jobs.resume is False and not plan.output.is_pipe and folder.exists():
        return [visible(f"job: starts over, and deletes the unfinished one in {folder}", keep="")]
    return []


def result_line(result: Result) -> str:
    """One line when a run is over, and one for each thing that was wrong with the input."""
    width, height = result.size
    done = (
        f"{result.target}: {result.frames} frames of {width}x{height} in "
        f"{duration(result.seconds)} ({result.fps:.3g} frames/s, limited by {result.limiting})"
    )
    return "\n".join([done, *(f"warning: {text}" for text in result.warnings)])
