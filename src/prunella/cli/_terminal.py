"""What reaches the terminal: plain words, tables, JSON; never a raw control character.

Names and details come from services and from whoever calls the API: they are shown, not obeyed.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

# Controls, invisible and reordering marks, line separators, halves of characters.
_UNSEEN = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_STYLES = {
    "healthy": "green",
    "recovered": "green",
    "degraded": "yellow",
    "recovering": "cyan",
    "observed": "cyan",
    "failed": "bold red",
}
_DIGEST = re.compile(r"\b(?:sha256:)?([0-9a-f]{8})[0-9a-f]{24,}\b")  # of an image, or a commit
_PIPE_WIDTH = 400  # no terminal to fit: lines stay whole for grep


def prepare() -> None:
    """Let no character that the terminal's encoding lacks end the program."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def clean(text: object) -> str:
    """`text` on one line, with what cannot be seen spelled out."""
    return _UNSEEN.sub(lambda found: found[0].encode("unicode_escape").decode(), str(text))


def say(*lines: str, flush: bool = False) -> None:
    for line in lines:
        print(clean(line), flush=flush)  # noqa: T201 - this is what a command says


def complain(*lines: str) -> None:
    """On stderr; a message of several lines keeps them."""
    for message in lines:
        for line in message.split("\n"):
            print(clean(line), file=sys.stderr)  # noqa: T201 - this is what a command says


def say_json(value: object, *, indent: int | None = 2) -> None:
    """JSON in ASCII, so that nothing in it is raw. One line when there is no indent."""
    import json  # noqa: PLC0415 - commands without JSON need none

    text = json.dumps(value, indent=indent).replace("\x7f", "\\u007f")
    print(text, flush=True)  # noqa: T201 - this is what a command says


def say_table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """A table without lines; words that are a status have its colour."""
    from rich.table import Table  # noqa: PLC0415 - slow
    from rich.text import Text  # noqa: PLC0415

    table = Table(box=None, pad_edge=False, header_style="bold")
    for index, column in enumerate(columns):
        last = index == len(columns) - 1
        table.add_column(column, no_wrap=not last, overflow="fold")
    for row in rows:
        words = [clean(cell) for cell in row]
        table.add_row(*[Text(word, style=_STYLES.get(word.split(" ")[0], "")) for word in words])
    _console(sys.stdout).print(table)


def waiting(words: str) -> AbstractContextManager[object]:
    """A spinner on stderr while something takes its time; nothing where nobody watches."""
    if not sys.stderr.isatty():
        return nullcontext()
    from rich.text import Text  # noqa: PLC0415 - slow

    return _console(sys.stderr).status(Text(clean(words)))


@contextmanager
def counting(words: str, total: int) -> Generator[Callable[[], None]]:
    """A bar on stderr while many things are done; what it gives is called after each."""
    if not sys.stderr.isatty():
        yield lambda: None
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress  # noqa: PLC0415 - slow

    columns = (clean(words), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=_console(sys.stderr), transient=True) as progress:
        bar = progress.add_task("", total=total)
        yield lambda: progress.advance(bar)


def keep_log_out() -> None:
    """What plugins log while they are asked is for a daemon; their answer is for people."""
    import logging  # noqa: PLC0415 - slow

    import structlog  # noqa: PLC0415

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))


def moment(text: str | None) -> str:
    """A wire timestamp in the machine's own zone."""
    if text is None:
        return "-"
    from datetime import datetime  # noqa: PLC0415 - help needs none

    try:
        return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError):
        return text


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.0f} ms" if value < 10_000 else f"{value / 1000:.1f} s"


def version(revision: str) -> str:
    """A version for people: digests have so many digits as tell them apart."""
    return _DIGEST.sub(r"\1", revision)


def deed(action: Mapping[str, Any]) -> str:
    """What was done: the action, and from what to what."""
    kind = str(action["action"])
    to = version(action.get("revision") or "") or action.get("replicas")
    before = version(action.get("before") or "")
    if (share := action.get("share")) is not None:
        of = f" of {action['instance']}" if action.get("instance") else ""
        return f"{kind}{of} {before or '?'} → {share} %"
    if to is None:
        return kind
    return f"{kind} {before} → {to}" if before else f"{kind} to {to}"


def percent(value: float, digits: int) -> str:
    """`value` is in percent already; noughts that say nothing are left out."""
    return f"{float(f'{value:.{digits}f}'):g} %"


def outcome(action: Mapping[str, Any]) -> str:
    """How an action ended, in a word."""
    return str(action.get("outcome") or "running")


def _console(file: Any) -> Console:
    from rich.console import Console  # noqa: PLC0415 - slow

    watched = bool(file.isatty())
    plain = not watched or bool(os.environ.get("NO_COLOR"))
    return Console(
        file=file,
        color_system=None if plain else "auto",
        force_terminal=watched,
        width=None if watched else _PIPE_WIDTH,
        highlight=False,
        markup=False,
        emoji=False,
    )
