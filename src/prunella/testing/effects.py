"""Every effect of platform ``process`` on the system, read from its source, and when each happens.

An effect is a plain function that calls the system to change something; whoever adds one adds a
point at which a test kills Prunella.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import FrameType
from typing import Literal

from prunella.platforms import process

When = Literal["before", "after"]

_ENTRANCE = Path(process.__file__)
_PRIVATE = "prunella.platforms._"
_SYSTEM = frozenset({"ctypes", "fcntl", "os", "shutil", "signal", "subprocess"})
_HARMLESS = frozenset(
    {
        "os.close",
        "os.getsid",
        "os.getuid",
        "os.listdir",
        "os.pidfd_open",
        "os.readlink",
        "shutil.which",
        "signal.Signals",
    }
)
# Methods of a path. Some are a text's as well; a point of death too many is no harm.
_CHANGES = frozenset(
    {"mkdir", "rename", "replace", "rmdir", "touch", "unlink", "write_bytes", "write_text"}
)


@cache
def sources() -> tuple[Path, ...]:
    """The module of the platform and the private ones that it is made of."""
    found = [_ENTRANCE]
    for path in found:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith(_PRIVATE):
                module = _ENTRANCE.with_name(f"{(node.module or '').rpartition('.')[2]}.py")
                if module not in found:
                    found.append(module)
    return tuple(found)


@cache
def effects() -> tuple[str, ...]:
    """The name of each effect, as ``_child.Child.spawn``.

    Raises:
        TypeError: an effect is not in a plain function, so that there is no point before or after
            it.
    """
    found: list[str] = []
    for path in sources():
        finder = _Finder(path.stem)
        finder.visit(ast.parse(path.read_text()))
        found += finder.found
    return tuple(dict.fromkeys(found))


class _Finder(ast.NodeVisitor):
    def __init__(self, module: str) -> None:
        self.found: list[str] = []
        self._scope = [module]
        self._plain = False

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._enter(node, plain=False)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._enter(node, plain=True)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._enter(node, plain=False)

    def visit_Call(self, node: ast.Call) -> None:
        called = ast.unparse(node.func)
        root, last = called.partition(".")[0], called.rpartition(".")[2]
        if last in _CHANGES or (root in _SYSTEM and called not in _HARMLESS):
            name = ".".join(self._scope)
            if not self._plain:
                raise TypeError(f"{name} calls {called}: expected it in a plain function")
            self.found.append(name)
        self.generic_visit(node)

    def _enter(
        self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef, *, plain: bool
    ) -> None:
        outer, self._plain = self._plain, plain
        self._scope.append(node.name)
        self.generic_visit(node)
        self._scope.pop()
        self._plain = outer


def tell_effects(listener: Callable[[str, When], None]) -> None:
    """From now on call `listener` when an effect of this thread begins, and when it has ended."""
    modules = {str(path): path.stem for path in sources()}
    names = frozenset(effects())

    def trace(frame: FrameType, event: str, _: object) -> None:
        module = modules.get(frame.f_code.co_filename)
        if module is None or event not in ("call", "return"):
            return
        name = f"{module}.{frame.f_code.co_qualname}"
        if name in names:
            listener(name, "before" if event == "call" else "after")

    sys.setprofile(trace)
