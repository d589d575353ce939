"""Long jobs with a toy model: whole, killed on the way, and what they leave."""

import hashlib
import sys
import time

import pytest
from toys import Killed, dies_after, sharpen

from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.jobs.job import folder_for
from oasis_cli.media.input.probe import probe
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.threads import Stop
from oasis_cli.pipeline.windows import WindowOptions

SMALL = WindowOptions(frames=5, overlap=2)
IN_SEGMENTS = JobOptions(resume=True, segment_frames=7)
linux = pytest.mark.skipif(sys.platform != "linux", reason="signals and links as on Linux")


def go(source, target, jobs=IN_SEGMENTS, model=sharpen, report=None, weights=None, **options):
    options = {"scale": 2, "windows": SMALL, **options}
    if weights is not None:
        options["model"] = str(weights)
    plan = make_plan(probe(source), str(target), Options(**options))
    return carry_out(plan, jobs, report or (lambda e: None), Stop(), lambda plan: model)


def begin(source, target, calls=8, **options):
    """A job that was killed when some of its segments were there."""
    with pytest.raises(Killed):
        go(source, target, model=dies_after(calls), **options)
    return folder_for(str(target), None)


def digest(look, path):
    """md5 of every decoded frame."""
    return [hashlib.md5(frame.tobytes()).hexdigest() for frame in look.frames(path)]


def load_tiny(weights):
    from oasis_cli.checkpoints.format import load_model

    return load_model(str(weights))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def until(true, seconds=300):
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.01)
