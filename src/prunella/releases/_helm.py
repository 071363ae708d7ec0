"""Run helm: the real one, by argument lists, for one of its releases."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from weakref import WeakKeyDictionary

import msgspec

from prunella.argv import lines, run_argv
from prunella.errors import PermanentError, TransientError
from prunella.releases._helm_trouble import judged

_READING_S = 10.0  # for a question, where the cluster answers
_GRACE_S = 5.0  # beyond the time that helm gives itself
_LONGEST = 256  # revisions that are looked at
_CAP_BYTES = 32 * 2**20  # of a manifest; a release has 1 MiB, packed
_DIGEST_LENGTH = 8
_DRIVERS = ("HELM_DRIVER", "HELM_DRIVER_SQL_CONNECTION_STRING")
_IN_PLACE = ("deployed", "superseded")
_GONE = ("uninstalled", "uninstalling")
_AT_ONCE = 4  # of one cluster, since each takes 50 MiB while it runs

_turns: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, asyncio.Semaphore]]
_turns = WeakKeyDictionary()


class Revision(msgspec.Struct, frozen=True):
    """One of a release's history, as ``helm history`` lists it.

    Attributes:
        updated: when it was made: numbers begin anew after an uninstallation.
    """

    number: int = msgspec.field(name="revision")
    updated: str
    status: str
    chart: str

    @property
    def identity(self) -> tuple[int, str, str]:
        """Whatever becomes of it: what is put in place by it stays the same."""
        return self.number, self.updated, self.chart

    @property
    def is_pending(self) -> bool:
        """Somebody is about to put it in place, or died while doing so."""
        return self.status.startswith("pending-")

    @property
    def was_in_place(self) -> bool:
        return self.status in _IN_PLACE

    @property
    def is_gone(self) -> bool:
        return self.status in _GONE


class Helm:
    """Helm's knowledge of one release; nothing of it is kept where a person keeps theirs.

    Args:
        folder: for what Helm caches.
        driver: where Helm keeps its history; empty: where it does unless told otherwise.
        timeout_s: for a rollback with the hooks of the chart.
    """

    def __init__(
        self,
        name: str,
        namespace: str,
        folder: Path,
        *,
        program: str,
        context: str | None,
        kubeconfig: Path | None,
        driver: str,
        timeout_s: float,
    ) -> None:
        self.words = f"release {name} in namespace {namespace}"
        self.command = f"helm rollback {name} {{}} --namespace {namespace}"
        if context is not None:
            self.command += f" --kube-context {context}"
        self._name = name
        self._program = program
        self._kubeconfig = kubeconfig
        self._context = context
        self._timeout_s = timeout_s
        self._where = [f"--namespace={namespace}"]
        if context is not None:
            self._where.append(f"--kube-context={context}")
        if kubeconfig is not None:
            self._where.append(f"--kubeconfig={kubeconfig}")
        self._env = _environment(folder, driver)
        self._versions: dict[tuple[int, str, str], str] = {}

    @property
    def driver(self) -> str:
        """Where the history is kept."""
        return self._env.get("HELM_DRIVER") or "secret"

    async def program_version(self) -> str:
        """As it calls itself: ``v4.2.3``."""
        done = await self._ask("version", "--template={{.Version}}")
        return (lines(done) or [""])[0]

    async def history(self) -> Sequence[Revision]:
        """Newest first; there is one at least.

        Raises:
            PermanentError: there is no such release, program or context, or no right to look.
            TransientError: the cluster cannot be reached, or the release is being removed.
        """
        arguments = ("history", self._name, f"--max={_LONGEST}", "--output=json")
        answer = await self._ask(*arguments, *self._where)
        try:
            found = msgspec.json.decode(answer, type=list[Revision])
        except msgspec.DecodeError as error:
            raise TransientError(f"helm history of {self.words} makes no sense: {error}") from error
        found.sort(key=lambda one: one.number, reverse=True)
        if not found or found[0].is_gone:
            raise TransientError(f"{self.words} has been uninstalled")
        present = {one.identity for one in found}
        self._versions = {one: known for one, known in self._versions.items() if one in present}
        return found

    async def version(self, revision: Revision) -> str:
        """What is deployed by a revision, whatever its number: ``shop-1.4.0#1f0c9a77``."""
        known = self._versions.get(revision.identity, "")
        if not known:
            number = f"--revision={revision.number}"
            manifest = await self._ask("get", "manifest", self._name, number, *self._where)
            if len(manifest) >= _CAP_BYTES:
                raise PermanentError(f"the manifest of {self.words} is too large to be told apart")
            known = f"{revision.chart}#{hashlib.sha256(manifest).hexdigest()[:_DIGEST_LENGTH]}"
        self._versions[revision.identity] = known
        return known

    async def roll_back(self, number: int) -> None:
        """Put a revision in place once more, as a new one.

        No history is cut off, nothing is forced, and pods are not waited for.

        Raises: PermanentError, TransientError: it failed, in helm's words.
        """
        options = ("--history-max=0", f"--timeout={math.ceil(self._timeout_s)}s")
        arguments = ("rollback", self._name, str(number), *options, *self._where)
        await self._run(arguments, self._timeout_s + _GRACE_S)

    async def _ask(self, *arguments: str) -> bytes:
        cluster = f"{self._kubeconfig} {self._context}"
        turns = _turns.setdefault(asyncio.get_running_loop(), {})
        async with turns.setdefault(cluster, asyncio.Semaphore(_AT_ONCE)):
            return await self._run(arguments, min(_READING_S, self._timeout_s + _GRACE_S))

    async def _run(self, arguments: Sequence[str], timeout_s: float) -> bytes:
        """What a command that must work has printed."""
        if self._kubeconfig is not None and not self._kubeconfig.is_file():
            raise PermanentError(f"there is no kubeconfig {self._kubeconfig}")
        done = await run_argv(
            [self._program, *arguments],
            timeout_s=timeout_s,
            env=self._env,
            output_cap_bytes=_CAP_BYTES,
            apart=True,
        )
        if done.timed_out:
            raise TransientError(f"helm {arguments[0]} of {self.words} has not ended in time")
        if done.exit_code != 0:
            raise judged(arguments[0], self.words, self.driver, done)
        return done.output


def _environment(folder: Path, driver: str) -> dict[str, str]:
    """Our own, which commands that print credentials need, less what would lead helm elsewhere."""
    env = {key: value for key, value in os.environ.items() if not key.startswith("HELM_")}
    env |= {key: os.environ[key] for key in _DRIVERS if key in os.environ}
    if driver:
        env["HELM_DRIVER"] = driver
    return {**env, "LC_ALL": "C", **dict(_homes(folder))}


def _homes(folder: Path) -> Iterator[tuple[str, str]]:
    """No plugins, no repositories, and nothing left in a person's home."""
    for kind in ("CACHE", "CONFIG", "DATA"):
        yield f"HELM_{kind}_HOME", str(folder / kind.lower())
    yield "KUBECACHEDIR", str(folder / "kube")
