"""Files that are wrong, and what the user is told."""

from collections.abc import Callable
from pathlib import Path

import pytest

FaultsOf = Callable[[str | bytes], list[str]]

SHOP = """\
services:
  shop:
    platform: process
    process: {command: [a]}
"""


def _table() -> list[tuple[str, str, list[str]]]:
    text = Path(__file__).with_name("faults.txt").read_text(encoding="utf-8")
    rows: list[tuple[str, str, list[str]]] = []
    for block in text.split("\n## ")[1:]:
        name, _, body = block.rstrip().partition("\n")
        lines = body.split("\n")
        faults = [line.removeprefix("=> ") for line in lines if line.startswith("=> ")]
        file = "".join(f"{line}\n" for line in lines if not line.startswith("=> "))
        rows.append((name, file.replace("SHOP\n", SHOP), faults))
    return rows


TABLE = _table()


@pytest.mark.parametrize(("text", "lines"), [row[1:] for row in TABLE], ids=[r[0] for r in TABLE])
def test_names_every_fault_with_its_place_and_what_was_expected(
    text: str, lines: list[str], faults_of: FaultsOf
) -> None:
    assert lines
    assert faults_of(text) == [f"p.yaml:{line}" for line in lines]


def test_a_sound_service_has_no_faults(faults_of: FaultsOf) -> None:
    assert faults_of(SHOP) == []


@pytest.mark.parametrize("row", TABLE, ids=[row[0] for row in TABLE])
def test_speaks_plain_words(row: tuple[str, str, list[str]]) -> None:
    jargon = ("Input", "valid ", "_type", "pydantic", "errors.", "dict", "str ", "NoneType")
    for line in row[2]:
        assert not [word for word in jargon if word in line.replace("not valid YAML", "")]


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"", "1:1: the file is empty, expected at least one service under 'services'"),
        (b"# none\n\n", "1:1: the file is empty, expected at least one service under 'services'"),
        (b"a:\n\tb: 1\n", "2:1: a tab cannot indent or begin a value in YAML, expected spaces"),
        (
            b"a: 1\nb: \x07\n",
            "2:4: the character U+0007 cannot stand in a text file, expected text",
        ),
        (b"a: \x00\n", "1:4: the character U+0000 cannot stand in a text file, expected text"),
        (b"\xffabc", "1:1: the byte 0xff is not UTF-8, expected UTF-8 text"),
        (b"a:\n  caf\xc3\xa9\xe9: 1\n", "2:7: the byte 0xe9 is not UTF-8, expected UTF-8 text"),
        ("a: b".encode("utf-16"), "1:1: the byte 0xff is not UTF-8, expected UTF-8 text"),
        (b"a: " + b"[" * 40, "1:35: nested deeper than 32 levels, expected fewer"),
    ],
)
def test_refuses_what_is_no_text(data: bytes, line: str, faults_of: FaultsOf) -> None:
    assert faults_of(data) == [f"p.yaml:{line}"]


def test_a_text_may_not_hold_a_nul(faults_of: FaultsOf) -> None:
    assert faults_of(SHOP + '    name: "a\\0b"\n') == [
        "p.yaml:5:11: a NUL or half a character in a text, expected text"
    ]


def test_a_file_above_4_mib_is_refused_unread(faults_of: FaultsOf) -> None:
    assert faults_of(b"#" * (4 * 2**20 + 1)) == [
        "p.yaml: is larger than 4 MiB, expected a smaller file"
    ]


def test_a_file_of_too_many_values_is_refused(faults_of: FaultsOf) -> None:
    assert faults_of(b"a: [" + b"1," * 250_001 + b"]") == [
        "p.yaml:1:500005: more than 250000 values, expected fewer"
    ]


def test_a_password_in_a_url_is_not_repeated(faults_of: FaultsOf) -> None:
    probe = "    probes: [{kind: http, url: 'ftp://me:secret@host/'}]\n"
    (line,) = faults_of(SHOP + probe)
    assert "secret" not in line
    assert "ftp://***@host/" in line


def test_a_long_wrong_value_is_shortened(faults_of: FaultsOf) -> None:
    (line,) = faults_of(SHOP + f"    heal: {'x' * 500}\n")
    assert f"'{'x' * 40}…'" in line


def test_a_fault_in_a_shared_piece_is_told_once(faults_of: FaultsOf) -> None:
    text = SHOP + "    verify: &v {soak: x}\n  other:\n    platform: command\n    verify: *v\n"
    assert faults_of(text) == [
        "p.yaml:5:23: 'soak' is 'x', expected a duration such as 250ms, 5s, 10m or 1h30m"
    ]
