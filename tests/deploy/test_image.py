"""The image: built by a real engine on this machine's own Python, and run with no rights at all."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import pytest
from tests.deploy.conftest import BASE, TAG
from tests.real.engine import Engine

from prunella.testing.site import until

pytestmark = pytest.mark.timeout(240)  # an image is built before the first one
BARE = (
    *("--network", "none", "--read-only", "--tmpfs", "/tmp", "--user", "65532:65532"),
    *("--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
)
CONFIG = """\
api: {monitoring: "0.0.0.0:9110"}
services:
  shop:
    platform: command
    command: {observe: [prunella], restart: [prunella]}
    probes: [{kind: tcp, port: 9110}]
"""


def test_it_says_what_it_is_and_needs_no_root_and_no_shell(image: Engine) -> None:
    (found,) = json.loads(image.docker("image", "inspect", TAG))
    config = found["Config"]
    assert config["Entrypoint"] == ["prunella"]
    assert config["User"] == "65532:65532"
    assert config["Labels"]["org.opencontainers.image.revision"] == "abc"
    (base,) = json.loads(image.docker("image", "inspect", BASE))
    assert found["Size"] - base["Size"] < 130_000_000


def test_it_answers_without_anything_that_it_may_write(image: Engine) -> None:
    assert "Usage: prunella" in image.docker("run", "--rm", *BARE, TAG, "--help")
    assert image.docker("run", "--rm", *BARE, TAG, "--version").startswith("prunella ")


def test_it_checks_a_configuration(image: Engine, tmp_path: Path) -> None:
    file = tmp_path / "prunella.yaml"
    file.write_text(CONFIG)
    file.chmod(0o644)
    mount = ("--volume", f"{file}:/etc/prunella/prunella.yaml:ro")
    said = image.docker("run", "--rm", *BARE, *mount, TAG, "check", "/etc/prunella/prunella.yaml")
    assert "valid, 1 service" in said


def test_it_runs_and_writes_nowhere_but_into_its_state(image: Engine, tmp_path: Path) -> None:
    file = tmp_path / "prunella.yaml"
    file.write_text(CONFIG)
    file.chmod(0o644)
    mounts = ("--volume", f"{file}:/etc/prunella/prunella.yaml:ro", "--volume", "/var/lib/prunella")
    name = image.docker("run", "--detach", *BARE, *mounts, TAG)
    until(lambda: _knows_shop(image, name), 30)
    with pytest.raises(RuntimeError, match="Read-only file system"):
        image.docker("exec", name, "touch", "/opt/prunella/x")
    store = "sqlite:////var/lib/prunella/prunella.db"
    image.docker("exec", name, "prunella", "history", "--store", store)
    image.docker("stop", name)
    assert image.docker("inspect", "--format", "{{.State.ExitCode}}", name) == "0"
    image.docker("rm", "--volumes", name)


def _knows_shop(image: Engine, name: str) -> bool:
    with suppress(RuntimeError):
        return "shop" in image.docker("exec", name, "prunella", "status")
    return False
