"""Processes that stand still: nothing of them may run on once we say so."""

from __future__ import annotations

import os
import signal
from functools import partial
from pathlib import Path

from prunella.testing.site import until

_PATIENCE_S = 30.0


def freeze(*pids: int) -> None:
    """Until every thread of them is stopped: one of them may answer one more before it is."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    for pid in pids:
        until(partial(_stands_still, pid), _PATIENCE_S)


def thaw(*pids: int) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGCONT)


def _stands_still(pid: int) -> bool:
    """As the kernel has it."""
    stats = Path(f"/proc/{pid}/task").glob("*/stat")
    return all(stat.read_text().rpartition(") ")[2].startswith("T") for stat in stats)
