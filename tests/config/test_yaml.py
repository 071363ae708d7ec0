"""The reading of YAML, by the parser in C and by the one in Python."""

from typing import Any

import pytest
import yaml

from prunella.config.faults import ConfigFaults, Place, Report
from prunella.config.node import Node, Unreadable
from prunella.config.yamltree import LOADER, read_yaml

LOADERS = sorted({yaml.SafeLoader, LOADER}, key=lambda loader: loader.__name__)

pytestmark = pytest.mark.parametrize("loader", LOADERS, ids=lambda loader: loader.__name__)


def _read(text: str, loader: Any) -> Node:
    report = Report("p.yaml")
    root = read_yaml(text, report, loader)
    report.conclude()
    return root


def _faults(text: str, loader: Any) -> list[str]:
    report = Report("p")
    try:
        read_yaml(text, report, loader)
    except Unreadable:
        assert len(report), "reading stopped and nobody knows why"
    try:
        report.conclude()
    except ConfigFaults as error:
        return [str(fault) for fault in error.faults]
    return []


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("off", "off"),
        ("on", "on"),
        ("yes", "yes"),
        ("No", "No"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("null", None),
        ("10:30", "10:30"),
        ("2024-01-01", "2024-01-01"),
        ("007", "007"),
        ("0x1F", "0x1F"),
        ("1_000", "1_000"),
        ("+12", 12),
        ("-3", -3),
        ("1.5", 1.5),
        ("1e3", 1000.0),
        (".inf", ".inf"),
        (".nan", ".nan"),
        ("9" * 19, float("9" * 19)),
        ("9" * 5000, "9" * 5000),
        ("'5'", "5"),
        ('"true"', "true"),
        ("!!str 5", "5"),
        ("=", "="),
        ("|\n  a\n  b\n", "a\nb\n"),
    ],
)
def test_resolves_scalars_as_people_mean_them(text: str, value: object, loader: Any) -> None:
    read = _read(f"key: {text}\n", loader).value["key"]
    assert (type(read), read) == (type(value), value)


def test_keys_are_text_whatever_they_look_like(loader: Any) -> None:
    assert _read("on: 1\n8001: 2\n~: 3\n", loader).value == {"on": 1, "8001": 2, "~": 3}


def test_a_value_stands_where_its_text_begins_and_an_empty_one_where_its_key_is(
    loader: Any,
) -> None:
    root = _read("a:\n  - {b: 'é', c: 5}\nd:\n", loader)
    assert root.place == Place(1, 1)
    assert [node.place for _, node in root.leaves()] == [
        Place(2, 9),
        Place(2, 17),
        Place(3, 1),
    ]


def test_a_mark_at_the_start_of_the_file_is_no_content(loader: Any) -> None:
    assert _read("\ufeffa: 1\n", loader).value == {"a": 1}


def test_windows_line_ends_do_not_shift_places(loader: Any) -> None:
    assert _faults("a: 1\r\nb: 2\r\na: 3\r\n", loader) == [
        "p:3:1: the key 'a' stands here again, first at line 1 column 1, expected it once"
    ]


def test_an_alias_stands_for_the_anchored_value(loader: Any) -> None:
    root = _read("a: &x {b: [1, 2]}\nc: *x\n", loader)
    assert root.value["c"] == {"b": [1, 2]}


def test_an_anchor_may_be_set_again(loader: Any) -> None:
    assert _read("[&x 1, *x, &x 2, *x]", loader).value == [1, 1, 2, 2]


def test_a_merge_key_fills_in_what_is_not_written(loader: Any) -> None:
    text = "a: &a {x: 1, y: 1}\nb: &b {y: 2, z: 2}\nc:\n  <<: [*a, *b]\n  x: 0\nd: {<<: *b}\n"
    value = _read(text, loader).value
    assert value["c"] == {"x": 0, "y": 1, "z": 2}
    assert value["d"] == {"y": 2, "z": 2}


def test_a_quoted_merge_key_is_a_key(loader: Any) -> None:
    assert _read("'<<': 1\n", loader).value == {"<<": 1}


@pytest.mark.parametrize("anchored", ["[x,x,x,x,x,x,x,x,x]", "{a: x, b: x, c: x, d: x, e: x}"])
def test_an_alias_bomb_is_refused_before_it_grows(anchored: str, loader: Any) -> None:
    lines = [f"a0: &a0 {anchored}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 20)]
    (fault,) = _faults("\n".join(lines), loader)
    assert fault.endswith("aliases stand for more than 100000 values, expected fewer")


def test_aliases_may_not_nest_deeper_than_the_text_may(loader: Any) -> None:
    lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}]" for n in range(1, 60)]
    assert _faults("\n".join(lines), loader) == [
        "p:32:12: nested deeper than 32 levels, expected fewer"
    ]


@pytest.mark.parametrize("opening", ["[", "{a: ", "- ", "? "])
def test_depth_is_refused_without_a_crash(opening: str, loader: Any) -> None:
    (fault,) = _faults(opening * 20_000, loader)
    assert fault.startswith("p:1:")


def test_a_tab_is_named_as_one(loader: Any) -> None:
    assert _faults("a:\n\tb: 1\n", loader) == [
        "p:2:1: a tab cannot indent or begin a value in YAML, expected spaces"
    ]


@pytest.mark.parametrize(
    ("text", "place", "words"),
    [
        ("a: [1, 2\n", "1:4", "a list is opened and not closed"),
        ("a: {b: 1\n", "1:4", "a mapping is opened and not closed"),
        ("a: 'b\n", "1:4", "a text is quoted and not closed"),
        ("a: b: c\n", "1:5", "a ':' is not allowed here"),
        ("a:\n  b: 1\n c: 2\n", "3:2", "wrong indentation or a stray character"),
        ("a: @b\n", "1:4", "a text cannot begin with '@'"),
        ('a: "\\q"\n', "1:", "an escape that YAML does not know"),
        ("a: *b\n", "1:4", "the alias *b has no anchor"),
        ("a: !!set {b}\n", "1:4", "the tag !!set is not allowed"),
        ("a: ! b\n", "1:4", "the tag ! is not allowed"),
        ("a: !<tag:x> b\n", "1:4", "the tag tag:x is not allowed"),
        ('a: "\\0"\n', "1:4", "a NUL or half a character"),
        ('a: "\\ud800"\n', "1", ""),
        ('a: "\\UFFFFFFFF"\n', "1", ""),
        ("a: 1\n---\nb: 2\n", "2:1", "a second document begins here"),
        ("a: b\x00c\n", "1:5", "the character U+0000 cannot stand"),
        ("a: \ud800\n", "1:4", "the character U+D800 cannot stand"),
    ],
)
def test_both_parsers_lead_to_the_same_place_and_words(
    text: str, place: str, words: str, loader: Any
) -> None:
    (fault,) = _faults(text, loader)
    assert fault.startswith(f"p:{place}")
    assert words in fault
