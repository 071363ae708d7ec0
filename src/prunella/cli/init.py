"""``prunella init``: a configuration to begin with, from what runs now."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from prunella.cli import _complete, _terminal
from prunella.errors import PrunellaError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prunella.plugins import Draft, PlatformPlugin

_SURVEY_S = 30.0
_USUAL = "prunella.yaml"
_WITH_POLICIES = "kubernetes"


class UnwantedError(PrunellaError):
    """Nothing was written, as somebody must decide first."""

    exit_code = 2


def command(
    platform: Annotated[
        str,
        typer.Argument(
            metavar="PLATFORM",
            help="Such as docker, compose or systemd.",
            autocompletion=_complete.surveyed,
        ),
    ],
    *,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write it there, not to the terminal."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Overwrite that file.")] = False,
    policies: Annotated[
        bool,
        typer.Option("--policies", help="Of kubernetes: write HealingPolicy objects instead."),
    ] = False,
) -> None:
    """Write a configuration with comments, from what runs on a platform now.

    Nothing is touched, and Prunella would only observe until that is changed in the file.
    """
    import asyncio  # noqa: PLC0415 - slow

    from prunella.config import written  # noqa: PLC0415

    if policies and platform != _WITH_POLICIES:
        raise UnwantedError(f"--policies is for the platform {_WITH_POLICIES}, not for {platform}")
    _terminal.keep_log_out()
    plugin = _plugin(platform)
    if output is not None and not force:
        _refuse_to_overwrite(output)
    with _terminal.waiting(f"looking at what runs on {platform}"):
        drafts = asyncio.run(_survey(plugin))
    file = output or Path(_USUAL)
    drafts = [draft for draft in drafts if _can_be_read_back(plugin.kind, draft, file)]
    if not drafts:
        raise PrunellaError(f"nothing runs on {platform} that could be looked after")
    if policies:
        from prunella.operator.drafts import written as policies_written  # noqa: PLC0415 - slow

        text, then = policies_written(drafts, str(file)), "kubectl apply -f"
    else:
        text, then = written(plugin.kind, drafts, str(file)), "prunella check"
    if output is None:
        _terminal.say(*text.splitlines())
        return
    _write(output, text, force=force)
    _terminal.say(
        f"{output}: {_count(len(drafts), policies=policies)}; read it, then: {then} {output}"
    )


def _count(count: int, *, policies: bool) -> str:
    one, several = ("policy", "policies") if policies else ("service", "services")
    return f"{count} {one if count == 1 else several}"


def _plugin(kind: str) -> PlatformPlugin:
    from prunella.plugins import platforms  # noqa: PLC0415 - slow

    able = sorted(kind for kind, plugin in platforms().items() if plugin.survey is not None)
    if kind not in able:
        known = ", ".join(able)
        raise UnwantedError(f"no platform {kind!r} that can be surveyed, expected one of: {known}")
    return platforms()[kind]


async def _survey(plugin: PlatformPlugin) -> Sequence[Draft]:
    import asyncio  # noqa: PLC0415 - slow

    from prunella.runtime.clock import SystemClock  # noqa: PLC0415 - slow

    assert plugin.survey is not None, "`_plugin` takes no other"
    try:
        async with asyncio.timeout(_SURVEY_S):
            return await plugin.survey(SystemClock())
    except TimeoutError:
        raise PrunellaError(f"{plugin.kind} did not answer within {_SURVEY_S:g} s") from None


def _can_be_read_back(kind: str, draft: Draft, file: Path) -> bool:
    """Whether it makes a valid service; one that does not is no reason to leave out the others."""
    from prunella.config import ConfigFaults, parse, written  # noqa: PLC0415 - slow

    try:
        parse(written(kind, [draft], str(file)), file)
    except ConfigFaults as error:
        _terminal.complain(f"left out {draft.id}: {error.faults[0].message}")
        return False
    return True


def _refuse_to_overwrite(file: Path) -> None:
    if file.exists():
        raise UnwantedError(f"{file} is there already: name another file, or add --force")


def _write(file: Path, text: str, *, force: bool) -> None:
    """All of it or nothing, in place of what may be there."""
    target = file.resolve()
    new = target.with_name(f"{target.name}.{os.getpid()}.new")
    try:
        new.write_text(text, encoding="utf-8")
        if not force:
            _refuse_to_overwrite(target)  # once more: looking has taken its time
        new.replace(target)
    except OSError as error:
        raise PrunellaError(f"{file} cannot be written: {error.strerror}") from error
    finally:
        new.unlink(missing_ok=True)
