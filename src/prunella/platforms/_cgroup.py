"""The processes of a control group, as the kernel lists them for us."""

from __future__ import annotations

import os
from functools import cache

# A machine with one hierarchy, with both versions, and with those of version 1 only.
_ROOTS = ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/systemd")
_LEAF_LINKS = 2  # a folder has one link more for each folder in it
_LIST_BYTES = 1 << 20


def group_pids(group: str) -> tuple[int, ...]:
    """The processes in `group` and below it, by their numbers here, whoever named the group.

    Empty when there are none, and when the group cannot be seen from here.
    """
    for root in _roots() if group else ():
        pids = _pids(root + group)
        if pids is not None:
            return tuple(pids)
    return ()


@cache
def _roots() -> tuple[str, ...]:
    return tuple(root for root in _ROOTS if _pids(root) is not None)


def _pids(folder: str) -> list[int] | None:
    """None: there is no such group. Kept to three calls of the kernel: it is asked often."""
    try:
        listed = os.open(f"{folder}/cgroup.procs", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pids = [int(line) for line in os.read(listed, _LIST_BYTES).split()]
        if os.stat(folder).st_nlink > _LEAF_LINKS:  # noqa: PTH116 - a third of the time
            parts = [part.path for part in os.scandir(folder) if part.is_dir()]
            pids += [pid for part in parts for pid in _pids(part) or ()]
    except OSError:
        return []  # it holds threads and no processes, or has just gone
    finally:
        os.close(listed)
    return pids
