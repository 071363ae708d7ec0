"""Run helm: the real one, by argument lists, for one of its releases."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from prunella.argv import Completed, lines, run_argv
from prunella.errors import PermanentError, TransientError
from prunella.releases._helm_trouble import judged

_READING_S = 20.0  # for a question, where the cluster answers
_GRACE_S = 5.0  # beyond the time that helm gives itself
_LONGEST = 256  # revisions that are looked at
_CAP_BYTES = 32 * 2**20  # of a manifest; a release has 1 MiB, packed
_DIGEST_LENGTH = 8
_DRIVERS = ("HELM_DRIVER", "HELM_DRIVER_SQL_CONNECTION_STRING")
_IN_PLACE = ("deployed", "superseded")
_GONE = ("uninstalled", "uninstalling")


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
        self._name = name
        self._program = program
        self._kubeconfig = kubeconfig
        self._timeout_s = timeout_s
        self._where = [f"--namespace={namespace}"]
        if context is not None:
            self._where.append(f"--kube-context={context}")
        if kubeconfig is not None:
            self._where.append(f"--kubeconfig={kubeconfig}")
        self._env = _environment(folder, driver)
        self._versions: dict[Revision, str] = {}

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
        self._versions = {one: self._versions[one] for one in found if one in self._versions}
        return found

    async def version(self, revision: Revision) -> str:
        """What is deployed by a revision, whatever its number: ``shop-1.4.0#1f0c9a77``."""
        known = next((v for k, v in self._versions.items() if _same(k, revision)), None)
        if known is None:
            number = f"--revision={revision.number}"
            manifest = await self._ask("get", "manifest", self._name, number, *self._where)
            if len(manifest) >= _CAP_BYTES:
                raise PermanentError(f"the manifest of {self.words} is too large to be told apart")
            known = f"{revision.chart}#{hashlib.sha256(manifest).hexdigest()[:_DIGEST_LENGTH]}"
        self._versions[revision] = known
        return known

    async def roll_back(self, number: int) -> None:
        """Put a revision in place once more, as a new one.

        No history is cut off, nothing is forced, and pods are not waited for.

        Raises: PermanentError, TransientError: it failed, in helm's words.
        """
        options = ("--history-max=0", f"--timeout={self._timeout_s:.0f}s")
        arguments = ("rollback", self._name, str(number), *options, *self._where)
        await self._ask(*arguments, timeout_s=self._timeout_s + _GRACE_S)

    async def _ask(self, *arguments: str, timeout_s: float = _READING_S) -> bytes:
        done = await self._run(arguments, min(timeout_s, self._timeout_s + _GRACE_S))
        if done.timed_out:
            raise TransientError(f"helm {arguments[0]} of {self.words} has not ended in time")
        if done.exit_code != 0:
            raise judged(arguments[0], self.words, self.driver, done)
        return done.output

    async def _run(self, arguments: Sequence[str], timeout_s: float) -> Completed:
        if self._kubeconfig is not None and not self._kubeconfig.is_file():
            raise PermanentError(f"there is no kubeconfig {self._kubeconfig}")
        return await run_argv(
            [self._program, *arguments],
            timeout_s=timeout_s,
            env=self._env,
            output_cap_bytes=_CAP_BYTES,
            apart=True,
        )


def _same(one: Revision, other: Revision) -> bool:
    """Whatever has become of it since."""
    return (one.number, one.updated, one.chart) == (other.number, other.updated, other.chart)


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
