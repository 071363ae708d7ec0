"""One connection to a message bus, and the service manager that answers on it.

Every call has a deadline, and the errors of the library and of systemd end here. The library is
slow to import, so that is done when a connection is opened.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from prunella.errors import PermanentError, TransientError

if TYPE_CHECKING:
    from dbus_fast import Message
    from dbus_fast.aio import MessageBus

CALL_S = 5.0  # systemd answers in milliseconds; what takes longer hangs
_UNITS = "/org/freedesktop/systemd1/unit"
MANAGER = "org.freedesktop.systemd1"
_MANAGER_PATH = "/org/freedesktop/systemd1"
_CLOSE_S = 1.0
_ODD = re.compile("[^A-Za-z0-9]|^[0-9]")
_ESCAPED = re.compile("_([0-9a-f]{2})")
_DBUS = "org.freedesktop.DBus"
_MATCHES = (
    f"type='signal',sender='{MANAGER}',member='PropertiesChanged',path_namespace='{_UNITS}'",
    f"type='signal',sender='{MANAGER}',interface='{MANAGER}.Manager',member='JobRemoved'",
    f"type='signal',sender='{MANAGER}',interface='{MANAGER}.Manager',member='Reloading'",
    f"type='signal',sender='{_DBUS}',member='NameOwnerChanged',arg0='{MANAGER}'",
)
_DENIED = frozenset(
    {f"{_DBUS}.Error.AccessDenied", f"{_DBUS}.Error.InteractiveAuthorizationRequired"}
)
_FOR_GOOD = frozenset(
    f"{MANAGER}.{name}"
    for name in (
        "NoSuchUnit",
        "UnitMasked",
        "LoadFailed",
        "BadUnitSetting",
        "OnlyByDependency",
        "JobTypeNotApplicable",
    )
)


class LostError(TransientError):
    """The connection has gone or hangs: what was asked for may have been done all the same."""


class DeniedError(PermanentError):
    """The caller has no right to do that."""


class Signal(NamedTuple):
    """Something that the manager has told everybody."""

    member: str
    path: str
    body: list[Any]


_Send = Callable[["Message"], "asyncio.Future[None]"]


class Bus:
    """A connection that was opened; it is never opened again."""

    def __init__(self, link: MessageBus) -> None:
        self._link = link
        self._send: _Send = link.send  # pyright: ignore[reportUnknownMemberType]
        self._hear: Callable[[Signal], None] | None = None
        self._answers: dict[int, asyncio.Future[Message]] = {}
        self._gone = asyncio.ensure_future(_disconnected(link))
        self._gone.add_done_callback(lambda _: self._lose())
        link.add_message_handler(self._take)

    @classmethod
    async def open(cls, address: str) -> Self:
        """Connect within the deadline of a call.

        Raises:
            TransientError: nobody answers there now.
            PermanentError: it must not be used, or there can be no bus at such an address.
        """
        await asyncio.to_thread(import_module, "dbus_fast.aio")  # slow: not on the event loop
        from dbus_fast import InvalidAddressError  # noqa: PLC0415
        from dbus_fast.aio import MessageBus  # noqa: PLC0415

        try:
            async with asyncio.timeout(CALL_S):
                return cls(await MessageBus(bus_address=address).connect())
        except TimeoutError:
            raise TransientError(f"the bus at {address} does not answer") from None
        except InvalidAddressError as error:
            raise PermanentError(f"{address} is no address of a bus: {error}") from error
        except PermissionError as error:
            raise PermanentError(f"no right to use the bus at {address}: {error}") from error
        except (EOFError, ValueError) as error:  # AuthError is one of them
            if "REJECTED" in str(error):
                raise PermanentError(f"the bus at {address} lets us not in: {error}") from error
            raise TransientError(f"what is at {address} talks no D-Bus: {error}") from error
        except OSError as error:
            reason = error.strerror or error
            raise TransientError(f"no bus at {address}: {reason}; is systemd running?") from error

    @property
    def alive(self) -> bool:
        return self._link.connected

    def when_gone(self, tell: Callable[[], None]) -> None:
        """Have `tell` called once, from the event loop, when the connection has gone."""
        self._gone.add_done_callback(lambda _: tell())

    async def subscribe(self, hear: Callable[[Signal], None]) -> None:
        """From now on hand every signal about units and jobs to `hear`, in their order."""
        self._hear = hear
        for rule in _MATCHES:
            await self._call(_DBUS, "/org/freedesktop/DBus", _DBUS, "AddMatch", "s", rule)
        await self.ask("Subscribe")

    async def ask(self, method: str, signature: str = "", *body: object) -> list[Any]:
        """Call a method of the manager.

        Raises:
            LostError: the connection has gone or hangs; it is of no use any more.
            DeniedError: we have no right to do that.
            PermanentError, TransientError: the manager refuses, now or for good.
        """
        return await self._call(
            MANAGER, _MANAGER_PATH, f"{MANAGER}.Manager", method, signature, *body
        )

    async def ping(self) -> None:
        """Ask for a sign of life. Raises LostError: there is none."""
        await self._call(MANAGER, _MANAGER_PATH, f"{_DBUS}.Peer", "Ping", "")

    async def properties(self, path: str) -> Mapping[str, Any]:
        """All properties of the unit at `path` at one moment, of all its interfaces."""
        # An empty name stands for every interface: one call, and nothing changes in between.
        (found,) = await self._call(MANAGER, path, f"{_DBUS}.Properties", "GetAll", "s", "")
        return plain(found)

    async def may_order(self) -> bool | None:
        """Whether polkit lets us order jobs on any unit; None: there is no polkit.

        Its rules may yet allow it for one unit: whoever is not trusted may not ask about one.
        """
        from dbus_fast import Variant  # noqa: PLC0415 - loaded by `open`

        no_details: dict[str, str] = {}
        subject = ["system-bus-name", {"name": Variant("s", self._link.unique_name)}]
        try:
            (answer,) = await self._call(
                "org.freedesktop.PolicyKit1",
                "/org/freedesktop/PolicyKit1/Authority",
                "org.freedesktop.PolicyKit1.Authority",
                "CheckAuthorization",
                "(sa{sv})sa{ss}us",
                *(subject, f"{MANAGER}.manage-units", no_details, 0, ""),
            )
        except LostError:
            raise
        except TransientError:
            return None
        return bool(answer[0])

    async def close(self) -> None:
        """Hang up."""
        if not self._gone.done():
            self._link.disconnect()
            await asyncio.wait([self._gone], timeout=_CLOSE_S)
        if self._gone.done() and not self._gone.cancelled():
            self._gone.exception()  # how it ended is nobody's concern any more

    async def _call(
        self, to: str, path: str, interface: str, method: str, signature: str, *body: object
    ) -> list[Any]:
        from dbus_fast import Message, MessageType  # noqa: PLC0415 - loaded by `open`

        if not self.alive:
            raise LostError("the connection to the bus has gone")
        serial = self._link.next_serial()
        message = Message(
            destination=to,
            path=path,
            interface=interface,
            member=method,
            signature=signature,
            body=list(body),
            serial=serial,
        )
        answer = self._answers[serial] = asyncio.get_running_loop().create_future()
        # A write that fails ends the connection, and that is told to whoever waits for an answer.
        self._send(message).add_done_callback(lambda sent: sent.exception())
        try:
            async with asyncio.timeout(CALL_S):
                reply = await answer
        except TimeoutError:
            raise LostError(f"no answer to {method} within {CALL_S:g} s") from None
        finally:
            del self._answers[serial]
        if reply.message_type is MessageType.ERROR:
            raise _explain(reply)
        said: list[Any] = reply.body
        return said

    def _take(self, message: Message) -> None:
        answer = self._answers.get(message.reply_serial or 0)
        if answer is not None:
            if not answer.done():
                answer.set_result(message)
        elif self._hear is not None and message.member is not None and message.path is not None:
            self._hear(Signal(message.member, message.path, message.body))

    def _lose(self) -> None:
        for answer in self._answers.values():
            if not answer.done():
                answer.set_exception(LostError("the connection to the bus was lost"))


def address_of(bus: str) -> str:
    """The address of the ``system`` bus or of the ``user``'s; any other is its own.

    Raises:
        PermanentError: there is no user whose bus it could be.
    """
    if bus == "system":
        return os.environ.get("DBUS_SYSTEM_BUS_ADDRESS") or "unix:path=/run/dbus/system_bus_socket"
    if bus != "user":
        return bus
    given, folder = (os.environ.get(v) for v in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR"))
    if not given and not folder:
        raise PermanentError(
            "no user bus: neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set; "
            "name its address, such as unix:path=/run/user/1000/bus"
        )
    return given or f"unix:path={folder}/bus"


def path_of(name: str) -> str:
    """Where on the bus the unit of that name is."""
    return f"{_UNITS}/" + _ODD.sub(lambda odd: f"_{ord(odd[0]):02x}", name)


def name_at(path: str) -> str:
    """The name of the unit that is there on the bus."""
    label = path.removeprefix(f"{_UNITS}/")
    return _ESCAPED.sub(lambda escaped: chr(int(escaped[1], 16)), label)


def plain(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Property values without the library's wrapper around each."""
    return {name: variant.value for name, variant in properties.items()}


async def _disconnected(link: MessageBus) -> None:
    await link.wait_for_disconnect()  # type: ignore[no-untyped-call]


def _explain(reply: Message) -> TransientError | PermanentError:
    name = reply.error_name or ""
    said = str(reply.body[0]) if reply.body else name
    if name in _DENIED:
        return DeniedError(said)
    return PermanentError(said) if name in _FOR_GOOD else TransientError(said)
