"""The ways in: a file, a text, a Python mapping."""

from __future__ import annotations

import stat
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from prunella.config.check import check_tree
from prunella.config.faults import START, ConfigFaults, Fault, Place, Report
from prunella.config.freeze import freeze
from prunella.config.model import Config
from prunella.config.node import Node, Unreadable, mapping, of_python
from prunella.config.registry import Registry
from prunella.config.yamltree import read_yaml

MAX_FILE_BYTES = 4 * 2**20


def load(path: Path, registry: Registry | None = None) -> Config:
    """Read a file.

    Raises:
        ConfigFaults: it cannot be read, or everything that is wrong with it.
        PermanentError: a third party's plugin cannot be loaded.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):
            raise ConfigFaults([_whole(path, "is not a regular file, expected a YAML file")])
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        message = f"cannot be read ({reason}), expected a YAML file"
        raise ConfigFaults([_whole(path, message)]) from error
    return parse(data, path, registry)


def parse(text: str | bytes, path: Path, registry: Registry | None = None) -> Config:
    """Check a text as if it stood in the file `path`.

    Raises:
        ConfigFaults: everything that is wrong with it.
        PermanentError: a third party's plugin cannot be loaded.
    """
    if len(text) > MAX_FILE_BYTES:
        raise ConfigFaults([_whole(path, "is larger than 4 MiB, expected a smaller file")])
    report = Report(str(path))
    try:
        root = read_yaml(_decoded(text, report), report)
    except Unreadable:
        report.conclude()
        raise
    return _finish(root, path, registry, report)


def from_mapping(data: Mapping[str, Any], registry: Registry | None = None) -> Config:
    """Check a Python mapping of the same shape; relative paths start at the working directory.

    Raises:
        ConfigFaults: everything that is wrong with it, each with its dotted path.
        PermanentError: a third party's plugin cannot be loaded.
    """
    report = Report("configuration")
    try:
        root = of_python(data, report)
    except Unreadable:
        report.conclude()
        raise
    return _finish(root, None, registry, report)


def beside(config: Config, services: Mapping[str, Any], registry: Registry | None = None) -> Config:
    """Check services as if they stood in the file of `config` in place of its own: with its
    defaults, its gateways, and its folder for relative paths.

    Raises:
        ConfigFaults: everything that is wrong with them, each with its dotted path.
    """
    report = Report("configuration")
    try:
        root = of_python({"services": services}, report)
    except Unreadable:
        report.conclude()
        raise
    if config.root is not None:
        assert isinstance(root.kids, dict)
        kids = {**dict(config.root.items()), **root.kids}
        root = mapping(root.place, kids, {**config.root.keys, **root.keys})
    return _finish(root, config.path, registry, report)


def _finish(root: Node, path: Path | None, registry: Registry | None, report: Report) -> Config:
    checked = check_tree(root, registry or Registry.discovered(), report)
    report.conclude()
    assert checked is not None, "no configuration and no fault"
    return replace(freeze(checked, path), root=root.without(["services"]))


def _whole(path: Path, message: str) -> Fault:
    return Fault(str(path), None, None, message)


def _decoded(text: str | bytes, report: Report) -> str:
    if isinstance(text, str):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line = before.count(b"\n") + 1
        column = len(before[before.rfind(b"\n") + 1 :].decode()) + 1
        place = START if error.start == 0 else Place(line, column)
        report.add(place, f"the byte 0x{text[error.start]:02x} is not UTF-8, expected UTF-8 text")
        raise Unreadable from error
