"""A number that a check reads, and its limit: how much of it is used. For probes.

What is above its limit is saturated: it answers, and has more to do than it can.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, Field

from prunella.core.model import Cause
from prunella.probes._wire import Trouble
from prunella.spec import Regex, Spec

_NUMBER = re.compile(r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)")


class Number(Spec):
    """A number that has a limit."""

    above: float = Field(
        gt=0, allow_inf_nan=False, description="A higher number means that it is saturated."
    )


def _has_a_group(value: str) -> str:
    if not re.compile(value).groups:
        raise ValueError(r"the number must be in brackets, as in 'inflight (\d+)'")
    return value


class FoundNumber(Number):
    """A number in some text that has a limit."""

    pattern: Annotated[Regex, AfterValidator(_has_a_group)] = Field(
        description="Regular expression that finds the number, which is its first group."
    )


class Reading(NamedTuple):
    """What a check has found. ``load`` is the share of its limit; None: no number was read."""

    trouble: Trouble | None = None
    load: float | None = None


def weigh(text: str, number: Number) -> Reading:
    """Judge what `text` begins with; without a number there, the answer is wrong."""
    found = _NUMBER.match(text)
    value = float(found[1]) if found is not None else math.inf
    if not math.isfinite(value):
        return Reading(Trouble(Cause.ERROR, f"{text[:40]!r} is not a number"))
    return judge(value, number)


def judge(value: float, number: Number) -> Reading:
    """How near to its limit a number is."""
    if value > number.above:
        said = Trouble(Cause.SATURATED, f"{value:g}, limit {number.above:g}")
        return Reading(said, value / number.above)
    return Reading(None, max(0.0, value / number.above))
