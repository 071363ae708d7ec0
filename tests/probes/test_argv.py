from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import pytest

from prunella.argv import run_argv
from prunella.errors import PermanentError, TransientError

Eventually = Callable[[Callable[[], bool]], Awaitable[None]]
States = Callable[[int], Mapping[int, str]]


async def test_gives_exit_code_and_both_outputs() -> None:
    done = await run_argv(["sh", "-c", "echo out; echo err >&2; exit 3"], timeout_s=5)
    assert done[:3] == (3, b"out\nerr\n", False)


async def test_errors_are_told_apart_where_that_is_asked_for() -> None:
    argv = ["sh", "-c", "echo err >&2; echo out; head -c 100000 /dev/zero >&2; exit 3"]
    done = await run_argv(argv, timeout_s=5, apart=True, output_cap_bytes=6)
    assert done == (3, b"out\n", False, b"err\n\0\0")


async def test_errors_apart_are_kept_of_what_was_killed_too() -> None:
    argv = ["sh", "-c", "exec >&-; echo err >&2; sleep 60"]
    done = await run_argv(argv, timeout_s=0.3, apart=True)
    assert done == (None, b"", True, b"err\n")


async def test_gives_a_signal_as_a_negative_exit_code() -> None:
    assert (await run_argv(["sh", "-c", "kill -9 $$"], timeout_s=5)).exit_code == -9


async def test_arguments_are_not_read_by_a_shell() -> None:
    assert (await run_argv(["echo", "$HOME; id"], timeout_s=5)).output == b"$HOME; id\n"


async def test_nothing_is_on_stdin() -> None:
    assert (await run_argv(["cat"], timeout_s=5)).output == b""


async def test_environment_and_folder_are_those_given(tmp_path: Path) -> None:
    done = await run_argv(
        ["/bin/sh", "-c", "echo $WORD; pwd"], timeout_s=5, cwd=str(tmp_path), env={"WORD": "yes"}
    )
    assert done.output.decode().split() == ["yes", str(tmp_path)]


async def test_a_gigabyte_of_output_neither_blocks_nor_is_kept() -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    done = await run_argv(["head", "-c", "1000000000", "/dev/zero"], timeout_s=20)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert (done.exit_code, len(done.output)) == (0, 65536)
    assert after - before < 20_000  # KiB


async def test_output_goes_whole_to_a_descriptor_that_is_given(tmp_path: Path) -> None:
    with (tmp_path / "log").open("wb") as log:
        argv = ["sh", "-c", "head -c 100000 /dev/zero; echo err >&2"]
        done = await run_argv(argv, timeout_s=5, output_to=log.fileno())
    assert done[:3] == (0, b"", False)
    assert (tmp_path / "log").read_bytes() == b"\0" * 100_000 + b"err\n"


async def test_the_whole_group_is_killed_at_the_timeout_and_collected(
    tmp_path: Path, states: States, eventually: Eventually
) -> None:
    pid_file = tmp_path / "pid"
    command = f"echo $$ > {pid_file}; sleep 60 & sleep 60"
    done = await run_argv(["sh", "-c", command], timeout_s=0.3)
    assert done[:3] == (None, b"", True)
    leader = int(pid_file.read_text())
    assert leader not in states(leader)
    await eventually(lambda: set(states(leader).values()) <= {"Z", "X"})


async def test_the_whole_group_is_killed_on_cancellation_and_collected(
    tmp_path: Path, states: States, eventually: Eventually
) -> None:
    pid_file = tmp_path / "pid"
    command = f"sleep 60 & echo $$ > {pid_file}; sleep 60"
    task = asyncio.create_task(run_argv(["sh", "-c", command], timeout_s=30))
    await eventually(lambda: pid_file.exists() and pid_file.read_text().endswith("\n"))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    leader = int(pid_file.read_text())
    assert leader not in states(leader)
    await eventually(lambda: set(states(leader).values()) <= {"Z", "X"})


async def test_is_not_held_up_by_a_child_that_keeps_the_output_open() -> None:
    async with asyncio.timeout(5):
        done = await run_argv(["sh", "-c", "sleep 30 & echo $!"], timeout_s=20)
    os.kill(int(done.output), 9)
    assert done.exit_code == 0


async def test_leaves_no_descriptor_behind(descriptors: Callable[[], int]) -> None:
    await run_argv(["true"], timeout_s=5)
    before = descriptors()
    for _ in range(20):
        await run_argv(["true"], timeout_s=5)
    await run_argv(["sleep", "9"], timeout_s=0.05)
    await run_argv(["true"], timeout_s=5, output_to=2)
    with pytest.raises(PermanentError):
        await run_argv(["/no/such/command"], timeout_s=5)
    assert descriptors() == before


@pytest.mark.parametrize(
    ("argv", "cwd", "message"),
    [
        (["/no/such/command"], None, "command not found: /no/such/command"),
        (["/etc/passwd"], None, "command /etc/passwd cannot be run: Permission denied"),
        (["true"], "/no/such/folder", "cannot enter folder /no/such/folder"),
        (["tr\0ue"], None, "cannot be run"),
        ([], None, "the command is empty"),
    ],
    ids=["missing", "not executable", "no folder", "NUL", "empty"],
)
async def test_what_cannot_ever_run_is_a_permanent_error(
    argv: list[str], cwd: str | None, message: str
) -> None:
    with pytest.raises(PermanentError, match=message):
        await run_argv(argv, timeout_s=5, cwd=cwd)


async def test_a_shortage_of_descriptors_is_a_transient_error(
    out_of_descriptors: Callable[[], object],
) -> None:
    out_of_descriptors()
    with pytest.raises(TransientError, match="Too many open files"):
        await run_argv(["true"], timeout_s=5)
