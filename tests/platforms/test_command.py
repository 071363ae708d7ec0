"""A service behind commands: what their ends and their output mean."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from prunella.core.model import (
    Action,
    ActionKind,
    Epoch,
    InstanceId,
    InstanceState,
    ServiceId,
    Status,
)
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.platforms.command import CommandPlatform, CommandSpec
from prunella.plugins import PlatformContext
from prunella.runtime.clock import SystemClock

SERVICE = ServiceId("web")
RESTART = Action(ActionKind.RESTART, SERVICE)


def shell(script: str, *arguments: str) -> list[str]:
    return ["sh", "-c", script, "sh", *arguments]


def platform(folder: Path, observe: str = "exit 0", **fields: Any) -> CommandPlatform:
    body = {"observe": shell(observe), "restart": ["true"], "cwd": folder} | fields
    context = PlatformContext(SERVICE, SystemClock(), folder, lambda _fact: None)
    return CommandPlatform(CommandSpec.model_validate(body), context)


@pytest.mark.parametrize(
    ("script", "state", "identity", "detail"),
    [
        ("exit 0", InstanceState.RUNNING, "", ""),
        ("echo 42", InstanceState.RUNNING, "42", ""),
        ("echo; echo '  abc  '; echo def", InstanceState.RUNNING, "abc", ""),
        ("printf 'a\\033[1mb\\n'", InstanceState.RUNNING, "a[1mb", ""),
        ("exit 3", InstanceState.EXITED, "", "exit code 3"),
        ("echo no such unit; exit 4", InstanceState.EXITED, "", "exit code 4: no such unit"),
    ],
)
async def test_the_exit_code_is_the_state_and_the_first_line_the_run(
    tmp_path: Path, script: str, state: InstanceState, identity: str, detail: str
) -> None:
    (instance,) = (await platform(tmp_path, script).observe()).instances
    assert instance[:4] == (InstanceId("main"), state, identity, detail)


async def test_a_long_line_is_cut(tmp_path: Path) -> None:
    status = await platform(tmp_path, "printf '%0500d' 7").observe()
    assert status.instances[0].identity == "0" * 200


@pytest.mark.parametrize(
    ("script", "error", "words"),
    [
        ("sleep 60", TransientError, "no end within 0.2 s"),
        ("kill -9 $$", TransientError, "killed by a signal"),
        ("no-such-command-at-all", PermanentError, "exit code 127"),
        ("exec /dev/null", PermanentError, "exit code 126"),
    ],
)
async def test_what_cannot_tell_is_an_error_and_not_an_exit(
    tmp_path: Path, script: str, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await platform(tmp_path, script, timeout=0.2).observe()


async def test_a_service_that_cannot_be_seen_is_not_restarted(tmp_path: Path) -> None:
    blind = platform(tmp_path, "sleep 60", timeout=0.2, restart=["touch", "restarted"])
    with pytest.raises(TransientError):
        await blind.execute(RESTART, epoch=Epoch(1))
    assert not (tmp_path / "restarted").exists()


async def test_placeholders_are_replaced_inside_elements_and_split_none(tmp_path: Path) -> None:
    note = shell('printf "%s\\n" "$@" > told', "{service}/{instance}", "a b {service}", "{other}")
    await platform(tmp_path, restart=note).execute(RESTART, epoch=Epoch(1))
    assert (tmp_path / "told").read_text() == "web/main\na b web\n{other}\n"


async def test_commands_see_the_environment_that_was_given(tmp_path: Path) -> None:
    status = await platform(tmp_path, "echo $COLOUR", env={"COLOUR": "red"}).observe()
    assert status.instances[0].identity == "red"


async def test_a_command_that_fails_is_told_with_its_last_line(tmp_path: Path) -> None:
    failing = platform(tmp_path, restart=shell("echo trying; echo port is taken; exit 7"))
    with pytest.raises(TransientError, match=r"^sh: exit code 7: port is taken$"):
        await failing.execute(RESTART, epoch=Epoch(1))


@pytest.mark.parametrize(("code", "calls"), [(0, "stop start "), (1, "start ")])
async def test_only_what_runs_is_stopped_before_it_is_started(
    tmp_path: Path, code: int, calls: str
) -> None:
    two = platform(
        tmp_path,
        f"exit {code}",
        restart=None,
        stop=shell("printf 'stop ' >> calls"),
        start=shell("printf 'start ' >> calls"),
    )
    await two.execute(RESTART, epoch=Epoch(1))
    assert (tmp_path / "calls").read_text() == calls


async def test_nothing_is_started_when_the_stop_has_failed(tmp_path: Path) -> None:
    two = platform(tmp_path, restart=None, stop=["false"], start=["touch", "started"])
    with pytest.raises(TransientError, match="false: exit code 1"):
        await two.execute(RESTART, epoch=Epoch(1))
    assert not (tmp_path / "started").exists()


async def test_without_a_name_for_its_run_a_service_is_restarted_each_time(
    tmp_path: Path,
) -> None:
    nameless = platform(tmp_path, restart=shell("printf x >> runs"))
    action = Action(ActionKind.RESTART, SERVICE, InstanceId("main"), "an older run")
    for _ in range(2):
        await nameless.execute(action, epoch=Epoch(1))
    assert (tmp_path / "runs").read_text() == "xx"


async def test_an_exited_service_keeps_the_name_of_its_last_run(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("77")
    seen = platform(tmp_path, f"cat {shlex.quote(str(tmp_path / 'pid'))}")
    before: Status = await seen.observe()
    (tmp_path / "pid").unlink()
    after = await seen.observe()
    assert after.instances[0].state is InstanceState.EXITED
    assert after.instances[0].identity == before.instances[0].identity == "77"


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({}, "either restart, or stop and start"),
        ({"restart": ["a"], "stop": ["b"], "start": ["c"]}, "either restart, or stop and start"),
        ({"stop": ["b"]}, "belong together"),
        ({"restart": ["a"], "start": ["c"]}, "belong together"),
        ({"restart": []}, "at least 1 item"),
        ({"restart": "systemctl restart web"}, "valid tuple"),
    ],
)
def test_a_way_to_restart_is_given_exactly_once(fields: dict[str, object], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CommandSpec.model_validate({"observe": ["true"]} | fields)


SCALE: dict[str, Any] = {
    "scale": shell('echo "$1" > wanted', "{replicas}"),
    "replicas": ["cat", "wanted"],
}
ROLLBACK: dict[str, Any] = {
    "rollback": shell('echo "$1" > version', "{revision}"),
    "version": ["cat", "version"],
}
UP = Action(ActionKind.SCALE_UP, SERVICE, replicas=3, before="2")
BACK = Action(ActionKind.ROLLBACK, SERVICE, revision="v1", before="v2")


@pytest.mark.parametrize(
    ("fields", "can"),
    [
        ({}, {"restart"}),
        ({"version": ["true"]}, {"restart"}),
        (SCALE, {"restart", "scale-up", "scale-down"}),
        (ROLLBACK, {"restart", "rollback"}),
        (SCALE | ROLLBACK, {"restart", "scale-up", "scale-down", "rollback"}),
    ],
)
def test_it_can_do_what_it_has_commands_for(
    tmp_path: Path, fields: dict[str, Any], can: set[str]
) -> None:
    assert platform(tmp_path, **fields).capabilities.keys() == can


async def test_number_and_version_are_what_the_commands_print(tmp_path: Path) -> None:
    (tmp_path / "wanted").write_text("\n 2 \n")
    (tmp_path / "version").write_text("v1\nof yesterday\n")
    status = await platform(tmp_path, **SCALE, **ROLLBACK).observe()
    assert (status.desired, status.revision, len(status.instances)) == (2, "v1", 1)


async def test_without_commands_it_is_one_of_an_unknown_version(tmp_path: Path) -> None:
    status = await platform(tmp_path).observe()
    assert (status.desired, status.revision) == (1, None)


@pytest.mark.parametrize(
    ("fields", "error", "words"),
    [
        ({**SCALE, "replicas": ["echo", "some"]}, PermanentError, "expected a number, not 'some'"),
        ({**SCALE, "replicas": ["echo", "-1"]}, PermanentError, "expected a number"),
        ({**SCALE, "replicas": ["echo", "40000"]}, PermanentError, "expected a number"),
        ({**SCALE, "replicas": ["false"]}, TransientError, "false: exit code 1"),
        ({"version": ["true"]}, PermanentError, "expected a version, not ''"),
        ({"version": ["echo", "--force"]}, PermanentError, "expected a version, not '--force'"),
        ({"version": shell("printf '%0300d' 1")}, PermanentError, "expected a version"),
        ({"version": shell("exit 127")}, PermanentError, "exit code 127"),
        ({"version": ["sleep", "60"], "timeout": 0.2}, TransientError, "no end within 0.2 s"),
    ],
)
async def test_what_a_running_service_does_not_tell_is_an_error(
    tmp_path: Path, fields: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        await platform(tmp_path, **fields).observe()


async def test_a_service_that_is_down_has_nobody_to_tell_its_number_and_version(
    tmp_path: Path,
) -> None:
    for name, text in {"wanted": "2", "version": "v1"}.items():
        (tmp_path / name).write_text(text)
    seen = platform(tmp_path, "test -e wanted", **SCALE, **ROLLBACK)
    assert (await seen.observe()).revision == "v1"
    (tmp_path / "wanted").unlink()
    status = await seen.observe()
    assert status.instances[0].state is InstanceState.EXITED
    assert (status.desired, status.revision) == (2, None)


@pytest.mark.parametrize(
    ("fields", "action", "file"), [(SCALE, UP, "wanted"), (ROLLBACK, BACK, "version")]
)
async def test_a_change_goes_from_what_was_to_what_is_asked_for(
    tmp_path: Path, fields: dict[str, Any], action: Action, file: str
) -> None:
    (tmp_path / file).write_text(action.before)
    await platform(tmp_path, **fields).execute(action, epoch=Epoch(1))
    assert (tmp_path / file).read_text().strip() == str(action.replicas or action.revision)


@pytest.mark.parametrize(
    ("fields", "action", "file"), [(SCALE, UP, "wanted"), (ROLLBACK, BACK, "version")]
)
async def test_what_somebody_else_has_set_stays(
    tmp_path: Path, fields: dict[str, Any], action: Action, file: str
) -> None:
    (tmp_path / file).write_text("7")
    with pytest.raises(ConflictError, match=f"found 7, not {action.before}: somebody else"):
        await platform(tmp_path, **fields).execute(action, epoch=Epoch(1))
    assert (tmp_path / file).read_text() == "7"


async def test_a_change_that_is_there_already_is_not_made_again(tmp_path: Path) -> None:
    (tmp_path / "wanted").write_text("3")
    scaled = platform(tmp_path, **SCALE | {"scale": ["touch", "{replicas}"]})
    await scaled.execute(UP, epoch=Epoch(1))
    assert not (tmp_path / "3").exists()


async def test_a_command_that_changes_nothing_has_failed(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("v2")
    idle = platform(tmp_path, **ROLLBACK | {"rollback": ["echo", "{revision}"]})
    with pytest.raises(TransientError, match="echo has ended, and revision is v2, not v1"):
        await idle.execute(BACK, epoch=Epoch(1))


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"scale": ["a", "{replicas}"]}, "scale and replicas belong together"),
        ({"replicas": ["a"]}, "scale and replicas belong together"),
        ({"rollback": ["a", "{revision}"]}, "rollback needs version"),
        ({"scale": ["a"], "replicas": ["b"]}, "expected {replicas} in 'a'"),
        ({"rollback": ["a"], "version": ["b"]}, "expected {revision} in 'a'"),
    ],
)
def test_what_cannot_be_read_back_is_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=re.escape(words)):
        CommandSpec.model_validate({"observe": ["true"], "restart": ["true"]} | fields)
