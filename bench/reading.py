"""What a person waits for: the newest history, and the first sign of the command line."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench import history
from bench.machine import ROOT
from bench.report import Row, spread


def measure_history() -> list[Row]:
    found = history.measure()
    return [
        Row(
            f"newest 100 of {found['actions']:,.0f} actions",
            found["newest_100_ms"],
            "ms",
            limit=5.0,
            note=f"median of {history.RUNS}; of one service {found['newest_100_of_a_service_ms']}, "
            f"in the middle {found['middle_100_ms']} ms; {found['size_mib']:.0f} MiB on disk; "
            f"an intent {found['begin_ms']} ms (p95 {found['begin_p95_ms']})",
        )
    ]


def measure_help(run_count: int = 15) -> list[Row]:
    argv = [str(Path(sys.executable).with_name("prunella")), "--help"]
    took: list[float] = []
    for number in range(run_count + 2):
        start = time.perf_counter()
        subprocess.run(argv, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
        if number >= 2:
            took.append(1000 * (time.perf_counter() - start))
    return [Row("prunella --help", median(took), "ms", limit=200.0, note=spread(took))]
