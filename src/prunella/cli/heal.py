"""``prunella heal``: heal now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import typer

from prunella.cli import _complete, _terminal
from prunella.cli._actor import actor
from prunella.cli._client import RefusedError, connect, service_path
from prunella.cli._options import Api, Json, Service

_REFUSED = 409

# The daemon knows which ones a service can be given.
Remedy = Literal["restart", "scale-up", "scale-down", "rollback", "circuit-break", "circuit-close"]

_ABSOLUTE = frozenset({"lease", "capability", "record"})  # what no order can pass


def command(
    ctx: typer.Context,
    service: Service,
    *,
    action: Annotated[Remedy | None, typer.Option(help="What to do; without it, restart.")] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="For the history.")] = "",
    override: Annotated[
        list[str] | None,
        typer.Option(
            metavar="GUARD",
            help="Pass this guard too; may be repeated.",
            autocompletion=_complete.guards,
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until the outcome is known.")
    ] = True,
    as_json: Json = False,
    api: Api = None,
) -> None:
    """Heal a service now, whatever its cool-down and budget say.

    A restart goes instance by instance; scale-up adds half as many instances again, scale-down
    takes one away, rollback goes back to the last version that ran healthy through its soak.
    circuit-break has its gateway answer in its place for a while, circuit-close ends that.
    Ends with 0 if it recovered, 1 if not, 2 if there is no such service.
    """
    client = connect(ctx, api)
    body = {"reason": reason, "override": override or [], "wait": wait, "actor": actor()}
    if action is not None:
        body["action"] = action
    try:
        with _terminal.waiting(f"healing {service}"):
            done = client.send("POST", service_path(service, "/heal"), body, within_s=None)
    except RefusedError as error:
        if error.status != _REFUSED:
            raise
        _say_refusal(service, error, as_json=as_json)
        raise typer.Exit(1) from None
    if as_json:
        _terminal.say_json(done)
    else:
        _terminal.say(_told(done))
    raise typer.Exit(0 if done["success"] or not wait else 1)


def _told(done: Mapping[str, Any]) -> str:
    outcome = _terminal.outcome(done)
    took = done.get("recoveryTime")
    after = f" after {_terminal.milliseconds(took)}" if took is not None else ""
    detail = f": {done['detail']}" if done.get("detail") else ""
    deed = _terminal.deed(done)
    return f"{done['serviceId']}: {deed} {outcome}{after} (action {done['id']}){detail}"


def _say_refusal(service: str, error: RefusedError, *, as_json: bool) -> None:
    if as_json:
        _terminal.say_json(error.body)
        return
    _terminal.complain(f"{service} was not healed: {error}")
    vetoes: Mapping[str, str] = error.body.get("vetoes", {})
    for guard, reason in vetoes.items():
        how = "" if guard in _ABSOLUTE else f" (pass it with --override {guard})"
        _terminal.complain(f"  {guard}: {reason}{how}")
