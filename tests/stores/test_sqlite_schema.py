"""The tables: made by migrations, guarded by the database itself, walked by their indexes."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine
from sqlalchemy.exc import OperationalError

from prunella.core.ledger import Mark
from prunella.core.machine import Phase
from prunella.core.model import Action, ActionKind, InstanceId, ServiceId
from prunella.errors import StoreError
from prunella.stores._sql import migrate, schema

WEB = ServiceId("web")


async def test_the_migrations_lead_to_the_tables_that_the_code_knows(desk: Any, path: Path) -> None:
    await desk.open(path).close()
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        context = MigrationContext.configure(connection)
        assert compare_metadata(context, schema.metadata) == []
    engine.dispose()


def test_the_newest_migration_is_the_schema_that_the_code_names() -> None:
    steps = ScriptDirectory.from_config(migrate.config())
    assert steps.get_current_head() == schema.SCHEMA


def made_by_the_first_version(path: Path) -> None:
    """A store as schema 0001 was left in the middle of an action, with another one behind it."""
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        command.upgrade(migrate.config(connection), "0001")
        connection.exec_driver_sql(f"PRAGMA application_id = {schema.APPLICATION_ID}")
        for statement in OLD_ROWS.split(";"):
            connection.exec_driver_sql(statement)
    engine.dispose()


OLD_ROWS = """
INSERT INTO holder VALUES (1, 4, NULL, 'here', 1, '0', 'boot-1', '',
                           1767225600000000, 0.5, 'boot-1', 1767225600000000, 0.5, 'boot-1');
INSERT INTO ledger VALUES
    (1, 'intent', 'web', 'ann', 1767225600000000, 0.0, 'boot-1', 4, '{"action": "restart"}'),
    (2, 'outcome', 'web', 'ann', 1767225601000000, 1.0, 'boot-1', 4, '{"action": 1}'),
    (3, 'intent', 'web', 'prunella', 1767225602000000, 2.0, 'boot-1', 4, '{"action": "restart"}');
INSERT INTO actions VALUES
    (1, 'web', 'restart', 'web-0', 'pid 7', NULL, NULL, 'i-1', 'why', 'down', 'ann',
     1767225600000000, 0.0, 'boot-1', NULL, NULL, NULL, 'forced', 'exit 1', 0,
     'recovered', 1, 'it answers', 1.5, 2.5, 1767225601000000, 1.0, 'boot-1'),
    (3, 'web', 'restart', 'web-0', 'pid 8', NULL, NULL, 'i-1', 'again', 'down', 'prunella',
     1767225602000000, 2.0, 'boot-1', NULL, NULL, NULL, 'confirmed', 'exit 2', 0,
     NULL, NULL, '', NULL, NULL, NULL, NULL, NULL);
INSERT INTO services VALUES ('web', 'acting', 1767225602000000, 2.0, 'boot-1', NULL, NULL, NULL,
                             'again', 2, 2, 1767225602000000, 3);
INSERT INTO holds VALUES (9, 'web', 'ann', 'deploy', 1767225600000000, 0.0, 'boot-1',
                          NULL, NULL, NULL)
"""


async def test_a_store_of_the_first_version_is_brought_up_to_date_with_all_that_it_holds(
    desk: Any, path: Path
) -> None:
    made_by_the_first_version(path)
    with pytest.raises(StoreError, match=r"older Prunella \(schema 1, this one knows 2\)"):
        desk.open(path, readonly=True)
    store = desk.open(path)
    (row,) = await store.load()
    assert (row.phase, row.running, row.action_count) == (Phase.ACTING, 3, 2)
    restart = Action(ActionKind.RESTART, WEB, InstanceId("web-0"), "pid 8")
    assert (row.intent.action, row.intent.grant, row.intent.ended) == (restart, None, None)
    running, first = (await store.history(9)).items
    assert (running.reason, running.success) == ("again", None)
    assert (first.success, first.detail, first.recovery_time_ms) == (True, "it answers", 1.5)
    assert [line.seq for line in await store.entries(9)] == [3, 2, 1]
    now = desk.clock.stamp()
    assert [hold.owner for hold in await store.holds(now)] == ["ann"]
    view = await store.view(WEB, now)
    assert (len(view.attempts), view.versions, view.debts) == (2, (), ())
    epoch = await desk.claim(store)
    assert epoch == 5
    await desk.finish(store, epoch, running.id)
    await store.mark(Mark(WEB, "abc", now), epoch=epoch)
    assert await desk.begin(store, epoch) > 3
    await store.close()
    assert len((await desk.open(path, readonly=True).history(9)).items) == 3


async def test_an_upgrade_that_fails_half_way_leaves_the_store_as_it_was(
    desk: Any, path: Path
) -> None:
    made_by_the_first_version(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE debts (id)")  # in the way of the last step
    with pytest.raises(OperationalError, match="debts already exists"):
        desk.open(path)
    with closing(sqlite3.connect(path)) as connection:
        columns = {row[1] for row in connection.execute("PRAGMA table_info(actions)")}
        assert columns & {"before", "runs", "grant"} == set()
        connection.execute("DROP TABLE debts")
    assert len((await desk.open(path).history(9)).items) == 2


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE ledger SET body = '{}'",
        "UPDATE ledger SET epoch = 7 WHERE seq = 1",
        "DELETE FROM ledger",
        "DELETE FROM ledger WHERE seq = 1",
    ],
)
async def test_the_ledger_is_append_only_for_everybody(
    desk: Any, path: Path, statement: str
) -> None:
    store = desk.open(path)
    await desk.act(store, await desk.claim(store))
    await store.close()
    with (
        closing(sqlite3.connect(path)) as connection,
        pytest.raises(sqlite3.IntegrityError, match="append-only"),
    ):
        connection.execute(statement)


async def test_a_second_running_action_is_refused_by_an_index(desk: Any, path: Path) -> None:
    store = desk.open(path)
    await desk.begin(store, await desk.claim(store))
    await store.close()
    with closing(sqlite3.connect(path)) as connection:
        columns = [row[1] for row in connection.execute("PRAGMA table_info(actions)")]
        others = ", ".join(column for column in columns if column != "id")
        with pytest.raises(sqlite3.IntegrityError, match=r"UNIQUE.*actions\.service"):
            connection.execute(
                f"INSERT INTO actions (id, {others}) SELECT id + 1, {others} FROM actions"
            )


@pytest.mark.parametrize(
    "question",
    [
        "SELECT * FROM actions WHERE id < 9 ORDER BY id DESC LIMIT 100",
        "SELECT * FROM actions WHERE service = 'web' AND id < 9 ORDER BY id DESC LIMIT 100",
        "SELECT service FROM actions WHERE outcome IS NULL",
        "SELECT at_wall FROM actions WHERE observed = 0 ORDER BY id DESC LIMIT 16",
        "SELECT * FROM versions WHERE service = 'web' ORDER BY id DESC",
        "SELECT * FROM debts WHERE service = 'web' ORDER BY kind",
        "SELECT * FROM ledger WHERE seq < 9 ORDER BY seq DESC LIMIT 100",
        "SELECT * FROM ledger WHERE service = 'web' ORDER BY seq DESC LIMIT 100",
        "SELECT * FROM ledger WHERE kind = 'storm' AND seq < 9 ORDER BY seq DESC LIMIT 100",
    ],
)
async def test_questions_that_are_asked_often_walk_an_index(
    desk: Any, path: Path, question: str
) -> None:
    await desk.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        plan = " ".join(row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {question}"))
    assert "TEMP B-TREE" not in plan
    assert "USING" in plan or "SCAN ledger" in plan


async def test_two_processes_that_make_the_same_store_make_one(path: Path) -> None:
    code = (
        "import asyncio, sys\n"
        "from prunella.plugins import stores\n"
        "asyncio.run(stores()['sqlite'].open(sys.argv[1], False).close())\n"
    )
    both = [
        await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", code, f"sqlite:///{path}"),
            env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
            stderr=asyncio.subprocess.PIPE,
        )
        for _ in range(2)
    ]
    for process in both:
        _, said = await process.communicate()
        assert process.returncode == 0, said.decode()


def test_finding_the_plugins_reads_no_database_library() -> None:
    code = (
        "import sys\n"
        "from prunella.plugins import stores\n"
        "assert set(stores()) >= {'memory', 'sqlite'}\n"
        "assert not {'sqlalchemy', 'alembic', 'sqlite3'} & set(sys.modules)\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )


async def test_opening_a_store_that_is_up_to_date_reads_no_migrations(
    desk: Any, path: Path
) -> None:
    await desk.open(path).close()
    code = (
        "import asyncio, sys\n"
        "from prunella.plugins import stores\n"
        "asyncio.run(stores()['sqlite'].open(sys.argv[1], False).close())\n"
        "assert 'alembic' not in sys.modules\n"
    )
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", code, f"sqlite:///{path}"),
        env={"PYTHONPATH": str(Path(__file__).parents[2] / "src")},
    )
    assert await process.wait() == 0


async def test_history_does_not_wait_for_a_writer(desk: Any, path: Path) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    action = await desk.act(store, epoch)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        waiting = asyncio.ensure_future(desk.begin(store, epoch))
        async with asyncio.timeout(2):
            assert (await store.history(1)).items[0].id == action
        assert not waiting.done()
        other.execute("ROLLBACK")
    assert await waiting > action


async def test_a_write_that_is_cancelled_before_its_turn_is_not_done(desk: Any, path: Path) -> None:
    store = desk.open(path)
    epoch = await desk.claim(store)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        first = asyncio.ensure_future(desk.begin(store, epoch))
        second = asyncio.ensure_future(desk.begin(store, epoch, "db"))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        other.execute("ROLLBACK")
    action = await first
    assert [record.id for record in (await store.history(9)).items] == [action]


async def test_a_closed_store_leaves_no_thread(desk: Any, path: Path) -> None:
    before = threading.active_count()
    store = desk.open(path)
    await desk.act(store, await desk.claim(store))
    await store.history(1)
    await store.close()
    assert threading.active_count() == before
