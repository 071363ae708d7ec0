"""``prunella init``: a configuration to begin with, from what runs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prunella.testing.site import PATIENCE_S, free_port, until


def test_a_survey_becomes_a_file_that_is_valid_and_only_observes(
    plugged: Any, tmp_path: Path
) -> None:
    done = plugged("init", "remarking")
    assert done.returncode == 0
    assert done.stderr.startswith("left out paint: unknown key 'colour'")
    assert done.stdout == plugged("init", "remarking").stdout
    (tmp_path / "made.yaml").write_text(done.stdout)
    told = json.loads(plugged("check", "--offline", "made.yaml", "--json").stdout)
    assert told["valid"]
    ids = [service["id"] for service in told["services"]]
    assert ids == ["service", "shop", "shop-2", "x" * 63]
    assert {service["heal"] for service in told["services"]} == {"observe"}
    assert "  # the same name again, in capitals  [31m\n" in done.stdout


def test_a_file_is_written_once_and_again_only_by_force(plugged: Any, tmp_path: Path) -> None:
    file = tmp_path / "made.yaml"
    done = plugged("init", "remarking", "-o", "made.yaml")
    assert done.stdout == "made.yaml: 4 services; read it, then: prunella check made.yaml\n"
    text = file.read_text()
    assert "#   prunella check made.yaml " in text
    file.write_text("mine")
    refused = plugged("init", "remarking", "-o", "made.yaml")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == "made.yaml is there already: name another file, or add --force\n"
    assert file.read_text() == "mine"
    assert plugged("init", "remarking", "-o", "made.yaml", "--force").returncode == 0
    assert file.read_text() == text
    assert {path.name for path in tmp_path.iterdir()} == {"installed", "made.yaml"}


def test_a_folder_that_is_not_there_is_one_clear_line(plugged: Any) -> None:
    done = plugged("init", "remarking", "-o", "nowhere/made.yaml")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "nowhere/made.yaml cannot be written: No such file or directory"


@pytest.mark.parametrize(
    ("platform", "code", "words"),
    [
        ("command", 2, "no platform 'command' that can be surveyed, expected one of: "),
        ("nonsense", 2, "no platform 'nonsense' that can be surveyed"),
        ("mute", 1, "what runs on mute cannot be told"),
    ],
)
def test_what_cannot_be_surveyed_is_said(
    plugged: Any, platform: str, code: int, words: str
) -> None:
    done = plugged("init", platform)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(words)


def test_a_process_that_listens_becomes_a_service(alone: Any, tmp_path: Path) -> None:
    port = free_port()
    words = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1"]
    with subprocess.Popen(words, cwd=tmp_path, stderr=subprocess.DEVNULL) as server:
        try:
            until(lambda: f"http.server-{port}:" in alone("init", "process").stdout, 2 * PATIENCE_S)
            assert alone("init", "process", "-o", "made.yaml").returncode == 0
        finally:
            server.kill()
    told = json.loads(alone("check", "--offline", "made.yaml", "--json").stdout)
    (service,) = [one for one in told["services"] if one["id"] == f"http.server-{port}"]
    assert service["probes"] == ["tcp"]
