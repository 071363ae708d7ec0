"""Platform ``kubernetes`` once more: real pods on a real node."""

from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from tests.conformance.targets import Bench, _kube
from tests.platforms.kube_bed import real_bed


async def target(folder: Path, stack: AsyncExitStack, request: pytest.FixtureRequest) -> Bench:
    return await _kube.bench(await real_bed(request, stack), folder, request)
