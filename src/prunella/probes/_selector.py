"""Which series are meant: ``name{label="v",other=~"re"}``, as in PromQL. For probes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, NamedTuple

from pydantic import AfterValidator

_NAME = re.compile(r"\s*([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(?:\{(.*)\}\s*)?", re.DOTALL)
_MATCHER = re.compile(
    r"""\s*([a-zA-Z_][a-zA-Z0-9_]*)\s*(=~|!~|!=|=)\s*"""
    r"""(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)')\s*(,|$)""",
    re.DOTALL,
)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)
_LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*=\s*"((?:[^"\\]|\\.)*)"', re.DOTALL)


class Matcher(NamedTuple):
    """One condition on a label; a series without it has it empty."""

    label: str
    pattern: re.Pattern[str]
    wanted: bool


class Selector(NamedTuple):
    """The series of one name whose labels meet all conditions."""

    name: str
    matchers: tuple[Matcher, ...] = ()

    def picks(self, labels: Mapping[str, str]) -> bool:
        return all(
            (pattern.fullmatch(labels.get(label, "")) is not None) is wanted
            for label, pattern, wanted in self.matchers
        )


def parse_selector(text: str, labels: Mapping[str, str] | None = None) -> Selector:
    """A selector from its text; `labels` must be equal besides.

    Raises:
        ValueError: says what is wrong with it.
    """
    found = _NAME.fullmatch(text)
    if found is None:
        raise ValueError(f'{text!r} is not a selector such as http_requests_total{{code="500"}}')
    matchers = [
        Matcher(label, re.compile(re.escape(value)), wanted=True)
        for label, value in (labels or {}).items()
    ]
    body, at = found[2] or "", 0
    while body[at:].strip():
        match = _MATCHER.match(body, at)
        if match is None:
            raise ValueError(f'{body[at:].strip()!r} is not a condition such as code=~"5.."')
        label, operator, double, single, _ = match.groups()
        value = unescape(single if double is None else double)
        matchers.append(Matcher(label, _pattern(operator, value), operator[0] == "="))
        at = match.end()
    return Selector(found[1], tuple(matchers))


def unescape(text: str) -> str:
    r"""The text that ``\\``, ``\"`` and ``\n`` in quotes stand for."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda found: "\n" if found[1] == "n" else found[1], text)


def labels_of(text: str) -> dict[str, str]:
    """The labels of a series, from what is within its braces."""
    return {name: unescape(value) for name, value in _LABEL.findall(text)}


def _pattern(operator: str, value: str) -> re.Pattern[str]:
    if operator in ("=", "!="):
        return re.compile(re.escape(value))
    try:
        return re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is not a regular expression: {error}") from error


def _can_be_parsed(value: str) -> str:
    parse_selector(value)
    return value


SelectorText = Annotated[str, AfterValidator(_can_be_parsed)]
