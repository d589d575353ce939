"""A run with two workers that never get their model: `worker_child.py SOURCE TARGET WEIGHTS`.

Each worker writes a file with its number as name beside the target and then sleeps.
"""

import os
import sys
import time
from pathlib import Path

from oasis_cli.jobs import processes as workers
from oasis_cli.jobs.execute import JobOptions, carry_out
from oasis_cli.media.input.probe import probe
from oasis_cli.model.latent import bicubic_upsample
from oasis_cli.pipeline.plan import Options, make_plan
from oasis_cli.pipeline.threads import Stop


def sleep(plan):
    """In place of loading a model."""
    Path(plan.target).with_name(f"{os.getpid()}.pid").touch()
    time.sleep(600)


def work(*given):
    """In a worker."""
    workers.load = sleep
    real(*given)


real = workers.work

if __name__ == "__main__":
    source, target, weights = sys.argv[1:]
    workers.work = work
    plan = make_plan(probe(source), target, Options(scale=1, model=weights))
    jobs = JobOptions(resume=True, segment_frames=10, workers=2)
    carry_out(plan, jobs, lambda event: None, Stop(),
              lambda plan: lambda low, size, tile: bicubic_upsample(low, size))  # fmt: skip
