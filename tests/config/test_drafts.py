"""What is written for a person to begin with is read back as it was."""

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prunella.config import parse, written
from prunella.config.faults import Report
from prunella.config.yamltree import read_yaml
from prunella.plugins import Draft

FILE = "prunella.yaml"
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
AWKWARD = st.sampled_from(
    [
        "off",
        "Yes",
        "~",
        "",
        "1e3",
        "0x10",
        "007",
        "- a",
        "a: b",
        "#c",
        "{port}",
        "'",
        '"',
        "\\",
        ".",
    ]
)
SCALARS = st.one_of(TEXTS, AWKWARD, st.booleans(), st.integers(-(10**9), 10**9), st.none())
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
SECTIONS = st.dictionaries(TEXTS | AWKWARD, VALUES, min_size=1, max_size=5)


def read(text: str) -> dict[str, Any]:
    report = Report(FILE)
    data: dict[str, Any] = read_yaml(text, report).value
    report.conclude()
    return data


@given(st.lists(st.tuples(st.text(max_size=70), SECTIONS, st.text()), min_size=1, max_size=6))
def test_every_value_comes_back_and_every_service_has_an_id_of_its_own(
    found: list[tuple[str, dict[str, Any], str]],
) -> None:
    drafts = [Draft(id_, section, note=note) for id_, section, note in found]
    text = written("thing", drafts, FILE)
    services = read(text)["services"]
    assert len(services) == len(drafts)
    assert all(re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,62}", id_) for id_ in services)
    assert [*services] == [*read(text)["services"]]
    written_back = [service["thing"] for service in services.values()]
    for _, section, _ in found:
        assert section in written_back
    assert text == written("thing", drafts[::-1], FILE), "in whatever order they were found"


@pytest.mark.parametrize("bad", ["a\0b", "a\udc80b"])
def test_what_no_file_can_have_is_replaced(bad: str) -> None:
    text = written("thing", [Draft("a", {"key": bad}, note=f"# {bad}\nx: y")], "a\nb: c")
    assert read(text)["services"]["a"]["thing"] == {"key": "a\ufffdb"}


def test_a_file_reads_as_if_written_by_hand() -> None:
    long = [
        "/usr/bin/a-program-with-a-long-name",
        *[f"--option-{number}=on" for number in range(5)],
    ]
    drafts = [
        Draft("Web shop", {"command": long, "cwd": "/srv"}, [{"kind": "tcp", "port": 80}]),
        Draft("db", {"command": ["db"]}, scale={"min": 1, "max": 4}, note="Ran\nas root. " * 9),
    ]
    text = written("process", drafts, FILE)
    assert parse(text, Path(FILE)).services
    assert (
        text.partition("services:\n")[2]
        == """\
  web-shop:
    platform: process
    process:
      command:
        - /usr/bin/a-program-with-a-long-name
        - "--option-0=on"
        - "--option-1=on"
        - "--option-2=on"
        - "--option-3=on"
        - "--option-4=on"
      cwd: /srv
    probes:
      - {kind: tcp, port: 80}

  # Ran as root. Ran as root. Ran as root. Ran as root. Ran as root. Ran as root. Ran as root.
  # Ran as root. Ran as root.
  db:
    platform: process
    process: {command: [db]}
    scale: {min: 1, max: 4}
"""
    )
