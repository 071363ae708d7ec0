"""Who of several Prunellas acts: the one whose name is in a Lease, and nobody for a while after.

No two clocks are compared. A standby counts, on its own monotonic clock, since it last saw the
Lease change; the leader stops after two thirds of that time by its own clock, so a frozen one
that wakes up knows before it does anything. Every write has the version it was decided on.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress

import structlog

from prunella.core.model import Instant
from prunella.errors import ConflictError, PrunellaError, StaleEpochError, TransientError
from prunella.kube.access import Access
from prunella.kube.client import Cluster, MissingError
from prunella.kube.kinds import LEASE, Json
from prunella.ports import Clock

_log = structlog.get_logger("prunella.election")
_NOBODY = float("-inf")


class Election:
    """One candidate. It has a client of its own: no other request may delay a renewal.

    Attributes:
        epoch: ``leaseTransitions`` of our leadership.
    """

    def __init__(
        self, access: Access, clock: Clock, *, name: str, identity: str, ttl_s: float
    ) -> None:
        self.name = name
        self.namespace = access.namespace
        self.identity = identity
        self.ttl_s = ttl_s
        self.epoch = 0
        self._cluster = Cluster(access, clock, timeout_s=max(1.0, ttl_s / 5))
        self._clock = clock
        self._leads = False
        self._lost = "we do not lead yet"
        self._renewed_at = Instant(_NOBODY)
        self._seen: Json = {}
        self._seen_at = Instant(_NOBODY)
        self._missing_since: Instant | None = None
        self._transitions = 0

    async def acquire(self, say: Callable[[str], None]) -> None:
        """Wait until we lead. `say` is told why we do not, whenever that changes.

        Trouble with the API server is waited out as well.
        """
        said = ""
        while not self._leads:
            try:
                reason = await self._try()
            except PrunellaError as error:
                reason = str(error)
            if reason not in ("", said):
                said = reason
                say(reason)
            if not self._leads:
                await self._clock.sleep_until(self._next_look())
        _log.info("leading", lease=f"{self.namespace}/{self.name}", epoch=self.epoch)

    async def keep(self) -> None:
        """Renew for as long as that works. Raises: StaleEpochError: we do not lead any more."""
        said = ""
        while True:
            await self._clock.sleep_until(Instant(self._clock.now() + self.ttl_s * 2 / 15))
            self.require()
            try:
                await self._try()
            except StaleEpochError:
                raise
            except PrunellaError as error:
                if str(error) != said:
                    said = str(error)
                    _log.warning("lease-not-renewed", error=said)
            else:
                said = ""

    def require(self) -> None:
        """Whether we may still act, by our own clock. Raises: StaleEpochError."""
        if not self._lost and self._clock.now() - self._renewed_at > self.ttl_s * 2 / 3:
            self._lose(f"not renewed for {self._clock.now() - self._renewed_at:.1f} s")
        if self._lost:
            raise StaleEpochError(f"the lease {self.namespace}/{self.name}: {self._lost}")

    async def fence(self) -> None:
        """Right before a write to the cluster. Raises: StaleEpochError, TransientError."""
        self.require()
        if self._clock.now() - self._renewed_at <= self.ttl_s / 3:
            return
        try:
            lease = await self._cluster.get(LEASE, self.name, self.namespace)
        except MissingError as error:
            raise TransientError(f"nobody can tell who leads: {error}") from error
        self._require_ours(lease.get("spec") or {})
        self.require()

    async def release(self) -> None:
        """Let the next one take over at once; then end."""
        if self._leads and not self._lost:
            self._lost = "given up"
            with suppress(PrunellaError):  # it ends by itself as well
                lease = await self._cluster.get(LEASE, self.name, self.namespace)
                spec: Json = lease.get("spec") or {}
                if spec.get("holderIdentity") == self.identity:
                    now = self._now()
                    spec |= {"holderIdentity": "", "leaseDurationSeconds": 1, "renewTime": now}
                    await self._write({**lease, "spec": spec})
        await self._cluster.close()

    async def _try(self) -> str:
        """Take or renew it; why not, or empty."""
        began = self._clock.now()
        try:
            lease = await self._cluster.get(LEASE, self.name, self.namespace)
        except MissingError:
            return await self._make(began)
        self._missing_since = None
        spec: Json = lease.get("spec") or {}
        if spec != self._seen:
            self._seen, self._seen_at = spec, self._clock.now()
        self._transitions = int(spec.get("leaseTransitions") or 0)
        holder = str(spec.get("holderIdentity") or "")
        if self._leads:
            self._require_ours(spec)
        elif holder not in ("", self.identity) and self._clock.now() < self._expiry():
            return f"standing by: {holder} leads"
        ours = {
            **spec,
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self.ttl_s),
            "renewTime": self._now(),
            "leaseTransitions": self._transitions + (holder != self.identity),
        }
        if holder != self.identity:
            ours["acquireTime"] = ours["renewTime"]
        try:
            await self._write({**lease, "spec": ours})
        except ConflictError:
            return "standing by: the lease has just been changed"
        self._hold(ours, began)
        return ""

    async def _make(self, began: Instant) -> str:
        """There is none. That is no proof that nobody leads: whoever does makes it anew first."""
        now = self._clock.now()
        if self._missing_since is None:
            self._missing_since = now
        if not self._leads and now < max(self._expiry(), self._missing_since + self.ttl_s / 3):
            return "standing by: there is no lease yet, or not any more"
        ours = {
            "holderIdentity": self.identity,
            "leaseDurationSeconds": math.ceil(self.ttl_s),
            "acquireTime": self._now(),
            "renewTime": self._now(),
            "leaseTransitions": self.epoch if self._leads else self._transitions + 1,
        }
        try:
            await self._cluster.create(
                LEASE, {"metadata": {"name": self.name}, "spec": ours}, self.namespace
            )
        except ConflictError:
            return "standing by: another one has just made the lease"
        self._hold(ours, began)
        return ""

    async def _write(self, lease: Json) -> None:
        await self._cluster.replace(LEASE, self.name, self.namespace, lease)

    def _hold(self, spec: Json, began: Instant) -> None:
        self.epoch = self._transitions = int(spec["leaseTransitions"])
        self._seen, self._seen_at = spec, self._clock.now()
        self._missing_since = None
        self._renewed_at = began  # nobody has seen it change earlier
        if not self._leads:
            self._leads, self._lost = True, ""

    def _require_ours(self, spec: Json) -> None:
        holder = str(spec.get("holderIdentity") or "nobody")
        if holder != self.identity or spec.get("leaseTransitions") != self.epoch:
            self._lose(f"{holder} leads")
        self.require()

    def _lose(self, why: str) -> None:
        if not self._lost:
            self._lost = why
            _log.error("lease-lost", why=why, lease=f"{self.namespace}/{self.name}")

    def _expiry(self) -> Instant:
        duration_s = float(self._seen.get("leaseDurationSeconds") or self.ttl_s)
        return Instant(self._seen_at + duration_s)

    def _next_look(self) -> Instant:
        """Soon; and right when the present one expires."""
        now, soon_s = self._clock.now(), min(1.0, self.ttl_s / 15)
        left_s = self._expiry() - now
        return Instant(now + (min(soon_s, left_s) if left_s > 0 else soon_s))

    def _now(self) -> str:
        return self._clock.wall().strftime("%Y-%m-%dT%H:%M:%S.%fZ")
