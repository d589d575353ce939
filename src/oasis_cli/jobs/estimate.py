"""What a run will need, from its own first window: it is made, timed, and encoded for its size.

The window is not made twice: the run's `WindowRunner` keeps it, and gives it back when the run asks
for it.
"""

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import torch

from oasis_cli.checkpoints.format import networks
from oasis_cli.checkpoints.registry import by_role
from oasis_cli.errors import MediaError
from oasis_cli.media.color import clip_to_planes, frames_to_clip
from oasis_cli.media.input.reader import Frame, Reader
from oasis_cli.media.output.trial import Trial, can_try, encode_for_size
from oasis_cli.media.picture import PictureSpec, Planes
from oasis_cli.pipeline.memory import weights_bytes
from oasis_cli.pipeline.plan import Plan
from oasis_cli.pipeline.run import with_cuts
from oasis_cli.pipeline.scenes import CutDetector
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.window_runner import WindowRunner
from oasis_cli.pipeline.windows import cut
from oasis_cli.runtime.device_memory import free_memory, peak_bytes
from oasis_cli.runtime.devices import capabilities
from oasis_cli.runtime.processors import processors

WORTH_KNOWING = 90.0
"""Seconds from which on a run says how long it will take, and knows how long its encoder does."""

SLOWER = 10
"""Times as long as a GPU's model an encoder may take for a frame; `oasis-small` on an H200 makes
460 frames/s of 1280x720, and one x264 at its usual preset 85."""

ROUNDS = 6
"""Times at most that the first window is encoded to see how fast the encoder is."""

TRIED = 0.02
"""Part of a run's frames that may be encoded for that."""

AMPLE = 10
"""A disk with this many times the usual bytes free needs no closer look."""

KEY_FRAMES = 160
"""Frames from one key frame to the next at least: x264 and x265 make 250, SVT-AV1 161."""

PROCESSORS = 8
"""Fewest processors for each further process: its encoder needs them, or it is not worth its
start."""

MOST_PROCESSES = 4
"""On one device, unless somebody asks for more."""

GAIN = 1.6
"""Times as many frames as one process that several on a GPU make: their encoders share the
processors. Two beside 16 made 1.62 times as many (docs/performance.md); an encoder that leaves
processors idle gains more."""

TINY_SPEED = 2.6
"""Times as fast as `oasis-small` the model of the role `tiny` is on a CPU: CPU seconds of a frame
from 320x180 to 1280x720, in fp32 and in bf16 (docs/performance.md)."""

TOO_LONG = 3600.0
"""Seconds from which on a CPU with few cores is told of that model."""

FEW_CORES = 4
"""Cores from which on nobody is."""

STARTING = 10.0
"""Seconds until a process makes its first frame on a GPU, as measured on H200s."""

CONTEXT_BYTES = 1 << 30
"""Of a card, beside weights and windows, for a process that uses it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What the whole run will need."""

    seconds: float
    frame_seconds: float
    """For one frame on one device."""
    encoding: float
    """Encoder's time over model's time for a frame; 0 when it was not measured."""
    memory: int
    """Peak bytes when the first window was done: of the device on CUDA, else of this process."""
    disk: int | None
    """Bytes of the output's picture; None when nobody knows."""


def estimate(
    plan: Plan, runner: WindowRunner, stop: Stop, *, thorough: bool = False
) -> Estimate | None:
    """Make the first window of a run. None for a pipe, which cannot be read twice.

    thorough: try the encoder even for a short run on an empty disk.
    """
    if plan.frames is None or plan.info.is_pipe:
        return None
    gpu = not capabilities(plan.device).host
    frames, spec = first_window(plan)
    low = frames_to_clip(frames, spec, plan.device)
    with stop.at_once():
        seconds = runner.warm_up(low)
        # The first call loads kernels, the second captures them. A short run does not ask how long
        # it takes without that.
        if gpu and (thorough or encoder_counts(plan, seconds * plan.frames / len(frames))):
            seconds = min(seconds, runner.warm_up(low), runner.warm_up(low))
    windows = plan.options.windows
    computed = (len(frames) + 2) // 4 * 4 + 1  # the network works on 4k + 1
    again = windows.frames / windows.stride  # frames in overlaps are computed twice
    total = seconds / computed * again * plan.frames
    disk, encoding = plan.disk, 0.0
    if thorough or encoder_counts(plan, total) or _is_tight(plan):
        tried = _try_encoder(plan, runner, stop)
        if tried is not None:
            trial, each = tried
            busy = each * plan.frames
            encoding = busy / total
            total = max(total, busy) if gpu else total + busy
            disk = _whole_size(trial, plan.frames)
    return Estimate(
        seconds=total / len(set(plan.devices)),
        frame_seconds=total / plan.frames,
        encoding=encoding,
        memory=peak_bytes(plan.device),
        disk=disk,
    )


def with_advice(plan: Plan, needs: Estimate) -> Plan:
    """A plan whose notes name the faster model too, where there is reason to."""
    text = faster_model(plan, needs)
    return replace(plan, notes=(*plan.notes, text)) if text else plan


def faster_model(plan: Plan, needs: Estimate) -> str:
    """What to say of the tiny model where a CPU with few cores will work for long; else nothing.

    The cores are those that PyTorch uses. Only the model's part of the time gets shorter.
    """
    tiny = by_role("tiny")
    hosts = all(capabilities(device).host for device in plan.devices)
    few = hosts and torch.get_num_threads() < FEW_CORES
    if tiny is None or tiny.path is None or not few or needs.seconds <= TOO_LONG:
        return ""
    if next(iter(networks(tiny.name).values())).dit == plan.network.dit:
        return ""
    part = (1 / TINY_SPEED + needs.encoding) / (1 + needs.encoding)
    return (
        f"`--model {tiny.name}` is {TINY_SPEED:g} times as fast on a CPU: about "
        f"{needs.seconds * part / 60:.0f} min instead of {needs.seconds / 60:.0f}, with less detail"
    )


def encoder_counts(plan: Plan, seconds: float) -> bool:
    """Whether a run with `seconds` of model may last long, its encoder counted.

    On a CPU the model takes nearly all of the time; a GPU often waits for the encoder.
    """
    return seconds * (1 if capabilities(plan.device).host else SLOWER) > WORTH_KNOWING


def processes_each(plan: Plan, needs: Estimate, share: float) -> int:
    """Processes for each device: more than one where an encoder cannot keep up with a GPU.

    What that gains is `GAIN`.
    """
    if capabilities(plan.device).host or needs.seconds * share < WORTH_KNOWING:
        return 1
    one = plan.memory + weights_bytes(plan.network, plan.precision) + CONTEXT_BYTES
    room = (free_memory(plan.device) or 0) // one
    fed = processors() // (PROCESSORS * len(plan.devices))
    return max(1, min(MOST_PROCESSES, round(needs.encoding), room, fed))


def has_several_gpus(plan: Plan) -> bool:
    """Whether a plan's processes start on more than one GPU."""
    return not capabilities(plan.device).host and len(set(plan.devices)) > 1


def worth_starting(plan: Plan, needs: Estimate, share: float) -> bool:
    """Whether further GPUs save more time than their processes take to start; other devices do."""
    if not has_several_gpus(plan):
        return True
    return needs.seconds * share * (len(set(plan.devices)) - 1) > STARTING


def first_window(plan: Plan) -> tuple[list[Frame], PictureSpec]:
    """The frames that a run gives to the model first."""
    with Reader(plan.info, plan.options.read) as reader:
        seen = with_cuts(reader, CutDetector(), plan)
        window = next(cut(seen, plan.options.windows, lambda frame: frame.cut))
        return [found.frame for found in window.frames], reader.spec


def _is_tight(plan: Plan) -> bool:
    folder = Path(plan.target).parent
    if plan.disk is None or plan.output.is_pipe or not folder.is_dir():
        return False
    return AMPLE * plan.disk > shutil.disk_usage(folder).free


def _try_encoder(plan: Plan, runner: WindowRunner, stop: Stop) -> tuple[Trial, float] | None:
    """Size of the first window once encoded, and the encoder's seconds for a frame.

    One with many threads is slow until each has a frame. So for a long run the window is encoded
    several times in a row, too; that says nothing about sizes, since what comes again costs less.
    """
    high = runner.warm_output
    if high is None or len(high) < 2 or not can_try(plan.output):
        return None

    def planes(rounds: int) -> Iterator[Planes]:
        for picture in chain.from_iterable(repeat(high, rounds)):
            yield clip_to_planes(picture[None], plan.output.spec)[0]

    rounds = min(ROUNDS, round(TRIED * (plan.frames or 0) / len(high)))
    with torch.inference_mode(), stop.at_once():
        once = encode_for_size(plan.output, planes(1))
        longer = encode_for_size(plan.output, planes(rounds)) if rounds > 1 else once
    return (once, longer.seconds / longer.frames) if once and longer else None


def _whole_size(trial: Trial, frames: int) -> int:
    """Bytes for `frames`: key frames are larger than the others and rarer than in the trial."""
    later = (trial.bytes - trial.first) / (trial.frames - 1)
    keys = -(-frames // KEY_FRAMES)
    return round(keys * max(0, trial.first - later) + frames * later)


def estimate_event(plan: Plan, needs: Estimate, share: float = 1.0) -> dict[str, Any]:
    """What a run will need. share: what is left of it."""
    disk = f", {needs.disk / 2**20:.0f} MiB of disk" if needs.disk else ""
    minutes = needs.seconds * share / 60
    text = (
        f"estimate: {minutes:.0f} min for {round(plan.frames or 0) * share:.0f} frames, "
        f"{needs.memory / 2**20:.0f} MiB of memory{disk}"
    )
    return {
        "event": "estimate",
        "seconds": round(needs.seconds * share),
        "memory_bytes": needs.memory,
        "disk_bytes": needs.disk,
        "text": text,
    }


def check_space(needed: dict[Path, int]) -> None:
    """Refuse early what the disks cannot hold. needed: bytes by folder; several may share a disk.

    Folders that do not exist count for the one above.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needed.items():
        there = next(p for p in (folder, *folder.absolute().parents) if p.is_dir())
        device = os.stat(there).st_dev
        disks[device] = (there, disks.get(device, (there, 0))[1] + size)
    for folder, size in disks.values():
        free = shutil.disk_usage(folder).free
        if size > free:
            raise MediaError(
                f"about {size / 2**20:.1f} MiB are needed at {folder}, "
                f"{free / 2**20:.1f} MiB are free",
                hint="free some space, raise --crf, or put segments elsewhere with --work-dir",
            )
