"""Finding a cluster as kubectl finds it, and saying what is wrong where there is none."""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from types import MappingProxyType

import pytest

from prunella.errors import PermanentError, TransientError
from prunella.kube.access import Access, access, contexts
from prunella.kube.credentials import Credentials
from prunella.testing.clock import SimClock

SERVER = "https://127.0.0.1:6443"


@pytest.fixture(autouse=True)
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("KUBECONFIG", "KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def write(
    path: Path,
    cluster: Mapping[str, object] = MappingProxyType({}),
    *,
    name: str = "local",
    current: bool = True,
    user: object = None,
) -> Path:
    config = {
        "clusters": [{"name": name, "cluster": {"server": SERVER, **cluster}}],
        "users": [{"name": name, "user": user if user is not None else {"token": "secret"}}],
        "contexts": [
            {"name": name, "context": {"cluster": name, "user": name, "namespace": "shops"}}
        ],
        **({"current-context": name} if current else {}),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config))
    return path


def test_the_current_context_of_a_file(tmp_path: Path) -> None:
    found = access(write(tmp_path / "config"))
    assert found == Access(SERVER, context="local", namespace="shops", token="secret")


def test_home_is_the_last_resort(tmp_path: Path) -> None:
    write(tmp_path / "home/.kube/config", name="home")
    assert access().context == "home"


def test_the_first_of_several_files_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    one = write(tmp_path / "one", name="one", current=False)
    two = write(tmp_path / "two", name="two")
    monkeypatch.setenv("KUBECONFIG", f"{one}:{tmp_path / 'missing'}:{two}")
    assert access().context == "two"
    assert access(context="one").context == "one"
    assert list(contexts()) == ["one", "two"]


def test_an_unknown_context_is_answered_with_the_known_ones(tmp_path: Path) -> None:
    file = write(tmp_path / "config")
    with pytest.raises(PermanentError, match=r"no context 'other', expected one of: local"):
        access(file, "other")


def test_no_file_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="set KUBECONFIG"):
        access()
    with pytest.raises(PermanentError, match="missing"):
        access(tmp_path / "missing")


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00"])
def test_what_is_no_kubeconfig_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config").write_text(text)
    with pytest.raises(PermanentError, match="config"):
        access(tmp_path / "config")


def test_no_current_context(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="set `context`"):
        access(write(tmp_path / "config", current=False))


def test_a_server_that_is_no_address(tmp_path: Path) -> None:
    with pytest.raises(PermanentError, match="no http"):
        access(write(tmp_path / "config", {"server": "unix:///run/kube"}))


def test_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    user = {"client-certificate": "me.pem", "client-key": "/keys/me.key"}
    file = write(tmp_path / "there/config", {"certificate-authority": "ca.pem"}, user=user)
    found = access(file)
    assert found.ca_file == str(tmp_path / "there/ca.pem")
    assert found.cert_file == str(tmp_path / "there/me.pem")
    assert found.key_file == "/keys/me.key"


def test_data_that_is_not_base64(tmp_path: Path) -> None:
    file = write(tmp_path / "config", {"certificate-authority-data": "%%%"})
    with pytest.raises(PermanentError, match="certificate-authority-data"):
        access(file)


def test_a_certificate_that_is_none(tmp_path: Path) -> None:
    pem = base64.b64encode(b"not a certificate").decode()
    file = write(tmp_path / "config", {"certificate-authority-data": pem})
    with pytest.raises(PermanentError, match="cannot be used"):
        access(file).tls()


def test_secrets_are_not_shown(tmp_path: Path) -> None:
    assert "secret" not in repr(access(write(tmp_path / "config")))


def test_a_pod_uses_its_service_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in {"token": "t1\n", "namespace": "prunella", "ca.crt": ""}.items():
        (tmp_path / name).write_text(text)
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "fd00::1")
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", "443")
    found = access(account=tmp_path)
    assert (found.server, found.namespace) == ("https://[fd00::1]:443", "prunella")


async def test_a_projected_token_is_read_again(tmp_path: Path) -> None:
    token, clock = tmp_path / "token", SimClock()
    token.write_text("old\n")
    credentials = Credentials(Access(SERVER, token_file=str(token)), clock)
    assert await credentials.token() == "old"
    token.write_text("new\n")
    assert await credentials.token() == "old"
    clock.advance(61)
    assert await credentials.token() == "new"
    token.write_text("newest\n")
    credentials.forget()
    assert await credentials.token() == "newest"


def by_command(script: str) -> Access:
    return Access(
        SERVER,
        command=(sys.executable, "-c", script),
        environment=(("COLOUR", "blue"),),
        command_version="client.authentication.k8s.io/v1",
    )


PRINT = """
import json, os
asked = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
print(json.dumps({"kind": asked["kind"], "status": {"token": os.environ["COLOUR"] + "-%d",
    "expirationTimestamp": "%s"}}))
"""


async def test_a_command_is_run_again_before_its_token_ends() -> None:
    clock = SimClock()
    end = (clock.wall() + timedelta(minutes=10)).isoformat()
    credentials = Credentials(by_command(PRINT % (os.getpid(), end)), clock)
    first = await credentials.token()
    assert first == f"blue-{os.getpid()}"
    clock.advance(9 * 60)
    assert await credentials.token() == first
    clock.advance(60)
    assert await credentials.token() == first  # taken anew: it says the same


@pytest.mark.parametrize(
    ("script", "trouble"),
    [
        ("raise SystemExit(3)", TransientError),
        ("print('nothing')", PermanentError),
        ("print('{}')", PermanentError),
    ],
)
async def test_a_command_that_gives_nothing(script: str, trouble: type[Exception]) -> None:
    with pytest.raises(trouble, match="credentials"):
        await Credentials(by_command(script), SimClock()).token()


async def test_a_command_that_is_not_there() -> None:
    missing = Access(SERVER, command=("/no/such/program",))
    with pytest.raises(PermanentError, match="cannot be run"):
        await Credentials(missing, SimClock()).token()
