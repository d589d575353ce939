"""A long job: look through the input once, render its segments wherever, join them.

    analyse -> manifest -> render the missing segments -> join
               ^ from here on, the same command continues after anything, kill -9 included

Who renders: this process, several (`workers`), or a Ray cluster (`cluster`). All of them call
`render`, so the result is the same.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path

from oasis_cli.checkpoints.format import FAITHFUL, is_look
from oasis_cli.checkpoints.registry import AUTO, content_hash, find, registry
from oasis_cli.errors import Interrupted, MediaError, UsageError
from oasis_cli.jobs.estimate import (
    check_space,
    estimate,
    has_several_gpus,
    processes_each,
    worth_starting,
)
from oasis_cli.jobs.job import (
    SHORTEST_SECONDS,
    Job,
    folder_for,
    identity,
    input_identity,
    locked,
    remove,
    runs,
    split,
)
from oasis_cli.jobs.manifest import MANIFEST
from oasis_cli.jobs.policy import Decision, Situation, decide, process_count
from oasis_cli.jobs.policy import JobOptions as JobOptions
from oasis_cli.jobs.processes import CannotStart, render_in_processes
from oasis_cli.jobs.render import render
from oasis_cli.media import captions as closed
from oasis_cli.media.input.reader import Reader
from oasis_cli.media.output.segments import inspect_segment, join, obstacle
from oasis_cli.pipeline.model_choice import ModelChoice
from oasis_cli.pipeline.plan import Options, Plan
from oasis_cli.pipeline.run import (
    PROGRESS_EVERY,
    ProgressMeter,
    Report,
    Result,
    claim,
    load,
    make_runner,
    run,
    with_cuts,
)
from oasis_cli.pipeline.scenes import CutDetector
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.runtime.backend import Model
from oasis_cli.runtime.devices import settle_precision

SEGMENT_SECONDS = 60.0
"""Work in one segment, about: what a kill costs at most."""

CAPTIONS = "captions"
"""Name of the file of closed captions in a job's folder."""

MOST_FRAMES = 1000
"""Frames in a segment at most."""


def carry_out(
    plan: Plan,
    jobs: JobOptions,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model] = load,
) -> Result:
    """Run a plan in one go or in segments, as the options and the expected time say.

    It is looked at and timed, `decide` decides, what it has to say is said, and then it is done.
    Raises MediaError at once where another run is writing the same target.
    """
    with claim(plan), job_to_go_on(plan, jobs) as job:
        now, runner = assess(with_job(plan, job), job, jobs, report, stop, get_model)
        decision = decide(now)
        for event in decision.say:
            report(event)
        if decision.spread:  # the workers have models of their own
            runner = None
            decision.plan.backend.release(decision.plan.device)
        if decision.segments:
            return run_segmented(decision, jobs, job, runner, report, stop, get_model)
        needs = decision.needs
        if needs is not None and needs.disk and not plan.output.is_pipe:
            check_space({Path(plan.target).parent: needs.disk})
        assert runner is not None
        return run(decision.plan, runner, report, stop)


@contextmanager
def job_to_go_on(plan: Plan, jobs: JobOptions) -> Iterator[Job | None]:
    """The job that a run goes on with, locked; None without one, or when it was to be forgotten.

    Raises MediaError where it cannot be read.
    """
    folder, forget = folder_for(plan.target, jobs.work_dir), jobs.resume is False
    if not plan.output.is_pipe and (folder if forget else folder / MANIFEST).exists():
        with locked(folder):
            if forget:
                remove(folder)
            elif (job := Job.load(folder)) is not None:
                yield job
                return
    yield None


def assess(
    plan: Plan,
    job: Job | None,
    jobs: JobOptions,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model],
) -> tuple[Situation, WindowRunner | None]:
    """What there is to know before a run: what its first window tells, and how much is left.

    job: the one that the plan goes on with. Returns the window's runner too; None where nothing is
    rendered here.
    """
    why = obstacle(plan.output, plan.info)
    now = Situation(
        plan=plan, wishes=jobs, obstacle=why, begun=job is not None, left=share_left(job)
    )
    if not why and jobs.engine == "ray":
        return now, None  # a cluster's machines cannot be timed from here
    runner = make_runner(plan, get_model(plan), report)
    undecided = jobs.workers is None and has_several_gpus(plan)
    needs = estimate(plan, runner, stop, thorough=undecided) if now.left else None
    if needs is None or jobs.workers is not None:
        return replace(now, needs=needs), runner
    pay = worth_starting(plan, needs, now.left)
    used = plan if pay else replace(plan, devices=plan.devices[:1])
    each = processes_each(used, needs, now.left)
    return replace(now, needs=needs, others_pay=pay, each=each), runner


def waiting_job(target: str, jobs: JobOptions) -> Job | None:
    """The job that was begun for a target, where a run is to go on with it; None without one.

    Raises MediaError where it cannot be read.
    """
    if target == "-" or jobs.resume is False:
        return None
    return Job.load(folder_for(target, jobs.work_dir))


def left_to_job(options: Options, job: Job | None) -> tuple[Options, ModelChoice | None]:
    """What a job that was begun settles of what the options leave open: the options with its look,
    and its model; None where that is not open, there is no job, or its model has no name."""
    if job is None:
        return options, None
    if options.look == AUTO and options.decoder == "auto":
        options = replace(options, look=job.decoder if is_look(job.decoder) else FAITHFUL)
    known = (entry.name for entry in registry().values() if entry.sha256 == job.weights)
    name = next(known, None) if options.model == AUTO else None
    return options, ModelChoice(name, "this run was begun with it") if name else None


def with_job(plan: Plan, job: Job | None) -> Plan:
    """A plan that goes on as the job began that waits for it.

    Raises OasisError for a job that these options do not continue.
    """
    if job is None:
        return plan
    plan = as_begun(plan, job)
    job.check(identity(plan, weights_hash(plan)))
    if not plan.options.elsewhere:
        settle_precision(plan.precision, plan.device)
    return plan


def as_begun(plan: Plan, job: Job) -> Plan:
    """A plan that goes on as its job began, where nobody asks for something else: the memory that
    is free today, or another machine's CPU, changes no picture."""
    options, left_open = plan.options, plan.options.left_open
    if "precision" in left_open:
        plan = replace(plan, precision=job.precision)
    if "decoder" in left_open and not is_look(job.decoder):  # a look must be asked for
        plan = replace(plan, decoder=job.decoder)
    if "windows" in left_open:
        plan = replace(plan, options=replace(options, windows=job.windows))
    return plan


def share_left(job: Job | None) -> float:
    """How much of a job is missing, from 0 to 1; 1 when there is none."""
    if job is None or not len(job.timeline):
        return 1.0
    return sum(segment.frames for segment in job.missing()) / len(job.timeline)


def run_segmented(
    decision: Decision,
    wishes: JobOptions,
    job: Job | None,
    runner: WindowRunner | None,
    report: Report,
    stop: Stop,
    get_model: Callable[[Plan], Model],
) -> Result:
    """Make a job, or go on with one that is locked. The folder goes away when the target is there.

    wishes: what was asked for, where the decision's processes cannot start.
    """
    plan = decision.plan
    folder = folder_for(plan.target, wishes.work_dir)
    began = time.monotonic()
    with locked(folder) if job is None else nullcontext():
        job = _begun(folder, decision, job, report, stop)
        meter = ProgressMeter(plan, report, total=len(job.timeline), done=_frames_done(job))
        try:
            limiting = _render_missing(job, plan, decision.jobs, runner, meter, report, stop)
        except CannotStart as error:  # a card may take one process only
            if not decision.unasked:
                raise
            report({"event": "note", "text": f"{error}: going on with fewer processes"})
            meter.frames = _frames_done(job)
            if process_count(plan, wishes) == 1:
                runner = make_runner(plan, get_model(plan), report)
            limiting = _render_missing(job, plan, wishes, runner, meter, report, stop)
        _check_segments(job)
        stop.check()
        paths = [job.path(s) for s in job.segments]
        captions = closed.load_captions(folder / CAPTIONS)
        warnings = join(plan.output, plan.info, job.timeline, paths, captions,
                        lambda: job.check_input(input_identity(plan.info)))  # fmt: skip
        meter.frames = len(job.timeline)
        result = meter.done([*job.manifest["warnings"], *warnings], limiting)
        remove(folder)
    return replace(result, seconds=round(time.monotonic() - began, 3))


def _begun(folder: Path, decision: Decision, job: Job | None, report: Report, stop: Stop) -> Job:
    """The job, or a new one where there is none. Raises MediaError where disks are too small."""
    plan, needs = decision.plan, decision.needs
    disk = (needs.disk if needs else plan.disk) or 0
    space = {folder: round(disk * share_left(job)), Path(plan.target).parent: disk}
    if job is not None:
        done = f"{len(job.segments) - len(job.missing())} of {len(job.segments)} segments"
        report({"event": "note", "text": f"continuing: {done} are there"})
        check_space(space)
        job.forget_parts()
        return job
    remove(folder)  # segments that another job left are not this one's
    try:
        check_space(space)
        pace = needs.frame_seconds if needs else None
        return analyse(folder, plan, decision.jobs, pace, report, stop)
    except BaseException:
        remove(folder)  # nothing is lost: nothing was begun
        raise


def _frames_done(job: Job) -> int:
    missing = {segment.start for segment in job.missing()}
    return sum(s.frames for s in job.segments if s.start not in missing)


def _render_missing(
    job: Job,
    plan: Plan,
    jobs: JobOptions,
    runner: WindowRunner | None,
    meter: ProgressMeter,
    report: Report,
    stop: Stop,
) -> str:
    """Render it, wherever. Returns the limiting stage."""
    limiting = "model"
    try:
        if jobs.engine == "ray":
            from oasis_cli.jobs.cluster import render_on_cluster

            render_on_cluster(job, plan, jobs.address, meter, report, stop)
        elif (processes := process_count(plan, jobs)) > 1:
            render_in_processes(job, plan, processes, meter, report, stop)
        else:
            assert runner is not None
            for segments in runs(job.missing()):
                limiting = render(job, plan, segments, runner, stop, meter.tick)
    except Interrupted:
        kept = "the finished segments are kept: the same command continues"
        report({"event": "note", "text": kept})
        raise
    return limiting


def weights_hash(plan: Plan) -> str:
    """SHA-256 of the checkpoint."""
    return content_hash(find(plan.options.model))


def analyse(
    folder: Path,
    plan: Plan,
    jobs: JobOptions,
    seconds_per_frame: float | None,
    report: Report,
    stop: Stop,
) -> Job:
    """Decode the input once for its exact times and scene cuts, and write the manifest.

    Raises MediaError when the input becomes another one meanwhile.
    """
    now = identity(plan, weights_hash(plan))
    report({"event": "note", "text": "looking through the input: frame times and scene cuts"})
    scenes, last = [0], time.monotonic()
    with Reader(plan.info, plan.options.read, keep_captions=plan.output.captions) as reader:
        for seen in with_cuts(reader, CutDetector(), plan):
            stop.check()
            if seen.cut and seen.frame.index:
                scenes.append(seen.frame.index)
            if time.monotonic() - last > PROGRESS_EVERY:
                last = time.monotonic()
                report({"event": "looking", "frames": seen.frame.index + 1})
    closed.save_captions(folder / CAPTIONS, reader.relay.captions)
    found, total = reader.report, len(reader.timeline)
    shortest = max(2 * plan.options.windows.frames, round(SHORTEST_SECONDS * plan.output.rate))
    goal = jobs.segment_frames or _goal(
        total, seconds_per_frame, process_count(plan, jobs), shortest
    )
    if goal < 1:
        raise UsageError("a segment has at least one frame")
    job = Job.create(
        folder,
        plan,
        now,
        timeline=reader.timeline,
        scenes=scenes,
        segments=split(scenes, total, goal, min(shortest, goal)),
        seekable=not (
            found.bad_packets
            or found.corrupt_frames
            or found.size_changes
            or found.repaired_times
            or found.interlaced_frames
            or plan.options.read.deinterlace == "bob"
        ),
        warnings=list(found.warnings),
    )
    job.check_input(input_identity(plan.info))
    return job


def _goal(total: int, seconds_per_frame: float | None, count: int, shortest: int) -> int:
    """Frames in a segment: about a minute of work, and enough segments for all workers."""
    by_time = SEGMENT_SECONDS / seconds_per_frame if seconds_per_frame else MOST_FRAMES
    share = total / (4 * count) if count > 1 else MOST_FRAMES
    return max(shortest, min(MOST_FRAMES, round(by_time), round(share)))


def _check_segments(job: Job) -> None:
    """Every segment must hold its frames and fit the others; a wrong one is deleted."""
    facts = {s: inspect_segment(job.path(s)) for s in job.segments}
    setups = [f.setup for f in facts.values() if f is not None]
    usual = max(set(setups), key=setups.count, default="")
    for segment, found in facts.items():
        if found is None or found.frames != segment.frames or found.setup != usual:
            job.path(segment).unlink(missing_ok=True)
            raise MediaError(
                f"{job.path(segment)} is damaged and was deleted",
                hint="run the same command again: it is rendered anew, the others are kept",
            )
