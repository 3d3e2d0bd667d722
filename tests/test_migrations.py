"""The migrations make the tables that the code uses, on both databases, whoever starts at once."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from relay.errors import SettingsError, StoreUnavailable
from relay.outbox import Outbox
from relay.outbox.migrations import current_revision, is_current, migrate
from relay.outbox.tables import metadata

MIGRATE = """
import sys
from relay.outbox import Outbox
from relay.outbox.migrations import migrate
migrate(Outbox(sys.argv[1]))
"""


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


def test_processes_that_start_at_once_migrate_once(fresh: Outbox, empty_database_url: str) -> None:
    processes = [
        subprocess.Popen([sys.executable, "-c", MIGRATE, empty_database_url], stderr=subprocess.PIPE, text=True)
        for _ in range(5)
    ]
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
