"""How to carry out a plan: decided from what is known by then, without touching anything.

estimate -> Situation -> decide -> Decision -> done by `execute`
"""

from dataclasses import dataclass, replace
from typing import Any, Literal

from oasis_cli.jobs.estimate import GAIN, WORTH_KNOWING, Estimate, estimate_event, faster_model
from oasis_cli.pipeline.plan import Plan

LONG_SECONDS = 600.0
"""A run expected to take longer is made of segments, so that nothing can lose it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobOptions:
    """How a run is kept safe and spread out. None of it changes the pictures."""

    resume: bool | None = None
    """True: use segments even for a short run. False: forget an unfinished job and start over.
    None: segments for long runs; continue what was begun."""
    work_dir: str | None = None
    """Where the segments go; beside the target when None."""
    workers: int | None = None
    """Processes that render; when None one for each device, or several where the encoder is slower
    than the model."""
    engine: Literal["local", "ray"] = "local"
    address: str = "auto"
    """Of the Ray cluster."""
    segment_frames: int | None = None
    """Frames in a segment; from the speed when None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Situation:
    """What is known before a run."""

    plan: Plan
    wishes: JobOptions
    obstacle: str = ""
    """Why the output cannot be made of segments; empty when it can."""
    begun: bool = False
    """Whether there is an unfinished job of this plan."""
    left: float = 1.0
    """How much of that job is missing, from 0 to 1."""
    needs: Estimate | None = None
    """For the whole plan; None when nothing could be timed."""
    others_pay: bool = True
    """Whether further devices save more time than they take to start."""
    each: int = 1
    """Processes that are worth it for each device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """How a run is carried out."""

    plan: Plan
    """With the devices that are used."""
    jobs: JobOptions
    """With the number of processes."""
    segments: bool
    """Whether the output is made of segments; else in one go, in this process."""
    spread: bool
    """Whether others render than this process: they load models of their own."""
    unasked: bool
    """Whether nobody asked for several processes: fewer will do where they cannot start."""
    needs: Estimate | None
    """For the whole plan, carried out in this way."""
    say: tuple[dict[str, Any], ...]
    """What the user should know, as events."""


def decide(now: Situation) -> Decision:
    """One go or segments, which devices, how many processes, and what to say about it.

    What was asked for is done. What was left open (`workers`) is chosen by the estimate: fewer
    devices where the others would start too late, more processes where the encoder is slow.
    """
    plan, jobs, needs = now.plan, now.wishes, now.needs
    say: list[dict[str, Any]] = []
    is_open = needs is not None and jobs.workers is None
    if is_open and not now.others_pay:
        say.append(_note(f"on {plan.device} alone: it will be done before others have started"))
        plan = replace(plan, devices=plan.devices[:1])
    asked_to_spread = process_count(plan, jobs) > 1 or jobs.engine == "ray"
    long = needs is not None and needs.seconds > LONG_SECONDS
    safe = bool(jobs.resume or now.begun or long)
    can = not now.obstacle
    unasked = can and safe and is_open and now.each > 1
    if unasked and needs is not None:
        jobs = replace(jobs, workers=now.each * len(plan.devices))
        needs = replace(needs, seconds=needs.seconds / GAIN)
        text = f"the encoder is slower than the model: {jobs.workers} processes encode at once"
        say.append(_note(text))
    if needs is not None and needs.seconds * now.left > WORTH_KNOWING:
        say.append(estimate_event(plan, needs, now.left))
        if not now.begun and (advice := faster_model(plan, needs)):
            say.append(_note(f"note: {advice}"))
    if not can and (asked_to_spread or jobs.resume or long):
        text = f"note: no segments, so a run that is killed begins anew: {now.obstacle}"
        say.append(_note(text))
    return Decision(
        plan=plan,
        jobs=jobs,
        segments=can and (safe or asked_to_spread),
        spread=can and (asked_to_spread or unasked),
        unasked=unasked,
        needs=needs,
        say=tuple(say),
    )


def process_count(plan: Plan, jobs: JobOptions) -> int:
    """How many processes render."""
    return jobs.workers or len(plan.devices)


def _note(text: str) -> dict[str, Any]:
    return {"event": "note", "text": text}
