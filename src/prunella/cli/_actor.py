"""Who is at the keyboard, for the history."""

from __future__ import annotations

import os


def actor() -> str:
    """``cli:`` and the user's name, or number where the user has none."""
    import pwd  # noqa: PLC0415 - help needs none

    user = os.getuid()
    try:
        return f"cli:{pwd.getpwuid(user).pw_name}"
    except KeyError:
        return f"cli:{user}"
