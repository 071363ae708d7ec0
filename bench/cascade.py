"""What users meet of a failure that spreads over three tiers, on the virtual clock."""

from __future__ import annotations

import asyncio

from bench.report import Row, percentile, spread

from prunella.core.model import Mode
from prunella.simulate.cascade import cascade

_SEEDS = range(7)


def measure() -> list[Row]:
    with_ours = [asyncio.run(cascade(Mode.AUTO, seed)).failed for seed in _SEEDS]
    without = [asyncio.run(cascade(Mode.OFF, seed)).failed for seed in _SEEDS]
    return [
        Row(
            "users' requests that fail in a cascade over three tiers",
            percentile(with_ours, 0.5),
            "",
            peer=percentile(without, 0.5),
            peer_name="without Prunella",
            note=spread(with_ours),
        )
    ]
