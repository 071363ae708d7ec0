"""Real components for every folder of tests; each is started once, and not before it is needed."""

from collections.abc import Iterator

import pytest
from tests.real.engine import Engine, missing, running


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """For all tests together; `docker` is for one."""
    if reason := missing():
        pytest.skip(reason)
    with running() as started:
        yield started


@pytest.fixture
def docker(engine: Engine) -> Iterator[Engine]:
    """A Docker Engine with nothing in it, whatever the test before did to it."""
    engine.start()
    yield engine
    engine.clean()
