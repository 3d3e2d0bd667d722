"""Intake's side of the outbox: a webhook and its events are on the disk before `append` returns.

Concurrent requests share a commit, because a commit costs a flush of the disk and its rows next to nothing.
The first request that comes leads: it waits for the turn to write, takes along everybody who has come
meanwhile, commits, wakes them with their receipts and passes the lead on to the next who waits. Requests may be
threads, or greenlets of one thread: how they wait, and where a transaction is run, is the caller's to say.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Protocol

from relay.errors import StoreUnavailable
from relay.model import Arrival, Receipt
from relay.outbox import STORE_TIMEOUT, Outbox
from relay.outbox.rows import Rows, Statements

BATCH = 100
"""The most webhooks in one commit."""


class Lock(Protocol):
    """What a request waits on: a lock of `threading`, or a semaphore that lets other greenlets go on."""

    def acquire(self, *, timeout: float = ...) -> bool:
        """Wait until it is free, and take it."""

    def release(self) -> None:
        """Let go of it."""


Outcome = Receipt | StoreUnavailable
Stored = Sequence[tuple["_Ticket", Outcome]]


def _here(transaction: Callable[[], Stored]) -> Stored:
    return transaction()


def _nobody() -> None:
    pass


def _held() -> Lock:
    lock = threading.Lock()
    lock.acquire()
    return lock


class Appender:
    """Stores arrivals for all requests of one process."""

    def __init__(
        self,
        outbox: Outbox,
        *,
        held: Callable[[], Lock] = _held,
        aside: Callable[[Callable[[], Stored]], Stored] = _here,
        others_first: Callable[[], None] = _nobody,
    ) -> None:
        """How the requests of this process live together.

        `held` makes a lock that is held, for a request to wait on; `aside` runs a transaction, of which there is one
        at a time; `others_first` lets those requests go on that can.
        """
        self._outbox = outbox
        self._held, self._aside, self._others_first = held, aside, others_first
        self._statements = Statements(sqlite=outbox.sqlite)
        self._mutex = threading.Lock()
        # The leader is its first; whoever is taken into a batch leaves it.
        self._waiting: deque[_Ticket] = deque()
        self._led = False

    def append(self, arrival: Arrival) -> Receipt:
        """Store a webhook with its events, and answer once both are durable.

        A delivery that is stored already answers with its first receipt, `duplicate` set; was it `failed` or
        `unmatched`, the new translation takes the place of the old one and the receipt is a new one.

        Raises StoreUnavailable when that takes longer than STORE_TIMEOUT or the database refuses. The arrival
        may be stored all the same then: the sender tries again, and dedupe recognises it.
        """
        ticket = _Ticket(Rows.of(arrival), self._held())
        with self._mutex:
            self._waiting.append(ticket)
            ticket.leads, self._led = not self._led, True
        try:
            if not ticket.leads:
                ticket.woken.acquire(timeout=STORE_TIMEOUT)
            if ticket.leads:
                self._lead(ticket)
        finally:
            if ticket.leads or ticket.outcome is None:
                self._withdraw(ticket)
        match ticket.outcome:
            case Receipt() as receipt:
                return receipt
            case StoreUnavailable() as refusal:
                raise refusal
            case None:
                raise StoreUnavailable(f"the outbox did not store within {STORE_TIMEOUT:.0f} s")

    def _lead(self, own: "_Ticket") -> None:
        # As long as more come at once, they come along: the commit costs them nothing.
        before = 0
        while before < len(self._waiting) < BATCH:
            before = len(self._waiting)
            self._others_first()
        stored = self._aside(lambda: self._commit(own))
        for ticket, outcome in stored:
            ticket.settle(outcome)
        if any(isinstance(outcome, Receipt) and outcome.events for _, outcome in stored):
            self._outbox.on_commit()

    def _commit(self, own: "_Ticket") -> Stored:
        """What became of everybody who waits, in one transaction; of the leader alone, if there is none."""
        batch: list[_Ticket] = []
        outcomes: Sequence[Outcome]
        try:
            with self._outbox.write_plainly(timeout=own.left()) as cursor:
                batch = self._take()
                outcomes = self._statements.store(cursor, [one.rows for one in batch])
        except StoreUnavailable as refusal:
            if not batch:
                return [(own, refusal)]
            outcomes = self._one_by_one(batch)
        except Exception as error:  # noqa: BLE001 - whatever the driver thinks of one row, the other rows are good
            if not batch:
                return [(own, StoreUnavailable(f"the outbox cannot be written to: {error}"))]
            outcomes = self._one_by_one(batch)
        return list(zip(batch, outcomes, strict=True))

    def _one_by_one(self, batch: Sequence["_Ticket"]) -> list[Outcome]:
        """Each in a transaction of its own: one bad row harms nobody."""
        outcomes: list[Outcome] = []
        for ticket in batch:
            try:
                with self._outbox.write_plainly(timeout=ticket.left()) as cursor:
                    stored = self._statements.store(cursor, [ticket.rows])
            except StoreUnavailable as refusal:
                outcomes.append(refusal)
            except Exception as error:  # noqa: BLE001 - a value that the driver cannot pass on, say
                outcomes.append(StoreUnavailable(f"the outbox cannot store this webhook: {error}"))
            else:
                outcomes += stored
        return outcomes

    def _take(self) -> list["_Ticket"]:
        with self._mutex:
            return [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]

    def _withdraw(self, ticket: "_Ticket") -> None:
        """Leave the queue, if still in it; a leader passes the lead on."""
        with self._mutex:
            with suppress(ValueError):
                self._waiting.remove(ticket)
            if not ticket.leads:
                return
            if self._waiting:
                self._waiting[0].promote()
            else:
                self._led = False


class _Ticket:
    """One request's place in the queue."""

    __slots__ = ("deadline", "leads", "outcome", "rows", "woken")

    def __init__(self, rows: Rows, woken: Lock) -> None:
        self.rows = rows
        self.deadline = time.monotonic() + STORE_TIMEOUT
        self.leads = False
        self.outcome: Outcome | None = None
        self.woken = woken
        """Held until somebody wakes us."""

    def left(self) -> float:
        return self.deadline - time.monotonic()

    def promote(self) -> None:
        self.leads = True
        self.woken.release()

    def settle(self, outcome: Outcome) -> None:
        self.outcome = outcome
        if not self.leads:
            self.woken.release()
