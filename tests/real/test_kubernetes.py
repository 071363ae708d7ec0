"""The cluster that other tests rely on runs pods, and leaves nothing."""

from urllib.request import urlopen

import pytest
from tests.real import kubernetes as real
from tests.real.images import Release
from tests.real.kubernetes import OwnKubernetes, deployment, running

from prunella.testing.site import until


def pods_that_are_ready(cluster: OwnKubernetes, namespace: str) -> list[str]:
    return [
        pod["status"]["podIP"]
        for pod in cluster.pods(namespace)
        for one in pod["status"].get("conditions", ())
        if one["type"] == "Ready" and one["status"] == "True"
    ]


def test_it_runs_pods_and_replaces_what_is_killed(
    own_kubernetes: OwnKubernetes, namespace: str
) -> None:
    image = own_kubernetes.make_image("shop:1", Release(version="one"))
    path = f"/apis/apps/v1/namespaces/{namespace}/deployments"
    own_kubernetes.call("POST", path, deployment("shop", image))
    until(lambda: len(pods_that_are_ready(own_kubernetes, namespace)) == 2)
    for address in pods_that_are_ready(own_kubernetes, namespace):
        with urlopen(f"http://{address}/", timeout=5) as answer:
            assert answer.read() == b"one\n"
    victim = own_kubernetes.pods(namespace)[0]
    own_kubernetes.kill_container(victim)

    def restarts() -> int:
        pods = own_kubernetes.pods(namespace)
        return sum(pod["status"]["containerStatuses"][0]["restartCount"] for pod in pods)

    assert until(restarts) == 1


def test_its_api_server_comes_back(own_kubernetes: OwnKubernetes, namespace: str) -> None:
    own_kubernetes.kill_api()
    assert not own_kubernetes.answers()
    own_kubernetes.start_api()
    assert own_kubernetes.call("GET", f"/api/v1/namespaces/{namespace}")["status"]
    with own_kubernetes.frozen_api():
        assert not own_kubernetes.answers()
    until(own_kubernetes.answers)


def test_two_run_side_by_side_and_leave_nothing(own_kubernetes: OwnKubernetes) -> None:
    with running() as other:
        image = other.make_image("shop:1")
        other.call("POST", "/apis/apps/v1/namespaces/default/deployments", deployment("a", image))
        until(lambda: len(pods_that_are_ready(other, "default")) == 2)
        assert own_kubernetes.answers()
    assert other.slot.traces() == []


@pytest.fixture(autouse=True)
def there_is_one() -> None:
    if reason := real.missing():
        pytest.skip(reason)
