"""Where Prunella keeps what must outlive it, unless the file says otherwise."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from prunella.errors import PermanentError
from prunella.spec import Spec

STORE_FILE = "prunella.db"


def state_folder(environ: Mapping[str, str] | None = None, user: int | None = None) -> Path:
    """The absolute folder for state; it need not exist.

    Args:
        environ: instead of this process's environment.
        user: instead of this process's effective user number.
    """
    environ = os.environ if environ is None else environ
    user = os.geteuid() if user is None else user
    if chosen := environ.get("PRUNELLA_STATE_DIR"):
        return Path(chosen).absolute()
    if user == 0:
        return Path("/var/lib/prunella")
    xdg = Path(environ.get("XDG_STATE_HOME", ""))
    home = Path(environ.get("HOME") or "/")
    return (xdg if xdg.is_absolute() else home / ".local" / "state") / "prunella"


def make_state_folder(folder: Path) -> None:
    """Make it, unless it is there.

    Raises:
        PermanentError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise PermanentError(
            f"the state folder {folder} cannot be made ({error.strerror}): "
            "name another one with state_dir, or with PRUNELLA_STATE_DIR"
        ) from error


def absolute_store(url: str, folder: Path) -> str:
    """A store's URL whose path does not depend on the working directory.

    ``kind:///name`` is relative to `folder`, ``kind:////name`` is absolute; anything with a host
    stays as it is.
    """
    scheme, _, rest = url.partition("://")
    if rest.startswith("/") and not rest.startswith("//"):
        return f"{scheme}:///{folder / rest[1:]}"
    return url


def anchored(value: Any, folder: Path) -> Any:
    """A spec, or what is in one, with each ``Path`` in it absolute; links are not followed."""
    match value:
        case Path():
            return folder / value
        case Spec():
            kids = {
                name: anchored(getattr(value, name), folder) for name in type(value).model_fields
            }
            return value.model_copy(update=kids)
        case dict():
            items = cast("dict[object, object]", value).items()
            return {key: anchored(kid, folder) for key, kid in items}
        case list() | tuple():
            rest = cast("list[object] | tuple[object, ...]", value)
            return type(rest)(anchored(kid, folder) for kid in rest)
        case _:
            return value
