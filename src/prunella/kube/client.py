"""One client of one cluster: every call has a deadline, a place in a queue, and words for trouble.

All that speak to the same cluster on one event loop share it, with its connections, its limit of
requests a second, and its reflectors. Requests beyond the limit wait, so that a storm of ours is
never one of the API server's; where the server itself says to wait, all calls do.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from prunella.core.model import Instant
from prunella.errors import ConflictError, PermanentError, PrunellaError, TransientError
from prunella.kube.access import Access
from prunella.kube.credentials import Credentials
from prunella.kube.kinds import Json, Kind, Struct
from prunella.ports import Clock

if TYPE_CHECKING:
    import aiohttp

T = TypeVar("T")

MANAGER = "prunella"  # who has set a field, as `kubectl get --show-managed-fields` tells it
JSON_PATCH = "application/json-patch+json"
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"

Fence = Callable[[], Awaitable[None]]

# Who leads is decided by writing Leases, and what has happened may be told by anybody.
_UNFENCED = re.compile(
    r"/api/v1/(namespaces/[^/]+/)?events(/|$)"
    r"|/apis/(coordination|events|authorization)\.k8s\.io/"
)
_LENGTH = 300  # characters of the server's own words that are kept
_ANSWER_BYTES = 64 * 2**20
_RATE_PER_S = 20.0
_BURST = 40
_ALIVE_S = 5.0  # an answer says for so long that the server lives
_TRIES = 4  # of a call that the server has put off


class MissingError(PermanentError):
    """There is no such object, or the server knows nothing of its kind."""


class ExpiredError(TransientError):
    """What is asked for is too old: the list has to be taken anew."""


class ForbiddenError(PermanentError):
    """We are known, and may not do that."""


class BudgetError(TransientError):
    """A PodDisruptionBudget does not allow an eviction now."""


class InvalidError(PermanentError):
    """The object would not be valid, or a ``test`` of a JSON patch did not hold."""


class Cluster:
    """The API of one cluster; made by `shared.cluster_at`."""

    def __init__(self, access: Access, clock: Clock, *, timeout_s: float = 10.0) -> None:
        self.access = access
        self.clock = clock
        self.timeout_s = timeout_s
        self.request_count = 0  # besides watches
        # Awaited right before each write, at every try; raises where there must be none.
        self.fence: Fence | None = None
        self._credentials = Credentials(access, clock)
        self._session: aiohttp.ClientSession | None = None
        self._tls: ssl.SSLContext | bool = True
        self._tokens, self._counted_at = float(_BURST), clock.now()
        self._not_before = clock.now()
        self._lock = asyncio.Lock()
        self._alive_at = Instant(clock.now() - _ALIVE_S)

    @property
    def name(self) -> str:
        """For people."""
        return self.access.context or self.access.server

    # Questions ---------------------------------------------------------------------------------

    async def get(self, kind: Kind, name: str, namespace: str = "", *, sub: str = "") -> Json:
        """One object, whole.

        Raises: as `ask`.
        """
        return _object(await self.ask("GET", kind.path(namespace, name, sub)))

    async def read(self, kind: Kind, name: str, namespace: str, as_: type[T]) -> T:
        """One object, the part of it that `as_` has."""
        return _decoded(await self.ask("GET", kind.path(namespace, name)), as_)

    async def create(self, kind: Kind, body: Mapping[str, Any], namespace: str = "") -> Json:
        whole = {"apiVersion": kind.api_version, "kind": kind.name, **body}
        query = {"fieldManager": MANAGER}
        return _object(await self.ask("POST", kind.path(namespace), query=query, body=whole))

    async def patch(
        self,
        kind: Kind,
        name: str,
        namespace: str,
        body: object,
        *,
        content: str = MERGE_PATCH,
        sub: str = "",
    ) -> Json:
        """Change one object. For a precondition, give ``metadata.resourceVersion`` in a merge
        patch, or a ``test`` in a JSON patch.

        Raises:
            ConflictError: the resource version is not the newest one.
            InvalidError: a ``test`` did not hold.
        """
        path, query = kind.path(namespace, name, sub), {"fieldManager": MANAGER}
        return _object(await self.ask("PATCH", path, query=query, body=body, content=content))

    async def replace(
        self, kind: Kind, name: str, namespace: str, body: Mapping[str, Any], *, sub: str = ""
    ) -> Json:
        """Put an object in place of the one with its ``metadata.resourceVersion``."""
        path, query = kind.path(namespace, name, sub), {"fieldManager": MANAGER}
        return _object(await self.ask("PUT", path, query=query, body=body))

    async def delete(
        self,
        kind: Kind,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        grace_s: int | None = None,
    ) -> None:
        """Delete one object, the one with that `uid` if one is given. Gone already: all is well.

        Raises: ConflictError: another object has the name by now.
        """
        options: Json = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        try:
            await self.ask("DELETE", kind.path(namespace, name), body=options)
        except MissingError:
            return

    async def allowed(
        self, verb: str, kind: Kind, namespace: str = "", *, name: str = "", sub: str = ""
    ) -> bool:
        """Whether we may do that, as the server sees it."""
        attributes = {
            "verb": verb,
            "group": kind.group,
            "resource": kind.plural,
            "subresource": sub,
            "namespace": namespace,
            "name": name,
        }
        review = Kind(
            "authorization.k8s.io",
            "v1",
            "selfsubjectaccessreviews",
            "SelfSubjectAccessReview",
            namespaced=False,
        )
        answer = await self.create(review, {"spec": {"resourceAttributes": attributes}})
        return bool(answer.get("status", {}).get("allowed"))

    async def alive(self) -> None:
        """Raises: TransientError, PermanentError: the server does not answer now."""
        async with self._lock:
            if self.clock.now() - self._alive_at >= _ALIVE_S:
                await self.ask("GET", "/version")
                self._alive_at = self.clock.now()

    async def ask(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: object | None = None,
        content: str = "application/json",
    ) -> bytes:
        """One request and its answer. What the server has put off (429 with ``Retry-After``) is
        asked again as it says, within the deadline.

        Raises:
            MissingError, ForbiddenError, InvalidError, ConflictError, ExpiredError, BudgetError
            PermanentError: it is refused, and would be again.
            TransientError: no answer in time, or trouble of the server. What was asked for may
                have happened all the same: read back before asking again.
        """
        deadline = Instant(self.clock.now() + self.timeout_s)
        data = None if body is None else msgspec.json.encode(body)
        for _ in range(_TRIES):
            await self._turn(deadline)
            self.request_count += 1
            if self.fence is not None and method != "GET" and not _UNFENCED.match(path):
                await self.fence()
            try:
                async with asyncio.timeout(max(0.1, deadline - self.clock.now())):
                    status, wait_s, answer = await self._exchange(
                        method, path, query or {}, data, content
                    )
            except PrunellaError:
                raise
            except Exception as error:
                raise self._explain(error) from error
            if status < 300:
                return answer
            refusal = _refusal(status, answer, f"{method} {path}")
            if not isinstance(refusal, _PutOffError):
                raise refusal
            self._not_before = max(self._not_before, Instant(self.clock.now() + (wait_s or 1.0)))
        raise TransientError(f"the API server of {self.name} is busy: it puts off {method} {path}")

    async def lines(self, path: str, query: Mapping[str, str]) -> AsyncGenerator[bytes]:
        """The lines of an answer that does not end; the first one is empty and says that it has
        begun.

        Raises: as `ask`, at any time. Returns when the server has closed it.
        """
        await self._turn(Instant(self.clock.now() + self.timeout_s))
        try:
            async with asyncio.timeout(self.timeout_s):
                session, headers = await self._ready()
                answer = await session.get(
                    self.access.server + path,
                    params=query,
                    headers=headers,
                    ssl=self._tls,
                    server_hostname=self.access.server_name or None,
                )
        except PrunellaError:
            raise
        except Exception as error:
            raise self._explain(error) from error
        try:
            await _accept(answer, path)
            yield b""
            async with contextlib.aclosing(_lines(answer.content, path)) as lines:
                async for line in lines:
                    yield line
        except PrunellaError:
            raise
        except Exception as error:
            raise self._explain(error) from error
        finally:
            answer.close()

    async def close(self) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    # How ---------------------------------------------------------------------------------------

    async def _turn(self, deadline: Instant) -> None:
        """Wait until a request may be made: a bucket that fills at a steady rate."""
        while True:
            now = self.clock.now()
            self._tokens = min(_BURST, self._tokens + (now - self._counted_at) * _RATE_PER_S)
            self._counted_at = now
            at = max(self._not_before, Instant(now + max(0.0, 1.0 - self._tokens) / _RATE_PER_S))
            if at <= now:
                self._tokens -= 1.0
                return
            if at > deadline:
                raise TransientError(f"too many requests to {self.name} at once: put off")
            await self.clock.sleep_until(at)

    async def _exchange(
        self, method: str, path: str, query: Mapping[str, str], data: bytes | None, content: str
    ) -> tuple[int, float, bytes]:
        session, headers = await self._ready()
        if data is not None:
            headers["Content-Type"] = content
        async with session.request(
            method,
            self.access.server + path,
            params=query,
            data=data,
            headers=headers,
            ssl=self._tls,
            server_hostname=self.access.server_name or None,
            middlewares=() if method == "GET" else (_once(),),
        ) as answer:
            if answer.status == 401:
                self._credentials.forget()
            body = await _whole(answer.content, f"{method} {path}")
            wait = answer.headers.get("Retry-After", "")
            return answer.status, float(wait) if wait.isdigit() else 0.0, body

    async def _ready(self) -> tuple[aiohttp.ClientSession, dict[str, str]]:
        import aiohttp  # noqa: PLC0415 - slow

        if self._session is None:
            self._tls = self.access.tls() or True
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
                timeout=aiohttp.ClientTimeout(total=None),
                auto_decompress=True,
                read_bufsize=2**18,
                trust_env=False,
            )
        headers = {"Accept": "application/json", "User-Agent": MANAGER}
        if token := await self._credentials.token():
            headers["Authorization"] = f"Bearer {token}"
        return self._session, headers

    def _explain(self, error: Exception) -> Exception:
        from aiohttp import ClientError  # noqa: PLC0415 - slow

        if isinstance(error, TimeoutError):
            return TransientError(
                f"the API server of {self.name} does not answer within {self.timeout_s:g} s"
            )
        if isinstance(error, OSError | ClientError):
            words = str(error) or type(error).__name__
            return TransientError(f"the API server of {self.name} cannot be reached: {words}")
        return error  # a defect


class _PutOffError(PrunellaError):
    """The server has too much to do, and has done nothing."""


class _Cause(Struct, frozen=True):
    reason: str = ""
    message: str = ""


class _Details(Struct, frozen=True):
    causes: tuple[_Cause, ...] = ()


class Refusal(Struct, frozen=True):
    """The server's ``Status`` object: also what a watch is told of its end."""

    code: int = 0
    message: str = ""
    details: _Details | None = None

    def error(self, asked: str) -> PrunellaError:
        """In our kinds of trouble, in the server's own words."""
        words = " ".join((self.message or f"{asked}: status {self.code}").split())[:_LENGTH]
        causes = self.details.causes if self.details is not None else ()
        budgets = [one.message for one in causes if one.reason == "DisruptionBudget"]
        if self.code == 429 and budgets:
            return BudgetError(f"a PodDisruptionBudget forbids it now: {'; '.join(budgets)}")
        if self.code in _REFUSALS:
            make, prefix = _REFUSALS[self.code]
            return make(prefix + words)
        if self.code >= 500:
            return TransientError(f"the API server has trouble of its own: {words}")
        return PermanentError(f"the API server refuses: {words}")


_REFUSALS: Mapping[int, tuple[type[PrunellaError], str]] = {
    401: (PermanentError, "the API server does not know who we are: "),
    403: (ForbiddenError, "not allowed: "),
    404: (MissingError, ""),
    409: (ConflictError, ""),
    410: (ExpiredError, ""),
    422: (InvalidError, ""),
    429: (_PutOffError, ""),
}


def _refusal(status: int, answer: bytes, asked: str) -> PrunellaError:
    try:
        said = msgspec.json.decode(answer, type=Refusal)
    except msgspec.DecodeError:
        said = Refusal()
    return msgspec.structs.replace(said, code=status).error(asked)


async def _accept(answer: aiohttp.ClientResponse, asked: str) -> None:
    if answer.status >= 300:
        error = _refusal(answer.status, await _whole(answer.content, asked), asked)
        raise TransientError(str(error)) if isinstance(error, _PutOffError) else error


async def _lines(content: aiohttp.StreamReader, asked: str) -> AsyncGenerator[bytes]:
    rest = b""
    async for chunk in content.iter_any():
        *whole, rest = (rest + chunk).split(b"\n")
        for line in whole:
            yield line
        if len(rest) > _ANSWER_BYTES:
            raise TransientError(f"{asked} sends a line without an end")


def _once() -> aiohttp.ClientMiddlewareType:
    """The library sends PUT and DELETE again where a connection has died. We do not: what was
    decided once is written once at most, and each write passes the fence.
    """
    was_sent = False

    async def send(
        request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        nonlocal was_sent
        if was_sent:
            raise ConnectionResetError("the connection has died before its answer")
        was_sent = True
        return await handler(request)

    return send


async def _whole(content: aiohttp.StreamReader, asked: str) -> bytes:
    read = bytearray()
    async for chunk in content.iter_any():
        read += chunk
        if len(read) > _ANSWER_BYTES:
            raise TransientError(f"the answer to {asked} has no end")
    return bytes(read)


def _object(answer: bytes) -> Json:
    return _decoded(answer, dict[str, Any])


def _decoded(answer: bytes, as_: type[T]) -> T:
    try:
        return msgspec.json.decode(answer, type=as_)
    except msgspec.DecodeError as error:
        raise TransientError(f"what answers does not speak as a Kubernetes API: {error}") from error
