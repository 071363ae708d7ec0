"""``prunella schema``: for editors that complete and check as one writes."""

from __future__ import annotations

from prunella.cli import _terminal


def command() -> None:
    """Print the JSON Schema of the configuration."""
    from prunella.config import json_schema  # noqa: PLC0415 - slow

    _terminal.say_json(json_schema())
