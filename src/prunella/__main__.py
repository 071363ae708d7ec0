"""``python -m prunella`` is the command ``prunella``."""

from __future__ import annotations

from prunella.cli import main

if __name__ == "__main__":
    main()
