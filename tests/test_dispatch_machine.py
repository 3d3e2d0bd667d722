"""Everything that can happen to deliveries, in any order: arrivals, answers, crashes, freezes, clocks that step.

The outbox, the plan, the quota and the policy are the real ones; only time is turned by hand.
"""

import json
from dataclasses import dataclass, replace
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from relay.dispatch.quota import Quota
from relay.model import Answer, Claim, Coalesce, Event, EventStatus, Lane
from relay.outbox import claims
from relay.outbox.replay import Retranslation, StoredWebhook, replay_events
from tests.simulation import DESTINATION, World, by_entity, event, place

QUOTA = Quota(limit=4, window_ms=6_000)

REQUEST_MS = 30_000
"""So long after its claim a request has reached Compass or never will: 10 s to be written, 20 s in all."""

ANSWERS = [
    *[Answer(202)] * 9,
    Answer(400, error="FORMAT_INVALID"),
    Answer(404, message="event source is not found"),
    Answer(403),
    Answer(401),
    Answer(429),
    Answer(429, retry_after=7.0),
    *[Answer(500)] * 2,
    Answer(503, html=True),
    Answer(None, error="timeout"),
    Answer(302),
]


@dataclass(eq=False)
class Request:
    """One claim, as the world outside the outbox knows it."""

    claim: Claim
    claimed_at: int
    """The true time."""
    on_the_wire: bool = True
    """It may still reach Compass."""
    answer: Answer | None = None
    """What came back, and was not yet settled."""
    waited_for: bool = True
    """Its dispatcher lives and has not settled it."""


class Deliveries(RuleBasedStateMachine):
    """Two dispatchers that may crash, three entities, one Compass that may do anything."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.world = World(QUOTA, url)
        self.dispatchers = [self.world.steady(), self.world.steady()]
        self.requests: list[Request] = []
        self.known: dict[int, dict[str, Any]] = {}
        """The outbox as it was when we last looked."""
        self.newest: dict[bytes, dict[str, Any]] = {}
        """Of each entity the newest event that was delivered, or sent and never answered."""
        self.died: set[int] = set()
        """Events that were dead or held back for a while."""
        self._everybody_looks()

    # What happens

    @rule(
        arrivals=st.lists(
            st.builds(
                event,
                name=st.sampled_from("abc"),
                state=st.sampled_from(["OPEN", "RESOLVED", None]),
                order=st.sampled_from([0, 1, 1, 1000, 1000, -1, -1500]),
                lane=st.sampled_from(Lane),
                coalesce=st.sampled_from([*[Coalesce.TRANSITIONS] * 3, Coalesce.LATEST, Coalesce.OFF]),
            ),
            min_size=1,
            max_size=5,
        )
    )
    def arrive(self, arrivals: list[Event]) -> None:
        """Webhooks, mostly in order, some at the same moment as others, some late."""
        begin = self.world.real // 1000 * 1000
        for count, one in enumerate(arrivals):
            self.world.arrive(replace(one, order=begin + 200 * count + one.order))

    @rule(who=st.integers(0, 1), most=st.integers(1, 6))
    def look(self, who: int, most: int) -> None:
        for _ in range(most):
            if not self._claim(who):
                break

    @rule(most=st.integers(1, 12), took_ms=st.sampled_from([0, 50, 700]), answer=st.sampled_from(ANSWERS))
    def a_good_time(self, most: int, took_ms: int, answer: Answer) -> None:
        """One after the other is sent and answered, the last one in some way or other."""
        for nth in range(most):
            if not self._claim(0):
                break
            self.world.real += took_ms
            one = self.requests[-1]
            self._reach(one, answer if nth == most - 1 else Answer(202), taken=True)
            self._settle(one, one.answer or answer)

    @precondition(lambda self: any(one.on_the_wire for one in self.requests))
    @rule(which=st.integers(0, 9), answer=st.sampled_from(ANSWERS), taken=st.booleans())
    def reach(self, which: int, answer: Answer, taken: bool) -> None:
        """A request reaches Compass; behind a 5xx or silence it may have been taken all the same."""
        self._reach(self._one_of([one for one in self.requests if one.on_the_wire], which), answer, taken=taken)

    @precondition(lambda self: any(one.waited_for and one.answer for one in self.requests))
    @rule(which=st.integers(0, 9))
    def settle(self, which: int) -> None:
        one = self._one_of([one for one in self.requests if one.waited_for and one.answer], which)
        assert one.answer is not None
        self._settle(one, one.answer)

    @precondition(lambda self: any(one.waited_for and not one.answer for one in self.requests))
    @rule(which=st.integers(0, 9), error=st.sampled_from(["timeout", "connection", "late"]))
    def give_up(self, which: int, error: str) -> None:
        """No answer in time. The request may still be on the wire, unless it was never written."""
        one = self._one_of([one for one in self.requests if one.waited_for and not one.answer], which)
        one.on_the_wire = one.on_the_wire and error != "late"
        self._settle(one, Answer(None, error=error))

    @precondition(lambda self: any(one.waited_for and one.on_the_wire for one in self.requests))
    @rule(which=st.integers(0, 9))
    def release(self, which: int) -> None:
        """A dispatcher that stops gives back what it has not sent."""
        one = self._one_of([one for one in self.requests if one.waited_for and one.on_the_wire], which)
        claims.release(self.world.outbox, one.claim)
        self.requests.remove(one)
        self._compare(returned=one.claim)

    @rule(which=st.sampled_from([EventStatus.DEAD, EventStatus.UNROUTED]))
    def replay(self, which: Literal[EventStatus.DEAD, EventStatus.UNROUTED]) -> None:
        """Somebody sends again what was refused or had no event source."""
        for one in replay_events(self.world.outbox, which, translate=_never):
            self.died.add(one.id)
        self._compare()

    @rule(ms=st.sampled_from([1, 200, 600, 1500, 3000, 6000, 12_000, 31_000, 70_000, 700_000]))
    def time_goes_by(self, ms: int) -> None:
        self.world.real += ms
        for one in self.requests:
            if one.on_the_wire and self.world.real - one.claimed_at > REQUEST_MS:
                one.on_the_wire = False
                one.answer = Answer(None, error="timeout")

    @rule(
        mishap=st.one_of(
            st.just("crash"),
            st.sampled_from(["pause", "resume", "resume"]),
            st.sampled_from([-3_600_000, -40_000, -2_000, -20, 20, 2_000, 40_000, 3_600_000]),
        )
    )
    def mishap(self, mishap: str | int) -> None:
        match mishap:
            case "crash":
                self._crash()
            case "pause":
                claims.pause(self.world.outbox, DESTINATION)
            case "resume":
                claims.resume(self.world.outbox, DESTINATION)
            case int():
                # Whoever runs looks every other second, so that nothing else happens in between.
                self.world.offset += mishap
                self._everybody_looks()

    # What must hold

    @invariant()
    def never_more_than_the_quota_in_any_window(self) -> None:
        assert self.world.compass.most_in_a_window(QUOTA.window_ms) <= QUOTA.limit

    def teardown(self) -> None:
        """Once everybody behaves everything is drained, and Compass shows the newest of each entity."""
        try:
            self.time_goes_by(2 * REQUEST_MS)
            claims.resume(self.world.outbox, DESTINATION)
            self.world.drain(most=1000)
            self._compare(drained=True)
            final = {"delivered", "superseded", "dead", "unrouted"}
            assert {row["status"] for row in self.known.values()} <= final
            assert {one.id for one in self.world.stored} == set(self.known)
            for rows in by_entity(self.known.values()).values():
                delivered = [row for row in rows if row["status"] == "delivered"]
                if delivered:
                    name = json.loads(rows[0]["body"])["incident"]["id"]
                    shown = self.world.compass.shown[name, None]
                    assert place(self.known[shown.event]) >= place(delivered[-1])
            self.never_more_than_the_quota_in_any_window()
        finally:
            self.world.close()

    # How it is checked

    def _crash(self) -> None:
        """All dispatchers die; what they have written stays on the wire. New ones begin at once."""
        for one in self.requests:
            one.waited_for = False
        self.dispatchers = [self.world.steady(), self.world.steady()]
        claims.probe_soon(self.world.outbox, DESTINATION)
        self._everybody_looks()

    def _reach(self, one: Request, answer: Answer, *, taken: bool) -> None:
        unclear = answer.status is None or answer.status >= 500
        taken = answer.status == 202 or (unclear and taken)
        self.world.compass.reached(one.claim, self.world.real, taken=taken)
        one.on_the_wire, one.answer = False, answer

    def _one_of(self, requests: list[Request], which: int) -> Request:
        return requests[which % len(requests)]

    def _everybody_looks(self) -> None:
        for who in range(len(self.dispatchers)):
            self._claim(who)

    def _claim(self, who: int) -> bool:
        result = self.world.claim(self.dispatchers[who])
        self._compare()
        if isinstance(result, claims.Wait):
            self._nothing_waits_without_need(result)
            return False
        row = self.known[result.event]
        newest = self.newest.get(row["entity"])
        assert newest is None or place(row) >= place(newest), "older than what was sent"
        for other in self.requests:
            in_flight = other.waited_for and self.world.real - other.claimed_at < REQUEST_MS
            assert not (in_flight and self.known[other.claim.event]["entity"] == row["entity"])
        self.requests.append(Request(result, self.world.real))
        return True

    def _settle(self, one: Request, answer: Answer) -> None:
        row = self.world.events()[one.claim.event]
        leased = row["status"] == "sending" and row["lease"] == one.claim.token
        outcome = self.world.settle(one.claim, answer)
        if leased and (answer.status == 202 or (answer.status is None and answer.error != "late")):
            self._moved_on(row)
        self.died.update(outcome.revived)
        self._compare(returned=one.claim)
        one.waited_for, one.answer = False, None
        if not one.on_the_wire:
            self.requests.remove(one)

    def _moved_on(self, row: dict[str, Any]) -> None:
        newest = self.newest.get(row["entity"])
        if newest is None or place(newest) < place(row):
            self.newest[row["entity"]] = row

    def _compare(self, *, returned: Claim | None = None, drained: bool = False) -> None:
        """What has changed since we last looked is as it may be."""
        before, after = self.known, self.world.events()
        self.known = after
        assert not set(before) - set(after), "an event was lost"
        if drained:
            return
        for event_id, row in before.items():
            lost = row["status"] == "sending" and after[event_id]["lease"] != row["lease"]
            if lost and (returned is None or returned.event != event_id):
                self._moved_on(row)
        for rows in by_entity(after.values()).values():
            for row in rows:
                if row["status"] == "superseded" and before.get(row["id"], {}).get("status") != "superseded":
                    self._rightly_superseded(row, rows)

    def _rightly_superseded(self, row: dict[str, Any], rows: list[dict[str, Any]]) -> None:
        successor = self.known[row["successor_id"]]
        assert successor["entity"] == row["entity"]
        assert place(successor) > place(row)
        newest = self.newest.get(row["entity"])
        if newest is not None and place(newest) > place(row):
            came_late = row["id"] > newest["id"]
            assert came_late or row["failures"] >= 2 or row["id"] in self.died, "skipped, though in order"
            return
        same = row["coalesce"] == "transitions" and row["state"] == successor["state"]
        assert same or row["coalesce"] == "latest", "a change of state was skipped"
        between = [one for one in rows if place(row) < place(one) < place(successor)]
        # Whatever came between was left out as well, or had come to its end before.
        assert not any(one["status"] in ("pending", "sending") for one in between), "a change of state was skipped"

    def _nothing_waits_without_need(self, wait: claims.Wait) -> None:
        held = self.world.rows("SELECT count(*) AS n FROM attempts WHERE held_until > :now", now=self.world.now)
        assert wait.why is not claims.Why.PACE or 2 * held[0]["n"] >= QUOTA.limit
        if wait.why is not claims.Why.DUE:
            return
        for rows in by_entity(self.known.values()).values():
            waiting = [row for row in rows if row["status"] == "pending"]
            if waiting and not any(row["status"] == "sending" for row in rows):
                assert any(row["due_at"] > self.world.now for row in waiting), "could have been sent"


def _never(_webhook: StoredWebhook) -> Retranslation:
    raise AssertionError("no event in here lacks a component")


def _run(url: str, *, examples: int, steps: int) -> None:
    class Here(Deliveries):
        def __init__(self) -> None:
            super().__init__(url)

    run_state_machine_as_test(
        Here,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


def test_whatever_happens_the_promises_of_delivery_hold(database_url: str):
    _run(database_url, examples=12, steps=40)


@pytest.mark.long
def test_whatever_happens_the_promises_of_delivery_hold_for_long(database_url: str):
    _run(database_url, examples=1500, steps=60)
