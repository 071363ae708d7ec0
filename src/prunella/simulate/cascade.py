"""A failure that spreads over three tiers, with Prunella and without: what the users of it meet.

Recommendations hang for five minutes, and no restart helps. The shop could live without them, but
waits for each answer; the front needs the shop.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

from prunella.core.model import Mode, ServiceId
from prunella.core.policy import Need, Policy
from prunella.simulate.driver import Simulation
from prunella.simulate.world import Ailment

_FRONT, _SHOP, _RECOMMEND = (ServiceId(name) for name in ("front", "shop", "recommend"))
_BEGIN_S, _ILL_S, _END_S = 100.0, 300.0, 1000.0
_EVERY_S = 0.05


class Met(NamedTuple):
    """Requests of users, and how many of them failed."""

    requests: int
    failed: int


async def cascade(mode: Mode, seed: int = 0) -> Met:
    """What users meet. Args: mode: what Prunella may do to the three services."""
    sim = Simulation(Policy(mode=mode), seed=seed, behind_gateway=True)
    sim.set_policy(_FRONT, Policy(mode=mode, needs=(Need(_SHOP),)))
    sim.set_policy(_SHOP, Policy(mode=mode, needs=(Need(_RECOMMEND, optional=True),)))
    await sim.start([_FRONT, _SHOP, _RECOMMEND], curable=False)
    front, shop, recommend = (sim.services[name] for name in (_FRONT, _SHOP, _RECOMMEND))
    shop.victim = lambda: (
        recommend.ailment is not Ailment.NONE and sim.gateway.valve(_RECOMMEND).share > 0
    )
    front.victim = lambda: not shop.serves(0)
    sim.at(_BEGIN_S, partial(recommend.suffer, Ailment.HUNG))
    sim.at(_BEGIN_S + _ILL_S, recommend.recover)
    served = sim.ask(_FRONT, _EVERY_S, _END_S)
    await sim.run(_END_S)
    return Met(len(served), len(served) - sum(served))
