"""The command line: one file per command, over the API.

Nothing heavy is imported before a command runs, so that help and completion answer at once.
"""

from __future__ import annotations

import sys

from prunella.errors import PrunellaError


def main() -> None:
    """The command ``prunella``.

    Ends with 0, or 1 (it did not work), 2 (wrong words, an unknown service, a faulty file), 3
    (no daemon answers), 130 (interrupted).
    """
    try:
        from prunella.cli import _app, _terminal  # noqa: PLC0415 - whoever imports `main` needs none

        _terminal.prepare()
        try:
            _app.build()(prog_name="prunella")
        except PrunellaError as error:
            _terminal.complain(str(error))
            sys.exit(getattr(error, "exit_code", 1))
    except KeyboardInterrupt:  # before the command itself listens for it
        sys.exit(130)
