"""The migrations make the tables that the code uses, on both databases, whoever starts at once."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from relay.dispatch.policy import Delivered
from relay.errors import SettingsError, StoreUnavailable
from relay.model import Translated
from relay.outbox import Outbox, migrations, views
from relay.outbox.migrations import current_revision, is_current, migrate
from relay.outbox.tables import metadata
from tests.outboxes import event, events_of, send, store

MIGRATE = """
import sys
from relay.outbox import Outbox
from relay.outbox.migrations import migrate
print("ready", flush=True)
sys.stdin.readline()
migrate(Outbox(sys.argv[1]))
"""


Rows = dict[str, list[dict[str, Any]]]


def _event(status: str, **others: Any) -> dict[str, Any]:
    """An event as the first release stored it; an entity of its own for each status."""
    return {
        "webhook_id": 1,
        "created_at": 1000,
        "destination": "compass",
        "type": "incident",
        "component": "ari:c",
        "unrouted": None,
        "body": '{"incident": {"id": "P1"}}',
        "entity": status.encode().ljust(16),
        "state": "OPEN",
        "source_order": 1000,
        "terminal": 0,
        "event_source": bytes(16),
        "lane": 1,
        "rank": 1,
        "coalesce": "transitions",
        "status": status,
        "ready": 1,
        "due_at": 1000,
        "trigger": "auto",
        "failures": 0,
        "number": None,
        "lease": None,
        "lease_until": None,
        "successor_id": None,
        "reason": None,
        "settled_at": None,
        **others,
    }


FIRST: Rows = {
    "webhooks": [
        {
            "source": "pagerduty",
            "received_at": 1000,
            "dedupe": b"k" * 16,
            "status": "translated",
            "rule": "incident",
            "reason": None,
            "field": None,
            "mapping": "m1",
            "headers": '{"content-type": "application/json"}',
            "body": b'{"a": "\\u0000"}',
        }
    ],
    "events": [
        _event("pending"),
        _event("sending", lease="t", lease_until=31_000, number=1000),
        _event("delivered", number=1000, settled_at=2000),
        _event("superseded", successor_id=3, settled_at=2000),
        _event("dead", number=1000, failures=3, reason="answered 400", settled_at=2000),
        _event("unrouted", component=None, unrouted="PSVC01"),
    ],
    "submissions": [{"key": b"i" * 16, "body": b"b" * 16, "created_at": 1000, "events": "[3]"}],
    "attempts": [
        {
            "event_id": 3,
            "destination": "compass",
            "trigger": "auto",
            "claimed_at": 1500,
            "held_until": 62_500,
            "answered_at": 2000,
            "outcome": "delivered",
            "status": 202,
            "error": None,
            "message": None,
            "took_ms": 400,
        }
    ],
    "entities": [
        {
            "destination": "compass",
            "entity": b"delivered".ljust(16),
            "source_order": 1000,
            "terminal": 0,
            "number": 1000,
            "state": "OPEN",
            "event_id": 3,
            "touched_at": 2000,
        }
    ],
    "destinations": [
        {"name": "compass", "paused": 0, "state": "open", "forbidden": "[5]", "claims": 7, "paced_at": 1500}
    ],
}

STORED: dict[str, Rows] = {
    "0001": FIRST,
    "0002": {**FIRST, "counters": [{"name": "relay_webhooks_total", "labels": "{}", "value": 3.0}]},
}
"""What a database may hold that is at this revision."""


@pytest.fixture
def fresh(empty_database_url: str) -> Iterator[Outbox]:
    outbox = Outbox(empty_database_url)
    yield outbox
    outbox.close()


def test_an_empty_database_becomes_current(fresh: Outbox) -> None:
    assert current_revision(fresh) is None
    assert not is_current(fresh)
    migrate(fresh)
    assert is_current(fresh)


def test_migrating_again_changes_nothing_and_keeps_what_is_stored(fresh: Outbox) -> None:
    migrate(fresh)
    with fresh.write() as connection:
        connection.execute(sa.text("INSERT INTO destinations (name) VALUES ('compass')"))
    migrate(fresh)
    with fresh.read() as connection:
        assert connection.execute(sa.text("SELECT name FROM destinations")).all() == [("compass",)]


def test_alembic_sees_no_difference_between_the_migrations_and_the_tables(fresh: Outbox) -> None:
    migrate(fresh)
    with fresh.write() as connection:
        context = MigrationContext.configure(connection, opts={"compare_server_default": True})
        assert compare_metadata(context, metadata) == []


def test_the_database_sees_no_difference_either(fresh: Outbox, another_database_url: Callable[[], str]) -> None:
    """Alembic does not compare the conditions of partial indexes; the database's own words do."""
    migrate(fresh)
    created = Outbox(another_database_url())
    with created.write() as connection:
        metadata.create_all(connection)
    assert _described(fresh) == _described(created)
    created.close()


def test_every_revision_has_data_to_be_tested_with() -> None:
    assert set(STORED) == {script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions()}


@pytest.mark.parametrize("revision", STORED)
def test_what_is_stored_survives_the_way_from_every_revision_and_is_delivered(fresh: Outbox, revision: str) -> None:
    config = _config()
    with fresh.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        for table, rows in STORED[revision].items():
            names = ", ".join(rows[0])
            values = ", ".join(f":{name}" for name in rows[0])
            connection.execute(sa.text(f"INSERT INTO {table} ({names}) VALUES ({values})"), rows)  # noqa: S608 - our own names
    assert current_revision(fresh) == revision
    migrate(fresh)
    assert is_current(fresh)
    with fresh.read() as connection:
        for table, rows in STORED[revision].items():
            found = connection.execute(sa.text(f"SELECT {', '.join(rows[0])} FROM {table}")).mappings()  # noqa: S608
            assert sorted(map(str, map(dict, found))) == sorted(map(str, rows)), table
    (new,) = events_of(store(fresh, Translated("incident", (event("new"),))))
    assert sorted(send(fresh, [Delivered()] * 3)) == [1, 2, new]
    assert [one.status for one in views.list_events(fresh)][::-1] == [
        *["delivered"] * 3, "superseded", "dead", "unrouted", "delivered",
    ]  # fmt: skip


def test_processes_that_start_at_once_migrate_once(fresh: Outbox, empty_database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", MIGRATE, empty_database_url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(5)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    faults = [process.communicate(timeout=60)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * 5, faults
    assert is_current(fresh)


def test_a_database_of_a_newer_release_is_refused_with_a_remedy(fresh: Outbox) -> None:
    migrate(fresh)
    with fresh.write() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    with pytest.raises(SettingsError, match=r"DATABASE_URL: was migrated by a newer release \(to 9999\)"):
        migrate(fresh)
    assert not is_current(fresh)


def test_a_migration_that_breaks_off_leaves_nothing_half_done(fresh: Outbox) -> None:
    with fresh.write() as connection:
        connection.execute(sa.text("CREATE TABLE attempts (something_else integer)"))
    with pytest.raises(StoreUnavailable, match="attempts"):
        migrate(fresh)
    with fresh.read() as connection:
        assert sa.inspect(connection).get_table_names() == ["attempts"]


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


def _described(outbox: Outbox) -> Any:
    question = (
        "SELECT tbl_name, name, sql FROM sqlite_master WHERE name NOT LIKE 'alembic%' ORDER BY name"
        if outbox.sqlite
        else """
        SELECT tablename, indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'
        UNION ALL
        SELECT table_name, column_name,
               concat_ws(' ', ordinal_position, data_type, is_nullable, column_default, is_identity)
        FROM information_schema.columns WHERE table_schema = 'public'
        ORDER BY 1, 2
        """
    )
    with outbox.read() as connection:
        rows = connection.execute(sa.text(question)).all()
    return [tuple(" ".join(str(part).split()) for part in row) for row in rows if "alembic_version" not in row[0]]
