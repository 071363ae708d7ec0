from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from prunella.core.model import Cause, Verdict
from prunella.ports import Probe

Build = Callable[..., Probe]


async def test_exit_code_zero_passes(build: Build) -> None:
    assert (await build("exec", command=["true"]).check()).verdict is Verdict.PASS


@pytest.mark.parametrize(
    ("script", "detail"),
    [
        ("exit 7", "exit 7"),
        ("echo first; echo last words >&2; echo; exit 1", "exit 1: last words"),
        (r"printf 'a\033[31mred\342\200\256'; exit 2", "exit 2: a?[31mred?"),
        ("kill -15 $$", "killed by signal 15"),
    ],
)
async def test_any_other_end_is_an_error_with_its_last_line(
    build: Build, script: str, detail: str
) -> None:
    observation = await build("exec", command=["sh", "-c", script]).check()
    assert (observation.cause, observation.detail) == (Cause.ERROR, detail)


async def test_a_command_that_takes_too_long_is_a_timeout(build: Build) -> None:
    observation = await build("exec", command=["sleep", "60"], timeout=0.2).check()
    assert (observation.cause, observation.detail) == (Cause.TIMEOUT, "no answer within 0.2 s")
    assert observation.latency_s < 0.4


async def test_a_command_that_does_not_exist_is_an_error_that_names_it(build: Build) -> None:
    observation = await build("exec", command=["/no/such", "x"]).check()
    assert (observation.cause, observation.detail) == (
        Cause.ERROR,
        "command not found: /no/such",
    )


async def test_environment_is_added_to_our_own(build: Build, tmp_path: Path) -> None:
    script = f'test "$WORD" = yes && test -n "$PATH" && test "$PWD" = {tmp_path}'
    probe = build("exec", command=["sh", "-c", script], env={"WORD": "yes"}, cwd=str(tmp_path))
    assert (await probe.check()).verdict is Verdict.PASS
