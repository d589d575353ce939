"""Free memory of devices, of this machine, and inside a container's limit."""

import pytest
import torch

from oasis_cli.runtime.device_memory import free_memory, left_to_groups

GIB = 1 << 30


@pytest.mark.parametrize(("share", "free"), [(1.0, 5), (0.5, 3), (0.1, 0)])
def test_free_memory_of_a_gpu_counts_caches_and_limits(monkeypatch, share, free):
    gib = 1 << 30
    for name, value in {
        "mem_get_info": (3 * gib, 10 * gib),
        "memory_allocated": (1 if share == 0.1 else 2) * gib,
        "memory_reserved": 4 * gib,
    }.items():
        monkeypatch.setattr(torch.cuda, name, lambda device, value=value: value, raising=False)

    def fraction(number):
        assert number is None or isinstance(number, int)  # PyTorch refuses "cuda" here
        return share

    monkeypatch.setattr(torch.cuda, "get_per_process_memory_fraction", fraction, raising=False)
    for name in ("cuda", "cuda:1"):
        assert free_memory(torch.device(name)) == free * gib


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_free_memory_of_a_real_gpu():
    free, total = torch.cuda.mem_get_info()
    for name in ("cuda", "cuda:0"):
        assert 0 < free_memory(torch.device(name)) <= total


def test_free_memory_is_plausible_or_unknown():
    free = free_memory(torch.device("cpu"))
    assert free is None or 1 << 20 < free < 1 << 50
    assert free_memory(torch.device("mps")) is None


def groups(folder, limits, version):
    """A process in group a/b, as the kernel shows it: limits, use and cached files in bytes."""
    top = folder / "memory" if version == 1 else folder
    names = ("limit_in_bytes", "usage_in_bytes") if version == 1 else ("max", "current")
    prefix = "total_" if version == 1 else ""
    for path, (limit, used, cached) in limits.items():
        (top / path).mkdir(parents=True, exist_ok=True)
        for name, value in zip(names, (limit, used), strict=True):
            (top / path / f"memory.{name}").write_text(f"{value}\n")
        stat = f"anon 5\n{prefix}inactive_file {cached}\n"
        (top / path / "memory.stat").write_text(stat)
    listed = "9:cpu:/x\n4:memory:/a/b\n0::/\n" if version == 1 else "0::/a/b\n"
    (folder / "cgroup").write_text(listed)
    return sorted(left_to_groups(folder / "cgroup", folder))


@pytest.mark.parametrize("version", [1, 2])
def test_limits_of_containers_and_batch_jobs_count(tmp_path, version):
    none = 9223372036854771712 if version == 1 else "max"
    found = groups(tmp_path, {"a/b": (3 * GIB, 2 * GIB, GIB), "a": (4 * GIB, GIB, 0)}, version)
    assert found == [2 * GIB, 3 * GIB]
    found = groups(tmp_path / "n", {"a/b": (none, 0, 0), ".": (GIB, 2 * GIB, 0)}, version)
    assert found[0] == 0 and all(left > 1 << 60 for left in found[1:])  # only the outer has one
    assert groups(tmp_path / "c", {".": (GIB, 0, 0)}, version) == [GIB]  # a container's own view
    assert not list(left_to_groups(tmp_path / "none", tmp_path))
