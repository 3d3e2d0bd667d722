"""Which event of an entity goes next, and what is left out for it."""

import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.dispatch.plan import Newest, Place, Plan, Waiting, number_for, plan
from relay.model import Coalesce, Lane

_ids = itertools.count(1)


def waiting(
    state: str | None,
    order: int = 0,
    *,
    event: int = 0,
    terminal: bool = False,
    coalesce: Coalesce = Coalesce.TRANSITIONS,
    lane: Lane = Lane.NORMAL,
    failures: int = 0,
) -> Waiting:
    return Waiting(Place(order, terminal, event or next(_ids)), state, coalesce, lane, failures, due_at=0)


def in_order(*states: str | None, **others: object) -> list[Waiting]:
    return [waiting(state, order, event=order, **others) for order, state in enumerate(states, start=1)]  # type: ignore[arg-type]


def left_out(decided: Plan) -> dict[int, int]:
    return {one.event: one.successor for one in decided.superseded}


def sent_in_full(waiting: Sequence[Waiting]) -> list[Waiting]:
    """What is sent if everything is delivered and nothing new comes."""
    sent: list[Waiting] = []
    rest, newest = list(waiting), None
    while rest:
        decided = plan(rest, newest)
        gone = left_out(decided)
        if decided.next is None:
            break
        sent.append(decided.next)
        newest = Newest(decided.next.place, decided.next.state)
        rest = [one for one in rest if one.event not in gone and one.event != decided.next.event]
    return sent


def test_nothing_waits():
    assert plan([], None) == Plan()


def test_a_run_of_one_state_is_sent_as_its_newest():
    decided = plan(in_order("OPEN", "OPEN", "OPEN"), None)
    assert decided.next is not None
    assert decided.next.event == 3
    assert left_out(decided) == {1: 3, 2: 3}


def test_changes_of_state_are_kept():
    states = ["OPEN", "RESOLVED", "OPEN"]
    assert [one.state for one in sent_in_full(in_order(*states))] == states


def test_latest_sends_only_the_newest():
    decided = plan(in_order("OPEN", "RESOLVED", "OPEN", coalesce=Coalesce.LATEST), None)
    assert left_out(decided) == {1: 3, 2: 3}


def test_off_sends_every_one():
    assert len(sent_in_full(in_order("OPEN", "OPEN", "OPEN", coalesce=Coalesce.OFF))) == 3


@pytest.mark.parametrize("coalesce", Coalesce)
def test_what_is_older_than_the_newest_that_was_sent_is_never_sent(coalesce: Coalesce):
    newest = Newest(Place(2, terminal=False, event=99), "OPEN")
    decided = plan(in_order("OPEN", "RESOLVED", "RESOLVED", coalesce=coalesce), newest)
    assert left_out(decided)[1] == 99
    assert decided.next is not None
    assert decided.next.event == 3


def test_a_retry_of_the_newest_is_not_stale():
    one = waiting("OPEN", 5, event=7)
    assert plan([one], Newest(one.place, "OPEN")).next == one


def test_at_one_moment_a_final_state_comes_last():
    over, begun = waiting("RESOLVED", event=1, terminal=True), waiting("OPEN", event=2)
    assert [one.event for one in sent_in_full(sorted([over, begun], key=lambda one: one.place))] == [2, 1]
    decided = plan([begun], Newest(over.place, "RESOLVED"))
    assert left_out(decided) == {2: 1}


def test_at_one_moment_arrival_decides_the_rest():
    first, second = waiting("OPEN", event=1), waiting("ACKNOWLEDGED", event=2)
    assert [one.event for one in sent_in_full([first, second])] == [1, 2]


def test_an_event_that_failed_twice_lets_a_newer_one_pass():
    failing, newer = waiting("OPEN", 1, event=1, failures=2), waiting("RESOLVED", 2, event=2)
    decided = plan([failing, newer], None)
    assert decided.next == newer
    assert not decided.superseded  # if the newer one is refused, the older one still has its chance


def test_an_event_that_failed_once_keeps_its_turn():
    failing = waiting("OPEN", 1, event=1, failures=1)
    assert plan([failing, waiting("RESOLVED", 2, event=2)], None).next == failing


def test_of_several_that_failed_twice_the_newest_is_next():
    decided = plan(in_order("OPEN", "RESOLVED", failures=2), None)
    assert decided.next is not None
    assert decided.next.event == 2


def test_the_most_urgent_that_waits_sets_the_lane():
    low, urgent = waiting("OPEN", 1, lane=Lane.LOW), waiting("RESOLVED", 2, lane=Lane.URGENT)
    assert plan([low, urgent], None).rank is Lane.URGENT


def test_whatever_stands_for_an_urgent_event_is_urgent_from_then_on():
    urgent, update = waiting("OPEN", 1, lane=Lane.URGENT), waiting("OPEN", 2, lane=Lane.LOW)
    decided = plan([urgent, update], None)
    assert decided.rank is Lane.URGENT
    assert decided.raised == {update.event: Lane.URGENT}


@pytest.mark.parametrize(("lane", "rank"), [(Lane.URGENT, Lane.NORMAL), (Lane.NORMAL, Lane.LOW), (Lane.LOW, Lane.LOW)])
def test_what_changes_no_state_queues_one_lane_below(lane: Lane, rank: Lane):
    newest = Newest(Place(1, terminal=False, event=99), "OPEN")
    assert plan([waiting("OPEN", 2, lane=lane)], newest).rank is rank
    assert plan([waiting("RESOLVED", 2, lane=lane)], newest).rank is lane


def test_kinds_without_a_state_stay_in_their_lane():
    newest = Newest(Place(1, terminal=False, event=99), None)
    assert plan([waiting(None, 2, lane=Lane.URGENT)], newest).rank is Lane.URGENT


@pytest.mark.parametrize(
    ("order", "fixed", "last", "number"),
    [
        (500, None, None, 500),
        (500, None, 400, 500),
        (500, None, 500, 501),
        (500, None, 700, 701),
        (500, 500, 500, 500),  # a retry
        (500, 500, 501, 502),  # a retry after another event of the entity was sent in between
        (500, 501, None, 501),  # a retry after a very long time
    ],
)
def test_the_number_sent_only_grows_and_a_retry_keeps_its_own(
    order: int, fixed: int | None, last: int | None, number: int
):
    assert number_for(order=order, fixed=fixed, last=last) == number


some = st.builds(
    waiting,
    state=st.sampled_from(["OPEN", "RESOLVED", None]),
    order=st.integers(0, 5),
    terminal=st.booleans(),
    coalesce=st.sampled_from(Coalesce),
    lane=st.sampled_from(Lane),
    failures=st.integers(0, 3),
)
rows = st.lists(some, max_size=8).map(lambda row: sorted(row, key=lambda one: one.place))
newests = st.none() | st.builds(
    Newest, st.builds(Place, st.integers(0, 5), st.booleans(), st.just(0)), st.sampled_from(["OPEN", "RESOLVED"])
)


@given(rows, newests)
def test_whatever_is_left_out_has_a_newer_successor_that_is_not(row: list[Waiting], newest: Newest | None):
    decided = plan(row, newest)
    places = {one.event: one.place for one in row} | ({} if newest is None else {newest.place.event: newest.place})
    gone = left_out(decided)
    for event, successor in gone.items():
        assert places[successor] > places[event]
        assert successor not in gone


@given(rows, newests)
def test_whatever_waits_is_next_or_left_out_or_waits_on_and_something_is_next(
    row: list[Waiting], newest: Newest | None
):
    decided = plan(row, newest)
    rest = [one for one in row if one.event not in left_out(decided)]
    assert (decided.next is None) == (not rest)
    assert decided.next is None or decided.next.event in [one.event for one in rest]


@given(rows, newests)
def test_planning_what_is_left_again_changes_nothing(row: list[Waiting], newest: Newest | None):
    decided = plan(row, newest)
    rest = [one for one in row if one.event not in left_out(decided)]
    assert not plan(rest, newest).superseded


@given(st.lists(st.sampled_from(["OPEN", "RESOLVED", "ACKNOWLEDGED"]), max_size=10))
def test_transitions_sends_exactly_the_changes_of_state(states: list[str]):
    sent = [one.state for one in sent_in_full(in_order(*states))]
    assert sent == [state for state, _ in itertools.groupby(states)]


@given(rows)
def test_nothing_is_sent_after_something_newer(row: list[Waiting]):
    sent = [one.place for one in sent_in_full(row)]
    assert sent == sorted(sent)
