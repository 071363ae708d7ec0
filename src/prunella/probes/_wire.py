"""One conversation over one non-blocking socket, and what its trouble means. For probes.

The sockets are driven by hand rather than by the loop's transports: on a check that connects,
asks and closes, a transport costs more than the rest of the conversation.
"""

from __future__ import annotations

import asyncio
import errno
import os
import re
import socket
import ssl
import unicodedata
from abc import ABC, abstractmethod
from typing import Any, NamedTuple

from prunella.core.model import Cause, Instant, Observation, Verdict
from prunella.ports import Clock
from prunella.probes._poll import READ, WRITE, poller_of

FIRST_READ_BYTES = 16384
DETAIL_CHARS = 200

_OURS = frozenset(
    {
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOBUFS,
        errno.ENOMEM,
        errno.EADDRNOTAVAIL,
        errno.ENETUNREACH,
        errno.ENETDOWN,
        errno.EAFNOSUPPORT,
        errno.EPERM,  # a packet filter of this machine
        errno.EACCES,
    }
)
_ABSENT = frozenset(
    {errno.ECONNREFUSED, errno.ENOENT, errno.EHOSTUNREACH, errno.EHOSTDOWN, errno.ENOTSOCK}
)
_RESET = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED, errno.ENOTCONN})
_PASS = Verdict.PASS  # looking a member up costs as much as making the observation
_PRINTABLE = re.compile(r"[ -~]*")


class Trouble(NamedTuple):
    """Why a check did not pass; ``cause`` None means that the trouble is ours."""

    cause: Cause | None
    detail: str


class Address(NamedTuple):
    """Where to connect: what ``socket.socket`` and ``connect`` take."""

    family: int
    sockaddr: Any


class Tls(NamedTuple):
    context: ssl.SSLContext
    server_name: str


def sanitise(text: str) -> str:
    """`text` on one line and harmless to a terminal, at most 200 characters.

    Control, escape, format (bidi overrides among them) and unassigned characters become ``?``.
    """
    text = text[:DETAIL_CHARS]
    if _PRINTABLE.fullmatch(text):
        return text
    return "".join(
        " " if c in "\t\r\n" else "?" if unicodedata.category(c)[0] in "CZ" and c != " " else c
        for c in text
    )


def observe(
    clock: Clock, started: Instant, trouble: Trouble | None, load: float | None = None
) -> Observation:
    """The observation of a check that began at `started` and ends now."""
    at = clock.now()
    if trouble is None:
        return Observation(_PASS, at, at - started, None, "", load)
    cause, detail = trouble
    verdict = Verdict.INCONCLUSIVE if cause is None else Verdict.FAIL
    return Observation(verdict, at, at - started, cause, sanitise(detail), load)


def explain(error: OSError, *, answered: bool) -> Trouble:
    """What a failed system call says of the target, or of us.

    Args:
        error: as raised by a socket or by TLS.
        answered: the target has sent at least one byte.
    """
    if isinstance(error, ssl.SSLError):
        reason = getattr(error, "verify_message", "") or error.reason or error.strerror or "failed"
        return Trouble(Cause.ERROR, f"TLS: {reason.lower().replace('_', ' ')}")
    number = error.errno
    cause: Cause | None = Cause.ERROR
    detail = (error.strerror or str(error)).lower()
    if number in _OURS:
        cause, detail = None, f"cannot probe: {detail}"
    elif number in _RESET and answered:
        detail = "connection reset in the middle of the answer"
    elif number in _RESET:
        cause, detail = Cause.REFUSED, "connection reset before any answer"
    elif number in _ABSENT:
        cause = Cause.REFUSED
    elif number == errno.ETIMEDOUT:
        cause = Cause.TIMEOUT
    elif number == errno.EAGAIN:  # a unix socket's way of saying so
        cause, detail = Cause.TIMEOUT, "the queue of waiting connections is full"
    return Trouble(cause, detail)


def no_answer(timeout_s: float) -> Trouble:
    return Trouble(Cause.TIMEOUT, f"no answer within {timeout_s:g} s")


class Dialogue(ABC):
    """Connect, say `request`, listen. Subclasses say when enough was heard.

    ``settled`` gets its result once, when the verdict is certain; ``trouble`` then says what is
    wrong. The socket may live on until ``close``, at the latest until the deadline.
    """

    __slots__ = (
        "_answered",
        "_deadline",
        "_fd",
        "_loop",
        "_poller",
        "_sent",
        "_sock",
        "_timeout_s",
        "_timer",
        "_tls",
        "_unsent",
        "_watching",
        "settled",
        "trouble",
    )

    def __init__(self, loop: asyncio.AbstractEventLoop, timeout_s: float) -> None:
        self.settled: asyncio.Future[None] = loop.create_future()
        self.trouble: Trouble | None = None
        self._loop = loop
        self._timeout_s = timeout_s
        self._sock: socket.socket | None = None
        self._fd = -1  # kept apart: a handshake that fails may close the socket under us
        self._timer: asyncio.TimerHandle | None = None
        self._tls: Tls | None = None
        self._answered = False
        self._sent = False
        self._watching = 0

    def connected(self) -> None:  # noqa: B027 - a hook that most have no use for
        """Take that there is a connection and `request` was handed to the system."""

    @abstractmethod
    def heard(self, data: bytes) -> None:
        """Take what the target said."""

    @abstractmethod
    def ended(self) -> None:
        """Take that the target will say no more."""

    def late(self) -> Trouble:
        """What it means that the deadline has come first."""
        return no_answer(self._timeout_s)

    def open(
        self,
        address: Address,
        request: bytes,
        deadline: float,
        *,
        tls: Tls | None = None,
        connect_s: float | None = None,
    ) -> None:
        """Begin; trouble is told by ``settled``, never raised.

        Args:
            address: whom to connect to.
            request: sent as soon as there is a connection.
            deadline: in the loop's time; the whole conversation ends by then.
            tls: encrypt; None: do not.
            connect_s: shorter limit for the connection alone.
        """
        self._deadline = deadline
        self._unsent = request
        self._tls = tls
        loop = self._loop
        until = deadline if connect_s is None else min(deadline, loop.time() + connect_s)
        self._timer = loop.call_at(until, self._expire)
        try:
            sock = self._sock = socket.socket(
                address.family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK
            )
            self._poller = poller_of(loop)
            self._fd = sock.fileno()
            code = sock.connect_ex(address.sockaddr)
        except OSError as error:
            self.settle(explain(error, answered=False))
            self.close()
            return
        if code not in (0, errno.EINPROGRESS):
            self.settle(explain(OSError(code, os.strerror(code)), answered=False))
            self.close()
        elif tls is None:
            self._advance()  # most connections are there by now: saves a round of the loop
        else:
            self._watch(WRITE)

    def resume(self, sock: socket.socket, request: bytes, deadline: float) -> None:
        """Begin on a connection that is there already."""
        self._deadline = deadline
        self._unsent = request
        self._sock = sock
        self._poller = poller_of(self._loop)
        self._fd = sock.fileno()
        self._timer = self._loop.call_at(deadline, self._expire)
        self._advance()

    def settle(self, trouble: Trouble | None) -> None:
        """The verdict is certain; later ones do not change it."""
        if not self.settled.done():
            self.trouble = trouble
            self.settled.set_result(None)

    def close(self) -> None:
        """Let go of the socket. Closing twice does nothing."""
        self._rest()
        if self._sock is not None:
            self._sock.close()
            self._sock = None

    @property
    def answered(self) -> bool:
        """The target has sent at least one byte."""
        return self._answered

    def _rest(self) -> None:
        """Neither wait nor listen any more, and leave the connection as it is."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._watching:
            self._watching = 0
            self._poller.forget(self._fd)

    def _watch(self, events: int) -> None:
        if self._watching != events:
            self._watching = events
            self._poller.watch(self._fd, events, self._advance)

    def _expire(self) -> None:
        if self._watching == READ and self._loop.time() < self._deadline - 0.001:
            self._timer = self._loop.call_at(self._deadline, self._expire)
            return
        self._timer = None
        self.settle(self.late())
        self.close()

    def _advance(self) -> None:
        """Go on with whatever comes next: handshake, request, answer."""
        sock = self._sock
        if sock is None:
            return
        try:
            if self._sent:
                self._receive(sock)
            else:
                self._send(sock if self._tls is None else self._secure(sock, self._tls))
        except (BlockingIOError, InterruptedError, ssl.SSLWantWriteError):
            if not self._sent:
                self._watch(WRITE)
        except ssl.SSLWantReadError:
            self._watch(READ)
        except OSError as error:
            self.settle(explain(error, answered=self._answered))
            self.close()

    def _send(self, sock: socket.socket) -> None:
        """Send what is left; an empty request still asks whether there is a connection."""
        self._unsent = self._unsent[sock.send(self._unsent) :]
        if self._unsent:
            self._watch(WRITE)
            return
        self._sent = True
        self.connected()
        if self._sock is not None:
            self._watch(READ)

    def _receive(self, sock: socket.socket) -> None:
        data = sock.recv(FIRST_READ_BYTES)
        if not data:
            self.ended()
            return
        self._answered = True
        self.heard(data)
        while isinstance(self._sock, ssl.SSLSocket) and self._sock.pending():
            self.heard(self._sock.recv(FIRST_READ_BYTES))

    def _secure(self, sock: socket.socket, tls: Tls) -> socket.socket:
        """Take the handshake as far as it goes. Never resumes: each check sees the certificate.

        Raises:
            OSError: not connected, refused by either side, or not certified.
        """
        if not isinstance(sock, ssl.SSLSocket):
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            sock = self._sock = tls.context.wrap_socket(
                sock, server_hostname=tls.server_name, do_handshake_on_connect=False
            )
        assert isinstance(sock, ssl.SSLSocket)
        sock.do_handshake()
        self._tls = None
        return sock


def is_itself(sock: socket.socket) -> bool:
    """True if a connection to a port of this machine met its own first packet."""
    return bool(sock.getsockname() == sock.getpeername())
