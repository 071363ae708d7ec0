"""Real components for every folder of tests; each is started once, and not before it is needed."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from hypothesis import settings
from tests.real import kubernetes as real_kubernetes
from tests.real import systemd as real_systemd
from tests.real.engine import Engine, missing, running
from tests.real.kubernetes import Kubernetes, OwnKubernetes
from tests.real.systemd import Systemd

# That the machine is slow is no defect of what is tested on it.
settings.register_profile("prunella", deadline=None)
settings.load_profile("prunella")


# Here other programs act in real time beside whatever else the machine does. A failure there has a
# second try, which is named and counted in the summary; nothing that is pure ever has one.
REAL = {
    "cli",
    "conformance",
    "deploy",
    "e2e",
    "gateways",
    "kube",
    "platforms",
    "releases",
    "runtime",
}
HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(HERE).parts[0] in REAL:
            item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line for what is missing, however many tests want it."""
    if reason := missing() or real_systemd.missing():
        terminalreporter.write_line(f"tests of platforms were skipped: {reason}")


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """For all tests together; `docker` is for one."""
    if reason := missing():
        pytest.skip(reason)
    with running() as started:
        yield started


@pytest.fixture(scope="session")
def swarm_engine() -> Iterator[Engine]:
    """For all tests together; `swarm` is for one."""
    if reason := missing():
        pytest.skip(reason)
    with running() as started:
        started.begin_swarm()
        yield started


@pytest.fixture(scope="session")
def booted_systemd() -> Iterator[Systemd]:
    """For all tests together, on an engine of its own; `systemd` is for one."""
    if reason := missing() or real_systemd.missing():
        pytest.skip(reason)
    with running() as started, real_systemd.booted(started) as booted:
        yield booted


@pytest.fixture(scope="session")
def own_kubernetes() -> Iterator[OwnKubernetes]:
    """For all tests together, with one node; each works in a namespace of its own."""
    if reason := real_kubernetes.missing():
        pytest.skip(reason)
    if "KUBEBUILDER_ASSETS" not in os.environ:
        pytest.skip("no Kubernetes of our own: set KUBEBUILDER_ASSETS")
    with real_kubernetes.running() as started:
        yield started


@pytest.fixture(scope="session")
def kubernetes(request: pytest.FixtureRequest) -> Kubernetes:
    """One of our own, or one that was given, for tests that only use its API."""
    if reason := real_kubernetes.missing():
        pytest.skip(reason)
    if given := os.environ.get("PRUNELLA_TEST_KUBECONFIG"):
        return Kubernetes(Path(given))
    own: OwnKubernetes = request.getfixturevalue("own_kubernetes")
    return own


@pytest.fixture
def namespace(kubernetes: Kubernetes) -> Iterator[str]:
    """Of a test, in the real cluster."""
    name = kubernetes.namespace()
    yield name
    kubernetes.forget(name)


@pytest.fixture
def docker(engine: Engine) -> Iterator[Engine]:
    """A Docker Engine with nothing in it, whatever the test before did to it."""
    engine.start()
    yield engine
    engine.clean()


@pytest.fixture
def swarm(swarm_engine: Engine) -> Iterator[Engine]:
    """A swarm of one node with nothing in it, whatever the test before did to it."""
    swarm_engine.start()
    yield swarm_engine
    swarm_engine.clean()


@pytest.fixture
def systemd(booted_systemd: Systemd) -> Iterator[Systemd]:
    """A systemd with no units but its own, whatever the test before did to it."""
    yield booted_systemd
    booted_systemd.clean()
