"""What pods add up to, without a cluster: versions, names, whose turn it is, and whose fault."""

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest

from prunella.core.model import Instance, InstanceId, InstanceState, Verdict
from prunella.kube.pods import Pod
from prunella.kube.workloads import Edition, Template, Workload
from prunella.platforms._kube_argo import RolloutNames, as_written
from prunella.platforms._kube_pods import Setting, Slots, read

T0 = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAME = InstanceId("shop.1")
WORKLOAD = msgspec.convert(
    {"metadata": {"name": "shop"}, "spec": {"progressDeadlineSeconds": 60}}, Workload
)
RUNS = {"running": {"startedAt": "2026-01-01T12:00:00Z"}}
ENDED = {"terminated": {"exitCode": 1, "startedAt": "2026-01-01T12:00:00Z"}}
NEVER = {"terminated": {"exitCode": 128, "reason": "StartError", "startedAt": None}}


def template(**changes: Any) -> Template:
    body = {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "web", "image": "registry.example/team/shop:2"}]},
    }
    return msgspec.convert({**body, **changes}, Template)


def test_a_version_is_called_after_its_image_and_what_it_adds_up_to() -> None:
    name, _, digest = template().revision.partition("#")
    assert name == "shop:2"
    assert len(digest) == 8
    assert template().spec is None, "what it was made from is not kept"


def test_a_long_digest_of_an_image_is_cut() -> None:
    image = f"registry.example/shop@sha256:{'0123456789abcdef' * 4}"
    found = template(spec={"containers": [{"image": image}]}).revision
    assert found.startswith("shop@sha256:0123456789ab#")


@pytest.mark.parametrize(
    ("metadata", "same"),
    [
        ({"labels": {"app": "shop", "pod-template-hash": "1"}}, True),
        ({"labels": {"app": "shop", "rollouts-pod-template-hash": "1"}}, True),
        (
            {
                "labels": {"app": "shop"},
                "annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"},
            },
            True,
        ),
        ({"labels": {"app": "shop"}, "annotations": {"config": "2"}}, False),
        ({"labels": {"app": "other"}}, False),
    ],
    ids=["a hash", "a hash of Argo's", "a restart", "an annotation", "a label"],
)
def test_what_makes_another_version(metadata: dict[str, Any], same: bool) -> None:  # noqa: FBT001
    assert (template(metadata=metadata).revision == template().revision) is same


def pod(name: str, age_s: float = 0.0, **status: Any) -> Pod:
    made = (T0 - timedelta(seconds=age_s)).strftime("%Y-%m-%dT%H:%M:%SZ")
    body = {
        "metadata": {"name": name, "uid": name, "creationTimestamp": made},
        "spec": {"containers": [{"ports": [{"containerPort": 80}]}], "nodeName": "n1"},
        "status": {"phase": "Running", **status},
    }
    return msgspec.convert(body, Pod)


def ending(one: Pod) -> Pod:
    meta = msgspec.structs.replace(one.metadata, deletion_timestamp="2026-01-01T12:00:00Z")
    return msgspec.structs.replace(one, metadata=meta)


def names(slots: Slots, *pods: Pod, desired: int = 2) -> dict[str, str]:
    return {str(k): v.metadata.name for k, v in slots.fill(pods, desired).items()}


def test_a_pod_takes_over_the_name_of_the_one_that_it_replaces() -> None:
    slots = Slots("shop", "Deployment")
    a, b, c = pod("a", 30), pod("b", 20), pod("c")
    assert names(slots, b, a) == {"shop.1": "a", "shop.2": "b"}
    assert names(slots, ending(a), b, c) == {"shop.1": "c", "shop.2": "b"}
    assert names(slots, b, c) == {"shop.1": "c", "shop.2": "b"}


def test_one_that_was_evicted_by_its_node_keeps_its_name_until_it_is_replaced() -> None:
    slots = Slots("shop", "Deployment")
    a, b = pod("a", 30), pod("b", 20)
    names(slots, a, b)
    evicted = pod("a", 30, phase="Failed", reason="Evicted")
    assert names(slots, evicted, b) == {"shop.1": "a", "shop.2": "b"}
    assert names(slots, evicted, b, pod("c")) == {"shop.1": "c", "shop.2": "b"}
    assert names(Slots("shop", "Deployment"), evicted, b, pod("c")) == {
        "shop.1": "b",
        "shop.2": "c",
    }


@pytest.mark.parametrize(
    ("kind", "found"), [("StatefulSet", {"a": "a"}), ("DaemonSet", {"n1": "a"})]
)
def test_others_have_names_of_their_own(kind: str, found: dict[str, str]) -> None:
    assert names(Slots("shop", kind), pod("a")) == found


def seen(
    state: dict[str, Any],
    *,
    last: dict[str, Any] | None = None,
    ready: str = "",
    count: int = 0,
    after_s: float = 0.0,
    ended_s: float | None = None,
    **setting: Any,
) -> Instance | None:
    """What a pod with one container is taken for.

    Args:
        ready: when it was ready last, or ``now``; empty: never.
        after_s: since its container was started.
        ended_s: since its container was seen to have ended.
    """
    container = {"name": "web", "restartCount": count, "state": state, "lastState": last or {}}
    condition = {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T11:59:59Z"}
    if ready:
        is_now = ready == "now"
        condition = {
            "type": "Ready",
            "status": "True" if is_now else "False",
            "lastTransitionTime": "2026-01-01T12:00:05Z",
        }
    one = pod(
        "a",
        startTime="2026-01-01T11:59:59Z",
        conditions=[condition],
        containerStatuses=[container],
        podIP="10.0.0.1",
    )
    now = T0 + timedelta(seconds=after_s)
    ended_at = None if ended_s is None else now - timedelta(seconds=ended_s)
    usual = {
        "workload": WORKLOAD,
        "revision": "v2",
        "is_newest": True,
        "has_rival": False,
        "sick_node": "",
        "was_out": False,
        "ended_at": ended_at,
        "is_alone": True,
        "now": now,
        "port": "",
    }
    return read(NAME, one, Setting(**{**usual, **setting})).instance


def waiting(reason: str) -> dict[str, Any]:
    return {"waiting": {"reason": reason, "message": "as the kubelet says"}}


@pytest.mark.parametrize(
    ("what", "state", "verdict", "blames"),
    [
        ({"state": RUNS, "ready": "now"}, "running", Verdict.PASS, False),
        ({"state": RUNS, "ready": "before", "after_s": 9}, "running", Verdict.FAIL, False),
        ({"state": RUNS, "after_s": 59}, "running", None, False),
        ({"state": RUNS, "after_s": 60}, "running", Verdict.FAIL, False),
        ({"state": RUNS, "after_s": 60, "has_rival": True}, "running", Verdict.FAIL, True),
        ({"state": RUNS, "sick_node": "its node is not ready"}, "running", Verdict.FAIL, False),
        ({"state": ENDED, "ended_s": 0.9}, "running", None, False),
        ({"state": ENDED, "ended_s": 1.0}, "exited", None, False),
        ({"state": ENDED, "ended_s": 0.2, "count": 1}, "exited", None, False),
        ({"state": ENDED, "ended_s": 0.9, "count": 1, "is_alone": False}, "running", None, False),
        ({"state": ENDED, "ended_s": 1.0, "count": 1, "is_alone": False}, "exited", None, False),
        ({"state": ENDED, "ended_s": 0.2, "count": 1, "after_s": 900}, "running", None, False),
        ({"state": ENDED, "ended_s": 1.0, "has_rival": True}, "exited", None, True),
        (
            {"state": ENDED, "ended_s": 1.0, "has_rival": True, "is_newest": False},
            "exited",
            None,
            False,
        ),
        ({"state": waiting("CrashLoopBackOff"), "last": ENDED}, "exited", None, False),
        ({"state": waiting("CrashLoopBackOff"), "last": NEVER}, "exited", None, False),
        ({"state": waiting("ImagePullBackOff")}, "exited", None, True),
        ({"state": waiting("CreateContainerConfigError")}, "exited", None, True),
        ({"state": waiting("ErrImagePull"), "was_out": True}, "exited", None, True),
    ],
)
def test_what_a_pod_is_taken_for(
    what: dict[str, Any],
    state: str,
    verdict: Verdict | None,
    blames: bool,  # noqa: FBT001 - a column of a table
) -> None:
    found = seen(**what)
    assert found is not None
    assert (found.state.value, found.verdict, found.blames_version) == (state, verdict, blames)


def test_in_the_kubelets_turn_it_is_restarting() -> None:
    in_turn, put_off = (seen(ENDED, ended_s=seconds) for seconds in (0.9, 1.0))
    assert in_turn is not None
    assert put_off is not None
    assert (in_turn.is_restarting, put_off.is_restarting) == (True, False)


@pytest.mark.parametrize("reason", ["ContainerCreating", "PodInitializing", "ErrImagePull"])
def test_what_is_still_starting_is_in_no_state(reason: str) -> None:
    assert seen(waiting(reason)) is None


def test_what_cannot_start_beside_good_ones_is_told_once_its_time_is_up() -> None:
    late = seen(waiting("ContainerCreating"), after_s=60, has_rival=True)
    assert late is not None
    assert (late.state, late.blames_version) == (InstanceState.EXITED, True)
    assert "not started within 60 s" in late.detail


def test_only_what_runs_can_be_reached() -> None:
    running, gone = seen(RUNS, ready="now"), seen(waiting("ImagePullBackOff"))
    assert running is not None
    assert gone is not None
    assert (running.address, running.port) == ("10.0.0.1", 80)
    assert (gone.address, gone.port) == ("", 0)


# Rollouts of Argo --------------------------------------------------------------------------------


def rollout(image: str, generation: int, seen: int, pod_hash: str = "") -> Workload:
    body = {
        "metadata": {"name": "shop", "uid": "u1", "generation": generation},
        "spec": {"template": {"spec": {"containers": [{"name": "web", "image": image}]}}},
        "status": {"observedGeneration": str(seen), "currentPodHash": pod_hash},
    }
    return msgspec.convert(body, Workload)


def replica_set(pod_hash: str) -> Edition:
    filled_in = {"containers": [{"name": "web", "image": "shop:1"}], "dnsPolicy": "ClusterFirst"}
    labels = {"rollouts-pod-template-hash": pod_hash}
    body = {"metadata": {"labels": labels}, "spec": {"template": {"spec": filled_in}}}
    return msgspec.convert(body, Edition)


def test_a_rollout_and_its_replica_set_are_of_the_same_version() -> None:
    names, one = RolloutNames(), rollout("shop:1", 1, 1, "5fc48ddb7d")
    assert names.named(one).revision == replica_set("5fc48ddb7d").version == "shop:1#5fc48ddb7d"
    assert names.named(one).identity == "u1@shop:1#5fc48ddb7d@"


def test_what_argo_has_not_seen_yet_is_another_version_only_with_another_template() -> None:
    names, one = RolloutNames(), rollout("shop:1", 1, 1, "5fc48ddb7d")
    names.learn(None, one)
    assert names.named(rollout("shop:1", 2, 1, "5fc48ddb7d")).revision == "shop:1#5fc48ddb7d"
    other = names.named(rollout("shop:2", 2, 1, "5fc48ddb7d")).revision
    assert other.startswith("shop:2#")
    assert other != "shop:2#5fc48ddb7d"
    names.learn(one, None)
    assert names.named(rollout("shop:1", 2, 1)).revision == rollout("shop:1", 2, 1).revision


def test_a_rollout_whose_pods_are_described_elsewhere_has_no_version() -> None:
    body = {"metadata": {"uid": "u1", "generation": 1}}
    status = {"observedGeneration": "1", "currentPodHash": "5fc48ddb7d"}
    one = msgspec.convert({**body, "status": status}, Workload)
    assert not RolloutNames().named(one).revision


@pytest.mark.parametrize("own", [{}, {"nodeAffinity": {"a": 1}}], ids=["alone", "beside"])
@pytest.mark.parametrize("rule", ["required", "preferred"])
def test_what_argo_has_put_into_a_template_is_no_part_of_it(rule: str, own: dict[str, Any]) -> None:
    term: dict[str, Any] = {
        "topologyKey": "kubernetes.io/hostname",
        "labelSelector": {
            "matchExpressions": [
                {"key": "rollouts-pod-template-hash", "operator": "NotIn", "values": ["1"]}
            ]
        },
    }
    terms = [term if rule == "required" else {"weight": 1, "podAffinityTerm": term}]
    apart = {"podAntiAffinity": {f"{rule}DuringSchedulingIgnoredDuringExecution": terms}}
    put_in = '{"labels":{"role":"stable"},"annotations":{"by":"argo"}}'
    metadata = {"annotations": {"rollout.argoproj.io/ephemeral-metadata": put_in}}
    labels = {"app": "shop", "role": "stable"}
    template: dict[str, Any] = {
        "metadata": {"labels": labels, "annotations": {"by": "argo"}},
        "spec": {"containers": [], "affinity": {**apart, **own}},
    }
    assert as_written(template, metadata) == {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [], **({"affinity": own} if own else {})},
    }


def test_a_template_without_anything_of_argo_stays_as_it_is() -> None:
    own = {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"a": 1}]}}
    for metadata in ({}, {"annotations": {"rollout.argoproj.io/ephemeral-metadata": "["}}):
        template = {"metadata": {"labels": {"app": "shop"}}, "spec": {"affinity": own}}
        assert as_written(template, metadata) == {
            "metadata": {"labels": {"app": "shop"}},
            "spec": {"affinity": own},
        }
