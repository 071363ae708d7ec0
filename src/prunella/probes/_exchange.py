"""One HTTP question and its answer, read no further than the verdict needs. For the http probe."""

from __future__ import annotations

import asyncio
import socket
from http import HTTPStatus
from typing import ClassVar

from httptools import (
    HttpParserCallbackError,
    HttpParserError,
    HttpParserUpgrade,
    HttpResponseParser,
)

from prunella.core.model import Cause
from prunella.probes._wire import Dialogue, Trouble, is_itself

HEAD_CAP_BYTES = 16384
BODY_CAP_BYTES = 65536


class Exchange(Dialogue):
    """Settled by the status line and headers alone.

    The rest of a short answer is then read and dropped, so that a server that is still writing
    is not met with a reset; a long or slow rest is cut off. ``idle``: the answer is complete and
    the connection may be taken with ``release``.
    """

    cap_bytes: ClassVar[int] = BODY_CAP_BYTES  # no more of the body is read

    __slots__ = ("_bodiless", "_body_bytes", "_head_bytes", "_keep", "_parser", "idle", "status")

    def __init__(
        self, loop: asyncio.AbstractEventLoop, timeout_s: float, *, keep: bool, bodiless: bool
    ) -> None:
        super().__init__(loop, timeout_s)
        self._parser: HttpResponseParser | None = HttpResponseParser(self)
        self._keep = keep
        self._bodiless = bodiless
        self._head_bytes = 0
        self._body_bytes = 0
        self.idle = False
        self.status = 0

    def heard(self, data: bytes) -> None:
        if self.status:
            self._body_bytes += len(data)
        else:
            self._head_bytes += len(data)
        assert self._parser is not None
        try:
            self._parser.feed_data(data)
        except HttpParserCallbackError:
            raise  # a defect of ours
        except (HttpParserError, HttpParserUpgrade):
            self._give_up(self._stranger())
            return
        if not self.status:
            if self._head_bytes >= HEAD_CAP_BYTES:
                self._give_up(Trouble(Cause.ERROR, f"headers above {HEAD_CAP_BYTES} bytes"))
        elif self._body_bytes > self.cap_bytes:
            self.capped()

    def ended(self) -> None:
        where = "in the middle of the answer" if self._answered else "without an answer"
        self._give_up(Trouble(Cause.ERROR, f"connection closed {where}"))

    def capped(self) -> None:
        """Enough of the body was read."""
        self.close()

    def close(self) -> None:
        super().close()
        self._parser = None  # it knows our methods: without this, each check is left to the GC

    def on_headers_complete(self) -> None:
        code = self.final_status()
        if not code:
            return
        self.status = code
        self.settle(None)
        if self._bodiless:
            self._complete()

    def final_status(self) -> int:
        """The status whose headers are complete; 0 for one that is not the answer.

        That is an interim one, before the answer, or one that nobody asked for, behind it.
        """
        if self.status or self._parser is None:
            self.close()
            return 0
        code = self._parser.get_status_code()
        return 0 if 100 <= code < 200 and code != 101 else code

    def on_message_complete(self) -> None:
        if self.status and self._sock is not None:
            self._complete()

    def _complete(self) -> None:
        self.settle(None)
        if self._keep and self._parser is not None and self._parser.should_keep_alive():
            self._rest()
            self.idle = True
        else:
            self.close()

    def _give_up(self, trouble: Trouble) -> None:
        self.settle(trouble)
        self.close()

    def _stranger(self) -> Trouble:
        if self._sock is not None and not self.status and is_itself(self._sock):
            return Trouble(Cause.REFUSED, "connection refused")
        return Trouble(Cause.ERROR, "the answer is not HTTP")

    def release(self) -> socket.socket | None:
        """The connection, for the next exchange; None if there is none or it is not quiet."""
        sock, self._sock = self._sock, None
        if sock is None:
            return None
        try:
            sock.recv(1)
        except (BlockingIOError, InterruptedError):
            return sock
        except OSError:
            pass  # reset while it was idle: as good as closed
        sock.close()
        return None


class ReadingExchange(Exchange):
    """Also reads what a redirect or a body pattern needs.

    The body is read when the status is one of `with_body`, up to its cap, without decompressing.
    """

    __slots__ = ("_framed", "_with_body", "body", "location")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        timeout_s: float,
        *,
        keep: bool,
        bodiless: bool,
        with_body: frozenset[int],
    ) -> None:
        super().__init__(loop, timeout_s, keep=keep, bodiless=bodiless)
        self._with_body = with_body
        self._framed = False
        self.location: bytes | None = None
        self.body = bytearray()

    def on_header(self, name: bytes, value: bytes) -> None:
        if self.status:
            return  # of the body's end, or of an answer that nobody asked for
        if len(name) == 8 and name.lower() == b"location":
            self.location = value
        elif name.lower() in (b"content-length", b"transfer-encoding"):
            self._framed = True

    def on_headers_complete(self) -> None:
        if self.status or self._bodiless:
            super().on_headers_complete()
            return
        code = self.final_status()
        if not code:
            self.location, self._framed = None, False
            return
        self.status = code
        if code not in self._with_body:
            self.settle(None)

    def on_body(self, data: bytes) -> None:
        room = self.cap_bytes - len(self.body)
        if room > 0 and not self.settled.done():
            self.body += data[:room]
            if len(data) >= room:
                self.capped()

    def capped(self) -> None:
        self.settle(None)
        self.close()

    def ended(self) -> None:
        if self.status and not self._framed:
            self.capped()  # such an answer ends with its connection
        else:
            super().ended()


def phrase(status: int) -> str:
    """A status code with its words, where it has any."""
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
