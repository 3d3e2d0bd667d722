"""What an answer means, and whose trouble it is."""

import math
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dispatch.health import Again, Dead, Done, Health, Outcome, Sent, State, Unrouted, weigh
from relay.dispatch.policy import (
    HOUR,
    MINUTE,
    SCHEDULE,
    SECOND,
    Delivered,
    Failed,
    Forbidden,
    Misdirected,
    NoEventSource,
    NotSent,
    Refused,
    TooMany,
    Verdict,
    judge,
    retry_ms,
)
from relay.model import Answer

NOW = 1_790_000_000_000


# An answer by itself


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (Answer(202), Delivered),
        (Answer(200), Delivered),
        (Answer(408), Failed),
        (Answer(500), Failed),
        (Answer(503, html=True), Failed),
        (Answer(599), Failed),
        (Answer(100), Failed),
        (Answer(None, error="timeout"), Failed),
        (Answer(None, error="connection"), Failed),
        (Answer(None, error="tls"), Failed),
        (Answer(None, error="internal"), Failed),
        (Answer(None, error="late"), NotSent),
        (Answer(409, error="STORE_CONFLICT_EXCEPTION"), Failed),
        (Answer(429), TooMany),
        (Answer(429, html=True), TooMany),
        (Answer(401), Misdirected),
        (Answer(302), Misdirected),
        (Answer(200, html=True), Misdirected),
        (Answer(404, html=True), Misdirected),
        (Answer(403, html=True), Misdirected),
        (Answer(400, error="CLOUD_ID_INVALID"), Misdirected),
        (Answer(404, error="COMPASS_NOT_AVAILABLE"), Misdirected),
        (Answer(403), Forbidden),
        (Answer(404), NoEventSource),
        (Answer(404, error="EVENT_SOURCE_NOT_FOUND"), NoEventSource),
        (Answer(404, error="COMPONENT_NOT_FOUND"), Refused),
        (Answer(400, error="FORMAT_INVALID"), Refused),
        (Answer(413), Refused),
        (Answer(418), Refused),
    ],
)
def test_every_answer_has_its_meaning(answer: Answer, verdict: type[Verdict]):
    assert isinstance(judge(answer), verdict)


@given(
    st.builds(
        Answer,
        status=st.none() | st.integers(-1, 1000),
        error=st.none() | st.text(max_size=5) | st.sampled_from(["late", "FORMAT_INVALID", "CLOUD_ID_INVALID"]),
        message=st.none() | st.text(max_size=5),
        retry_after=st.none() | st.floats(),
        html=st.booleans(),
    )
)
def test_judging_is_total(answer: Answer):
    match judge(answer):
        case Delivered():
            assert answer.status is not None
            assert 200 <= answer.status < 300
        case TooMany(reason, wait_ms):
            assert reason
            assert wait_ms is None or SECOND <= wait_ms <= HOUR
        case other:
            assert other.reason


@pytest.mark.parametrize(
    ("retry_after", "wait_ms"),
    [(None, None), (7.0, 7000), (0.0, 1000), (-5.0, 1000), (1e9, HOUR), (math.inf, HOUR), (math.nan, 1000)],
)
def test_retry_after_is_believed_up_to_an_hour(retry_after: float | None, wait_ms: int | None):
    verdict = judge(Answer(429, retry_after=retry_after))
    assert isinstance(verdict, TooMany)
    assert verdict.wait_ms == wait_ms


@pytest.mark.parametrize("error", ["FORMAT_INVALID", "COMPONENT_NOT_FOUND", "SOMETHING_NEW", None])
def test_a_refusal_names_type_and_message_and_says_what_to_do(error: str | None):
    verdict = judge(Answer(400, error=error, message="url: must be absolute"))
    assert isinstance(verdict, Refused)
    assert verdict.reason == ": ".join(["answered 400", *([error] if error else []), "url: must be absolute"])
    assert "mend" in verdict.hint


# The schedule


def test_the_schedule_is_the_documented_one():
    in_seconds = [5, 30, 120, 600, 1800, 3600, 3 * 3600, 6 * 3600, 12 * 3600, 24 * 3600]
    assert list(SCHEDULE) == [1000 * wait for wait in in_seconds]


@given(st.integers(1, 20), st.integers())
def test_retries_are_spread_by_a_fifth(failures: int, seed: int):
    wait = SCHEDULE[min(failures, 10) - 1]
    assert 0.8 * wait <= retry_ms(failures, Random(seed)) <= 1.2 * wait


# In view of what came before


def weighed(
    verdict: Verdict,
    health: Health | None = None,
    *,
    event: int = 1,
    failures: int = 0,
    probe: bool = False,
    now: int = NOW,
) -> Outcome:
    return weigh(verdict, Sent(event, failures, probe), health or Health(), window_ms=60_000, now=now, rng=Random(1))


FAILED = Failed("answered 500", may_have_arrived=False)
DOWN = Health(State.DOWN, "answered 500", NOW - 1000, wait_until=NOW)
BLOCKED = Health(State.BLOCKED, "answered 401", NOW - 1000, wait_until=NOW)


def test_what_was_taken_is_delivered():
    assert weighed(Delivered()) == Outcome(Done(), Health(), "delivered")


def test_a_failure_counts_and_the_event_waits_for_its_next_turn():
    outcome = weighed(FAILED, failures=2)
    assert isinstance(outcome.event, Again)
    assert outcome.event.counted
    assert 0.8 * 120_000 <= outcome.event.due_at - NOW <= 1.2 * 120_000
    assert outcome.health == Health(failing=1)


def test_a_destination_that_asks_for_more_time_gets_it():
    outcome = weighed(replace(FAILED, not_before_ms=600_000))
    assert isinstance(outcome.event, Again)
    assert outcome.event.due_at == NOW + 600_000


def test_failures_of_two_different_events_in_a_row_mean_it_is_down():
    outcome = weighed(FAILED, Health(failing=1), event=2)
    assert outcome.health.state is State.DOWN
    assert outcome.health.reason == "answered 500"
    assert outcome.health.since == NOW
    assert isinstance(outcome.event, Again)
    assert not outcome.event.counted


@pytest.mark.parametrize("between", [Delivered(), Refused("answered 400", "mend it"), NoEventSource("answered 404")])
def test_two_failures_with_an_answer_between_them_are_the_events_own(between: Verdict):
    health = weighed(FAILED, event=1).health
    health = weighed(between, health, event=2).health
    assert weighed(FAILED, health, event=3).health.state is State.OPEN


def test_while_it_is_down_nothing_counts_and_the_next_probe_comes_later_and_later_up_to_a_minute():
    health, waits, now = DOWN, [], NOW
    for event in range(8):
        outcome = weighed(FAILED, health, event=event, failures=9, probe=True, now=now)
        assert isinstance(outcome.event, Again)
        assert not outcome.event.counted
        assert outcome.event.due_at == now  # the destination waits; the event goes behind the others
        assert outcome.health.since == DOWN.since
        health = outcome.health
        waits.append(health.wait_until - now)
        now = health.wait_until
    assert waits[0] < waits[1] < waits[2]
    assert max(waits) <= 1.2 * MINUTE


def test_a_weekends_outage_kills_no_event():
    """Sixty hours of failing probes; then the first answer opens the destination again."""
    now, health, failures = NOW, Health(), {1: 0, 2: 0, 3: 0}
    event = 1
    while now < NOW + 60 * HOUR:
        outcome = weighed(FAILED, health, event=event, failures=failures[event], probe=health.probing, now=now)
        assert isinstance(outcome.event, Again)
        failures[event] += outcome.event.counted
        health, now = outcome.health, max(outcome.health.wait_until, now + 1000)
        event = event % 3 + 1
    assert max(failures.values()) == 1
    assert weighed(Delivered(), health, probe=True, now=now).health == Health()


def test_all_retries_used_up_is_a_dead_letter():
    outcome = weighed(FAILED, failures=len(SCHEDULE))
    assert outcome.event == Dead("answered 500; 11 attempts")


def test_an_event_that_failed_alone_all_the_time_does_not_die_of_an_outage():
    """Nothing else was answered since its last attempt, so nobody knows whose trouble it is."""
    outcome = weighed(FAILED, Health(failing=1), event=1, failures=len(SCHEDULE))
    assert isinstance(outcome.event, Again)
    assert not outcome.event.counted


def test_what_was_never_written_goes_again_at_once_and_does_not_count():
    outcome = weighed(NotSent("late"))
    assert outcome.event == Again(NOW + 1000, counted=False, reason="late")
    assert outcome.health == Health()


@pytest.mark.parametrize(("asked", "wait"), [(None, 60_000), (7000, 7000)])
def test_a_429_pauses_the_destination_and_does_not_count(asked: int | None, wait: int):
    outcome = weighed(TooMany("answered 429", asked), Health(failing=5))
    assert outcome.health == Health(State.LIMITED, "answered 429", NOW, wait_until=NOW + wait)
    assert outcome.event == Again(NOW, counted=False, reason="answered 429")


def test_an_answer_that_was_under_way_does_not_end_that_pause():
    limited = Health(State.LIMITED, "answered 429", NOW - 1, wait_until=NOW + 5000)
    assert weighed(Delivered(), limited).health == limited
    assert weighed(Delivered(), limited, now=NOW + 5000).health == Health()


def test_wrong_credentials_block_the_destination_at_once_and_do_not_count():
    outcome = weighed(Misdirected("answered 401"))
    assert outcome.health.state is State.BLOCKED
    assert isinstance(outcome.event, Again)
    assert not outcome.event.counted
    assert 0.8 * MINUTE <= outcome.health.wait_until - NOW <= 1.2 * MINUTE


def test_a_blocked_destination_is_probed_less_and_less_down_to_every_fifteen_minutes():
    health, waits, now = BLOCKED, [], NOW
    for _ in range(10):
        health = weighed(Misdirected("answered 401"), health, probe=True, now=now).health
        waits.append(health.wait_until - now)
        now = health.wait_until
    assert waits[0] < waits[2] < waits[4]
    assert 0.8 * 15 * MINUTE <= waits[-1] <= 1.2 * 15 * MINUTE


def test_answers_that_were_under_way_when_the_trouble_began_do_not_put_off_the_probe():
    for trouble in (DOWN, BLOCKED):
        for verdict in (FAILED, Misdirected("answered 401")) if trouble is BLOCKED else (FAILED,):
            outcome = weighed(verdict, trouble, event=9)
            assert outcome.health == trouble
            assert isinstance(outcome.event, Again)
            assert not outcome.event.counted


@pytest.mark.parametrize("trouble", [DOWN, BLOCKED])
@pytest.mark.parametrize("verdict", [Delivered(), Refused("answered 400", "mend it")])
def test_any_answer_about_the_event_ends_the_trouble(trouble: Health, verdict: Verdict):
    assert weighed(verdict, trouble, probe=True).health == Health()


def test_a_forbidden_event_is_a_dead_letter():
    outcome = weighed(Forbidden("answered 403", "may it?"), event=1)
    assert outcome.event == Dead("answered 403 (may it?)")
    assert outcome.health == Health(forbidden=(1,))


def test_three_different_forbidden_events_block_and_the_dead_ones_come_back():
    outcome = weighed(Forbidden("answered 403", "may it?"), Health(forbidden=(1, 2)), event=3)
    assert outcome.health.state is State.BLOCKED
    assert isinstance(outcome.event, Again)
    assert outcome.revived == (1, 2)
    assert outcome.health.forbidden == ()


def test_one_event_that_is_forbidden_again_and_again_blocks_nothing():
    health = Health()
    for _ in range(5):
        health = weighed(Forbidden("answered 403", "may it?"), health, event=1).health
    assert health == Health(forbidden=(1,))


def test_a_delivery_between_them_tells_forbidden_events_from_wrong_credentials():
    health = weighed(Delivered(), Health(forbidden=(1, 2)), event=5).health
    assert weighed(Forbidden("answered 403", "may it?"), health, event=3).health.state is State.OPEN


def test_a_missing_event_source_holds_the_event_back():
    assert weighed(NoEventSource("answered 404")).event == Unrouted("answered 404")


healths = st.builds(
    Health,
    state=st.sampled_from(State),
    reason=st.just("why"),
    since=st.just(NOW - 1000),
    wait_until=st.sampled_from([0, NOW - 1, NOW + 50_000]),
    probes=st.integers(0, 10_000),
    failing=st.none() | st.integers(1, 3),
    forbidden=st.sampled_from([(), (1,), (1, 2)]),
)
verdicts = st.sampled_from(
    [
        Delivered(),
        FAILED,
        NotSent("late"),
        Refused("r", "h"),
        NoEventSource("r"),
        Forbidden("r", "h"),
        TooMany("r", None),
        Misdirected("r"),
    ]
)


@given(verdicts, healths, st.integers(1, 4), st.integers(0, 11), st.booleans())
def test_only_a_destination_without_trouble_counts_against_an_event(
    verdict: Verdict, health: Health, event: int, failures: int, probe: bool
):
    outcome = weighed(verdict, health, event=event, failures=failures, probe=probe)
    if isinstance(outcome.event, Again) and outcome.event.counted:
        assert not health.probing
        assert not outcome.health.probing
    if outcome.health.state is not State.OPEN:
        assert outcome.health.reason
        assert outcome.health.since is not None
