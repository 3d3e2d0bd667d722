"""A world for the dispatcher without threads and without waiting: a clock that is turned by hand, and Compass.

The outbox, the plan, the quota and the policy in it are the real ones.
"""

import functools
import itertools
import shutil
import tempfile
from collections import defaultdict, deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import sqlalchemy as sa

from relay.dispatch.health import Outcome
from relay.dispatch.policy import judge
from relay.dispatch.quota import Quota
from relay.dispatch.steady import Steady
from relay.model import Answer, Arrival, Claim, Event, StoredEvent, Translated
from relay.outbox import Outbox, claims
from relay.outbox.append import Appender
from relay.outbox.migrations import migrate

BEGIN = 1_790_000_000_000
"""Every simulation begins at this moment; some day in 2026."""

DESTINATION = "compass"


class TurnedByHand(Outbox):
    """An outbox whose clock is the simulation's on PostgreSQL, too."""

    def now(self, connection: sa.Connection) -> int:
        del connection
        return self._clock()


class Compass:
    """What the destination sees: requests at moments of its own clock, which newest number wins."""

    def __init__(self) -> None:
        self.arrivals: list[int] = []
        self.shown: dict[tuple[str, str | None], Claim] = {}

    def reached(self, claim: Claim, now: int, *, taken: bool = True) -> None:
        """A request arrives; whoever is asked to take it does so unless its number is stale."""
        self.arrivals.append(now)
        entity = (claim.body[claim.type]["id"], claim.component)
        shown = self.shown.get(entity)
        if taken and (shown is None or claim.number > shown.number):
            self.shown[entity] = claim

    def most_in_a_window(self, window_ms: int) -> int:
        """The most requests that any window of this length has seen."""
        self.arrivals.sort()
        most = first = 0
        for last, moment in enumerate(self.arrivals):
            while moment - self.arrivals[first] >= window_ms:
                first += 1
            most = max(most, last - first + 1)
        return most


class World:
    """An outbox, a clock, any number of dispatchers and a Compass. A database that is given is emptied."""

    def __init__(self, quota: Quota, url: str | None = None, *, seed: int = 0) -> None:
        self.real = BEGIN
        """The true time, which is Compass's."""
        self.offset = 0
        """How far the outbox's clock is off."""
        self.quota = quota
        self.rng = Random(seed)
        self.compass = Compass()
        self.stored: list[StoredEvent] = []
        self._folder: Path | None = None
        if url is None:
            self._folder = Path(tempfile.mkdtemp(prefix="relay-simulation-"))
            (self._folder / "relay.db").write_bytes(_template())
            url = f"sqlite:///{self._folder}/relay.db"
        self.outbox = TurnedByHand(url, clock=lambda: self.real + self.offset)
        if self.outbox.sqlite:
            # No power cut happens in here, and the disk is the slowest part.
            sa.event.listen(self.outbox.engine, "connect", _hasty)
        if self._folder is None:
            with self.outbox.write() as connection:
                for table in ("attempts", "events", "webhooks", "entities", "destinations"):
                    connection.exec_driver_sql(f"DELETE FROM {table}")  # noqa: S608 - our own names
        self._appender = Appender(self.outbox)
        self._tokens = itertools.count()

    @property
    def now(self) -> int:
        """What the outbox's clock shows."""
        return self.real + self.offset

    def steady(self) -> Steady:
        """What a new dispatcher watches the clock with."""
        return Steady(self.quota.margin_ms // 2, timer=lambda: self.real)

    def arrive(self, *events: Event) -> tuple[StoredEvent, ...]:
        """One webhook with these events comes in."""
        arrival = Arrival(
            source="simulation",
            received_at=self.now,
            dedupe=None,
            headers={},
            raw=b"{}",
            mapping="",
            translation=Translated("rule", events),
        )
        stored = self._appender.append(arrival).events
        self.stored += stored
        return stored

    def claim(self, steady: Steady | None = None) -> Claim | claims.Wait:
        """Some dispatcher looks for work."""
        return claims.claim(self.outbox, DESTINATION, quota=self.quota, token=str(next(self._tokens)), steady=steady)

    def settle(self, claim: Claim, answer: Answer) -> Outcome:
        """The dispatcher that made the claim has got its answer."""
        return claims.settle(self.outbox, claim, answer, judge(answer), quota=self.quota, rng=self.rng)

    def rows(self, sql: str, **values: Any) -> list[dict[str, Any]]:
        """Look into the outbox."""
        with self.outbox.read() as connection:
            return [dict(row) for row in connection.execute(sa.text(sql), values).mappings()]

    def events(self) -> dict[int, dict[str, Any]]:
        """Every event by its id."""
        return {row["id"]: row for row in self.rows("SELECT * FROM events ORDER BY id")}

    def drain(self, *, most: int = 100_000, took_ms: int = 0) -> list[Claim]:
        """Compass answers 202 to everything, until nothing waits; the claims in order."""
        sent: list[Claim] = []
        for _ in range(most):
            match self.claim():
                case Claim() as claim:
                    self.real += took_ms
                    self.compass.reached(claim, self.real)
                    self.settle(claim, Answer(202))
                    sent.append(claim)
                case claims.Wait(until=None):
                    return sent
                case claims.Wait(until=int() as until):
                    self.real += max(0, until - self.now)
        raise AssertionError("something waits for ever")

    def run(self, arrivals: Iterable[tuple[int, Event]], *, took_ms: int) -> list[tuple[int, Claim]]:
        """Events come in at their moments, and Compass answers 202 after `took_ms`, until nothing is left.

        Answers the claims with their moments. Nobody looks for work while there can be none, as in the loop.
        """
        coming = deque(sorted(arrivals, key=lambda one: one[0]))
        sent: list[tuple[int, Claim]] = []
        under_way: deque[tuple[int, Claim]] = deque()
        wait = claims.Wait(self.now, claims.Why.MORE, self.now)
        while True:
            while coming and coming[0][0] <= self.real:
                self.arrive(coming.popleft()[1])
                if wait.why in (claims.Why.DUE, claims.Why.PACE):
                    wait = replace(wait, until=self.now)
            while under_way and under_way[0][0] <= self.real:
                self.settle(under_way.popleft()[1], Answer(202))
                wait = replace(wait, until=self.now)
            if wait.until is not None and wait.until <= self.now:
                match self.claim():
                    case Claim() as claim:
                        self.compass.reached(claim, self.real + took_ms // 2)
                        sent.append((self.real, claim))
                        under_way.append((self.real + took_ms, claim))
                        continue
                    case claims.Wait() as wait:
                        pass
            moments = [queue[0][0] for queue in (coming, under_way) if queue]
            moments += [] if wait.until is None else [wait.until - self.offset]
            if not moments:
                return sent
            self.real = max(self.real, min(moments))

    def close(self) -> None:
        """Clear up."""
        self.outbox.close()
        if self._folder is not None:
            shutil.rmtree(self._folder)


def event(name: str = "e", state: str | None = "OPEN", order: int = BEGIN, **others: Any) -> Event:
    """An incident of this name; `others` are fields of Event."""
    component = others.get("component")
    body = {"incident": {"id": name, "externalEventSourceId": "service", "state": state}}
    return Event(
        **{
            "type": "incident",
            "destination": DESTINATION,
            "component": None,
            "body": body,
            "entity": f"{name} {component}",
            "state": state,
            "order": order,
            "terminal": state == "RESOLVED",
            "event_source": "service",
            **others,
        }
    )


def by_entity(events: Iterable[dict[str, Any]]) -> dict[bytes, list[dict[str, Any]]]:
    """Rows of events in their order, entity by entity."""
    grouped: dict[bytes, list[dict[str, Any]]] = defaultdict(list)
    for row in sorted(events, key=place):
        grouped[row["entity"]].append(row)
    return grouped


def place(row: dict[str, Any]) -> tuple[int, int, int]:
    """An event's place among those of its entity."""
    return row["source_order"], row["terminal"], row["id"]


@functools.cache
def _template() -> bytes:
    """A migrated, empty SQLite file."""
    with tempfile.TemporaryDirectory() as folder:
        outbox = Outbox(f"sqlite:///{folder}/relay.db")
        migrate(outbox)
        outbox.close()
        return Path(folder, "relay.db").read_bytes()


def _hasty(connection: Any, _record: object) -> None:
    connection.execute("PRAGMA synchronous = OFF")
