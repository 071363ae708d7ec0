"""A caller of the Services of our own cluster, on a network of its own beside the pods.

The rules of kube-proxy are those of a whole network: here they are the caller's, and nobody else's
on the machine. The program is not among those that every cluster of ours needs.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.real.kubernetes import OwnKubernetes
from tests.real.slot import run

from prunella.testing.site import until

PROGRAM = Path(os.environ.get("KUBEBUILDER_ASSETS", "")) / "kube-proxy"
_WITHIN_S = 30.0
_ADDRESS = 250  # the node gives pods the first ones


class Caller:
    """Requests from here go where kube-proxy leads them."""

    def __init__(self, cluster: OwnKubernetes) -> None:
        cluster.run(Path("/usr/bin/unshare"), "--net", "sleep", "2147483647")
        self._network = Path(f"/proc/{cluster.pid('unshare')}/ns/net")
        until(self._is_apart, _WITHIN_S)
        self._connect(cluster)
        rules = ("--proxy-mode=nftables", "--conntrack-max-per-core=0")
        timeouts = ("--conntrack-tcp-timeout-established=0", "--conntrack-tcp-timeout-close-wait=0")
        cluster.run(
            Path("/usr/bin/nsenter"),
            *(f"--net={self._network}", str(PROGRAM), f"--kubeconfig={cluster.kubeconfig}"),
            *("--hostname-override=node1", *rules, *timeouts),
        )

    def _is_apart(self) -> bool:
        return self._network.readlink() != Path("/proc/self/ns/net").readlink()

    def _connect(self, cluster: OwnKubernetes) -> None:
        bridge, host = next(iter(cluster.slot.bridges.items()))
        pid = str(cluster.pid("unshare"))
        near, far = f"{bridge}c", "eth0"
        run("ip", "link", "add", near, "type", "veth", "peer", "name", far, "netns", pid)
        run("ip", "link", "set", near, "master", bridge, "up")
        address = host.partition("/")[0]
        own = f"{address.rpartition('.')[0]}.{_ADDRESS}/24"
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", own, "dev", far),
            ("link", "set", far, "up"),
            ("route", "add", "default", "via", address),
        ):
            run("nsenter", f"--net={self._network}", "ip", *words)

    def ask(self, address: str) -> str:
        """What is answered there; empty: nothing."""
        curl = ("curl", "--silent", "--fail", "--max-time", "2", f"http://{address}/")
        try:
            return run("nsenter", f"--net={self._network}", *curl).strip()
        except RuntimeError:
            return ""
