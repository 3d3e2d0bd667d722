"""The outbox's tables through the releases: Alembic, driven from here, so that users need no alembic.ini."""

import functools
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory

from relay.errors import Fault, SettingsError
from relay.outbox import Outbox

MIGRATION_TIMEOUT = 120.0
"""Seconds that a starting process waits for another one that is migrating."""

ADVISORY_LOCK = 0x52454C4159
"""PostgreSQL's key for "somebody migrates": the letters RELAY."""


def migrate(outbox: Outbox) -> None:
    """Bring the database's tables to what this release needs; right when several processes start at once.

    One transaction: all of it or nothing. Raises SettingsError when the database belongs to a newer release,
    StoreUnavailable when it does not answer.
    """
    with outbox.write(timeout=MIGRATION_TIMEOUT) as connection:
        if not outbox.sqlite:
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(ADVISORY_LOCK)))
        revision = _revision(connection)
        if revision is not None and revision not in _known():
            reason = f"was migrated by a newer release (to {revision}); deploy that release or restore a backup"
            raise SettingsError([Fault("DATABASE_URL", reason)])
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def current_revision(outbox: Outbox) -> str | None:
    """The revision that the database is at; None for an empty one. Raises StoreUnavailable."""
    with outbox.read() as connection:
        return _revision(connection)


def is_current(outbox: Outbox) -> bool:
    """True when the database has exactly the tables of this release. Raises StoreUnavailable."""
    return current_revision(outbox) == _known()[0]


def _revision(connection: sa.Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@functools.cache
def _known() -> tuple[str, ...]:
    """Every revision of this release, the newest first."""
    return tuple(script.revision for script in ScriptDirectory.from_config(_config()).walk_revisions())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config
