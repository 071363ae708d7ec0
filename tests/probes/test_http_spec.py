from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from prunella.probes.http import HttpSpec, parse_codes

LOADED = {"url": "http://web/", "number": {"pattern": r"inflight (\d+)", "above": 50}}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"url": "ftp://web/"}, "must start with http:// or https://"),
        ({"url": "web:80"}, "must start with http:// or https://"),
        ({"url": "http://user:pw@web/"}, "must not contain a user or password"),
        ({"url": "http:///path"}, "names no host"),
        ({"url": "http://web/\r\nX: y"}, "white space or control characters"),
        ({"url": "http://web/a b"}, "white space or control characters"),
        ({"url": "http://web:99999/"}, "not a URL"),
        ({"url": "http://web:0/"}, "port 0"),
        ({"url": "http://[::1/"}, "not a URL"),
        ({"url": "http://web/", "headers": {"A": "b\r\nC: d"}}, "contains a line break"),
        ({"url": "http://web/", "headers": {"A b": "c"}}, "not the name of a header"),
        ({"url": "http://web/", "headers": {"Connection": "x"}}, "probe's own to set"),
        ({"url": "http://web/", "headers": {"A": "\u4e2d"}}, "not Latin-1"),
        ({"url": "http://web/", "method": "GET /"}, "pattern"),
        ({"url": "http://web/", "method": "CONNECT"}, "CONNECT cannot be probed"),
        ({"url": "http://web/", "expect": {"body": "("}}, "not a regular expression"),
        ({"url": "http://web/", "expect": {"status": "2xx"}}, "neither a status code nor a range"),
        ({"url": "http://web/", "expect": {"status": "300-200"}}, "is empty"),
        ({"url": "http://web/", "expect": {"status": True}}, "expected status codes"),
        ({"url": "http://web/", "method": "HEAD", "expect": {"body": "x"}}, "has no body"),
        ({**LOADED, "method": "HEAD"}, "has no body"),
        (
            {"url": "http://web/", "number": {"pattern": "(", "above": 1}},
            "not a regular expression",
        ),
        ({"url": "http://web/", "number": {"pattern": "a", "above": 1}}, "must be in brackets"),
        ({"url": "http://web/", "number": {"pattern": "(a)", "above": 0}}, "greater than 0"),
        ({"url": "http://web/", "number": {"above": 1}}, "Field required"),
    ],
)
def test_refuses_what_cannot_be_asked_and_says_why(keys: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HttpSpec.model_validate(keys)


@pytest.mark.parametrize(
    "url",
    ["http://web", "https://web:8443/x?y=1#z", "http://[::1]:80/", "http://bücher.example/ü"],
)
def test_accepts_ordinary_urls(url: str) -> None:
    assert HttpSpec.model_validate({"url": url}).url == url


def test_a_list_of_codes_reads_like_the_same_codes_with_commas() -> None:
    spec = HttpSpec.model_validate({"url": "http://web/", "expect": {"status": [204, "300-302"]}})
    assert spec.expect.status == "204,300-302"
    assert parse_codes(spec.expect.status) == {204, 300, 301, 302}


def test_a_spec_survives_being_written_down_and_read_again() -> None:
    spec = HttpSpec.model_validate({"url": "http://web/", "expect": {"status": [204, "300-302"]}})
    assert HttpSpec.model_validate(spec.model_dump()) == spec
