"""What HAProxy says of its backends and servers: ``show stat`` and ``show servers state``."""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterator, Mapping
from operator import itemgetter
from typing import NamedTuple

from prunella.core.model import Instant
from prunella.core.traffic import Server, Traffic
from prunella.errors import TransientError

# Bits of srv_admin_state
MAINT = 0x01  # forced: by a command, or `disabled` in the configuration
DRAIN = 0x08  # forced
FORCED = MAINT | DRAIN

_OPERATIONAL = ("1", "2")  # starting, running
_COUNTS = (
    "qcur",
    "scur",
    "stot",
    "dreq",
    "econ",
    "eresp",
    "wretr",
    "wredis",
    "hrsp_5xx",
    "req_tot",
    "qtime",
    "ctime",
    "rtime",
)
_STATES = (
    "be_name",
    "srv_name",
    "srv_addr",
    "srv_port",
    "srv_op_state",
    "srv_admin_state",
    "srv_uweight",
)
_SINCE = "srv_time_since_last_change"


class Counts(NamedTuple):
    """A row of the statistics, by HAProxy's own names; averages are of the last 1,024, in ms."""

    qcur: int = 0
    scur: int = 0
    stot: int = 0
    dreq: int = 0
    econ: int = 0
    eresp: int = 0
    wretr: int = 0
    wredis: int = 0
    hrsp_5xx: int = 0
    req_tot: int = 0
    qtime: int = 0
    ctime: int = 0
    rtime: int = 0


class Member(NamedTuple):
    """One server of a backend."""

    name: str
    address: str
    port: int
    admin: int
    up: bool
    counts: Counts

    @property
    def shut(self) -> bool:
        return bool(self.admin & FORCED)

    def traffic(self, at: Instant, *, http: bool) -> Traffic:
        """In HTTP what has been answered or has failed; what callers gave up is neither.

        In TCP sessions that have ended. A try that is repeated is taken back from them, a moment
        before the next one is counted.
        """
        one = self.counts
        unconnected = one.econ + one.wretr + one.wredis
        failed = one.econ + one.eresp
        if not http:
            ended = one.stot - one.scur - one.wretr - one.wredis
            return Traffic(at, max(ended, failed), failed, unconnected, in_flight=one.scur)
        return Traffic(
            at,
            one.req_tot + failed,
            one.hrsp_5xx + failed,
            unconnected,
            in_flight=one.scur,
            mean_s=(one.qtime + one.ctime + one.rtime) / 1000 if one.req_tot else None,
        )

    def server(self, traffic: Traffic) -> Server:
        return Server(self.name, self.address, self.port, self.up or self.shut, traffic)


class Backend(NamedTuple):
    """A backend, with its servers in HAProxy's order."""

    http: bool
    counts: Counts
    members: tuple[Member, ...]

    @property
    def unserved(self) -> int:
        """Requests for which there was no server at all."""
        return max(0, self.counts.econ - sum([one.counts.econ for one in self.members]))


def backends(stat: str, states: str, wanted: Collection[str]) -> Mapping[str, Backend]:
    """Those of the wanted backends that there are.

    Raises:
        TransientError: it is not what HAProxy says.
    """
    try:
        return _backends(stat, states, wanted)
    except (ValueError, LookupError, csv.Error) as error:
        raise TransientError(f"the statistics of HAProxy make no sense: {error!r}") from error


def _backends(stat: str, states: str, wanted: Collection[str]) -> Mapping[str, Backend]:
    known = {(row[0], row[1]): row[2:] for row in _states(states) if row[0] in wanted}
    members: dict[str, list[Member]] = {}
    found: dict[str, Backend] = {}
    for backend, name, mode, numbers in _rows(stat, wanted):
        counts = Counts._make([int(number) if number else 0 for number in numbers])
        if min(counts) < 0:
            raise ValueError(f"{backend}/{name} counts less than nothing")
        if name == "BACKEND":  # its row comes after those of its servers
            found[backend] = Backend(mode == "http", counts, tuple(members.get(backend, ())))
        elif (state := known.get((backend, name))) is not None:
            address, port, operational, admin, weight = state
            bits = int(admin)
            up = operational in _OPERATIONAL and not bits and int(weight) > 0
            member = Member(name, address.strip("-"), int(port), bits, up, counts)
            members.setdefault(backend, []).append(member)
    return found


def _rows(stat: str, wanted: Collection[str]) -> Iterator[tuple[str, str, str, tuple[str, ...]]]:
    lines = stat.split("\n")
    columns = lines[0].removeprefix("# ").split(",")
    if columns[:2] != ["pxname", "svname"]:
        raise ValueError(f"no head: {lines[0][:60]!r}")
    last = max(columns.index(name) for name in (*_COUNTS, "mode"))
    numbers_of = itemgetter(*(columns.index(name) for name in _COUNTS))
    mode_at = columns.index("mode")
    for line in lines[1:]:
        backend = line.partition(",")[0]
        if backend not in wanted:
            continue
        quoted = '"' in line
        fields = next(csv.reader([line])) if quoted else line.split(",", last + 1)
        yield backend, fields[1], fields[mode_at], numbers_of(fields)


def _table(states: str) -> tuple[list[str], list[list[str]]]:
    lines = states.split("\n")
    if lines[0].strip() != "1" or not lines[1].startswith("# "):
        raise ValueError(f"servers in an unknown format: {lines[0][:60]!r}")
    return lines[1][2:].split(" "), [line.split(" ") for line in lines[2:] if line]


def _states(states: str) -> Iterator[tuple[str, ...]]:
    if states.startswith("Can't find backend"):
        return
    columns, rows = _table(states)
    fields_of = itemgetter(*(columns.index(name) for name in _STATES))
    for row in rows:
        yield fields_of(row)


def shut_servers(states: str) -> str:
    """What HAProxy needs to shut these servers again when it starts: their lines of the state.

    Those of other servers are left out: their health and weights would be old by then.
    """
    columns, rows = _table(states)
    admin_at, since_at = columns.index("srv_admin_state"), columns.index(_SINCE)
    kept = [row for row in rows if int(row[admin_at]) & FORCED]
    for row in kept:
        row[since_at] = "0"  # what changes all the time is not worth writing
    lines = ["1", f"# {' '.join(columns)}", *(" ".join(row) for row in kept)]
    return "\n".join(lines) + "\n"
