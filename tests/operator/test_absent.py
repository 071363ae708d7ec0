"""Without the key ``operator``, nothing of it is there."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from prunella import app
config = app.read_config(Path(sys.argv[1]), observe=False)
async def main():
    asyncio.get_running_loop().call_later(0.5, os.kill, os.getpid(), signal.SIGTERM)
    return await app._serve(config, observe=False)
code = asyncio.run(main())
found = [name for name in sys.modules if name.startswith("prunella.operator")]
print(code, found)
"""


def test_nothing_of_it_is_imported(tmp_path: Path) -> None:
    text = "api: off\nstore: 'memory://'\nstate_dir: ./s\nservices: {s: {platform: process, "
    text += "process: {command: [sleep, '60']}}}\n"
    (tmp_path / "p.yaml").write_text(text)
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "p.yaml")],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    code, _, found = done.stdout.splitlines()[-1].partition(" ")
    assert code == "0"
    assert found == "[]"
