"""Readiness of many short-lived sockets through one descriptor of the event loop's.

A socket that lives for one question costs a loop four system calls and an object to watch; here
it costs two system calls. One poller serves all probes of a loop and ends with the loop.
"""

from __future__ import annotations

import asyncio
import select
from collections.abc import Callable
from weakref import WeakKeyDictionary

READ = select.EPOLLIN
WRITE = select.EPOLLOUT
_BATCH = 64


class Poller:
    """Calls back, within its loop, when a socket is ready; level-triggered, at times in vain."""

    __slots__ = ("__weakref__", "_callbacks", "_epoll")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._epoll = select.epoll()
        self._callbacks: dict[int, Callable[[], None]] = {}
        loop.add_reader(self._epoll.fileno(), self._ready)

    def watch(self, fd: int, events: int, callback: Callable[[], None]) -> None:
        """Begin to watch `fd`, or watch it for other events."""
        if fd in self._callbacks:
            self._epoll.modify(fd, events)
        else:
            self._epoll.register(fd, events)
        self._callbacks[fd] = callback

    def forget(self, fd: int) -> None:
        """Watch `fd` no longer; to be called before it is closed."""
        del self._callbacks[fd]
        self._epoll.unregister(fd)

    def _ready(self) -> None:
        for fd, _ in self._epoll.poll(0, _BATCH):
            # A callback may have closed a later socket of the batch; another may have its number.
            callback = self._callbacks.get(fd)
            if callback is not None:
                callback()


_pollers: WeakKeyDictionary[asyncio.AbstractEventLoop, Poller] = WeakKeyDictionary()


def poller_of(loop: asyncio.AbstractEventLoop) -> Poller:
    """The poller of `loop`.

    Raises:
        OSError: there was none, and there is no descriptor left for one.
    """
    poller = _pollers.get(loop)
    if poller is None:
        poller = _pollers[loop] = Poller(loop)
    return poller
