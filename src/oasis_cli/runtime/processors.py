"""How many processors this process has: a container or a batch job seldom has all of a machine."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from oasis_cli.runtime.groups import GROUPS, ROOT, groups_of


def processors() -> int:
    """Processors that this process can keep busy; at least 1.

    Those it may run on (`allowed`), and no more than its share of their time (`quotas`) is worth.
    More threads than that wait for each other.
    """
    return max(1, min([allowed(), *map(math.ceil, quotas())]))


def allowed() -> int:
    """Processors that this process may run on: `taskset`'s and Slurm's limits count."""
    with suppress(AttributeError, OSError):  # Linux only
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def quotas(groups: Path = GROUPS, root: Path = ROOT) -> Iterator[float]:
    """The limits on processor time, in processors: those of `docker --cpus`, of Kubernetes."""
    for version, group in groups_of("cpu", groups, root):
        with suppress(OSError, ValueError):  # no such group, or no limit
            if version == 2:
                most, period = (group / "cpu.max").read_text().split()
            else:
                most = (group / "cpu.cfs_quota_us").read_text()
                period = (group / "cpu.cfs_period_us").read_text()
            if int(most) > 0:
                yield int(most) / int(period)
