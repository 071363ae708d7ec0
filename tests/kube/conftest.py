"""Both kinds of cluster; what is true of only one of them is no test of the other."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from tests.kube.worlds import World, made

from prunella.testing.kube import FakeCluster


@pytest.fixture
async def fake() -> AsyncIterator[FakeCluster]:
    async with FakeCluster() as one:
        yield one


@pytest.fixture(params=["fake", "real"])
async def world(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[World]:
    async with made(request.param, request, tmp_path) as world:
        yield world
