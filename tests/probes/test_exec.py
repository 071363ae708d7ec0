from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from prunella.core.model import Cause, Verdict
from prunella.ports import Probe
from prunella.probes.exec import ExecSpec

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


@pytest.mark.parametrize(
    ("printed", "verdict", "load", "detail"),
    [
        ("40", Verdict.PASS, 0.5, ""),
        ("80", Verdict.PASS, 1.0, ""),
        ("120", Verdict.FAIL, 1.5, "120, limit 80"),
        (r"\n  81.5 requests\n7", Verdict.FAIL, 1.01875, "81.5, limit 80"),
        ("1e2%%", Verdict.FAIL, 1.25, "100, limit 80"),
        ("-3", Verdict.PASS, 0.0, ""),
    ],
)
async def test_a_printed_number_above_its_limit_is_saturated(
    build: Build, printed: str, verdict: Verdict, load: float, detail: str
) -> None:
    probe = build("exec", command=["printf", printed], number={"above": 80})
    observation = await probe.check()
    assert (observation.verdict, observation.detail) == (verdict, detail)
    assert observation.cause is (Cause.SATURATED if detail else None)
    assert observation.load == pytest.approx(load)


@pytest.mark.parametrize(
    ("printed", "detail"),
    [("", "''"), ("many", "'many'"), ("inf", "'inf'"), ("1e999", "'1e999'"), ("nan", "'nan'")],
)
async def test_what_is_no_number_is_a_wrong_answer(build: Build, printed: str, detail: str) -> None:
    observation = await build("exec", command=["printf", printed], number={"above": 1}).check()
    assert observation.detail == f"{detail} is not a number"
    assert (observation.cause, observation.load) == (Cause.ERROR, None)


async def test_a_command_that_fails_has_failed_whatever_number_it_prints(build: Build) -> None:
    command = ["sh", "-c", "echo 90; exit 1"]
    observation = await build("exec", command=command, number={"above": 80}).check()
    assert (observation.cause, observation.load) == (Cause.ERROR, None)


@pytest.mark.parametrize("above", [0, -1, float("inf"), float("nan")])
def test_a_limit_is_a_number_above_nothing(above: float) -> None:
    with pytest.raises(ValidationError):
        ExecSpec.model_validate({"command": ["true"], "number": {"above": above}})


async def test_environment_is_added_to_our_own(build: Build, tmp_path: Path) -> None:
    script = f'test "$WORD" = yes && test -n "$PATH" && test "$PWD" = {tmp_path}'
    probe = build("exec", command=["sh", "-c", script], env={"WORD": "yes"}, cwd=str(tmp_path))
    assert (await probe.check()).verdict is Verdict.PASS
