"""The outbox: webhooks and their events, stored durably before anybody is told so.

`Outbox` owns the connections and the two kinds of transaction. The questions asked of it stand in
`append` (intake), `claims` (dispatch), `upkeep` (replay, prune) and `views` (people), one function each.
"""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url

from relay.errors import StoreUnavailable

STORE_TIMEOUT = 3.0
"""Seconds that a writer waits for its turn before the store counts as unavailable."""


def machine_clock() -> int:
    """The machine's clock, in milliseconds."""
    return time.time_ns() // 1_000_000


class Outbox:
    """One database, as seen by one process. Open it after the fork."""

    def __init__(self, url: str, *, clock: Callable[[], int] = machine_clock) -> None:
        self.url = database_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _engine(self.url, sqlite=self.sqlite)
        self._clock = clock
        self._turn = _Turn(self.url) if self.sqlite else None

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot to read from; never blocks a writer."""
        try:
            with self.engine.begin() as connection:
                yield connection
        except sa.exc.DBAPIError as error:
            raise unavailable(error) from error

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """A transaction that is durable when the block ends; writers of all processes take turns on SQLite.

        Raises StoreUnavailable when the turn does not come within STORE_TIMEOUT or the database refuses.
        """
        try:
            if self._turn is None:
                with self.engine.begin() as connection:
                    yield connection
            else:
                with self._turn, self.engine.execution_options(write=True).begin() as connection:
                    yield connection
        except sa.exc.DBAPIError as error:
            raise unavailable(error) from error

    def now(self, connection: Connection) -> int:
        """The one clock of everybody who shares this database, in milliseconds.

        On PostgreSQL the server's, read now and not at the transaction's start; on SQLite the machine's.
        """
        if self.sqlite:
            return self._clock()
        return int(
            connection.scalar(sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"))
        )

    def close(self) -> None:
        """Give the connections back."""
        self.engine.dispose()
        if self._turn is not None:
            self._turn.close()


def database_url(url: str) -> URL:
    """DATABASE_URL as SQLAlchemy takes it; Heroku says `postgres://`."""
    parsed = make_url(url)
    if parsed.get_backend_name() in ("postgres", "postgresql"):
        return parsed.set(drivername="postgresql+psycopg")
    return parsed


def unavailable(error: sa.exc.DBAPIError) -> StoreUnavailable:
    """The store's refusal, in its own words but without the statement or its values."""
    return StoreUnavailable(f"the outbox does not answer: {error.orig}")


def _engine(url: URL, *, sqlite: bool) -> Engine:
    if not sqlite:
        return sa.create_engine(url, pool_pre_ping=True)
    engine = sa.create_engine(url, connect_args={"timeout": STORE_TIMEOUT, "check_same_thread": False})

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: object, _record: object) -> None:
        # SQLAlchemy must not begin transactions behind our back: `_begin` says which kind.
        connection.isolation_level = None  # type: ignore[attr-defined]
        cursor = connection.cursor()  # type: ignore[attr-defined]
        for pragma in (
            "journal_mode = WAL",
            # FULL: a commit is on the disk, not in the page cache, when it returns. This is the promise.
            "synchronous = FULL",
            "foreign_keys = ON",
            "auto_vacuum = INCREMENTAL",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


class _Turn:
    """The right to write to one SQLite file: one thread of one process at a time.

    SQLite's own waiting between processes sleeps in growing steps and ruins the tail of the latency.
    """

    def __init__(self, url: URL) -> None:
        self._threads = threading.Lock()
        self._file = None
        if url.database and url.database != ":memory:":
            self._file = Path(f"{url.database}.lock").open("ab")  # noqa: SIM115 - held for the process's life

    def __enter__(self) -> None:
        deadline = time.monotonic() + STORE_TIMEOUT
        if not self._threads.acquire(timeout=STORE_TIMEOUT):
            raise StoreUnavailable(f"the outbox did not let a writer in within {STORE_TIMEOUT:.0f} s")
        if self._file is None:
            return
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._threads.release()
                    raise StoreUnavailable(
                        f"another process held the outbox for {STORE_TIMEOUT:.0f} s"
                    ) from None
                time.sleep(0.0005)
            else:
                return

    def __exit__(self, *_: object) -> None:
        if self._file is not None:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        self._threads.release()

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
