"""What a reload is told."""

from collections.abc import Callable

import pytest

from prunella.config import Changes, Config, changes
from prunella.core.model import ServiceId

OLD = """\
services:
  shop: {platform: command}
  basket: {platform: process, process: {command: [a]}, probes: [{kind: tcp, port: 1}]}
"""

SHOP, BASKET, PAY = ServiceId("shop"), ServiceId("basket"), ServiceId("pay")
BOTH = (SHOP, BASKET)


@pytest.mark.parametrize(
    ("new", "wanted"),
    [
        (OLD, Changes()),
        (OLD + "  pay: {platform: command}\n", Changes(added=(PAY,))),
        ("services: {shop: {platform: command}}", Changes(removed=(BASKET,))),
        (OLD.replace("[a]", "[b]"), Changes(changed=(BASKET,))),
        (OLD.replace("port: 1", "port: 2"), Changes(changed=(BASKET,))),
        (OLD + "defaults: {grace: 1m}\n", Changes(changed=BOTH)),
        (OLD + "defaults: {grace: 10s}\n", Changes()),
        (OLD.replace("[a]}", "[a], replicas: 1}"), Changes()),
        (OLD + "api: off\n", Changes(restart_needed=("api",))),
        (OLD + "api: {monitoring: 0.0.0.0:9110}\n", Changes(restart_needed=("api",))),
        (OLD + "store: sqlite:////x.db\n", Changes(restart_needed=("store",))),
        (OLD + "state_dir: /x\n", Changes(restart_needed=("store", "state_dir"))),
        (OLD + "retention: 1d\nfleet: {pace: 1s}\n", Changes()),
    ],
)
def test_names_what_differs_and_nothing_else(
    new: str, wanted: Changes, config_of: Callable[[str], Config]
) -> None:
    assert changes(config_of(OLD), config_of(new)) == wanted
