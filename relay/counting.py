"""Counters that are right for any number of processes and machines: each adds its own to the outbox's."""

import threading

import structlog

from relay import telemetry
from relay.errors import StoreUnavailable
from relay.outbox import Outbox, counters
from relay.outbox.counters import Series

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

EVERY = 5.0
"""Seconds between two additions. What a process that is killed has counted since the last one is lost."""


class Counting:
    """Brings what this process counts to the outbox."""

    def __init__(self, outbox: Outbox) -> None:
        self._outbox = outbox
        self._mutex = threading.Lock()
        self._added = telemetry.counted()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="counting", daemon=True)

    def start(self) -> None:
        """Add every few seconds."""
        self._thread.start()

    def stop(self) -> None:
        """Add what is left, and end."""
        self._stopping.set()
        self._thread.join()

    def totals(self) -> dict[Series, float]:
        """What all processes have added, and this one has counted. Raises StoreUnavailable.

        What this process has is added first: if it were only shown, the next process that is asked would know
        less, and a counter must never go back.
        """
        self._add()
        return counters.totals(self._outbox)

    def _add(self) -> None:
        with self._mutex:
            now = telemetry.counted()
            growth = {series: value - self._added.get(series, 0.0) for series, value in now.items()}
            growth = {series: value for series, value in growth.items() if value}
            if growth:
                counters.add(self._outbox, growth)
                self._added = now

    def _work(self) -> None:
        ended = False
        while not ended:
            ended = self._stopping.wait(EVERY)
            try:
                self._add()
            except StoreUnavailable as error:
                # Nothing is lost yet: it is added when the store answers again.
                log.debug("counting.store_unavailable", reason=str(error))
