"""The base of every piece of configuration: frozen, strict, with units.

A plugin's spec is a subclass in the plugin's own file; its field names, types, defaults and
``Field(description=…)`` are the config schema, the documentation and the completion. A ``Path``
in it is relative to the config file for users, and absolute when the plugin gets it.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema

_UNITS_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_DURATION = re.compile(rf"(?:{_PART.pattern})+")
_SIZES = {"B": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KiB|MiB|GiB)")


def parse_duration(value: object) -> object:
    """Seconds from ``1.5s``, ``250ms``, ``1h30m`` or a number of seconds."""
    if isinstance(value, str):
        if not _DURATION.fullmatch(value):
            msg = "expected a duration such as 250ms, 5s, 10m or 1h30m"
            raise ValueError(msg)
        return sum(float(number) * _UNITS_S[unit] for number, unit in _PART.findall(value))
    if isinstance(value, bool):
        msg = "expected a duration such as 250ms, 5s, 10m or 1h30m"
        raise ValueError(msg)  # noqa: TRY004 - pydantic wants ValueError
    return value


def parse_ratio(value: object) -> object:
    """0-1 from ``5%`` or from a number between 0 and 1."""
    if isinstance(value, str):
        number = re.fullmatch(r"(\d+(?:\.\d+)?)\s*%", value)
        if number is None:
            msg = "expected a percentage such as 5%, or a number from 0 to 1"
            raise ValueError(msg)
        return float(number[1]) / 100
    return value


def parse_size(value: object) -> object:
    """Bytes from ``64KiB``, ``10MiB`` or a number of bytes."""
    if isinstance(value, str):
        size = _SIZE.fullmatch(value)
        if size is None:
            msg = "expected a size such as 64KiB, 10MiB or 1GiB"
            raise ValueError(msg)
        return int(float(size[1]) * _SIZES[size[2]])
    return value


def _compiles(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from error
    return value


Duration = Annotated[
    float,
    BeforeValidator(parse_duration),
    Field(gt=0, le=366 * 86400),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": f"^{_DURATION.pattern}$"}, {"type": "number"}]}
    ),
]
Ratio = Annotated[
    float,
    BeforeValidator(parse_ratio),
    Field(ge=0, le=1),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*%$"},
                {"type": "number", "minimum": 0, "maximum": 1},
            ]
        }
    ),
]
Size = Annotated[
    int,
    BeforeValidator(parse_size),
    Field(gt=0),
    WithJsonSchema(
        {"anyOf": [{"type": "string", "pattern": f"^{_SIZE.pattern}$"}, {"type": "integer"}]}
    ),
]
Regex = Annotated[str, AfterValidator(_compiles)]


class Spec(BaseModel):
    """A piece of configuration: unknown keys are refused, values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class ReleaseSpec(Spec):
    """What every source of releases has, whatever its kind."""

    soak: Duration = Field(
        default=600.0,
        description="A version that has run healthy for so long is good enough to roll back to.",
    )
    irreversible: tuple[str, ...] = Field(
        default=(),
        description="Versions that must not be rolled back from, since they have changed what an "
        "older one cannot read. Patterns with * are allowed.",
    )


class GatewaySpec(Spec):
    """What every gateway has, whatever its kind."""

    interval: Duration = Field(
        default=5.0, description="Time between two readings of what it counts."
    )
    timeout: Duration = Field(
        default=2.0, description="A gateway that takes longer to answer is in trouble."
    )


class RouteSpec(Spec):
    """What every service behind a gateway has in its ``gateway`` section, whatever the kind."""

    name: str = Field(min_length=1, description="Which one of `gateways`.")


class ProbeSpec(Spec):
    """What every probe has, whatever its kind."""

    interval: Duration | None = Field(
        None, description="Time between two checks. Default: 5s, or `defaults.interval`."
    )
    timeout: Duration = Field(2.0, description="A check that takes longer has failed.")
