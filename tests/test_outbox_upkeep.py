"""Pruning takes what is settled and old, in small steps, and never what is undelivered or still counts."""

import itertools
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from relay.dispatch.policy import Delivered, NoEventSource
from relay.model import Claim, Event, EventStatus, Failed, Ignored, Receipt, Translated, Unmatched
from relay.outbox import Outbox, claims, views
from relay.outbox.migrations import migrate
from relay.outbox.tables import attempts, entities, events, webhooks
from relay.outbox.upkeep import prune
from tests.outboxes import QUOTA, REFUSED, event, events_of, send, store

DAY = 24 * 3600 * 1000


def now(outbox: Outbox) -> int:
    with outbox.read() as connection:
        return outbox.now(connection)


def received(outbox: Outbox, *its_events: Event) -> Receipt:
    return store(outbox, Translated("incident", its_events))


def age(outbox: Outbox, by: int = 40 * DAY) -> None:
    """Make everything that is stored older."""
    with outbox.write() as connection:
        for table in (webhooks, events, attempts, entities):
            moments = [column for column in table.c if column.name.endswith("_at") or column.name == "held_until"]
            connection.execute(sa.update(table).values({column: column - by for column in moments}))


def pruned(outbox: Outbox, step: int = 500) -> int:
    return sum(prune(outbox, before=now(outbox) - 30 * DAY, step=step))


def count(outbox: Outbox, table: sa.Table) -> int:
    with outbox.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def counts(outbox: Outbox) -> dict[str, int]:
    return {table.name: count(outbox, table) for table in (webhooks, events, attempts, entities)}


def test_what_is_old_and_settled_goes_with_everything_that_is_its_own(outbox: Outbox) -> None:
    received(outbox, event("a", order=1), event("a", order=2), event("b"))
    for translation in (Ignored("ping", "a test"), Unmatched(), Failed("incident", "when", "broken")):
        store(outbox, translation)
    send(outbox, [Delivered(), Delivered()])
    age(outbox)
    assert pruned(outbox) == 4
    assert counts(outbox) == {"webhooks": 0, "events": 0, "attempts": 0, "entities": 0}


def test_what_is_not_old_stays(outbox: Outbox) -> None:
    received(outbox, event("a"))
    send(outbox, [Delivered()])
    age(outbox, 29 * DAY)
    assert pruned(outbox) == 0
    assert counts(outbox) == {"webhooks": 1, "events": 1, "attempts": 1, "entities": 1}


@pytest.mark.parametrize("status", [EventStatus.PENDING, EventStatus.SENDING, EventStatus.UNROUTED, EventStatus.DEAD])
def test_what_is_undelivered_is_never_touched(outbox: Outbox, status: EventStatus) -> None:
    """One undelivered event keeps the whole webhook, so that it can be explained."""
    delivered, undelivered = events_of(received(outbox, event("a"), event("b")))
    send(outbox, [Delivered()])
    match status:
        case EventStatus.SENDING:
            assert isinstance(claims.claim(outbox, "compass", quota=QUOTA, token="t"), Claim)
        case EventStatus.DEAD:
            send(outbox, [REFUSED])
        case EventStatus.UNROUTED:
            send(outbox, [NoEventSource("the event source does not exist")])
        case _:
            pass
    age(outbox)
    assert pruned(outbox) == 0
    assert views.show_event(outbox, undelivered).event.status is status
    assert views.show_event(outbox, delivered).event.status is EventStatus.DELIVERED


def test_a_slot_that_is_held_is_never_given_away(outbox: Outbox) -> None:
    """A webhook that waited for a month was delivered just now: its request still counts against the quota."""
    received(outbox, event("a"))
    with outbox.write() as connection:
        connection.execute(sa.update(webhooks).values(received_at=webhooks.c.received_at - 40 * DAY))
    send(outbox, [Delivered()])
    assert pruned(outbox) == 0
    assert views.status(outbox).destinations[0].slots_held == 1
    age(outbox, 2 * 60_000)
    assert pruned(outbox) == 1


def test_what_is_known_of_an_entity_stays_while_an_older_event_of_it_could_be_sent(outbox: Outbox) -> None:
    """Else a dead letter that is replayed would pass for new and overwrite what came after it."""
    (dead,) = events_of(received(outbox, event("a", order=1)))
    send(outbox, [REFUSED])
    received(outbox, event("a", order=2), event("b"))
    send(outbox, [Delivered(), Delivered()])
    age(outbox)
    assert pruned(outbox) == 1
    assert views.show_event(outbox, dead).event.status is EventStatus.DEAD
    assert count(outbox, entities) == 1


def test_an_entity_that_is_still_heard_of_is_remembered(outbox: Outbox) -> None:
    received(outbox, event("a", order=1), event("b", order=1))
    send(outbox, [Delivered(), Delivered()])
    age(outbox)
    received(outbox, event("a", order=2))
    send(outbox, [Delivered()])
    pruned(outbox)
    assert count(outbox, entities) == 1


def test_pruning_goes_in_small_steps_and_may_be_interrupted_anywhere(outbox: Outbox) -> None:
    for number in range(25):
        received(outbox, event(str(number)))
    send(outbox, [Delivered()] * 25)
    kept = events_of(received(outbox, event("waits")))
    age(outbox)
    steps = prune(outbox, before=now(outbox) - 30 * DAY, step=10)
    assert list(itertools.islice(steps, 1)) == [10]
    del steps
    assert counts(outbox)["webhooks"] == counts(outbox)["events"] == 16
    assert list(prune(outbox, before=now(outbox) - 30 * DAY, step=10)) == [10, 5]
    assert [one.id for one in views.list_events(outbox)] == kept


def test_kept_rows_do_not_stop_the_pruning_of_those_behind_them(outbox: Outbox) -> None:
    for number in range(12):
        received(outbox, event(str(number), unrouted="service-9"))
    received(outbox, event("a"))
    send(outbox, [Delivered()])
    age(outbox)
    assert pruned(outbox, step=5) == 1


def test_webhooks_come_in_while_old_ones_are_deleted(outbox: Outbox, database_url: str) -> None:
    for number in range(300):
        store(outbox, Ignored("ping", str(number)))
    age(outbox)
    stop = threading.Event()
    faults: list[BaseException] = []
    came: list[int] = []

    def intake() -> None:
        other = Outbox(database_url)
        try:
            while not stop.is_set():
                came.append(store(other, Unmatched()).webhook)
        except BaseException as fault:  # noqa: BLE001 - told by the assertion below
            faults.append(fault)
        finally:
            other.close()

    thread = threading.Thread(target=intake)
    thread.start()
    try:
        removed = pruned(outbox, step=10)
    finally:
        stop.set()
        thread.join()
    assert (removed, faults) == (300, [])
    assert count(outbox, webhooks) == len(came)


@pytest.fixture
def big(tmp_path: Path) -> Iterator[Outbox]:
    outbox = Outbox(f"sqlite:///{tmp_path}/relay.db")
    migrate(outbox)
    row: dict[str, Any] = {"at": now(outbox), "body": bytes(5000)}
    with outbox.write() as connection:
        connection.execute(
            sa.text("""
                INSERT INTO webhooks (source, received_at, status, mapping, headers, body)
                VALUES ('pagerduty', :at, 'ignored', 'm1', '{}', :body)
            """),
            [row] * 1000,
        )
    yield outbox
    outbox.close()


def test_a_sqlite_file_gets_smaller(big: Outbox, tmp_path: Path) -> None:
    age(big)
    big.close()
    size = (tmp_path / "relay.db").stat().st_size
    assert size > 5_000_000
    assert pruned(big) == 1000
    big.close()
    assert (tmp_path / "relay.db").stat().st_size < 200_000
