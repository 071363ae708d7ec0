"""Which cluster, and who we are to it: from a kubeconfig, or from the pod that we run in.

A kubeconfig is read as kubectl reads it: the given file, else ``$KUBECONFIG`` (several files, the
first that names a thing wins), else ``~/.kube/config``. Without any of them, and without the name
of a context, a pod uses its service account.
"""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml

from prunella.errors import PermanentError
from prunella.kube.kinds import Json

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class Access(NamedTuple):
    """All that makes two ways into a cluster the same. ``*_data`` are PEM texts.

    Attributes:
        context: its name in the kubeconfig; empty in a pod.
        namespace: where what names none is looked for.
        command: prints credentials (``client.authentication.k8s.io``), with its environment.
    """

    server: str
    context: str = ""
    namespace: str = "default"
    ca_file: str = ""
    ca_data: str = ""
    server_name: str = ""
    insecure: bool = False
    token: str = ""
    token_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    cert_data: str = ""
    key_data: str = ""
    command: tuple[str, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()
    command_version: str = ""

    def __repr__(self) -> str:  # tokens and keys are nobody's business
        return f"Access({self.server}, context={self.context!r})"

    def tls(self) -> ssl.SSLContext | None:
        """None: the server speaks plain HTTP.

        Raises: PermanentError: a certificate or a key cannot be used.
        """
        if not self.server.startswith("https://"):
            return None
        try:
            context = ssl.create_default_context(
                cafile=self.ca_file or None, cadata=self.ca_data or None
            )
            if self.insecure:
                context.check_hostname = False
                context.verify_mode = ssl.CERT_NONE
            if self.cert_file:
                context.load_cert_chain(self.cert_file, self.key_file or None)
            elif self.cert_data:
                _load_pair(context, self.cert_data + "\n" + self.key_data)
        except OSError as error:  # an ssl.SSLError is one
            raise PermanentError(
                f"the certificates for {self.server} cannot be used: {error}"
            ) from error
        return context


def access(
    kubeconfig: Path | None = None, context: str | None = None, *, account: Path = _ACCOUNT
) -> Access:
    """The way into a cluster.

    Args:
        account: where a pod finds its service account.

    Raises: PermanentError: there is none, or it is not well formed; says what to do.
    """
    files = _files(kubeconfig)
    if not files and context is None and (found := _account(account)) is not None:
        return found
    if not files:
        where = str(kubeconfig) if kubeconfig else os.environ.get("KUBECONFIG", "~/.kube/config")
        raise PermanentError(f"no kubeconfig at {where}: set KUBECONFIG, or `kubeconfig`")
    merged = _merged(files)
    name = context or next(
        (one["current-context"] for _, one in merged.files if one.get("current-context")), ""
    )
    if not name:
        raise PermanentError(f"{files[0]} has no current context: set `context`")
    chosen, _ = merged.find("contexts", name)
    cluster, cluster_home = merged.find("clusters", str(chosen.get("cluster", "")))
    user, user_home = merged.find("users", str(chosen.get("user", "")))
    return _from(name, chosen, _at_home(cluster, cluster_home), _at_home(user, user_home))


def contexts(kubeconfig: Path | None = None) -> Sequence[str]:
    """The names that a kubeconfig knows, for messages and completion."""
    return tuple(
        str(one.get("name", ""))
        for _, config in _merged(_files(kubeconfig)).files
        for one in config.get("contexts") or ()
    )


class _Merged(NamedTuple):
    files: Sequence[tuple[Path, Json]]

    def find(self, section: str, name: str) -> tuple[Json, Path]:
        """An entry by its name, and the folder that its paths are relative to."""
        known: list[str] = []
        for path, config in self.files:
            for one in config.get(section) or ():
                if one.get("name") == name:
                    return dict(one.get(section[:-1]) or {}), path.parent
                known.append(str(one.get("name")))
        expected = ", ".join(sorted(known)) or "none"
        raise PermanentError(
            f"the kubeconfig knows no {section[:-1]} {name!r}, expected one of: {expected}"
        )


def _files(kubeconfig: Path | None) -> Sequence[Path]:
    if kubeconfig is not None:
        named: Sequence[Path] = (kubeconfig,)
    elif paths := os.environ.get("KUBECONFIG"):
        named = tuple(Path(one) for one in paths.split(":") if one)
    else:
        named = (Path("~/.kube/config").expanduser(),)
    return tuple(one for one in named if one.is_file())


def _merged(files: Sequence[Path]) -> _Merged:
    read: list[tuple[Path, Json]] = []
    for path in files:
        try:
            config = yaml.safe_load(path.read_text())
        except (OSError, ValueError, yaml.YAMLError) as error:
            raise PermanentError(f"{path} cannot be read as a kubeconfig: {error}") from error
        if not isinstance(config, dict):
            raise PermanentError(f"{path} is no kubeconfig")
        read.append((path, cast("Json", config)))
    return _Merged(read)


def _at_home(entry: Json, home: Path) -> Json:
    paths = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
    return {
        key: str(home / value) if key in paths and value else value for key, value in entry.items()
    }


def _from(name: str, chosen: Json, cluster: Json, user: Json) -> Access:
    server = str(cluster.get("server", "")).rstrip("/")
    if not server.startswith(("http://", "https://")):
        raise PermanentError(f"the cluster of context {name!r} has no http(s) address: {server!r}")
    run = cast("Json", user.get("exec") or {})
    return Access(
        server=server,
        context=name,
        namespace=str(chosen.get("namespace") or "default"),
        ca_file=str(cluster.get("certificate-authority", "")),
        ca_data=_decoded(cluster, "certificate-authority-data"),
        server_name=str(cluster.get("tls-server-name", "")),
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
        token=str(user.get("token", "")),
        token_file=str(user.get("tokenFile", "")),
        cert_file=str(user.get("client-certificate", "")),
        key_file=str(user.get("client-key", "")),
        cert_data=_decoded(user, "client-certificate-data"),
        key_data=_decoded(user, "client-key-data"),
        command=(str(run["command"]), *map(str, run.get("args") or ())) if run else (),
        environment=tuple((str(one["name"]), str(one["value"])) for one in run.get("env") or ()),
        command_version=str(run.get("apiVersion", "")),
    )


def _decoded(entry: Mapping[str, Any], key: str) -> str:
    try:
        return base64.b64decode(str(entry.get(key, "")), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise PermanentError(f"the kubeconfig's {key} is not base64 of a PEM text") from error


def _account(folder: Path) -> Access | None:
    host = os.environ.get("KUBERNETES_SERVICE_HOST")
    port = os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port or not (folder / "token").exists():
        return None
    at = f"[{host}]" if ":" in host else host
    return Access(
        server=f"https://{at}:{port}",
        namespace=(folder / "namespace").read_text().strip() or "default",
        ca_file=str(folder / "ca.crt"),
        token_file=str(folder / "token"),
    )


def _load_pair(context: ssl.SSLContext, pem: str) -> None:
    """From memory; OpenSSL as Python has it reads files only, so one that only we can read."""
    with tempfile.NamedTemporaryFile("w", suffix=".pem") as file:
        file.write(pem)
        file.flush()
        context.load_cert_chain(file.name)
