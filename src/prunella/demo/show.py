"""What is seen of the demo: a live table on a terminal of 80 by 24, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from prunella.runtime.notices import Notice, Topic
from prunella.runtime.orchestrator import SelfHealingOrchestrator
from prunella.wire import HealingAction, ServiceHealth

_LINES = 12  # of what has happened, under the table
_COLOURS = {"healthy": "green", "degraded": "yellow", "failed": "red", "recovering": "cyan"}
_TOLD = (
    Topic.SERVICE_DEGRADED,
    Topic.SERVICE_FAILED,
    Topic.HEALING_STARTED,
    Topic.HEALING_FAILED,
    Topic.SERVICE_QUARANTINED,
)


class Show:
    """Says what happens as it happens."""

    def __init__(self, orchestrator: SelfHealingOrchestrator, console: Console) -> None:
        self._orchestrator = orchestrator
        self._console = console
        self._lines: list[Text] = []
        self._live = Live(get_renderable=self._picture, console=console, refresh_per_second=8)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def say(self, words: str, style: str = "") -> None:
        self._lines.append(Text(words, style=style, no_wrap=True, overflow="ellipsis"))
        if not self._console.is_terminal:
            self._console.print(words, style=style, soft_wrap=True)

    def heard(self, notice: Notice) -> None:
        if notice.topic in _TOLD:
            detail = notice.data.get("evidence") or notice.data.get("reason") or ""
            self.say(f"   {notice.topic.value}: {notice.service}  {detail}", "dim")

    def _picture(self) -> Group:
        found = self._orchestrator.get_system_health().services
        counts = [len(self._orchestrator.get_pids(health.id)) for health in found]
        return Group(_services(found, counts), *self._lines[-_LINES:])


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", expand=True, box=box.SIMPLE_HEAD)
    table.show_edge = table.pad_edge = False
    for column in columns:
        table.add_column(column, no_wrap=True)
    return table


def _services(found: Sequence[ServiceHealth], counts: Sequence[int]) -> Table:
    table = _table("Prunella", "service", "status", "replicas", "response", "what is known")
    table.columns[-1].ratio = 1  # the others have what they need; this one has the rest
    for health, count in zip(found, counts, strict=True):
        response = "" if health.response_time is None else f"{health.response_time:.1f} ms"
        colour = _COLOURS.get(health.status, "white")
        known = "" if health.status == "healthy" else health.detail
        table.add_row(health.name, f"[{colour}]{health.status}[/]", str(count), response, known)
    return table


def history(actions: Sequence[HealingAction]) -> Table:
    """All that was done, newest first."""
    columns = ("time", "service", "symptom", "action", "outcome", "recovery", "downtime")
    table = _table("History, newest first", *columns)
    for action in actions:
        recovery = "" if action.recovery_time is None else f"{action.recovery_time:.0f} ms"
        down = "" if action.downtime is None else f"{action.downtime:.0f} ms"
        colour = "green" if action.success else "red"
        table.add_row(
            f"{action.timestamp:%H:%M:%S}",
            action.service_id,
            action.symptom or "",
            action.action,
            f"[{colour}]{action.outcome or 'running'}[/]",
            recovery,
            down,
        )
    return table
