"""From kill -9, and from a freeze, to serving again: ours and other supervisors', in turns."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from itertools import product
from pathlib import Path

from bench.machine import accepts, answers, await_end, server_pid, until
from bench.report import Row, middle, spread
from bench.supervisors import PEERS, Supervisor, missing, prunella

_OURS = "Prunella"
_LIMIT_S = 30.0
_PAUSE_S = {"kill": 0.7, "freeze": 2.5}  # verification ends meanwhile: the next fault is new


def _pid(port: int) -> int:
    until(lambda: server_pid(port) is not None, 5.0, "the server's process", 0.02)
    pid = server_pid(port)
    assert pid is not None
    return pid


def kill(port: int) -> float:
    """Milliseconds from SIGKILL to the next accepted connection."""
    pidfd = os.pidfd_open(_pid(port))
    try:
        start = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        await_end(pidfd)
        until(lambda: accepts(port), _LIMIT_S, "serving after SIGKILL")
        return 1000 * (time.perf_counter() - start)
    finally:
        os.close(pidfd)


def freeze(port: int) -> float:
    """Milliseconds from SIGSTOP to the next answer.

    Nobody but the supervisor knocks while it is frozen: its short queue would be full, and the
    supervisor's checks would find that instead of silence.
    """
    pidfd = os.pidfd_open(_pid(port))
    try:
        start = time.perf_counter()
        signal.pidfd_send_signal(pidfd, signal.SIGSTOP)
        await_end(pidfd, _LIMIT_S)
        until(lambda: answers(port), _LIMIT_S, "serving after SIGSTOP", 0.002)
        return 1000 * (time.perf_counter() - start)
    finally:
        os.close(pidfd)


def _in_turns(fault: str, names: dict[str, int], round_count: int) -> dict[str, list[float]]:
    """Break each one's server in turn, so that a busy moment of the machine is nobody's alone.

    Args:
        names: how many of the rounds each one takes part in.
    """
    peers = {name: peer for name, (_, peer) in PEERS.items() if name in names}
    every: dict[str, Supervisor] = {_OURS: prunella, **peers}
    took: dict[str, list[float]] = {name: [] for name in every}
    inject = {"kill": kill, "freeze": freeze}[fault]
    with contextlib.ExitStack() as stack:
        ports: dict[str, int] = {}
        for name, supervisor in every.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
            ports[name] = stack.enter_context(supervisor(folder))
        for number, name in product(range(round_count + 1), every):
            if number > names.get(name, round_count):
                continue
            time.sleep(_PAUSE_S[fault])
            took_ms = inject(ports[name])
            if number > 0:  # the first round warms up
                took[name].append(took_ms)
    return took


def measure_kill(round_count: int = 25, slow_count: int = 6) -> list[Row]:
    """One row against each peer; only the bare loop sets a target."""
    here = {name: round_count for name, (binary, _) in PEERS.items() if not missing(binary)}
    if "Monit" in here:
        here["Monit"] = slow_count
    took = _in_turns("kill", here, round_count)
    rows: list[Row] = []
    for name, (binary, _) in PEERS.items():
        limit = 2.0 if name == "bare loop" else None
        rows.append(_row("kill -9 to serving", took, name, binary, ratio_limit=limit))
    return rows


def measure_freeze(round_count: int = 7) -> list[Row]:
    """Found by three checks that time out; of the peers only Monit looks for such a thing."""
    here = {} if missing("monit") else {"Monit": round_count}
    took = _in_turns("freeze", here, round_count)
    limit_ms = 1000.0 * (3 * 1 + 1)
    return [_row("SIGSTOP to serving", took, "Monit", "monit", limit=limit_ms)]


def _row(
    figure: str,
    took: dict[str, list[float]],
    peer: str,
    binary: str,
    *,
    limit: float | None = None,
    ratio_limit: float | None = None,
) -> Row:
    theirs = took.get(peer, [])
    note = f"ours {spread(took[_OURS])}"
    note += f"; {peer} {spread(theirs)}" if theirs else f"; no peer: {missing(binary)}"
    return Row(
        figure,
        middle(took[_OURS]),
        "ms",
        limit=limit,
        peer=middle(theirs),
        peer_name=peer,
        ratio_limit=ratio_limit,
        note=note,
    )
