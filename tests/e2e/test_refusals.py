"""What must not be used is refused with a reason, and is left as it was."""

import socket
import sqlite3
from contextlib import closing
from signal import SIGHUP

import pytest

from prunella.testing.site import Site, until

pytestmark = pytest.mark.e2e


def refusal(site: Site) -> str:
    """Launch a daemon that ends by itself with 1; what it said."""
    site.launch()
    assert site.wait() == 1
    said = site.log()
    assert "Traceback" not in said
    return said


def test_a_port_in_use_is_a_clear_refusal_that_leaves_nothing_running(site: Site) -> None:
    with socket.create_server(("127.0.0.1", site.api)):
        assert f"port {site.api} is in use" in refusal(site)
    assert site.births() == []
    site.start()


def test_a_corrupt_store_is_refused_and_not_touched(site: Site) -> None:
    store = site.folder / "prunella.db"
    store.write_bytes(b"this is no database, but somebody's only copy" * 100)
    before = store.read_bytes()
    assert "prunella.db" in refusal(site)
    assert store.read_bytes() == before
    assert site.births() == []


def test_a_store_that_was_damaged_in_the_middle_is_refused_and_not_touched(site: Site) -> None:
    site.start()
    assert site.end() == 0
    store = site.folder / "prunella.db"
    damaged = bytearray(store.read_bytes())
    damaged[4096 : len(damaged) - 4096] = b"\xff" * (len(damaged) - 8192)
    store.write_bytes(damaged)
    assert "damaged" in refusal(site)
    assert store.read_bytes() == damaged
    assert len(site.births()) == 1


def test_a_store_of_a_newer_version_is_refused_and_not_touched(site: Site) -> None:
    site.start()
    assert site.end() == 0
    store = site.folder / "prunella.db"
    with closing(sqlite3.connect(store)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    before = store.read_bytes()
    assert "newer" in refusal(site)
    assert store.read_bytes() == before


def test_a_faulty_file_is_refused_with_2_and_every_fault(site: Site) -> None:
    (site.folder / "prunella.yaml").write_text("services: {shop: {platform: nothing}, B: {}}")
    site.launch()
    assert site.wait() == 2
    assert "nothing" in site.log()
    assert "'B'" in site.log()


def test_a_state_folder_that_is_a_file_is_refused(site: Site) -> None:
    (site.folder / "state").write_text("")
    assert "state" in refusal(site)
    assert site.births() == []


def test_a_reload_in_the_middle_of_a_heal_ends_it_once(site: Site) -> None:
    site.start()
    site.strike()
    until(site.history)
    site.write(shop="    grace: 1s\n")
    site.send_signal(SIGHUP)
    until(lambda: site.healthy() and all(action["outcome"] for action in site.history()))
    assert site.doubles() == ""
    assert len(site.births()) == 2
