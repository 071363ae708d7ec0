"""What can be said of units before anything is done: faults, doubts, and what runs there now."""

from __future__ import annotations

import os
import pwd
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import psutil

from prunella.errors import PermanentError, TransientError
from prunella.platforms._cgroup import group_pids
from prunella.platforms._systemd_bus import MANAGER, Bus, address_of, path_of
from prunella.platforms._systemd_state import NUMBERED, Unit
from prunella.platforms._systemd_units import Units
from prunella.plugins import Draft
from prunella.ports import Clock, Remark

# What systemd and the machine need for themselves, and the sessions of users.
_OWN = (
    "systemd-",
    "dbus",
    "user@",
    "user-runtime-dir@",
    "getty@",
    "serial-getty@",
    "console-getty",
    "container-getty@",
    "emergency",
    "rescue",
    "initrd-",
)
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "127.0.0.1"}  # noqa: S104 - where others listen


def permit(name: str, said: str) -> str:
    """What must be done so that Prunella may do something to that unit."""
    user = _user()
    return (
        f"user {user} may not do that to {name}: {said}; run Prunella as root, or add a polkit "
        f'rule: polkit.addRule(function(action, subject) {{ if (action.id == "{MANAGER}'
        f'.manage-units" && action.lookup("unit") == "{name}" && subject.user == "{user}") '
        "return polkit.Result.YES; });"
    )


async def reach(_clock: Clock, /) -> str:
    """Why the systemd of this machine cannot be asked; empty if it can."""
    try:
        bus = await Bus.open(address_of("system"))
        try:
            await bus.ping()
        finally:
            await bus.close()
    except (TransientError, PermanentError) as trouble:
        return str(trouble)
    return ""


async def remarks(units: Units, bus: str, name: str, present: Sequence[Unit]) -> tuple[Remark, ...]:
    """What a person should know of the unit `name` and of the instances that are `present`.

    Raises:
        TransientError, PermanentError: it cannot be asked for.
    """
    found = [*_remarks(name, await units.properties(name))]
    if not present:
        found.append(Remark(f"no numbered instance like {name} runs: there is nothing to heal yet"))
    hidden = [unit.name for unit in present if unit.main_pid and not group_pids(unit.group)]
    if hidden:
        found.append(
            Remark(f"the processes of {hidden[0]} cannot be seen from here: no probe can use them")
        )
    if bus != "user" and os.geteuid() != 0:
        found += await _rights(units, name)
    return tuple(found)


def _remarks(name: str, told: Mapping[str, Any]) -> Iterator[Remark]:
    loaded = told["LoadState"]
    if loaded != "loaded":
        why = {
            "not-found": f"systemd knows no unit {name}",
            "masked": f"{name} is masked, so that nobody can start it",
        }
        yield Remark(
            why.get(loaded, f"{name} cannot be loaded: {told['LoadError'][1]}"), fault=True
        )
        return
    if told["Id"] != name:
        yield Remark(f"{name} is another name of {told['Id']}")
    refused = [verb for verb in ("Start", "Stop") if told[f"RefuseManual{verb}"]]
    if refused:
        yield Remark(f"{name} has RefuseManual{refused[0]}=yes: it is not restarted", fault=True)
    if told["Restart"] != "no":
        yield Remark(
            f"{name} has Restart={told['Restart']}: systemd restarts it by itself as well, and its "
            "restarts count in Prunella's budget; Restart=no leaves them to Prunella alone"
        )
    if told["Type"] == "oneshot" and not told["RemainAfterExit"]:
        yield Remark(f"{name} has Type=oneshot: that it ends is no fault, unless it fails")
    elif told["TriggeredBy"]:
        yield Remark(
            f"{name} is started by {told['TriggeredBy'][0]}: that it ends is no fault, "
            "unless it fails"
        )


async def _rights(units: Units, name: str) -> tuple[Remark, ...]:
    allowed = await units.may_order()
    if allowed is None:
        return (Remark(permit(name, "only root may, since there is no polkit"), fault=True),)
    return () if allowed else (Remark(permit(name, "unless a polkit rule allows just that")),)


async def survey(_clock: Clock, /) -> Sequence[Draft]:
    """The services that run on the systemd of this machine, other than its own.

    Raises:
        TransientError: it does not answer.
        PermanentError: we may not ask.
    """
    bus = await Bus.open(address_of("system"))
    try:
        (rows,) = await bus.ask("ListUnitsByPatterns", "asas", ["active"], ["*.service"])
        names = [row[0] for row in rows if row[4] == "running" and not row[0].startswith(_OWN)]
        told = [await bus.properties(path_of(name)) for name in sorted(names)]
    finally:
        await bus.close()
    services: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for unit in told:
        if unit["MainPID"] != os.getpid():
            numbered = NUMBERED.fullmatch(unit["Id"])
            services[f"{numbered['head']}@.service" if numbered else unit["Id"]].append(unit)
    listening = _listening()
    return tuple(_draft(name, units, listening) for name, units in services.items())


def _draft(
    name: str, units: Sequence[Mapping[str, Any]], listening: Mapping[int, Mapping[str, Any]]
) -> Draft:
    pids = group_pids(units[0]["ControlGroup"])
    probe = next((listening[pid] for pid in pids if pid in listening), {"kind": "process"})
    template = "@." in name
    return Draft(
        id=name.removesuffix(".service").removesuffix("@"),
        section={"unit": name},
        probes=() if template else (probe,),
        scale={"min": len(units), "max": 2 * len(units)} if template else {},
        note=next((remark.message for remark in _remarks(units[0]["Id"], units[0])), ""),
    )


def _listening() -> dict[int, dict[str, Any]]:
    """For each process that listens, a probe of its lowest TCP port; only ours without root."""
    ports = [
        (one.laddr.port, one.laddr.ip, one.pid)
        for one in psutil.net_connections("tcp")
        if one.laddr and one.pid is not None and one.status == psutil.CONN_LISTEN
    ]
    return {
        pid: {"kind": "tcp", "host": _ANY_HOST.get(ip, ip), "port": port}
        for port, ip, pid in sorted(ports, reverse=True)
    }


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())
