"""The outbox: webhooks and their events, stored durably before anybody is told so.

`Outbox` owns the connections and the two kinds of transaction. The questions asked of it stand in
`append` (intake), `claims` (dispatch), `views`, `replay` and `upkeep` (people), one function each.
"""

import fcntl
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, Any, Protocol, cast

import psycopg
import sqlalchemy as sa
from sqlalchemy.engine import URL, Connection, Engine, make_url

from relay.errors import Fault, SettingsError, StoreUnavailable

STORE_TIMEOUT = 3.0
"""Seconds that a writer waits for its turn before the store counts as unavailable."""

CONNECTIONS = 2
"""The most connections of one process to PostgreSQL: one to take in or to deliver, one for all the rest.

Whoever needs one more waits; a dispatcher listens on one of its own beside them.
"""

IDLE_TIMEOUT = 10.0
"""Seconds after which PostgreSQL ends a transaction whose process says nothing more.

A machine that vanishes in the middle of a claim would otherwise hold the destination's row for hours.
"""


def machine_clock() -> int:
    """The machine's clock, in milliseconds."""
    return time.time_ns() // 1_000_000


class Cursor(Protocol):
    """What the cursors of sqlite3 and psycopg have in common."""

    @property
    def rowcount(self) -> int:
        """How many rows the last statement changed."""

    @property
    def lastrowid(self) -> int | None:
        """The id that the last insertion made; SQLite only."""

    def execute(self, sql: str, values: Mapping[str, Any] | Sequence[Any] = ..., /) -> Any:
        """Run one statement."""

    def executemany(self, sql: str, values: Sequence[Mapping[str, Any]], /, *, returning: bool) -> Any:
        """Run one statement for each of these values, at once; `results` has their answers. PostgreSQL only."""

    def results(self) -> Iterator["Cursor"]:
        """The answers of `executemany`, one after the other. PostgreSQL only."""

    def fetchone(self) -> Any:
        """One row of its answer, or None."""

    def fetchall(self) -> Any:
        """All rows that are left."""


class Outbox:
    """One database, as seen by one process. Open it after the fork.

    Opening touches no file and no network. `migrations.migrate` creates the tables; where the database does
    not answer, the first question raises StoreUnavailable.
    """

    def __init__(self, url: str, *, clock: Callable[[], int] = machine_clock) -> None:
        self.url = database_url(url)
        self.sqlite = self.url.get_backend_name() == "sqlite"
        self.engine = _sqlite_engine(self.url) if self.sqlite else _postgresql_engine(self.url)
        self.on_commit: Callable[[], None] = _nobody_listens
        """Called after every commit that stored something to send; set by whoever runs a dispatcher here."""
        self._clock = clock
        self._reader = self.engine.execution_options(
            **({} if self.sqlite else {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True})
        )
        self._writer = self.engine.execution_options(write=True)
        self._plain: sa.PoolProxiedConnection | None = None
        self._turn = _Turn(Path(f"{self.url.database}.lock")) if self.sqlite else None
        self._refusals = (sa.exc.DBAPIError, sa.exc.TimeoutError, self.engine.dialect.loaded_dbapi.Error)

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """A snapshot to read from; never blocks a writer.

        Raises StoreUnavailable when the database refuses.
        """
        try:
            with self._reader.begin() as connection:
                yield connection
        except self._refusals as error:
            raise unavailable(error) from error

    @contextmanager
    def write(self, *, timeout: float = STORE_TIMEOUT) -> Iterator[Connection]:
        """A transaction that is durable when the block ends; writers of all processes take turns on SQLite.

        Raises StoreUnavailable when the turn (PostgreSQL: the lock of a row) does not come within `timeout`
        seconds, or the database refuses.
        """
        try:
            if self._turn is None:
                with self._writer.begin() as connection:
                    if _unusual(timeout):
                        connection.exec_driver_sql(_lock_timeout(timeout))
                    yield connection
            else:
                with self._turn.taken(timeout), self._writer.begin() as connection:
                    yield connection
        except self._refusals as error:
            raise unavailable(error) from error

    @contextmanager
    def write_plainly(self, *, timeout: float = STORE_TIMEOUT) -> Iterator[Cursor]:
        """The same for the hot path, one thread at a time: the driver's own cursor, on a connection kept for it.

        A connection that was lost fails once; the next call opens another one.
        """
        if timeout <= 0:
            raise StoreUnavailable(f"the outbox did not let a writer in within {STORE_TIMEOUT:.0f} s")
        with self._turn.taken(timeout) if self._turn is not None else nullcontext():
            try:
                if self._plain is None:
                    self._plain = self.engine.raw_connection()
                cursor = self._plain.cursor()
                if self.sqlite:
                    cursor.execute("BEGIN IMMEDIATE")
                elif _unusual(timeout):
                    cursor.execute(_lock_timeout(timeout))
                yield cast("Cursor", cursor)
                self._plain.commit()
            except self._refusals as error:
                self._roll_back()
                raise unavailable(error) from error
            except BaseException:
                self._roll_back()
                raise

    def _roll_back(self) -> None:
        if self._plain is None:
            return
        try:
            self._plain.rollback()
        except self._refusals:
            self._plain.invalidate()
            self._plain = None

    def now(self, connection: Connection) -> int:
        """The one clock of everybody who shares this database, in milliseconds.

        On PostgreSQL the server's, read now and not at the transaction's start; on SQLite the machine's.
        """
        if self.sqlite:
            return self._clock()
        return int(connection.scalar(sa.text("SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint")))

    def connect(self) -> psycopg.Connection:
        """One more connection to PostgreSQL, beside the others, that commits by itself. Raises psycopg.Error."""
        positional, named = self.engine.dialect.create_connect_args(self.engine.url)
        return psycopg.connect(*positional, **named, autocommit=True)

    def close(self) -> None:
        """Give the connections back."""
        if self._plain is not None:
            self._plain.close()
            self._plain = None
        self.engine.dispose()
        if self._turn is not None:
            self._turn.close()


def database_url(url: str) -> URL:
    """DATABASE_URL as SQLAlchemy takes it; Heroku says `postgres://`.

    Raises SettingsError for what is no URL, for another database, and for SQLite without a file.
    """
    try:
        parsed = make_url(url)
    except sa.exc.ArgumentError:
        raise SettingsError([Fault("DATABASE_URL", "is not a URL like sqlite:///relay.db")]) from None
    match parsed.drivername.partition("+")[0]:
        case "postgres" | "postgresql":
            return parsed.set(drivername="postgresql+psycopg")
        case "sqlite" if parsed.database and parsed.database != ":memory:":
            return parsed
        case "sqlite":
            raise SettingsError([Fault("DATABASE_URL", "names no file, so nothing would survive a restart")])
        case other:
            reason = f"{other} is not supported; use sqlite:///FILE or postgres://..."
            raise SettingsError([Fault("DATABASE_URL", reason)])


def unavailable(error: Exception) -> StoreUnavailable:
    """The store's refusal, in its own words but without the statement or its values."""
    words = str(getattr(error, "orig", error)).strip().partition("\n")[0]
    return StoreUnavailable(f"the outbox does not answer: {words}")


def _unusual(timeout: float) -> bool:
    """True when it differs by more than a second from what PostgreSQL's sessions are set to."""
    return abs(timeout - STORE_TIMEOUT) > 1


def _lock_timeout(timeout: float) -> str:
    return f"SET LOCAL lock_timeout = {int(timeout * 1000) + 1}"


def _nobody_listens() -> None:
    pass


def _sqlite_engine(url: URL) -> Engine:
    engine = sa.create_engine(
        url,
        pool_timeout=STORE_TIMEOUT,
        connect_args={"timeout": STORE_TIMEOUT, "check_same_thread": False},
    )

    @sa.event.listens_for(engine, "connect")
    def _pragmas(connection: Any, _record: object) -> None:
        # SQLAlchemy must not begin transactions behind our back: `_begin` says which kind.
        connection.isolation_level = None
        for pragma in (
            # Before the journal's mode: that one writes the file's first page, and afterwards it is too late.
            "auto_vacuum = INCREMENTAL",
            "journal_mode = WAL",
            # FULL: a commit is on the disk, not in the page cache, when it returns. This is the promise.
            "synchronous = FULL",
            "foreign_keys = ON",
            # A long transaction may make the journal grow; it shrinks again to this.
            "journal_size_limit = 67108864",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @sa.event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        write = connection.get_execution_options().get("write", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if write else "BEGIN")

    return engine


def _postgresql_engine(url: URL) -> Engine:
    # A server that vanishes says no good-bye; what DATABASE_URL itself says counts more.
    mindful = {
        "connect_timeout": str(int(STORE_TIMEOUT)),
        "tcp_user_timeout": str(int(STORE_TIMEOUT * 1000)),
        "keepalives_idle": "15",
        "keepalives_interval": "5",
        "keepalives_count": "3",
    }
    engine = sa.create_engine(
        url.set(query={**mindful, **url.query}),
        # After a restart of the server the first question finds new connections, instead of failing.
        pool_pre_ping=True,
        pool_size=CONNECTIONS,
        max_overflow=0,
        pool_timeout=STORE_TIMEOUT,
    )

    @sa.event.listens_for(engine, "connect")
    def _session(connection: Any, _record: object) -> None:
        # A database or a role may have been told to be quick instead of durable; we promise the other thing.
        connection.execute("SET synchronous_commit = on")
        connection.execute(f"SET lock_timeout = {int(STORE_TIMEOUT * 1000)}")
        connection.execute(f"SET idle_in_transaction_session_timeout = {int(IDLE_TIMEOUT * 1000)}")
        connection.commit()

    return engine


class _Turn:
    """The right to write to one SQLite file: one thread of one process at a time.

    SQLite's own waiting between processes sleeps in growing steps and ruins the tail of the latency. The kernel's
    waiting for a file lock knows no time limit; looking every 0.1 ms is as fast as that (measured: two processes
    of eight threads) and has one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._threads = threading.Lock()
        self._file: IO[bytes] | None = None

    @contextmanager
    def taken(self, timeout: float) -> Iterator[None]:
        """Hold the turn for a block. Raises StoreUnavailable after `timeout` seconds."""
        deadline = time.monotonic() + timeout
        if not self._threads.acquire(timeout=max(0.0, timeout)):
            raise StoreUnavailable(f"the outbox did not let a writer in within {timeout:.1f} s")
        try:
            self._lock(deadline)
            try:
                yield
            finally:
                if self._file is not None:
                    fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def _lock(self, deadline: float) -> None:
        try:
            if self._file is None:
                self._file = self._path.open("ab")
            while True:
                try:
                    return fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() >= deadline:
                        raise StoreUnavailable("another process holds the outbox") from None
                    # Shorter than any gap between two turns of one process, so that nobody is passed over for long.
                    time.sleep(0.0001)
        except OSError as error:
            raise StoreUnavailable(f"the outbox cannot be locked: {error}") from error

    def close(self) -> None:
        with self._threads:
            if self._file is not None:
                self._file.close()
                self._file = None
