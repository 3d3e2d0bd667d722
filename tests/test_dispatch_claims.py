"""Claiming and settling, question by question, on both databases; the clock is turned by hand."""

import itertools
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from random import Random
from typing import Any

import psycopg
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from relay.dispatch.policy import judge
from relay.dispatch.quota import Quota
from relay.model import Answer, Claim, Coalesce, Event, Lane, StoredEvent
from relay.outbox import Outbox, claims
from relay.outbox.claims import LEASE_MS, Wait, Why
from relay.outbox.entities import BATCH
from tests.simulation import BEGIN, DESTINATION, World, event

QUOTA = Quota(limit=10, window_ms=12_000)
HOLD_MS = 12_100

on_postgresql = pytest.mark.parametrize("backend", ["postgresql"], indirect=True)


@pytest.fixture
def world(database_url: str) -> Iterator[World]:
    world = World(QUOTA, database_url)
    yield world
    world.close()


def claimed(world: World) -> Claim:
    result = world.claim()
    assert isinstance(result, Claim), result
    return result


def next_claim(world: World) -> Claim:
    """Wait as long as it takes."""
    while True:
        match world.claim():
            case Claim() as claim:
                return claim
            case Wait(until):
                assert until is not None, "nothing waits"
                world.real += max(0, until - world.now)


def waits(world: World) -> Wait:
    result = world.claim()
    assert isinstance(result, Wait), result
    return result


def statuses(world: World) -> list[str]:
    return [row["status"] for row in world.events().values()]


# One event


def test_a_claim_carries_all_that_is_needed_to_send_the_event(world: World):
    [stored] = world.arrive(event("e", order=BEGIN + 5, component="ari:c"))
    world.real += 20
    claim = claimed(world)
    assert (claim.event, claim.type, claim.component) == (stored.id, "incident", "ari:c")
    assert claim.body["incident"]["id"] == "e"
    assert (claim.number, claim.failures, claim.trigger) == (BEGIN + 5, 0, "auto")
    assert (claim.claimed_at, claim.lease_until, claim.waited_ms) == (world.now, world.now + LEASE_MS, 20)
    assert statuses(world) == ["sending"]


def test_a_delivered_event_is_never_claimed_again(world: World):
    world.arrive(event())
    world.settle(claimed(world), Answer(202))
    assert statuses(world) == ["delivered"]
    assert waits(world) == Wait(None, Why.DUE, world.now)


def test_an_attempt_is_written_down_when_it_begins_and_completed_once(world: World):
    world.arrive(event())
    claim = claimed(world)
    [attempt] = world.rows("SELECT * FROM attempts")
    assert (attempt["outcome"], attempt["held_until"]) == (None, world.now + LEASE_MS + HOLD_MS)
    world.real += 50
    world.settle(claim, Answer(400, error="FORMAT_INVALID", message="url", took_ms=45))
    [attempt] = world.rows("SELECT * FROM attempts")
    kept = ["answered_at", "held_until", "outcome", "status", "error", "message", "took_ms"]
    assert [attempt[key] for key in kept] == [
        world.now, world.now + HOLD_MS, "dead", 400, "FORMAT_INVALID", "url", 45,
    ]  # fmt: skip


def test_a_failed_event_waits_for_its_schedule_and_keeps_its_number(world: World):
    world.arrive(event())
    first = claimed(world)
    world.settle(first, Answer(500))
    wait = waits(world)
    assert wait.why is Why.DUE
    assert wait.until is not None
    assert 4000 <= wait.until - world.now <= 6000
    world.real += wait.until - world.now
    again = claimed(world)
    assert (again.event, again.number, again.failures) == (first.event, first.number, 1)


def test_a_refused_event_is_a_dead_letter_with_reason_and_hint(world: World):
    world.arrive(event())
    world.settle(claimed(world), Answer(400, error="FORMAT_INVALID", message="url"))
    [row] = world.events().values()
    assert row["status"] == "dead"
    assert row["reason"].startswith("answered 400: FORMAT_INVALID: url (")


def test_a_claim_that_is_given_back_costs_nothing(world: World):
    world.arrive(event())
    claims.release(world.outbox, claimed(world))
    assert statuses(world) == ["pending"]
    assert not world.rows("SELECT * FROM attempts WHERE held_until > :now", now=world.now)
    assert claimed(world).failures == 0


# Leases


def test_a_lost_lease_returns_the_event_and_its_slot_stays_held(world: World):
    world.arrive(event())
    lost = claimed(world)
    world.real += LEASE_MS - 1
    assert waits(world).why is Why.DUE
    world.real += 1
    again = claimed(world)
    assert (again.event, again.number) == (lost.event, lost.number)
    [first, _second] = world.rows("SELECT * FROM attempts ORDER BY id")
    assert (first["outcome"], first["held_until"]) == ("lost", lost.lease_until + HOLD_MS)


def test_an_answer_after_the_lease_was_lost_changes_nothing_of_the_event(world: World):
    world.arrive(event())
    lost = claimed(world)
    world.real += LEASE_MS
    again = claimed(world)
    world.settle(lost, Answer(400))
    assert statuses(world) == ["sending"]
    world.settle(again, Answer(202))
    assert statuses(world) == ["delivered"]
    assert [row["outcome"] for row in world.rows("SELECT outcome FROM attempts ORDER BY id")] == ["dead", "delivered"]


def test_after_a_request_without_an_answer_nothing_older_is_sent(world: World):
    [newer] = world.arrive(event(order=BEGIN + 10))
    world.settle(claimed(world), Answer(None, error="timeout"))
    [older] = world.arrive(event(state="RESOLVED", order=BEGIN + 5))
    world.drain()
    rows = world.events()
    assert (rows[older.id]["status"], rows[older.id]["successor_id"]) == ("superseded", newer.id)
    assert rows[newer.id]["status"] == "delivered"


def test_after_a_lost_lease_nothing_older_is_sent(world: World):
    [newer] = world.arrive(event(order=BEGIN + 10))
    claimed(world)
    world.real += LEASE_MS
    [older] = world.arrive(event(state="RESOLVED", order=BEGIN + 5))
    world.drain()
    rows = world.events()
    assert (rows[older.id]["status"], rows[older.id]["successor_id"]) == ("superseded", newer.id)
    assert rows[newer.id]["status"] == "delivered"


def test_a_dead_letter_does_not_move_its_entity_on(world: World):
    world.arrive(event(order=BEGIN + 10))
    world.settle(claimed(world), Answer(400))
    world.arrive(event(order=BEGIN + 5))
    assert len(world.drain()) == 1


# Entities


def test_events_of_one_entity_go_one_at_a_time_and_those_of_others_beside_them(world: World):
    world.arrive(event("a", "OPEN", BEGIN), event("a", "RESOLVED", BEGIN + 1), event("b", "OPEN", BEGIN))
    first, second = claimed(world), claimed(world)
    assert {first.body["incident"]["id"], second.body["incident"]["id"]} == {"a", "b"}
    assert waits(world).why is Why.DUE
    world.settle(first, Answer(202))
    third = claimed(world)
    assert (third.body["incident"]["id"], third.body["incident"]["state"]) == ("a", "RESOLVED")


def test_the_database_itself_refuses_two_of_one_entity_on_their_way(world: World):
    world.arrive(event("a", "OPEN"), event("a", "RESOLVED"))
    claimed(world)
    with pytest.raises(sa.exc.IntegrityError), world.outbox.engine.begin() as connection:
        connection.execute(sa.text("UPDATE events SET status = 'sending'"))


def test_every_superseded_event_names_its_successor(world: World):
    stored = world.arrive(*(event("a", state, BEGIN + n) for n, state in enumerate(["OPEN", "OPEN", "RESOLVED"])))
    assert [claim.event for claim in world.drain()] == [stored[1].id, stored[2].id]
    rows = world.events()
    assert [(row["status"], row["successor_id"]) for row in rows.values()] == [
        ("superseded", stored[1].id),
        ("delivered", None),
        ("delivered", None),
    ]


def test_the_components_of_one_incident_are_entities_of_their_own(world: World):
    world.arrive(event("a", component="one"), event("a", component="two"))
    claimed(world)
    claimed(world)


def test_a_poisoned_event_never_holds_up_others(world: World):
    world.arrive(event("poison"), *(event(f"e{n}") for n in range(5)))
    delivered = 0
    while delivered < 5:
        claim = next_claim(world)
        poisoned = claim.body["incident"]["id"] == "poison"
        world.settle(claim, Answer(500 if poisoned else 202))
        delivered += not poisoned
    assert world.real - BEGIN < 15_000


def test_an_event_that_failed_twice_lets_a_newer_one_of_its_entity_pass(world: World):
    [failing, newer] = world.arrive(event("a", "OPEN", BEGIN), event("a", "RESOLVED", BEGIN + 1))
    for _ in range(2):
        claim = next_claim(world)
        assert claim.event == failing.id
        world.settle(claim, Answer(500))
    claim = claimed(world)
    assert claim.event == newer.id
    world.settle(claim, Answer(202))
    row = world.events()[failing.id]
    assert (row["failures"], row["status"], row["successor_id"]) == (2, "superseded", newer.id)


@on_postgresql
def test_what_is_stored_while_its_entity_is_put_in_order_does_not_wait_behind_what_failed(world: World):
    for state in ("OPEN", "OPEN", "RESOLVED"):
        if state not in [row["state"] for row in world.events().values()]:
            world.arrive(event("a", state, BEGIN))
        world.settle(next_claim(world), Answer(500))
        world.arrive(event("another", None, lane=Lane.URGENT))
        world.settle(claimed(world), Answer(202))  # or the destination would count as down
    last = next_claim(world)
    stored: list[StoredEvent] = []

    def another_process(_c: object, _cursor: object, sql: str, *_: object) -> None:
        if sql.lstrip().startswith("SELECT id, source_order") and not stored:
            stored.extend(world.arrive(event("a", "OPEN", BEGIN + 2, lane=Lane.URGENT)))

    sa.event.listen(world.outbox.engine, "after_cursor_execute", another_process)
    world.settle(last, Answer(500))
    sa.event.remove(world.outbox.engine, "after_cursor_execute", another_process)
    assert claimed(world).event == stored[0].id


def test_more_events_of_one_entity_than_are_looked_at_together(world: World):
    runs = [*["OPEN"] * 1100, "RESOLVED", *["OPEN"] * 600]
    stored = world.arrive(*(event("a", state, BEGIN + n) for n, state in enumerate(runs)))
    assert [claim.event for claim in world.drain()] == [stored[n].id for n in (1099, 1100, 1700)]


def test_however_many_of_one_entity_wait_behind_a_retry_nobody_wades_through_them(world: World):
    [first, *_] = world.arrive(*(event("a", order=BEGIN + n, coalesce=Coalesce.OFF) for n in range(BATCH + 100)))
    world.settle(claimed(world), Answer(500))
    wait = waits(world)
    assert (wait.why, wait.until) == (Why.DUE, world.events()[first.id]["due_at"])


# The quota and the order of the backlog


def test_a_request_without_an_answer_holds_its_slot_until_it_cannot_be_on_its_way_any_more(world: World):
    world.arrive(event())
    claim = claimed(world)
    world.settle(claim, Answer(None, error="timeout"))
    [attempt] = world.rows("SELECT * FROM attempts")
    assert attempt["held_until"] == claim.lease_until + HOLD_MS


def test_the_limit_is_claimed_and_then_the_next_slot_is_waited_for(world: World):
    world.arrive(*(event(f"e{n}", lane=Lane.URGENT) for n in range(11)))
    for _ in range(10):
        world.settle(claimed(world), Answer(202))
        world.real += 10
    wait = waits(world)
    assert (wait.why, wait.until) == (Why.SLOT, BEGIN + HOLD_MS)
    world.real = BEGIN + HOLD_MS
    claimed(world)


def test_an_urgent_event_goes_at_once_behind_any_backlog(world: World):
    world.arrive(*(event(f"e{n}", lane=Lane.LOW) for n in range(300)))
    for nth in range(60):
        world.settle(next_claim(world), Answer(202))
        [urgent] = world.arrive(event(f"urgent {nth}", lane=Lane.URGENT))
        before = world.now
        claim = next_claim(world)
        assert claim.event == urgent.id
        assert world.now - before <= 3000  # quota and window are ten times smaller than Compass's
        world.settle(claim, Answer(202))


def test_an_urgent_event_takes_the_older_ones_of_its_entity_along(world: World):
    world.arrive(*(event(f"e{n}") for n in range(20)))
    [older] = world.arrive(event("a", "OPEN", BEGIN, lane=Lane.LOW))
    world.arrive(event("a", "RESOLVED", BEGIN + 1, lane=Lane.URGENT))
    assert claimed(world).event == older.id


def test_a_stream_of_urgent_events_does_not_starve_what_has_waited_long(world: World):
    world.arrive(event("low", lane=Lane.LOW))
    urgent = iter(range(10_000))
    for minute in range(40):
        world.real = BEGIN + minute * 60_000
        for _ in range(8):
            world.arrive(event(f"u{next(urgent)}", lane=Lane.URGENT))
            claim = claimed(world)
            world.settle(claim, Answer(202))
            if claim.body["incident"]["id"] == "low":
                assert 20 <= minute <= 21  # ten minutes for each lane, then at the next fourth claim
                return
    pytest.fail("it waits for ever")


# What somebody else's transaction holds


@contextmanager
def held_by_hand(url: str, *held: StoredEvent) -> Iterator[None]:
    """Somebody has changed these events in a session of their own, and has not committed yet."""
    with psycopg.connect(url) as session:
        session.execute("UPDATE events SET reason = 'by hand' WHERE id = ANY(%s)", [[one.id for one in held]])
        yield
        session.rollback()


@on_postgresql
def test_a_claim_passes_over_an_event_that_somebody_else_holds(world: World, database_url: str):
    [first] = world.arrive(event("a"))
    [second] = world.arrive(event("b"))
    with held_by_hand(database_url, first):
        began = time.monotonic()
        assert claimed(world).event == second.id
        assert waits(world).why is Why.DUE
        assert time.monotonic() - began < 1
    assert claimed(world).event == first.id


@on_postgresql
@pytest.mark.parametrize("which", [0, 1])
def test_it_passes_over_an_entity_of_which_somebody_else_holds_any_event(world: World, database_url: str, which: int):
    """Else it would wait for that one, or send a change of state before the one that came first."""
    of_one = world.arrive(event("a", "OPEN", BEGIN), event("a", "RESOLVED", BEGIN + 1))
    [other] = world.arrive(event("b"))
    with held_by_hand(database_url, of_one[which]):
        began = time.monotonic()
        assert claimed(world).event == other.id
        assert waits(world).why is Why.DUE
        assert time.monotonic() - began < 1
    assert [claim.event for claim in world.drain()] == [one.id for one in of_one]


@on_postgresql
def test_a_lost_lease_that_somebody_else_holds_is_taken_back_later(world: World, database_url: str):
    lost = world.arrive(event("a", "OPEN", BEGIN), event("a", "RESOLVED", BEGIN + 1))
    claimed(world)
    [other] = world.arrive(event("b"))
    world.real += LEASE_MS
    for held in lost:
        with held_by_hand(database_url, held):
            began = time.monotonic()
            claim = claimed(world)
            assert claim.event == other.id
            assert time.monotonic() - began < 1
        claims.release(world.outbox, claim)
    assert [claim.event for claim in world.drain() if claim.event != other.id] == [one.id for one in lost]


# The destination's trouble


def test_pause_holds_a_destination_and_resume_lets_go(world: World):
    world.arrive(event())
    claims.pause(world.outbox, DESTINATION)
    assert waits(world) == Wait(None, Why.PAUSED, world.now)
    claims.resume(world.outbox, DESTINATION)
    claimed(world)


def test_letting_go_by_hand_does_not_cut_the_pause_that_a_429_asked_for(world: World):
    world.arrive(event("a"), event("b"))
    world.settle(claimed(world), Answer(429, retry_after=7.0))
    claims.resume(world.outbox, DESTINATION)
    assert waits(world).until == BEGIN + 7000


def test_a_missing_event_source_costs_one_request(world: World):
    world.arrive(*(event(f"e{n}", event_source="gone") for n in range(5)), event("other", event_source="there"))
    world.settle(claimed(world), Answer(404, message="event source is not found"))
    assert statuses(world) == [*["unrouted"] * 5, "pending"]
    assert {row["reason"] for row in world.events().values()} == {None, "answered 404: event source is not found"}
    assert len(world.drain()) == 1


def test_what_waited_behind_an_event_without_its_source_goes_on_if_its_own_is_there(world: World):
    world.arrive(event("a", "OPEN", event_source="gone"), event("b", event_source="gone"))
    [behind] = world.arrive(event("a", "RESOLVED", event_source="there"))
    first = claimed(world)
    world.real += 1
    claims.release(world.outbox, first)
    claim = claimed(world)
    assert claim.body["incident"]["id"] == "b"
    world.settle(claim, Answer(404, message="event source is not found"))
    assert claimed(world).event == behind.id


def test_a_429_pauses_everything_and_counts_against_nothing(world: World):
    world.arrive(event("a"), event("b"))
    world.settle(claimed(world), Answer(429, retry_after=7.0))
    assert waits(world) == Wait(BEGIN + 7000, Why.TROUBLE, world.now)
    world.real += 7000
    assert claimed(world).failures == 0


def test_while_it_is_down_probes_go_one_at_a_time_with_a_different_event_each(world: World):
    world.arrive(*(event(f"e{n}", lane=Lane.URGENT if n == 0 else Lane.LOW) for n in range(4)))
    probes: list[int] = []
    for _ in range(20):
        claim = next_claim(world)
        if claim.trigger == "probe":
            probes.append(claim.event)
            assert waits(world).why is Why.PROBE
        world.settle(claim, Answer(503))
    assert len(probes) > 10
    assert all(probe != following for probe, following in itertools.pairwise(probes))
    times = Counter(probes)
    assert len(times) == 4
    assert max(times.values()) - min(times.values()) <= 2
    assert max(row["failures"] for row in world.events().values()) <= 1


def test_when_it_answers_again_everything_goes_on(world: World):
    world.arrive(*(event(f"e{n}") for n in range(4)))
    world.settle(claimed(world), Answer(503))
    world.settle(claimed(world), Answer(503))
    assert waits(world).why is Why.TROUBLE
    assert len(world.drain()) == 4


def test_wrong_credentials_block_and_resuming_probes_at_once(world: World):
    world.arrive(event("a"), event("b"))
    world.settle(claimed(world), Answer(401))
    assert waits(world).why is Why.TROUBLE
    claims.resume(world.outbox, DESTINATION)
    claim = claimed(world)
    assert claim.trigger == "probe"
    world.settle(claim, Answer(202))
    assert claimed(world).trigger == "auto"


def test_a_dispatcher_that_starts_probes_a_blocked_destination_at_once_but_not_a_limited_one(world: World):
    world.arrive(event("a"), event("b"))
    world.settle(claimed(world), Answer(429))
    claims.probe_soon(world.outbox, DESTINATION)
    assert waits(world).why is Why.TROUBLE
    world.real += 60_000
    world.settle(claimed(world), Answer(401))
    claims.probe_soon(world.outbox, DESTINATION)
    claimed(world)


def test_events_that_died_of_wrong_credentials_come_back(world: World):
    world.arrive(*(event(f"e{n}") for n in range(4)))
    for expected in (["dead", "pending", "pending"], ["dead", "dead", "pending"], ["pending"] * 3):
        world.settle(claimed(world), Answer(403))
        assert statuses(world)[:3] == expected
    assert len(world.drain()) == 4


# Clocks


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000])
def test_when_the_clock_steps_everybody_pauses_one_window_and_then_goes_on(world: World, step_ms: int):
    steady, other = world.steady(), world.steady()
    world.arrive(*(event(f"e{n}", lane=Lane.URGENT) for n in range(30)))
    for _ in range(10):
        claim = world.claim(steady)
        assert isinstance(claim, Claim)
        world.compass.reached(claim, world.real)
        world.settle(claim, Answer(202))
    world.claim(other)
    world.offset += step_ms
    assert world.claim(steady) == Wait(world.now + HOLD_MS, Why.TROUBLE, world.now)
    world.real += HOLD_MS // 2
    assert isinstance(world.claim(steady), Wait)
    world.real += HOLD_MS // 2
    assert isinstance(world.claim(steady), Claim)
    world.drain()
    assert world.compass.most_in_a_window(QUOTA.window_ms) <= QUOTA.limit


@pytest.mark.parametrize("step_ms", [3_600_000, -3_600_000])
def test_after_a_step_what_is_on_its_way_is_not_sent_again_at_once(world: World, step_ms: int):
    steady = world.steady()
    world.arrive(event())
    assert isinstance(world.claim(steady), Claim)
    world.offset += step_ms
    world.claim(steady)
    world.real += LEASE_MS - 1
    assert isinstance(world.claim(steady), Wait)
    assert statuses(world) == ["sending"]
    world.real += 1
    assert isinstance(world.claim(steady), Claim)


def test_after_a_step_the_slots_of_requests_under_way_stay_held(world: World):
    steady = world.steady()
    world.arrive(*(event(f"e{n}", lane=Lane.URGENT) for n in range(30)))
    under_way = [world.claim(steady) for _ in range(10)]
    world.offset += 3_600_000
    world.claim(steady)
    world.real += 20_000
    for claim in under_way:
        assert isinstance(claim, Claim)
        world.compass.reached(claim, world.real)
    assert world.claim(steady) == Wait(world.now + LEASE_MS + HOLD_MS - 20_000, Why.SLOT, world.now)
    world.drain()
    assert world.compass.most_in_a_window(QUOTA.window_ms) <= QUOTA.limit


def test_after_a_step_the_slot_of_a_request_without_an_answer_stays_held(world: World):
    """It was given up, and its event goes another way; but the request itself may still be on the wire."""
    steady = world.steady()
    world.arrive(*(event(f"e{n}", lane=Lane.URGENT) for n in range(30)))
    given_up = world.claim(steady)
    assert isinstance(given_up, Claim)
    world.settle(given_up, Answer(None, error="connection"))
    world.offset += 3_600_000
    world.claim(steady)
    world.real += 20_000
    sent = 0
    while isinstance(claim := world.claim(steady), Claim):
        world.compass.reached(claim, world.real)
        world.settle(claim, Answer(202))
        sent += 1
    world.compass.reached(given_up, world.real + 1000)
    assert sent == QUOTA.limit - 1
    assert world.compass.most_in_a_window(QUOTA.window_ms) <= QUOTA.limit


def test_a_clock_that_was_set_back_while_nothing_ran_does_not_stop_delivery(world: World):
    world.arrive(*(event(f"e{n}", lane=Lane.URGENT) for n in range(11)))
    for _ in range(10):
        world.settle(claimed(world), Answer(202))
    world.offset -= 3_600_000
    assert waits(world).why is Why.TROUBLE
    assert len(world.drain()) == 1
    assert world.real - BEGIN < 120_000


def test_a_clock_that_goes_back_a_little_holds_nothing_up_while_there_are_free_slots(world: World):
    steady = world.steady()
    world.arrive(event("a"), event("b"))
    world.real += 1000
    assert isinstance(world.claim(steady), Claim)
    world.offset -= QUOTA.margin_ms // 4
    assert isinstance(world.claim(steady), Claim)


# The forecast


def test_the_forecast_knows_what_is_held_by_hand_or_in_trouble(world: World):
    world.arrive(event("a"), event("b"))
    claims.pause(world.outbox, DESTINATION)
    assert claims.forecast(world.outbox, DESTINATION, quota=QUOTA).drained_at is None
    claims.resume(world.outbox, DESTINATION)
    assert claims.forecast(world.outbox, DESTINATION, quota=QUOTA).drained_at == world.now
    world.settle(claimed(world), Answer(500))
    forecast = claims.forecast(world.outbox, DESTINATION, quota=QUOTA)
    assert (forecast.waiting, forecast.requests, forecast.later) == (2, 2, 1)


def test_the_forecast_of_a_destination_that_was_never_used_is_empty(world: World):
    assert claims.forecast(world.outbox, "other", quota=QUOTA) == claims.Forecast(0, 0, 0, world.now)


arrivals = st.lists(
    st.builds(
        event,
        name=st.sampled_from("abc"),
        state=st.sampled_from(["OPEN", "RESOLVED", None]),
        order=st.integers(BEGIN, BEGIN + 9),
        coalesce=st.sampled_from(Coalesce),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(before=arrivals, after=arrivals)
def test_as_many_requests_are_sent_as_were_forecast(database_url: str, before: list[Event], after: list[Event]):
    world = World(QUOTA, database_url)
    for one in before:
        world.arrive(one)
    world.drain()
    for one in after:
        world.arrive(one)
    forecast = claims.forecast(world.outbox, DESTINATION, quota=QUOTA)
    assert (forecast.waiting, forecast.later) == (len(after), 0)
    assert len(world.drain()) == forecast.requests
    world.close()


# Many at once, in real time


def test_dispatchers_that_claim_at_the_same_moment_share_the_quota(database_url: str):
    world = World(Quota(limit=25, window_ms=600_000), database_url)
    world.arrive(*(event(f"e{n % 40}", "OPEN", BEGIN + n, lane=Lane.URGENT) for n in range(80)))
    won: list[Claim] = []
    rng = Random(1)

    def dispatcher(open_outbox: Callable[[], Outbox]) -> None:
        outbox = open_outbox()
        while True:
            claim = claims.claim(outbox, DESTINATION, quota=world.quota, token=str(rng.random()))
            if isinstance(claim, Wait):
                break
            won.append(claim)
            answer = Answer(202)
            claims.settle(outbox, claim, answer, judge(answer), quota=world.quota, rng=rng)
        outbox.close()

    threads = [threading.Thread(target=dispatcher, args=[lambda: Outbox(database_url)]) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 25
    assert len({claim.event for claim in won}) == 25
    world.close()


# The cost of a claim


def test_a_claim_finds_its_way_by_indexes_alone():
    """However much is stored. On SQLite only: it tells its plan in lines, and makes it without statistics."""
    world = World(QUOTA)
    asked: list[tuple[str, Any]] = []

    def listen(_c: object, _cursor: object, sql: str, values: Any, _x: object, many: bool) -> None:
        if sql.lstrip().startswith(("SELECT", "UPDATE")) and "destinations" not in sql and not many:
            asked.append((sql, values))

    world.arrive(event("a", "OPEN"), event("a", "RESOLVED"), event("b"))
    sa.event.listen(world.outbox.engine, "before_cursor_execute", listen)
    world.settle(claimed(world), Answer(202))
    world.settle(claimed(world), Answer(500))
    sa.event.remove(world.outbox.engine, "before_cursor_execute", listen)
    assert len(asked) > 20
    with world.outbox.read() as connection:
        for sql, values in asked:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {sql}", values).all()
            assert not [line for line in plan if line[3].startswith("SCAN") or "TEMP B-TREE" in line[3]], sql
    world.close()
