"""An API server of Kubernetes: the fake, and a real one."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import aiohttp
import pytest
from tests.conformance.kube import Api
from tests.real.kubernetes import Kubernetes, OwnKubernetes

from prunella.testing.kube import FakeCluster

LONG_S = 600.0


@pytest.fixture(params=["fake", "real"])
async def api(request: pytest.FixtureRequest) -> AsyncIterator[Api]:
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession())
        if request.param == "real":
            real: Kubernetes = request.getfixturevalue("kubernetes")
            namespace: str = request.getfixturevalue("namespace")
            yield real_api(real, session, namespace)
        else:
            yield fake_api(await stack.enter_async_context(FakeCluster()), session)


def real_api(real: Kubernetes, session: aiohttp.ClientSession, namespace: str) -> Api:
    async def forget() -> None:
        if not isinstance(real, OwnKubernetes):
            pytest.skip("no Kubernetes of our own: set KUBEBUILDER_ASSETS")
        await asyncio.to_thread(real.forget_versions)

    headers = {"Authorization": f"Bearer {real.token}"}
    nobody = {"Impersonate-User": "nobody"}
    return Api(session, real.server, headers, namespace, forget, nobody)


def fake_api(fake: FakeCluster, session: aiohttp.ClientSession) -> Api:
    async def forget() -> None:
        fake.expire()

    fake.grace_s = LONG_S
    fake.deny("list", "secrets")
    return Api(session, fake.access.server, {}, "default", forget, {})
