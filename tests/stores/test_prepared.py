"""Statements that go to the driver without the query library: they say what it would have said."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, bindparam, insert, select, update

from prunella.stores._sql.prepared import Prepared
from prunella.stores._sql.schema import holder, ledger, metadata, services
from prunella.stores._sqlite import engines

LINE = {
    "kind": "daemon",
    "service": None,
    "actor": "prunella",
    "at_wall": 1,
    "at_instant": 0.1,
    "at_boot": "boot",
    "epoch": 1,
}
STANDING = {
    "service": "web",
    "phase": "acting",
    "since_wall": 1,
    "since_instant": 0.5,
    "since_boot": "boot",
    "reason": "",
    "restart_count": 3,
    "action_count": 4,
    "moved": 7,
}


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[Connection]:
    engine = engines.writing(f"file:{tmp_path}/store.db?mode=rwc")
    with engine.begin() as connection, engines.transaction(connection):
        metadata.create_all(connection)
        yield connection
    engine.dispose()


def test_a_value_goes_in_as_the_library_would_have_written_it(connection: Connection) -> None:
    body = {"what": "ünïcode", "nested": [{"a": "b"}], "none": None}
    (line,) = Prepared(insert(ledger).returning(ledger.c.seq)).rows(
        connection, {**LINE, "body": body}
    )
    found = connection.execute(select(ledger)).mappings().one()
    assert dict(found) == {"seq": line["seq"], **LINE, "body": body}


def test_a_row_comes_out_as_the_library_would_have_read_it(connection: Connection) -> None:
    connection.execute(insert(services), STANDING)
    statement = select(services).where(services.c.service == bindparam("of"))
    theirs = connection.execute(statement, {"of": "web"}).mappings().all()
    assert Prepared(statement).rows(connection, {"of": "web"}) == [dict(row) for row in theirs]
    assert Prepared(statement).rows(connection, {"of": "shop"}) == []


def test_only_the_named_columns_are_set_whichever_they_are(connection: Connection) -> None:
    connection.execute(insert(services), STANDING)
    change = Prepared(
        update(services)
        .where(services.c.service == bindparam("of"))
        .values(action_count=services.c.action_count + 1)
    )
    assert change.run(connection, {"of": "web", "reason": "first"}).rowcount == 1
    assert change.run(connection, {"of": "web", "phase": "verifying"}).rowcount == 1
    assert change.run(connection, {"of": "shop", "phase": "verifying"}).rowcount == 0
    row = connection.execute(select(services)).mappings().one()
    assert (row["reason"], row["phase"], row["action_count"]) == ("first", "verifying", 6)


def test_a_value_that_is_missing_is_a_defect_and_not_a_null(connection: Connection) -> None:
    statement = Prepared(select(services).where(services.c.service == bindparam("of")))
    with pytest.raises(sqlite3.ProgrammingError, match=":of"):
        statement.rows(connection)


def test_it_belongs_to_the_transaction_of_its_connection(connection: Connection) -> None:
    with connection.begin_nested() as part:
        Prepared(insert(holder)).run(connection, {"id": 1, "epoch": 1})
        part.rollback()
    assert connection.execute(select(holder)).all() == []
