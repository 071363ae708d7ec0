"""A real Kubernetes of our own on loopback: API server, controllers, and one node that runs pods.

Its programs are in no registry that tests may ask, so they are taken from ``$KUBEBUILDER_ASSETS``,
or a cluster from ``$PRUNELLA_TEST_KUBECONFIG``; where there is neither, its tests are skipped.

Traps, each met: two kubelets end each other's pods unless each has a cgroup of its own as its
root; the controllers' ports are fixed unless said otherwise; images need no registry and no
Docker, but a name with `docker.io/library/` and `imagePullPolicy: Never`.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import secrets
import shutil
import signal
import ssl
import subprocess
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import yaml
from tests.real.audit import Audit
from tests.real.freeze import freeze, thaw
from tests.real.images import Release, pack
from tests.real.slot import SYSTEM_PATH, Slot, claimed, run

from prunella.testing.site import free_port, until

PROGRAMS = (
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
)
NODE_TOOLS = ("containerd", "ctr", "runc", "openssl", "unshare", "nsenter", "busybox")
_CNI = Path("/usr/lib/cni")
_START_S = 60.0
_STOP_S = 30.0
_JOIN = 'echo $$ > "$0" && exec "$@"'  # a cgroup, before anything is started from there
_OWN = "own"  # a folder that lasts as long as its pod
_HIDE = 'set -e; mount -t tmpfs tmpfs /run; exec "$@"'


def missing() -> str:
    """Why there is no Kubernetes here; empty: there is one."""
    if os.environ.get("PRUNELLA_TEST_KUBECONFIG"):
        return ""
    assets = os.environ.get("KUBEBUILDER_ASSETS", "")
    absent = [one for one in PROGRAMS if not (Path(assets) / one).is_file()]
    if not assets or absent:
        return "no Kubernetes: set KUBEBUILDER_ASSETS or PRUNELLA_TEST_KUBECONFIG"
    if os.geteuid() != 0:
        return "no Kubernetes: one of our own needs root, else set PRUNELLA_TEST_KUBECONFIG"
    lacking = [one for one in NODE_TOOLS if shutil.which(one, path=SYSTEM_PATH) is None]
    lacking += [] if _CNI.is_dir() else [str(_CNI)]
    return f"no Kubernetes: one of our own needs {', '.join(lacking)}" if lacking else ""


class Kubernetes:
    """Some cluster, as tests set it up and look at it: never through Prunella."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig
        config = yaml.safe_load(kubeconfig.read_text())
        self.server: str = config["clusters"][0]["cluster"]["server"]
        self.token: str = config["users"][0]["user"].get("token", "")
        self._tls = ssl._create_unverified_context()

    def call(
        self, method: str, path: str, body: object | None = None, content: str = "application/json"
    ) -> dict[str, Any]:
        """One request. Raises RuntimeError with what the server says: it refuses."""
        headers = {"Content-Type": content, "Authorization": f"Bearer {self.token}"}
        data = None if body is None else json.dumps(body).encode()
        request = Request(self.server + path, data, headers, method=method)
        try:
            with urlopen(request, timeout=30, context=self._tls) as answer:
                return dict(json.loads(answer.read() or b"{}"))
        except HTTPError as error:
            with error:
                raise RuntimeError(f"{method} {path}: {error.read().decode()}") from error

    def merge(self, path: str, body: object) -> dict[str, Any]:
        return self.call("PATCH", path, body, "application/merge-patch+json")

    def items(self, path: str) -> list[dict[str, Any]]:
        return list(self.call("GET", path)["items"])

    def pods(self, namespace: str, labels: str = "") -> list[dict[str, Any]]:
        """Those that are not on their way out."""
        query = f"?labelSelector={labels}" if labels else ""
        found = self.items(f"/api/v1/namespaces/{namespace}/pods{query}")
        return [one for one in found if "deletionTimestamp" not in one["metadata"]]

    def namespace(self) -> str:
        """A new one, with a service account in it, so that pods can be made at once."""
        name = f"test-{secrets.token_hex(4)}"
        self.call("POST", "/api/v1/namespaces", {"metadata": {"name": name}})
        until(lambda: self.items(f"/api/v1/namespaces/{name}/serviceaccounts"), _START_S)
        return name

    def forget(self, namespace: str) -> None:
        """Delete it with all there is in it; not waited for. Gone already: all is well."""
        with suppress(RuntimeError):
            self.call("DELETE", f"/api/v1/namespaces/{namespace}")


class OwnKubernetes(Kubernetes):
    """One that we have started, and can end, freeze and start again piece by piece."""

    def __init__(self, slot: Slot, assets: Path) -> None:
        self.slot = slot
        self.folder = slot.folder
        self._assets = assets
        self._ports = {name: free_port() for name in ("api", "controllers", "scheduler")}
        self._host = next(iter(slot.bridges.values())).partition("/")[0]  # that pods reach as well
        self._etcd_port = free_port(2)
        self._kubelet_port = free_port(2)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self.audit = Audit(self.folder)
        self._write_identities()
        super().__init__(self.folder / "kubeconfig")

    def start(self, *, node: bool = True, controllers: bool = True) -> None:
        """`controllers`: without them objects are what they are, and nothing follows from them."""
        self._start_etcd()
        self.start_api()
        if controllers:
            self._start_controllers()
        if node:
            self._start_node()

    def _start_controllers(self) -> None:
        for name, port in (("controller-manager", "controllers"), ("scheduler", "scheduler")):
            keys = (
                *("--service-account-private-key-file", str(self.folder / "sa.key")),
                f"--root-ca-file={self.folder}/pki/apiserver.crt",  # as pods are to know it
            )
            self._spawn(
                f"kube-{name}",
                *(str(self._assets / f"kube-{name}"), "--kubeconfig", str(self.kubeconfig)),
                *("--leader-elect=false", "--bind-address=127.0.0.1"),
                f"--secure-port={self._ports[port]}",
                *(keys if name == "controller-manager" else ()),
            )

    # The API server ----------------------------------------------------------------------------

    def start_api(self) -> None:
        """Until it is ready; again after it ended in whatever way."""
        keys = (f"--service-account-key-file={self.folder}/sa.pub",)
        self._spawn(
            "kube-apiserver",
            str(self._assets / "kube-apiserver"),
            f"--etcd-servers=http://127.0.0.1:{self._etcd_port}",
            f"--bind-address={self._host}",
            f"--advertise-address={self._host}",
            f"--secure-port={self._ports['api']}",
            f"--cert-dir={self.folder}/pki",
            f"--token-auth-file={self.folder}/tokens.csv",
            "--authorization-mode=RBAC",
            "--allow-privileged=true",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-signing-key-file={self.folder}/sa.key",
            "--service-cluster-ip-range=10.0.0.0/24",
            *keys,
            *self.audit.options(),
        )
        until(self.answers, _START_S)

    def answers(self) -> bool:
        headers = {"Authorization": f"Bearer {self.token}"}
        request = Request(f"{self.server}/readyz", headers=headers)
        with suppress(OSError), urlopen(request, timeout=2, context=self._tls) as answer:
            return bool(answer.status == 200)
        return False

    def kill_api(self) -> None:
        self._end("kube-apiserver", signal.SIGKILL)

    def run(self, program: Path, *argv: str, **env: str) -> None:
        """Another program beside it, till it ends; what it says is in its log."""
        self._spawn(program.name, str(program), *argv, **env)

    def pid(self, program: str) -> int:
        """Of one of its programs that runs."""
        return self._running[program].pid

    @contextmanager
    def frozen_api(self) -> Iterator[None]:
        """It accepts connections, and answers none."""
        pid = self._running["kube-apiserver"].pid
        freeze(pid)
        try:
            yield
        finally:
            thaw(pid)

    def forget_versions(self) -> None:
        """Know no version from before now, neither in what is stored nor in what is remembered
        of it: the API server starts again.
        """
        now = self.call("GET", "/api/v1/namespaces?limit=1")["metadata"]["resourceVersion"]
        self.kill_api()
        body = json.dumps({"revision": now, "physical": True}).encode()
        with urlopen(f"http://127.0.0.1:{self._etcd_port}/v3/kv/compaction", body, timeout=30):
            self.start_api()

    # The node ----------------------------------------------------------------------------------

    def make_image(self, tag: str, release: Release | None = None) -> str:
        """Make or replace an image of the web server on the node; its whole name."""
        release = release or Release()
        env = ["PATH=/bin"] + ([] if release.crashes is None else [f"crashes={release.crashes}"])
        return self.load_image(tag, pack(release.files()), ["/bin/serve"], env)

    def load_image(self, tag: str, layer: bytes, command: list[str], env: list[str]) -> str:
        """Give the node an image of one layer, a tar; its whole name."""
        name = f"docker.io/library/{tag}"
        archive = _archive(name, layer, {"Cmd": command, "Env": env})
        self._ctr("images", "import", "-", stdin=archive)
        return name

    def load_archive(self, archive: Path) -> None:
        """Give the node the images that `docker save` wrote."""
        self._ctr("images", "import", str(archive))

    def kill_container(self, pod: Mapping[str, Any]) -> None:
        """As the kernel does when it runs out of memory."""
        found = pod["status"]["containerStatuses"][0]["containerID"]
        self._ctr("tasks", "kill", "--signal", "SIGKILL", found.removeprefix("containerd://"))

    def ruin(self, pod: Mapping[str, Any]) -> None:
        """End its container, now and whenever it starts: only another pod helps. The pod is one of
        a `brittle` Deployment.
        """
        volumes = self.folder / "kubelet" / "pods" / pod["metadata"]["uid"] / "volumes"
        (volumes / "kubernetes.io~empty-dir" / _OWN / "ruined").touch()
        self.kill_container(pod)

    def first_processes(self, pods: Iterable[Mapping[str, Any]]) -> Sequence[int]:
        """Of the first container of each pod: the process that is the container's end."""
        listed = [line.split() for line in self._ctr("tasks", "list").splitlines()[1:]]
        pids = {task[0]: int(task[1]) for task in listed}
        found = [pod["status"]["containerStatuses"][0]["containerID"] for pod in pods]
        return [pids[one.removeprefix("containerd://")] for one in found]

    def _ctr(self, *argv: str, stdin: bytes = b"") -> str:
        enter = ("nsenter", f"--mount=/proc/{self._running['containerd'].pid}/ns/mnt")
        socket = str(self.folder / "containerd.sock")
        command = (*enter, "ctr", "--address", socket, "--namespace", "k8s.io", *argv)
        env = {**os.environ, "PATH": SYSTEM_PATH}
        done = subprocess.run(command, input=stdin, capture_output=True, env=env, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"ctr {' '.join(argv)}: {done.stderr.decode().strip()}")
        return done.stdout.decode()

    def _start_node(self) -> None:
        socket = self.folder / "containerd.sock"
        self._write_runtime(socket)
        hide = ("unshare", "--mount", "sh", "-c", _HIDE, "sh")
        self._spawn("containerd", *hide, "containerd", "-c", f"{self.folder}/containerd.toml")
        until(socket.exists, _START_S)
        until(self._runtime_answers, _START_S)
        idle = pack({"etc/passwd": "root:x:0:0::/:/bin/sh\n"})
        self.load_image("pause:local", idle, ["/bin/busybox", "sleep", "2147483647"], ["PATH=/bin"])
        for root in (self.slot.cgroup_root, *self.slot.controllers()):
            (root / self.slot.cgroup / "pods").mkdir(parents=True, exist_ok=True)
        enter = ("nsenter", f"--mount=/proc/{self._running['containerd'].pid}/ns/mnt")
        self._spawn(
            "kubelet",
            *(*enter, str(self._assets / "kubelet"), "--kubeconfig", str(self.kubeconfig)),
            *("--config", f"{self.folder}/kubelet.yaml", "--root-dir", f"{self.folder}/kubelet"),
            "--hostname-override=node1",
        )
        until(self._node_is_ready, _START_S)

    def _runtime_answers(self) -> bool:
        with suppress(RuntimeError):
            return bool(self._ctr("version"))
        return False

    def _node_is_ready(self) -> bool:
        nodes = self.items("/api/v1/nodes")
        conditions = [one for node in nodes for one in node.get("status", {}).get("conditions", ())]
        return any(one["type"] == "Ready" and one["status"] == "True" for one in conditions)

    # How ---------------------------------------------------------------------------------------

    def _start_etcd(self) -> None:
        client, peer = (f"http://127.0.0.1:{self._etcd_port + n}" for n in (0, 1))
        self._spawn(
            "etcd",
            *(str(self._assets / "etcd"), f"--data-dir={self.folder}/etcd", "--unsafe-no-fsync"),
            *(f"--listen-client-urls={client}", f"--advertise-client-urls={client}"),
            *(f"--listen-peer-urls={peer}", f"--initial-advertise-peer-urls={peer}"),
            f"--initial-cluster=default={peer}",
        )

    def _write_identities(self) -> None:
        (self.folder / "pki").mkdir()
        key, public = self.folder / "sa.key", self.folder / "sa.pub"
        run("openssl", "genrsa", "-out", str(key), "2048")
        run("openssl", "rsa", "-in", str(key), "-pubout", "-out", str(public))
        token = secrets.token_hex(16)
        (self.folder / "tokens.csv").write_text(f"{token},admin,admin,system:masters\n")
        server = f"https://{self._host}:{self._ports['api']}"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [
                {"name": "own", "cluster": {"server": server, "insecure-skip-tls-verify": True}}
            ],
            "users": [{"name": "admin", "user": {"token": token}}],
            "contexts": [{"name": "own", "context": {"cluster": "own", "user": "admin"}}],
            "current-context": "own",
        }
        (self.folder / "kubeconfig").write_text(yaml.safe_dump(config))

    def _write_runtime(self, socket: Path) -> None:
        bridge, address = next(iter(self.slot.bridges.items()))
        subnet = address.rpartition(".")[0] + ".0/24"
        plugin = {
            "type": "bridge",
            "bridge": bridge,
            "isGateway": True,
            "ipam": {"type": "host-local", "subnet": subnet, "dataDir": f"{self.folder}/ipam"},
        }
        network = {"cniVersion": "0.4.0", "name": "pods", "plugins": [plugin]}
        (self.folder / "cni").mkdir()
        (self.folder / "cni/10-pods.conflist").write_text(json.dumps(network))
        (self.folder / "containerd.toml").write_text(f"""\
version = 2
root = "{self.folder}/containerd"
state = "{self.folder}/containerd-state"
[grpc]
  address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
  restrict_oom_score_adj = true
  sandbox_image = "docker.io/library/pause:local"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{_CNI}"
    conf_dir = "{self.folder}/cni"
""")
        kubelet = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"},
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": f"/{self.slot.cgroup}/pods",
            "failCgroupV1": False,
            "failSwapOn": False,
            "containerRuntimeEndpoint": f"unix://{socket}",
            "address": "127.0.0.1",
            "port": self._kubelet_port,
            "healthzPort": self._kubelet_port + 1,
            "healthzBindAddress": "127.0.0.1",
            "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False,
            "resolvConf": "",
        }
        (self.folder / "kubelet.yaml").write_text(yaml.safe_dump(kubelet))

    def _spawn(self, name: str, *argv: str, **env: str) -> None:
        procs = self.slot.cgroup_root / self.slot.cgroup / "daemons" / "cgroup.procs"
        with (self.folder / f"{name}.log").open("ab") as log:
            self._running[name] = subprocess.Popen(
                ["sh", "-c", _JOIN, str(procs), *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={**os.environ, "PATH": SYSTEM_PATH, **env},
                start_new_session=True,  # Ctrl-C is for the tests, which end it in order
            )

    def _end(self, name: str, number: int) -> None:
        ended = self._running.pop(name)
        ended.send_signal(number)
        ended.wait(_STOP_S)

    def reap(self) -> None:
        """Collect what was killed from outside, so that it is no zombie."""
        for child in self._running.values():
            child.wait(_STOP_S)


@contextmanager
def running(*, node: bool = True, controllers: bool = True) -> Iterator[OwnKubernetes]:
    """A started cluster of our own; gone without a trace on the way out."""
    with claimed() as slot:
        one = OwnKubernetes(slot, Path(os.environ["KUBEBUILDER_ASSETS"]))
        try:
            one.start(node=node, controllers=controllers)
            yield one
        finally:
            slot.clear()
            one.reap()


def deployment(
    name: str, image: str, *, replicas: int = 2, port: int = 80, **container: Any
) -> dict[str, Any]:
    """A Deployment of the web server, ready when it answers, and quick to end."""
    probe = {"httpGet": {"path": "/", "port": port}, "periodSeconds": 1}
    one = {
        "name": "web",
        "image": image,
        "imagePullPolicy": "Never",
        "ports": [{"containerPort": port}],
        "readinessProbe": probe,
        **container,
    }
    labels = {"app": name}
    return {
        "metadata": {"name": name},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"terminationGracePeriodSeconds": 1, "containers": [one]},
            },
        },
    }


def brittle(name: str, image: str, **settings: Any) -> dict[str, Any]:
    """A Deployment of pods that can be ruined."""
    body = deployment(
        name,
        image,
        command=["/bin/sh", "-c", f"[ ! -e /{_OWN}/ruined ] && exec /bin/serve"],
        volumeMounts=[{"name": _OWN, "mountPath": f"/{_OWN}"}],
        **settings,
    )
    body["spec"]["template"]["spec"]["volumes"] = [{"name": _OWN, "emptyDir": {}}]
    return body


def _archive(name: str, layer: bytes, config: Mapping[str, Sequence[str]]) -> bytes:
    """An image as `docker save` writes one."""
    digest = hashlib.sha256(layer).hexdigest()
    whole = {
        "architecture": "amd64" if os.uname().machine == "x86_64" else "arm64",
        "os": "linux",
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}"]},
    }
    files = {"image.json": json.dumps(whole).encode(), "layer.tar": layer}
    manifest = [{"Config": "image.json", "RepoTags": [name], "Layers": ["layer.tar"]}]
    files["manifest.json"] = json.dumps(manifest).encode()
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as tar:
        for path, body in files.items():
            entry = tarfile.TarInfo(path)
            entry.size = len(body)
            tar.addfile(entry, io.BytesIO(body))
    return packed.getvalue()
