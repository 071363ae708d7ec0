"""What platforms say of their services while the daemon runs."""

import signal
from typing import Any

import pytest

from prunella.testing.site import Site, until

pytestmark = pytest.mark.e2e
WEB = "  web: {platform: remarking, remarking: {%s}}\n"


def remarks(site: Site, service: str = "web") -> Any:
    return (site.ask("GET", f"/api/v1/services/{service}/why") or {}).get("remarks")


def test_why_has_them_and_a_reload_asks_again(site: Site) -> None:
    site.write(WEB % "warnings: [it is old], faults: [no socket]")
    site.start()
    assert until(lambda: remarks(site)) == ["no socket", "it is old"], "faults first"
    assert remarks(site, "shop") == []
    assert site.said("remark")
    site.write(WEB % "warnings: [it is older]")
    site.send_signal(signal.SIGHUP)
    until(lambda: remarks(site) == ["it is older"])


def test_one_that_does_not_answer_delays_no_healing(site: Site) -> None:
    site.write("".join(f"  m{number}: {{platform: mute}}\n" for number in range(40)))
    site.start()
    site.strike()
    assert [action["serviceId"] for action in until(site.healed)] == ["shop"]
    (remark,) = until(lambda: remarks(site, "m39"))
    assert remark.startswith("platform mute did not answer")
    assert site.end() == 0
