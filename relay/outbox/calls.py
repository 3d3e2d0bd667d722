"""Waking the dispatchers of other processes, through PostgreSQL's LISTEN and NOTIFY.

A dispatcher is woken by the commits of its own process, and looks every other second in any case. What is
here only makes it look at once when a process that does not deliver has stored something; whatever goes
wrong here costs a second or two, never an event. On SQLite there is nothing like it, and looking must do.
"""

import select
import socket
import threading
import time
from collections.abc import Callable

import psycopg
import structlog

from relay.errors import StoreUnavailable
from relay.outbox import Outbox

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

CHANNEL = "relay_outbox"

QUIET = 0.05
"""Seconds between two calls of one process, however much it stores."""

REOPEN = 2.0
"""Seconds between two tries to listen again."""


class Caller:
    """Tells the dispatchers of other processes that there is something to send.

    Not within the commit that stores a webhook: PostgreSQL lets transactions with a NOTIFY commit only one
    after the other, each with its flush of the disk. A call is a transaction of its own that flushes nothing,
    and as it is made at most every QUIET seconds it needs no dispatcher to say that it sleeps.
    """

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._wanted = threading.Event()
        self._stopping = False
        self._thread = threading.Thread(target=self._work, name="call", daemon=True)

    def start(self) -> None:
        """Call whenever something is committed here."""
        self._outbox.on_commit = self._wanted.set
        self._thread.start()

    def stop(self) -> None:
        """Make the last call and end."""
        self._stopping = True
        self._wanted.set()
        self._thread.join()

    def _work(self) -> None:
        last = False
        while not last:
            self._wanted.wait()
            self._wanted.clear()
            last = self._stopping
            try:
                with self._outbox.write() as connection:
                    connection.exec_driver_sql("SET LOCAL synchronous_commit = off")
                    connection.exec_driver_sql(f"NOTIFY {CHANNEL}")
            except StoreUnavailable as error:
                log.debug("call.failed", reason=str(error))
            time.sleep(QUIET)


class Listener:
    """Hears the calls of other processes, on a connection of its own; opens it again whenever it is lost."""

    def __init__(self, outbox: Outbox, heard: Callable[[], None]) -> None:
        self._outbox = outbox
        self._heard = heard
        self._lost = False
        # Closing `_end` makes `_ended` readable, and that wakes whoever waits for both it and a call.
        self._ended, self._end = socket.socketpair()
        self._thread = threading.Thread(target=self._work, name="listen", daemon=True)

    def start(self) -> None:
        """Call `heard` from now on."""
        self._thread.start()

    def stop(self) -> None:
        """End, and give the connection back."""
        self._end.close()
        self._thread.join()
        self._ended.close()

    def _work(self) -> None:
        while True:
            try:
                self._listen()
            except psycopg.Error as error:
                if not self._lost:
                    log.warning("listener.lost", reason=str(error).strip().partition("\n")[0])
                self._lost = True
            if select.select([self._ended], [], [], REOPEN if self._lost else 0)[0]:
                return

    def _listen(self) -> None:
        """Until it is time to end. Raises psycopg.Error when the connection is lost."""
        with self._outbox.connect() as connection:
            connection.execute(f"LISTEN {CHANNEL}".encode())
            if self._lost:
                log.info("listener.back")
                self._lost = False
            # Something may have been stored while nobody listened.
            self._heard()
            end = self._ended.fileno()
            while end not in select.select([end, connection.fileno()], [], [])[0]:
                for _ in connection.notifies(timeout=0):
                    self._heard()
