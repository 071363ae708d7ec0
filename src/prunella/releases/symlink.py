"""Releases ``symlink``: one folder per release, and a link to the one that is deployed."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

from prunella.core.model import Epoch
from prunella.errors import ConflictError, PermanentError, PrunellaError
from prunella.plugins import ReleaseContext, ReleasePlugin
from prunella.ports import Remark
from prunella.releases._link import Link, LinkSpec, examine_folder
from prunella.releases._trouble import judge


class SymlinkSpec(LinkSpec):
    """Releases that something else has put there, as Capistrano and its kin do."""


class SymlinkRelease:
    """Versions are the names of folders; one that is elsewhere is called by its whole path."""

    kind: ClassVar[str] = "symlink"
    restarts: ClassVar[bool] = True

    def __init__(self, spec: SymlinkSpec, _context: ReleaseContext) -> None:
        self._spec = spec
        self._link = Link(spec.current)

    async def observe(self) -> str:
        """Read the link.

        Raises:
            TransientError: there is none, or it cannot be read.
            PermanentError: something that is no link has its place.
        """
        return await asyncio.to_thread(lambda: self._version(self._link.read()))

    async def switch(self, revision: str, /, *, before: str, reason: str, epoch: Epoch) -> None:  # noqa: ARG002 - no fence, nowhere to say why
        """Lead to another folder of the same name as the version.

        Raises:
            ConflictError: neither `revision` nor `before` is deployed.
            PermanentError: there is no such folder, or the link may not be replaced.
            TransientError: another switch is under way, or the disk is full or failing.
        """
        await asyncio.to_thread(self._switch, revision, before)

    async def examine(self) -> Sequence[Remark]:
        return await asyncio.to_thread(lambda: [*self._examine()])

    async def close(self) -> None:
        pass

    def _version(self, written: str) -> str:
        folder = self._link.leads_to(written)
        if folder.parent.resolve() == self._spec.folder.resolve():
            return folder.name
        return str(folder)

    def _switch(self, revision: str, before: str) -> None:
        with self._link.alone():
            written = self._link.read()
            if judge(self._version(written), revision, before):
                return
            if not self._link.swap(self._folder(revision), expected=written):
                raise ConflictError(f"{self._spec.current} was changed by somebody else just now")

    def _folder(self, revision: str) -> Path:
        folder = self._spec.folder / revision
        if folder.parent != self._spec.folder or revision == ".." or not folder.is_dir():
            raise PermanentError(f"there is no release {revision} in {self._spec.folder} any more")
        return folder

    def _examine(self) -> Iterator[Remark]:
        try:
            deployed = self._version(self._link.read())
        except PrunellaError as error:
            yield Remark(str(error), fault=True)
            return
        if not self._spec.current.is_dir():
            yield Remark(f"{self._spec.current} leads to no folder", fault=True)
        yield from examine_folder(self._spec.current.parent)
        if not self._spec.folder.is_dir():
            yield Remark(f"there is no folder {self._spec.folder}", fault=True)
            return
        others = [
            one for one in self._spec.folder.iterdir() if one.is_dir() and one.name != deployed
        ]
        if not others:
            yield Remark(
                f"{self._spec.folder} has no other release than {deployed}, so there is nothing "
                "to roll back to yet"
            )


PLUGIN = ReleasePlugin("symlink", SymlinkSpec, SymlinkRelease)
