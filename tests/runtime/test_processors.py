"""Processors that a process has: those it may run on, and its share of their time."""

import json
import os
import subprocess
import sys

import pytest

from oasis_cli.cli import main
from oasis_cli.media.output.encoders import usual_threads
from oasis_cli.runtime import processors as module
from oasis_cli.runtime.processors import processors, quotas


def group(folder, version, limits, mount="cpu"):
    """A process in group a/b, as the kernel shows it. limits: path -> (microseconds, period)."""
    top = folder / mount if version == 1 else folder
    for path, (most, period) in limits.items():
        (top / path).mkdir(parents=True, exist_ok=True)
        if version == 1:
            (top / path / "cpu.cfs_quota_us").write_text(f"{most}\n")
            (top / path / "cpu.cfs_period_us").write_text(f"{period}\n")
        else:
            (top / path / "cpu.max").write_text(f"{most} {period}\n")
    listed = "4:memory:/x\n3:cpu,cpuacct:/a/b\n0::/\n" if version == 1 else "0::/a/b\n"
    (folder / "cgroup").write_text(listed)
    return sorted(quotas(folder / "cgroup", folder))


@pytest.mark.parametrize(("version", "none"), [(1, -1), (2, "max")])
def test_the_shares_of_all_groups_around_a_process_count(tmp_path, version, none):
    of_ten = 100_000
    assert group(tmp_path, version, {"a/b": (none, of_ten), "a": (250_000, of_ten)}) == [2.5]
    assert group(tmp_path / "c", version, {".": (50_000, of_ten)}) == [0.5]  # a container's view
    assert group(tmp_path / "n", version, {"a/b": (none, of_ten)}) == []
    assert not list(quotas(tmp_path / "nowhere", tmp_path))


@pytest.mark.parametrize(("may_use", "share", "has"), [
    (64, [], 64), (64, [4.0, 2.5], 3), (2, [8.0], 2), (8, [0.1], 1),
])  # fmt: skip
def test_threads_are_as_many_as_there_is_work_for(monkeypatch, may_use, share, has):
    monkeypatch.setattr(module, "quotas", lambda: iter(share))
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(may_use), raising=False)

    assert processors() == has
    assert usual_threads() == -(-3 * has // 2)
    limited = {"OMP_NUM_THREADS": str(has)} if has < may_use else {}
    assert main.environment() == main.ENVIRONMENT | limited


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="Linux's")
def test_a_process_on_one_processor_has_one():
    asks = "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}); " \
        "from oasis_cli.runtime.processors import processors; print(processors())"  # fmt: skip
    said = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == 1
