"""The processes of a control group, as the kernel lists them for us."""

from __future__ import annotations

import os
from pathlib import Path

# A machine with one hierarchy, with both versions, and with those of version 1 only.
_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")


def group_pids(group: str) -> tuple[int, ...]:
    """The processes in `group` and below it, by their numbers here, whoever named the group.

    Empty when there are none, and when the group cannot be seen from here.
    """
    for root in _ROOTS:
        folder = root + group
        if group and Path(folder, "cgroup.procs").exists():
            return tuple(pid for part, _, _ in os.walk(folder) for pid in _pids(part))
    return ()


def _pids(folder: str) -> list[int]:
    try:
        return [int(line) for line in Path(folder, "cgroup.procs").read_bytes().split()]
    except OSError:
        return []  # it has gone, or holds threads and no processes
