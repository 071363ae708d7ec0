"""Platform ``kubernetes``: a workload in a fake cluster that does what controllers do."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import Bench, _kube
from tests.platforms.kube_bed import fake_bed


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    return await _kube.bench(await fake_bed(folder, stack), folder, request)
