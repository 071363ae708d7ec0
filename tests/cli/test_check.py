"""``prunella check``: what the file shows, and what platforms say when they are asked."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

REMARKS = """\
services:
  web:
    platform: remarking
    remarking:
      warnings: ["it restarts \\e[31mby itself", "it is old"]
      faults: {faults}
    release:
      kind: remarking
      warnings: [no commit has soaked]
  db: {{platform: remarking}}
"""


def remarks(folder: Path, faults: str = "[]") -> Path:
    file = folder / "remarks.yaml"
    file.write_text(REMARKS.format(faults=faults))
    return file


def test_warnings_are_told_at_their_section_and_change_nothing(
    plugged: Any, tmp_path: Path
) -> None:
    file = remarks(tmp_path)
    done = plugged("check", file)
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == f"{file}: valid, 2 services"
    assert done.stderr.splitlines() == [
        f"{file}:4:5: warning: it restarts \\x1b[31mby itself",
        f"{file}:4:5: warning: it is old",
        f"{file}:7:5: warning: no commit has soaked",
    ]


def test_what_cannot_work_is_a_fault_and_ends_with_2(plugged: Any, tmp_path: Path) -> None:
    file = remarks(tmp_path, "[there is no container web]")
    done = plugged("check", file)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[0] == f"{file}:4:5: there is no container web"
    assert len(done.stderr.splitlines()) == 4


def test_offline_nobody_is_asked(plugged: Any, tmp_path: Path) -> None:
    done = plugged("check", remarks(tmp_path, "[there is no container web]"), "--offline")
    assert (done.returncode, done.stderr) == (0, "")


def test_remarks_as_json_have_their_places(plugged: Any, tmp_path: Path) -> None:
    file = remarks(tmp_path, "[no]")
    done = plugged("check", file, "--json")
    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["valid"]) == (2, "", False)
    assert told["faults"] == [{"path": str(file), "line": 4, "column": 5, "message": "no"}]
    assert [warning["line"] for warning in told["warnings"]] == [4, 4, 7]
    assert [service["id"] for service in told["services"]] == ["web", "db"]


@pytest.mark.parametrize("count", [1, 200])
def test_platforms_that_do_not_answer_cost_one_deadline_and_a_warning_each(
    plugged: Any, tmp_path: Path, count: int
) -> None:
    file = tmp_path / "mute.yaml"
    services = "".join(f"  s{number}: {{platform: mute}}\n" for number in range(count))
    file.write_text("services:\n" + services)
    began = time.monotonic()
    done = plugged("check", file)
    took_s = time.monotonic() - began
    assert done.returncode == 0
    lines = done.stderr.splitlines()
    assert len(lines) == count
    words = "warning: platform mute did not answer within 3 s, so nothing is known of it"
    assert lines[0] == f"{file}:2:18: {words}"
    assert took_s < 15, "many at once"


def test_gateways_are_asked_as_well(alone: Any, tmp_path: Path) -> None:
    file = tmp_path / "gateways.yaml"
    file.write_text(
        "gateways:\n"
        f"  front: {{kind: envoy, folder: {tmp_path}/envoy}}\n"
        "  other: {kind: kong, admin: 'http://127.0.0.1:1'}\n"
        "services: {db: {platform: command, command: {observe: ['true'], restart: ['true']}}}\n"
    )
    done = alone("check", file)
    assert done.returncode == 2
    first, *others = done.stderr.splitlines()
    assert first.startswith(f"{file}:2:10: no Envoy watches {tmp_path}/envoy: run ")
    assert any(f"{file}:3:10: " in line and "experimental" in line for line in others)
    assert not (tmp_path / "envoy").exists()
