"""Linux's control groups: where a container's, a service's and a batch job's limits stand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

GROUPS, ROOT = Path("/proc/self/cgroup"), Path("/sys/fs/cgroup")


def groups_of(kind: str, groups: Path = GROUPS, root: Path = ROOT) -> Iterator[tuple[int, Path]]:
    """The groups that may limit this process: (version, folder), each before the one it is in.

    kind: what is limited, in the kernel's word: "memory", "cpu". A folder need not exist: inside a
    container, perhaps only the outermost is there. Nothing where a system has no groups.
    """
    listed = groups.read_text() if groups.exists() else ""
    for line in listed.splitlines():
        _, kinds, own = line.split(":", 2)
        if not kinds:  # version 2, alone or beside version 1
            version, tops = 2, [root, root / "unified"]
        elif kind in kinds.split(","):
            version, tops = 1, [root / kind]
        else:
            continue
        for top in tops:
            inner = top / own.strip("/")
            for group in [inner, *inner.parents]:
                if not group.is_relative_to(top):
                    break
                yield version, group
