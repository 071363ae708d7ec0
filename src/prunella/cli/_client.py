"""The daemon's API, over the standard library's HTTP: direct, never through a proxy."""

from __future__ import annotations

import json
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, urlencode, urlsplit

import typer

from prunella.cli._complete import DEFAULT_API
from prunella.errors import PrunellaError

if TYPE_CHECKING:
    from http.client import HTTPResponse

ANSWER_S = 15.0
SILENCE_S = 60.0  # a stream of events beats more often than that
MAX_EVENT_BYTES = 2**20


class NoDaemonError(PrunellaError):
    """Nobody answers, or somebody who is not Prunella."""

    exit_code = 3


class BadAddressError(PrunellaError):
    """The address of the API cannot be one."""

    exit_code = 2


class RefusedError(PrunellaError):
    """The daemon answered, and the answer is no. ``body`` is all it said."""

    def __init__(self, status: int, body: Mapping[str, Any]) -> None:
        super().__init__(str(body.get("detail", f"HTTP status {status}")))
        self.status = status
        self.body = body
        self.exit_code = 2 if status in {404, 422} else 1


class Client:
    """One daemon. Calls raise ``NoDaemonError`` and ``RefusedError``."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._host, self._port = _address(url)

    def get(self, path: str, **query: str | int | None) -> Any:
        given = {key: value for key, value in query.items() if value is not None}
        return self.send("GET", f"{path}?{urlencode(given)}" if given else path)

    def send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        *,
        within_s: float | None = ANSWER_S,
    ) -> Any:
        """The answer's JSON; ``within_s`` None waits as long as it takes."""
        with self._asked(method, path, body, within_s) as answer:
            return _json(answer.read())

    def events(self, service: str | None) -> Iterator[Any]:
        """What happens, as it happens, until the daemon ends."""
        path = "/events" if service is None else f"/events?{urlencode({'service': service})}"
        with self._asked("GET", path, None, SILENCE_S) as answer:
            while line := answer.readline(MAX_EVENT_BYTES):
                if line.startswith(b"data:"):
                    yield _json(line.removeprefix(b"data:"))

    @contextmanager
    def _asked(
        self, method: str, path: str, body: Mapping[str, Any] | None, within_s: float | None
    ) -> Generator[HTTPResponse]:
        from http.client import HTTPConnection, HTTPException  # noqa: PLC0415 - slow

        connection = HTTPConnection(self._host, self._port, timeout=ANSWER_S)
        try:
            connection.connect()
            connection.sock.settimeout(within_s)
            connection.request(
                method,
                f"/api/v1{path}",
                None if body is None else json.dumps(body),
                {"Accept": "application/json", "Content-Type": "application/json"},
            )
            answer = connection.getresponse()
            if answer.status >= 300:
                raise _refusal(answer, self._url)
            yield answer
        except ConnectionRefusedError as error:
            raise NoDaemonError(
                f'no daemon answers at {self._url}: start one with "prunella run FILE", or name '
                "its address with --api"
            ) from error
        except TimeoutError as error:
            raise NoDaemonError(
                f"the daemon at {self._url} does not answer in time: look at its log"
            ) from error
        except (OSError, HTTPException, UnicodeError) as error:
            raise NoDaemonError(
                f"the daemon at {self._url} cannot be reached ({error or type(error).__name__}): "
                "look at its log, or name another address with --api"
            ) from error
        finally:
            connection.close()


def connect(ctx: typer.Context, api: str | None) -> Client:
    """The client of the address after the command, or of the one before it."""
    return Client(str(ctx.obj) if api is None else api)


def service_path(service: str, rest: str = "") -> str:
    return f"/services/{quote(service, safe='')}{rest}"


def _address(url: str) -> tuple[str, int]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme != "http" or not host or parts.path.strip("/") or parts.username is not None:
        raise BadAddressError(f"{url!r} is no address of an API, expected {DEFAULT_API}")
    return host, port or 80


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise NoDaemonError(
            "what answers there is not Prunella: name the daemon's address with --api"
        ) from error


def _refusal(answer: HTTPResponse, url: str) -> PrunellaError:
    """The daemon's no; anything without a ``detail`` was not said by the daemon."""
    try:
        body = json.loads(answer.read())
    except ValueError:
        body = None
    if isinstance(body, dict) and "detail" in body:
        return RefusedError(answer.status, cast("dict[str, Any]", body))
    return NoDaemonError(f"what answers at {url} is not Prunella (HTTP status {answer.status})")


def hold_path(service: str | None) -> str:
    return "/holds" if service is None else f"/holds/{quote(service, safe='')}"
