"""``python -m bench [NAME…]``: measure, and print one table. Everything in one run.

The figures depend on the machine and on what else it does: compare the ratios, and those of one
run. Nothing here is asserted; the tests assert no times either.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import structlog
from bench import (
    callers,
    cascade,
    containers,
    demand,
    fleet,
    gateways,
    kubernetes,
    reading,
    respawn,
    simulation,
    units,
)
from bench.machine import NotInTimeError
from bench.report import Row, load_words, table

BENCHMARKS: dict[str, Callable[[], list[Row]]] = {
    "help": reading.measure_help,
    "simulation": simulation.measure,
    "traffic": demand.measure,
    "respawn": respawn.measure_kill,
    "hang": respawn.measure_freeze,
    "cost": fleet.measure_cost,
    "history": reading.measure_history,
    "unit": units.measure_kill,
    "units": units.measure_calm,
    "container": containers.measure_kill,
    "task": containers.measure_swarm,
    "containers": containers.measure_many,
    "kubernetes": kubernetes.measure,
    "many": fleet.measure_many,
    "gateways": gateways.measure,
    "callers": callers.measure,
    "cascade": cascade.measure,
}


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("name", nargs="*", help=f"of {', '.join(BENCHMARKS)}; default: all")
    names = parser.parse_args(arguments).name or list(BENCHMARKS)
    if unknown := [name for name in names if name not in BENCHMARKS]:
        parser.error(f"no benchmark {', '.join(unknown)}; there are: {', '.join(BENCHMARKS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    rows: list[Row] = []
    failed = False
    for name in names:
        print(f"{name}: {load_words()}", file=sys.stderr, flush=True)
        try:
            rows += BENCHMARKS[name]()
        except NotInTimeError as error:
            failed = True
            rows.append(Row(name, None, "", note=f"not measured: {error}"))
    print(table(rows))
    print(f"\nAt the end: {load_words()}.")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
