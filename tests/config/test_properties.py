"""Whatever comes in: a configuration or faults, and nothing else."""

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from prunella.config import Config, ConfigFaults, Registry, from_mapping, parse
from prunella.config.faults import Report
from prunella.config.node import Unreadable
from prunella.config.words import show_duration, show_ratio
from prunella.config.yamltree import LOADER, read_yaml
from prunella.spec import parse_duration, parse_ratio

SOUND = """\
store: sqlite:///p.db
api: {listen: 127.0.0.1:7110}
defaults: &d {interval: 5s, thresholds: {failed_error_rate: 10%}}
fleet: {storm: {share: 30%}}
services:
  shop:
    name: "Web"
    platform: process
    process: {command: [a, "8001"], env: {A: b}, replicas: 2}
    probes:
      - {kind: http, url: "http://h/", expect: {status: [200]}}
      - {kind: tcp, port: 80, timeout: 1s}
    guards: {fall: 3, budget: {actions: 3}}
    ladder: {down: [restart]}
    scale: {min: 1, max: 3}
    release: {kind: folder, cwd: ., soak: 5m}
  other: {platform: command, heal: off}
"""
PIECES = [*" :-[]{},?|>#%@&*!'\"\n\t~0123", "&a ", "*a", "<<: ", "? ", "- ", "\n  ", "!!str "]
PIECES += ["services:", "shop: ", "platform: ", "process", "command", "true", "off", "\\U00110000"]
PIECES += [
    "\x00",
    "\ufeff",
    "\u2028",
    "\ud800",
    "é",
    "😀",
    "---\n",
    "...\n",
    "%YAML 1.2\n",
    "1e999",
]

many = settings(
    max_examples=250,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def _outcome(text: str | bytes, registry: Registry) -> Config | ConfigFaults:
    try:
        return parse(text, Path("p.yaml"), registry)
    except ConfigFaults as faults:
        return faults


def _check_places(outcome: Config | ConfigFaults) -> None:
    if isinstance(outcome, ConfigFaults):
        assert outcome.faults
        for fault in outcome.faults:
            assert fault.line is None or fault.line >= 1
            assert fault.column is None or fault.column >= 1


@many
@given(st.binary(max_size=200))
def test_bytes_never_raise_anything_but_faults(registry: Registry, data: bytes) -> None:
    _check_places(_outcome(data, registry))


@many
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
@example("? \n")
@example("&a [*a]")
@example("<<: &a {<<: *a}")
def test_yaml_like_text_never_raises_anything_but_faults(registry: Registry, text: str) -> None:
    _check_places(_outcome(text, registry))


@many
@given(st.lists(st.sampled_from(PIECES), max_size=40).map("".join))
def test_both_parsers_agree_on_what_a_text_says(text: str) -> None:
    def read(loader: Any) -> object:
        report = Report("p")
        try:
            root = read_yaml(text, report, loader)
        except Unreadable:
            assert len(report)
            return None
        return None if len(report) else repr(root.value)

    fast, plain = read(LOADER), read(yaml.SafeLoader)
    assert fast == plain or None in (fast, plain)  # they differ in what they refuse


@many
@given(
    st.lists(
        st.tuples(
            st.integers(0, len(SOUND)),
            st.integers(0, 12),
            st.sampled_from(PIECES) | st.text(max_size=5),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_a_damaged_file_never_raises_anything_but_faults(
    registry: Registry, edits: list[tuple[int, int, str]]
) -> None:
    text = SOUND
    for start, length, piece in edits:
        text = text[:start] + piece + text[start + length :]
    _check_places(_outcome(text, registry))


@many
@given(st.integers(0, len(SOUND)))
def test_a_file_cut_off_never_raises_anything_but_faults(registry: Registry, end: int) -> None:
    _check_places(_outcome(SOUND[:end], registry))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["5s", "5%", "off", "restart", "http", "process", Path("x"), b"x", object()]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["kind", "url", "listen", "x"]) | st.text(max_size=3), inner
        )
    ),
    max_leaves=6,
)


def _paths(value: Any, *path: str | int) -> list[tuple[str | int, ...]]:
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    found = [path] if path else []
    if isinstance(value, dict | list):
        for key, below in pairs:
            found += _paths(below, *path, key) if isinstance(below, dict | list) else [(*path, key)]
    return found


DATA = yaml.safe_load(SOUND)
PATHS = _paths(DATA)


@many
@given(st.sampled_from(PATHS), anything)
def test_a_damaged_mapping_never_raises_anything_but_faults(
    registry: Registry, path: tuple[str | int, ...], value: Any
) -> None:
    data = copy.deepcopy(DATA)
    here = data
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    try:
        from_mapping(data, registry)
    except ConfigFaults as error:
        faults = error.faults
    else:
        faults = ()
    assert all(fault.path and fault.line is None for fault in faults)


def test_the_sound_file_is_sound_and_has_paths_to_damage(registry: Registry) -> None:
    assert isinstance(_outcome(SOUND, registry), Config)
    assert len(PATHS) > 30


@many
@given(st.integers(1, 366 * 86400 * 1000))
def test_a_duration_that_is_shown_reads_back_as_it_was(milliseconds: int) -> None:
    shown = show_duration(milliseconds / 1000)
    assert parse_duration(shown) == pytest.approx(milliseconds / 1000)


@many
@given(st.integers(0, 1000))
def test_a_ratio_that_is_shown_reads_back_as_it_was(per_mille: int) -> None:
    assert parse_ratio(show_ratio(per_mille / 1000)) == pytest.approx(per_mille / 1000)
