"""One service's way through its gateway: what is let through, as it was read last."""

from __future__ import annotations

import structlog

from prunella.core.breaker import LEASE_S, share_of, with_share
from prunella.core.model import Action, Epoch, Instant, ServiceId
from prunella.core.traffic import Flow, Valve
from prunella.errors import ConflictError, PermanentError, TransientError
from prunella.ports import Clock, Gateway

_log = structlog.get_logger("prunella.passage")
_PATIENCE_S = 2.0  # a gateway that could not be asked is not asked again before


class Passage:
    """What one service needs of its gateway.

    Attributes:
        flow: as the gateway said last; None: it cannot tell, or does not know the service.
    """

    __slots__ = ("_begun_anew", "_blind_at", "_clock", "_gateway", "_renew_at", "_service", "flow")

    def __init__(self, service: ServiceId, gateway: Gateway, clock: Clock) -> None:
        self._service = service
        self._gateway = gateway
        self._clock = clock
        self._blind_at = Instant(float("-inf"))
        self._renew_at = Instant(float("-inf"))
        self.flow: Flow | None = None
        self._begun_anew = False

    @property
    def turned_by_itself(self) -> bool:
        """Whether the gateway may have forgotten what we set: begun anew, or left alone."""
        lapsed = self._clock.now() >= self._renew_at + LEASE_S / 2
        return self._begun_anew or lapsed

    @property
    def gateway(self) -> Gateway:
        return self._gateway

    def take(self, flow: Flow | None) -> None:
        """Take in what the gateway has said of this service."""
        if flow is None:
            self.flow, self._blind_at = None, self._clock.now()
            return
        flow = flow._replace(shares=flow.shares and self._gateway.shares)
        last, self.flow = self.flow, flow
        if last is not None and _total(flow) < _total(last):
            self._begun_anew = True

    async def look(self) -> Flow | None:
        """Ask now; trouble is told once by whoever reads the gateway for all."""
        if self._clock.now() - self._blind_at < _PATIENCE_S:
            return None
        try:
            flows = await self._gateway.observe()
        except (TransientError, PermanentError) as error:
            _log.debug("gateway-unreadable", service=self._service, error=str(error))
            self.take(None)
        else:
            self.take(flows.get(self._service))
        return self.flow

    async def turn(self, action: Action, /, *, epoch: Epoch) -> None:
        """Carry out an action on a circuit.

        Raises: as ``Gateway.turn``.
        """
        flow = await self.look()
        assert action.share is not None, "a circuit's action has a share"
        if flow is None:
            raise TransientError(f"the gateway of {self._service} cannot be asked")
        present = share_of(flow.valve, action.instance)
        if str(present) not in (action.before, str(action.share)):
            raise ConflictError(f"the circuit of {self._service} is at {present} % by now")
        wanted = with_share(flow.valve, action.instance, action.share)
        await self._set(wanted, flow.valve, epoch)
        self._begun_anew = False

    async def keep(self, *, epoch: Epoch) -> Instant | None:
        """Have the gateway keep what is set, if its lease is half over; when to ask again.

        What it has lost is not put back here: whether it should be is a decision.
        """
        now = self._clock.now()
        if now < self._renew_at:
            return self._renew_at
        flow = await self.look()
        if flow is None:
            return Instant(now + _PATIENCE_S)
        try:
            await self._set(flow.valve, flow.valve, epoch)
        except ConflictError:
            return Instant(now + _PATIENCE_S)  # it has changed since we looked
        except (TransientError, PermanentError) as error:
            _log.warning("lease-not-renewed", service=self._service, error=str(error))
            return Instant(now + _PATIENCE_S)
        return self._renew_at

    async def _set(self, valve: Valve, before: Valve, epoch: Epoch) -> None:
        await self._gateway.turn(self._service, valve, before=before, lease_s=LEASE_S, epoch=epoch)
        self._renew_at = Instant(self._clock.now() + LEASE_S / 2)


def _total(flow: Flow) -> int:
    return flow.traffic.requests + flow.traffic.turned_away
