"""The dispatcher's threads, in real time, on a real outbox; the destination is a function."""

import queue
import threading
import time
from collections.abc import Callable, Iterator
from random import Random

import pytest
from structlog.testing import capture_logs

from relay.dispatch.deliver import deliver
from relay.dispatch.loop import Dispatcher
from relay.dispatch.quota import Quota
from relay.model import Answer, Arrival, Claim, Event, Lane, Translated
from relay.outbox import Outbox, claims, machine_clock
from relay.outbox.append import Appender
from tests.simulation import DESTINATION, event

PLENTY = Quota(limit=1000, window_ms=1000)


class Taker:
    """A destination that answers as it is told, and knows what it was sent and when."""

    name = DESTINATION

    def __init__(self, answer: Callable[[Claim], Answer] = lambda _claim: Answer(202)) -> None:
        self.answer = answer
        self.sent: queue.Queue[tuple[float, Claim]] = queue.Queue()

    def send(self, claim: Claim, *, age: Callable[[], float]) -> Answer:
        assert age() < 10
        self.sent.put((time.monotonic(), claim))
        return self.answer(claim)

    def close(self) -> None:
        """Nothing to give back."""

    def next(self, timeout: float = 5.0) -> tuple[float, Claim]:
        return self.sent.get(timeout=timeout)


class Relay:
    """An outbox with a dispatcher, and somebody who puts events in."""

    def __init__(self, url: str) -> None:
        self.outbox = Outbox(url)
        self.appender = Appender(self.outbox)
        self.dispatchers: list[Dispatcher] = []

    def dispatch(self, taker: Taker, quota: Quota = PLENTY, **others: object) -> Dispatcher:
        dispatcher = Dispatcher(self.outbox, [taker], {DESTINATION: quota}, rng=Random(1), **others)  # type: ignore[arg-type]
        dispatcher.start()
        self.dispatchers.append(dispatcher)
        return dispatcher

    def arrive(self, *events: Event) -> None:
        translation = Translated("rule", events)
        self.appender.append(Arrival("test", machine_clock(), None, {}, b"{}", "", translation))

    def statuses(self) -> list[str]:
        with self.outbox.read() as connection:
            return list(connection.exec_driver_sql("SELECT status FROM events ORDER BY id").scalars())

    def all_settled(self) -> bool:
        deadline = time.monotonic() + 10
        while {"pending", "sending"} & set(self.statuses()):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.01)
        return True


@pytest.fixture
def relay(database_url: str) -> Iterator[Relay]:
    relay = Relay(database_url)
    yield relay
    for dispatcher in relay.dispatchers:
        dispatcher.stop()
    relay.outbox.close()


def test_a_lone_event_is_sent_within_milliseconds_of_its_commit(relay: Relay):
    taker = Taker()
    relay.dispatch(taker, poll=60.0)
    delays = []
    for n in range(20):
        time.sleep(0.03)
        relay.arrive(event(f"e{n}"))
        stored = time.monotonic()
        delays.append(taker.next()[0] - stored)
    # A few milliseconds on a machine that has nothing else to do; looking every minute would show.
    assert sorted(delays)[10] < 0.5


def test_what_another_process_stored_is_found_by_looking_now_and_then(relay: Relay, database_url: str):
    taker = Taker()
    relay.dispatch(taker, poll=0.2)
    other = Relay(database_url)
    other.arrive(event())
    taker.next()
    other.outbox.close()


def test_slow_requests_are_sent_side_by_side(relay: Relay):
    together = threading.Barrier(8, timeout=10)

    def slow(_claim: Claim) -> Answer:
        together.wait()
        return Answer(202)

    relay.dispatch(Taker(slow))
    relay.arrive(*(event(f"e{n}", lane=Lane.URGENT) for n in range(8)))
    assert relay.all_settled()
    assert set(relay.statuses()) == {"delivered"}


def test_the_next_event_of_an_entity_follows_as_soon_as_the_one_before_is_answered(relay: Relay):
    taker = Taker()
    relay.dispatch(taker, poll=60.0)
    relay.arrive(*(event("a", state, n) for n, state in enumerate(["OPEN", "RESOLVED", "OPEN", "RESOLVED"])))
    began = time.monotonic()
    states = [taker.next()[1].body["incident"]["state"] for _ in range(4)]
    assert states == ["OPEN", "RESOLVED", "OPEN", "RESOLVED"]
    assert time.monotonic() - began < 2


def test_the_quota_is_kept_in_real_time(relay: Relay):
    taker = Taker()
    relay.dispatch(taker, Quota(limit=20, window_ms=1000))
    relay.arrive(*(event(f"e{n}") for n in range(90)))
    moments = [taker.next()[0] for _ in range(90)]
    assert all(later - moment > 1.0 for moment, later in zip(moments, moments[20:], strict=False))
    assert moments[-1] - moments[0] < 20  # 4.5 on a machine that has nothing else to do


def test_stopping_finishes_what_is_on_its_way_and_takes_nothing_new(relay: Relay):
    begun, go_on = threading.Event(), threading.Event()

    def slow(_claim: Claim) -> Answer:
        begun.set()
        go_on.wait(10)
        return Answer(202)

    dispatcher = relay.dispatch(Taker(slow), Quota(limit=2, window_ms=60_000))
    relay.arrive(*(event(f"e{n}") for n in range(3)))
    assert begun.wait(5)
    threading.Timer(0.3, go_on.set).start()
    assert dispatcher.stop()
    assert sorted(relay.statuses()) in (["delivered", "delivered", "pending"], ["delivered", "pending", "pending"])
    relay.arrive(event("later"))
    assert relay.statuses()[-1] == "pending"


def test_stopping_does_not_wait_longer_than_it_may(relay: Relay):
    begun, go_on = threading.Event(), threading.Event()

    def hanging(_claim: Claim) -> Answer:
        begun.set()
        go_on.wait(10)
        return Answer(202)

    dispatcher = relay.dispatch(Taker(hanging))
    relay.arrive(event())
    assert begun.wait(5)
    began = time.monotonic()
    assert not dispatcher.stop(timeout=0.2)
    assert time.monotonic() - began < 1
    go_on.set()
    assert dispatcher.stop()


def test_what_is_claimed_at_the_very_end_is_given_back_unsent_with_its_slot(relay: Relay):
    relay.arrive(event())
    taker = Taker()
    result = deliver(relay.outbox, taker, quota=PLENTY, rng=Random(1), claimed=lambda: False)
    assert isinstance(result, claims.Wait)
    assert relay.statuses() == ["pending"]
    assert taker.sent.empty()
    with relay.outbox.read() as connection:
        now = relay.outbox.now(connection)
        [held_until] = connection.exec_driver_sql("SELECT held_until FROM attempts").scalars()
    assert held_until <= now


def test_a_dispatcher_that_follows_goes_on_at_once(relay: Relay):
    first, second = Taker(), Taker()
    dispatcher = relay.dispatch(first)
    relay.arrive(event("a"))
    first.next()
    dispatcher.stop()
    relay.arrive(event("b"))
    relay.dispatch(second)
    second.next(timeout=2)


def test_a_fault_in_one_delivery_is_logged_and_ends_nothing(relay: Relay):
    def faulty(claim: Claim) -> Answer:
        if claim.body["incident"]["id"] == "faulty":
            raise RuntimeError("a mistake of ours")
        return Answer(202)

    taker = Taker(faulty)
    with capture_logs() as logs:
        relay.dispatch(taker)
        relay.arrive(event("faulty"))
        taker.next()
        relay.arrive(event("good"))
        taker.next()
        deadline = time.monotonic() + 5
        while relay.statuses() != ["sending", "delivered"] and time.monotonic() < deadline:
            time.sleep(0.01)
    assert relay.statuses() == ["sending", "delivered"]  # the lease of the first one will end
    assert "dispatcher.fault" in [line["event"] for line in logs]


def test_an_outbox_that_does_not_answer_for_a_while_costs_no_event(relay: Relay):
    relay.arrive(event())
    taker = Taker()
    with relay.outbox.write() as connection:
        connection.exec_driver_sql("ALTER TABLE destinations RENAME TO gone")
    with capture_logs() as logs:
        relay.dispatch(taker, poll=0.1)
        time.sleep(0.3)
        with relay.outbox.write() as connection:
            connection.exec_driver_sql("ALTER TABLE gone RENAME TO destinations")
        taker.next()
    assert "dispatcher.store_unavailable" in [line["event"] for line in logs]


def test_each_attempt_is_one_wide_line_of_the_log_without_a_body(relay: Relay):
    with capture_logs() as logs:
        relay.dispatch(Taker(lambda _claim: Answer(400, error="FORMAT_INVALID", message="url", took_ms=12)))
        relay.arrive(event("secret title", component="ari:c"))
        assert relay.all_settled()
        deadline = time.monotonic() + 5
        while "attempt" not in [line["event"] for line in logs] and time.monotonic() < deadline:
            time.sleep(0.01)
    [line] = [line for line in logs if line["event"] == "attempt"]
    assert "secret title" not in repr(line)
    told = {"destination", "outcome", "status", "error", "reason", "event_id", "attempt_id", "type", "component"}
    told |= {"number", "trigger", "failures", "due_at", "waited_ms", "took_ms", "state"}
    assert told <= set(line)
    assert (line["outcome"], line["status"], line["error"], line["took_ms"]) == ("dead", 400, "FORMAT_INVALID", 12)


def test_a_destination_that_changes_its_state_says_so_once(relay: Relay):
    with capture_logs() as logs:
        taker = Taker(lambda _claim: Answer(401))
        relay.dispatch(taker)
        relay.arrive(event("a"), event("b"))
        taker.next()
        deadline = time.monotonic() + 5
        while "destination" not in [line["event"] for line in logs] and time.monotonic() < deadline:
            time.sleep(0.01)
    [line] = [line for line in logs if line["event"] == "destination"]
    assert (line["state"], line["log_level"]) == ("blocked", "warning")
    assert claims.forecast(relay.outbox, DESTINATION, quota=PLENTY).drained_at is None


def test_every_outcome_is_told_to_whoever_counts(relay: Relay):
    told: queue.Queue[tuple[str, str]] = queue.Queue()
    relay.dispatch(Taker(), observe=lambda name, outcome: told.put((name, outcome.word)))
    relay.arrive(event())
    assert told.get(timeout=5) == (DESTINATION, "delivered")


def test_an_idle_dispatcher_hardly_works(relay: Relay):
    """No busy polling."""
    relay.dispatch(Taker())
    time.sleep(0.3)
    began = time.process_time()
    time.sleep(2.5)
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize("sent_before", [1, 2])
def test_a_storm_at_the_door_does_not_make_it_busy_while_it_may_not_send(relay: Relay, sent_before: int):
    """Neither while the quota is used up nor while it is paced."""
    taker = Taker()
    dispatcher = relay.dispatch(taker, Quota(limit=2, window_ms=60_000))
    relay.arrive(*(event(f"e{n}", lane=Lane.LOW if sent_before == 1 else Lane.URGENT) for n in range(4)))
    for _ in range(sent_before):
        taker.next()
    time.sleep(0.3)
    began, until = time.process_time(), time.monotonic() + 1
    while time.monotonic() < until:
        dispatcher.wake()
        time.sleep(0.001)
    assert time.process_time() - began < 0.25
    assert taker.sent.empty()
