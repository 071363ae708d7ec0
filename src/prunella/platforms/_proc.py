"""Which run is behind a pid: read from /proc, so that a reused number is never taken for it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple, Self

_PROC = "/proc"
_DEAD = frozenset("ZXx")


class Identity(NamedTuple):
    """One run of one process: no other one, before or after, has the same three.

    ``ticks`` is the kernel's start time of the process, in clock ticks since that boot.
    """

    pid: int
    ticks: int
    boot: str

    def __str__(self) -> str:
        return f"{self.pid}@{self.ticks}@{self.boot}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """The identity that `text` was written from. Raises ValueError: it was not."""
        pid, ticks, boot = text.split("@", 2)
        return cls(int(pid), int(ticks), boot)


class Stat(NamedTuple):
    """What the kernel says of one process. A zombie is dead, whatever its number answers."""

    alive: bool
    ticks: int


def read_stat(pid: int) -> Stat | None:
    """What is behind `pid` now, a zombie included; None when nothing is."""
    text = _read(pid, "stat")
    if not text:
        return None
    # The command's name may hold blanks and brackets: fields are counted after its last one.
    fields = text[text.rindex(b")") + 2 :].split()
    # A process whose main thread has ended is shown as Z while its other threads still work.
    alive = chr(fields[0][0]) not in _DEAD or int(fields[17]) > 1
    return Stat(alive, int(fields[19]))


def holds_its_pid(identity: Identity) -> bool:
    """Whether the number still belongs to that run, alive or not yet collected."""
    stat = read_stat(identity.pid)
    return stat is not None and stat.ticks == identity.ticks


def open_pidfd(identity: Identity) -> int | None:
    """A descriptor of that very run, the caller's to close; None when it does not live.

    Raises:
        OSError: no descriptors left.
    """
    try:
        pidfd = os.pidfd_open(identity.pid)
    except ProcessLookupError:
        return None
    # Looked at after the descriptor was taken: from here on it cannot be another run.
    same = False
    try:
        stat = read_stat(identity.pid)
        same = stat is not None and stat.alive and stat.ticks == identity.ticks
    finally:
        if not same:
            os.close(pidfd)
    return pidfd if same else None


def session_members(leader: Identity) -> tuple[Identity, ...]:
    """The living processes of the session that `leader` began, itself excluded.

    Only of use while the session is known to be its own: right after its death, or before. A
    session whose leader is another run under the same number is not its own: empty.
    """
    found = _living(
        (pid for pid in _pids() if pid != leader.pid and _session(pid) == leader.pid), leader.boot
    )
    # A number is given away again when nobody of its session is left, and not before.
    holder = read_stat(leader.pid)
    return found if holder is None or holder.ticks == leader.ticks else ()


def is_unused(pid: int, descriptor: int) -> bool:
    """Whether no process, group or session has this number, so that nobody of its session lives.

    The kernel does not take such a number for the owner of a descriptor (any, of ours). Asking
    it costs microseconds; a walk through /proc costs one for each process of the machine.
    """
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETOWN, pid)
    except ProcessLookupError:
        return True
    return False


class Marked(NamedTuple):
    """A living process that carries a marker: of which run, and whether it leads its session."""

    identity: Identity
    session: int
    run: int

    @property
    def leads(self) -> bool:
        return self.session == self.identity.pid


class Search(NamedTuple):
    """What a search by marker found, oldest first.

    ``unborn``: some process is in the middle of its exec and does not show its environment yet.
    """

    marked: tuple[Marked, ...]
    unborn: bool


def marked_processes(marker: str, run_variable: str, boot: str) -> Search:
    """The living processes with `marker` (``NAME=value``) in their environment.

    Of a session whose leader lives only the leader is looked at: the others are its business.
    The run's number is taken from `run_variable`, 0 where it is missing.
    """
    wanted, prefix = marker.encode(), f"{run_variable}=".encode()
    found: list[Marked] = []
    unborn = False
    for pid, session in _worth_a_look():
        environment = _variables(pid)
        unborn = unborn or (not environment and _is_unborn(pid))
        if wanted not in environment:
            continue
        run = next((part[len(prefix) :] for part in environment if part.startswith(prefix)), b"0")
        found += [
            Marked(identity, session, int(run) if run.isdigit() else 0)
            for identity in _living([pid], boot)
        ]
    return Search(tuple(sorted(found, key=lambda marked: marked.identity.ticks)), unborn)


def variable(pid: int, name: str) -> str:
    """An environment variable that a process was started with; empty where it has none."""
    prefix = f"{name}=".encode()
    found = (part for part in _variables(pid) if part.startswith(prefix))
    return next(found, prefix)[len(prefix) :].decode(errors="replace")


def _worth_a_look() -> Iterator[tuple[int, int]]:
    sessions = {pid: session for pid in _pids() if (session := _session(pid)) > 0}
    led: dict[int, bool] = {}
    for pid, session in sessions.items():
        if pid != session and session not in led:
            stat = read_stat(session)
            led[session] = stat is not None and stat.alive
        if pid == session or not led[session]:
            yield pid, session


def _living(pids: Iterator[int] | Sequence[int], boot: str) -> tuple[Identity, ...]:
    stats = ((pid, read_stat(pid)) for pid in pids)
    return tuple(Identity(pid, stat.ticks, boot) for pid, stat in stats if stat and stat.alive)


def _pids() -> Iterator[int]:
    return (int(name) for name in os.listdir(_PROC) if name.isdigit())  # noqa: PTH208 - half the time


def _session(pid: int) -> int:
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return 0


def _variables(pid: int) -> list[bytes]:
    try:
        text = _read(pid, "environ")
    except PermissionError:
        text = b"?"  # another user's, so no child of ours
    return text.split(b"\0") if text else []


def _is_unborn(pid: int) -> bool:
    # The kernel shows the arguments and the environment from the same moment of an exec on.
    stat = read_stat(pid)
    return stat is not None and stat.alive and not _read(pid, "cmdline")


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"{_PROC}/{pid}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 - read by thousands
            return file.readall()
    except (FileNotFoundError, ProcessLookupError):
        return b""
