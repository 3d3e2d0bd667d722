"""What scripts post becomes events that fit the contracts, or is refused with its place; it is stored as a whole."""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from hypothesis import given as always
from hypothesis import strategies as st

from relay.contract import KINDS
from relay.contract.identity import identify
from relay.direct import MOST, Calendars, entity_of, name_of, read
from relay.dispatch.policy import Delivered, Refused
from relay.errors import InvalidEvents, MappingError, NotFound, TooManyEvents
from relay.mapping import load_mappings
from relay.model import Arrival, Event, EventStatus, Translated
from relay.outbox import Outbox, direct, views
from relay.outbox.direct import Answered, Element, Key
from relay.outbox.replay import Outcome, replay_events
from relay.outbox.tables import digest, events, submissions
from relay.outbox.upkeep import prune
from relay.runtime import retranslate
from tests.compass_events import least, whole
from tests.mapping_files import FLAG, acme, compile_text, good, shown
from tests.outboxes import send
from tests.running import ROOT

NOW = 1_795_438_800_000
BLACKOUT = "00000000-0000-1100-0000-000000000011"
FREEZE = {"name": "Freeze", "startDate": 1_797_746_400_000, "endDate": 1_798_351_200_000, "type": {"id": BLACKOUT}}
NOWHERE = Calendars(server=False, mapping=None)
SERVER = Calendars(server=True, mapping=None)


RELEASE = (ROOT / "mappings" / "release.yaml").read_text(encoding="utf-8")
BUNDLED = good(RELEASE)
"""The mapping file that comes with the relay."""


def events_of(element: Event | Arrival) -> list[Event]:
    if isinstance(element, Event):
        return [element]
    assert isinstance(element.translation, Translated)
    return list(element.translation.events)


def refused(body: Any, calendars: Calendars = SERVER) -> str:
    with pytest.raises(InvalidEvents) as caught:
        read(body, calendars=calendars, now=NOW)
    return str(caught.value)


# --- Compass events


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given", [least, whole])
def test_every_kind_is_taken_and_identified(kind: str, given: Callable[[str], dict[str, Any]]) -> None:
    body = given(kind)
    (event,) = read({**body, "componentId": "ari:1"}, calendars=NOWHERE, now=NOW)
    assert isinstance(event, Event)
    identity = identify(body, component="ari:1")
    assert (event.type, event.destination, event.component, event.body) == (kind, "compass", "ari:1", body)
    assert (event.entity, event.state, event.order) == (identity.entity, identity.state, identity.order)
    assert event.unrouted is None
    assert entity_of(kind, body, "ari:1") == event.entity
    assert name_of(kind, body)


def test_the_component_may_be_left_out_or_null() -> None:
    one, other = read([least("push"), {**least("push"), "componentId": None}], calendars=NOWHERE, now=NOW)
    assert isinstance(one, Event)
    assert one == other
    assert one.component is None


def test_dates_may_have_any_form_and_texts_any_length() -> None:
    body = least("incident")
    body["incident"] |= {
        "displayName": "x" * 300,
        "lastUpdated": "2026-10-01T12:00:00+02:00",
        "updateSequenceNumber": "2026-10-01T10:00:00Z",
        "incidentProperties": {"id": 17, "state": "OPEN", "startTime": 1_790_848_800, "severity": None},
    }
    (event,) = read(body, calendars=NOWHERE, now=NOW)
    assert isinstance(event, Event)
    fields = event.body["incident"]
    assert (len(fields["displayName"]), fields["lastUpdated"]) == (255, "2026-10-01T10:00:00Z")
    assert event.order == fields["updateSequenceNumber"] == 1_790_848_800_000
    assert fields["incidentProperties"] == {"id": "17", "state": "OPEN", "startTime": "2026-10-01T10:00:00Z"}


def test_a_kind_that_is_null_is_not_there() -> None:
    empty = dict.fromkeys(KINDS)
    assert read({**empty, **least("flag")}, calendars=NOWHERE, now=NOW) == read(
        least("flag"), calendars=NOWHERE, now=NOW
    )


def _broken(kind: str, path: str, value: Any) -> dict[str, Any]:
    """The least event of a kind, but for one field."""
    body = least(kind)
    *inner, last = path.split("/")
    fields = body[kind]
    for name in inner:
        fields = fields[name]
    if value is None:
        del fields[last]
    else:
        fields[last] = value
    return body


BAD: list[tuple[Any, str]] = [
    (5, "must be an event, as an object, not 5"),
    (None, "must be an event, as an object, not null"),
    ({}, "must hold exactly one kind of event"),
    ({"componentId": "ari:1"}, "must hold exactly one kind of event"),
    ({**least("flag"), **least("push")}, "must hold exactly one kind of event"),
    ({"release": {}}, "/release: is no kind of event; the kinds are deployment, build"),
    ({**least("flag"), "cloudId": "c"}, "/cloudId: is no kind of event"),
    ({"a/b~c": 1}, "/a~1b~0c: is no kind of event"),
    ({"flag": 5}, "/flag: must be of type object, not 5"),
    ({**least("flag"), "componentId": 5}, "/componentId: must be a component's id, not 5"),
    ({**least("flag"), "componentId": " "}, "/componentId: must be a component's id"),
    (_broken("incident", "incidentProperties/state", None), "/incident/incidentProperties/state: is required"),
    (
        _broken("incident", "incidentProperties/state", "BAD"),
        '/incident/incidentProperties/state: must be one of "OPEN"',
    ),
    (_broken("flag", "lastUpdated", "2026-13-01"), "/flag/lastUpdated: must be a date as 2026-01-31T10:00:00Z"),
    (_broken("flag", "url", "flags"), "/flag/url: must be an absolute URL"),
    (_broken("flag", "nonsense", 1), "/flag: has what the contract does not know: nonsense"),
]


@pytest.mark.parametrize(("element", "told"), BAD)
def test_what_breaks_the_contract_is_told_with_its_place(element: Any, told: str) -> None:
    assert refused([least("custom"), element]).startswith(f"element 1: {told}")
    if not isinstance(element, list):
        assert refused(element).startswith(told)


def test_everything_that_is_wrong_is_told_but_no_more_than_anybody_reads() -> None:
    assert refused([{"a": 1}, least("flag"), {"b": 1}]).count("element ") == 2
    told = refused([{"a": 1}] * 30)
    assert told.count("element ") == 10
    assert told.endswith("; and 20 more")


def test_an_array_has_at_least_one_event_and_at_most_so_many() -> None:
    assert refused([]) == "the array holds no event"
    assert len(read([least("push")] * MOST, calendars=NOWHERE, now=NOW)) == MOST
    with pytest.raises(TooManyEvents, match="10001 events; 10000 are the most"):
        read([least("push")] * (MOST + 1), calendars=NOWHERE, now=NOW)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from([*KINDS, *FREEZE, "componentId", "x"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@always(JSON | st.lists(JSON, max_size=3))
def test_any_json_is_events_or_a_refusal(body: Any) -> None:
    calendars = Calendars(server=True, mapping=BUNDLED)
    with suppress(InvalidEvents):
        assert len(read(body, calendars=calendars, now=NOW)) == (len(body) if isinstance(body, list) else 1)


# --- calendar events


def test_a_calendar_event_goes_to_the_server_where_there_is_one() -> None:
    (event,) = read({**FREEZE, "startDate": "2026-12-20T06:00:00Z", "type": BLACKOUT}, calendars=SERVER, now=NOW)
    assert isinstance(event, Event)
    assert (event.destination, event.type, event.body) == ("release", "calendar", FREEZE)
    assert entity_of("calendar", FREEZE, None) == event.entity
    assert name_of("calendar", FREEZE) == "Freeze"


def test_through_the_mapping_file_it_becomes_a_compass_event_on_the_components_that_are_listed() -> None:
    mapping = good(RELEASE, components={"blackout": ["ari:1", "ari:2"]})
    (arrival,) = read(FREEZE, calendars=Calendars(server=False, mapping=mapping), now=NOW)
    assert isinstance(arrival, Arrival)
    assert (arrival.source, arrival.received_at, json.loads(arrival.raw)) == ("release", NOW, FREEZE)
    one, other = events_of(arrival)
    assert (one.destination, one.type, one.component, other.component) == ("compass", "custom", "ari:1", "ari:2")
    assert one.body["custom"]["displayName"] == "Blackout until 2026-12-27 06:00 UTC: Freeze"
    assert one.order == NOW


def test_with_both_the_servers_event_is_the_first() -> None:
    (arrival,) = read(FREEZE, calendars=Calendars(server=True, mapping=BUNDLED), now=NOW)
    assert [event.destination for event in events_of(arrival)] == ["release", "compass"]


def test_a_calendar_event_that_is_posted_with_another_end_is_the_same_event_later() -> None:
    calendars = Calendars(server=False, mapping=BUNDLED)
    (first,) = read(FREEZE, calendars=calendars, now=NOW)
    (longer,) = read({**FREEZE, "endDate": FREEZE["endDate"] + 1000}, calendars=calendars, now=NOW + 5)  # type: ignore[operator]
    assert events_of(first)[0].entity == events_of(longer)[0].entity
    assert events_of(first)[0].order < events_of(longer)[0].order


RULES = {
    "goes nowhere: RELEASE_URL is not set, and the rule 'x' ignores it: not ours": "- {name: x, ignore: not ours}",
    "goes nowhere: RELEASE_URL is not set, and no rule of acme is for it": "- {name: x, when: .a == 1, ignore: x}",
    "goes nowhere: RELEASE_URL is not set, and no rule of acme": f"- {{name: x, for_each: '[]', event: {FLAG}}}",
}


@pytest.mark.parametrize(("told", "rules"), RULES.items())
def test_what_goes_nowhere_is_refused_and_taken_where_there_is_a_server(told: str, rules: str) -> None:
    mapping = good(acme(rules, "direct: calendar\n"))
    assert refused([FREEZE], Calendars(server=False, mapping=mapping)).startswith(f"element 0: {told}")
    (event,) = read(FREEZE, calendars=Calendars(server=True, mapping=mapping), now=NOW)
    assert isinstance(event, Event)
    assert event.destination == "release"


def test_without_server_and_mapping_a_calendar_event_is_refused_with_a_remedy() -> None:
    assert "set RELEASE_URL, or have a mapping file with `direct: calendar`" in refused(FREEZE, NOWHERE)


def test_a_mapping_that_fails_refuses_the_event_whatever_else_would_take_it() -> None:
    mapping = good(acme(f"- name: bad\n  event: {FLAG}", "direct: calendar\n"))  # FLAG wants an `id`
    told = refused([FREEZE], Calendars(server=True, mapping=mapping))
    assert told.startswith("element 0: acme, rule 'bad': event.flag.flagProperties: is required")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"endDate": FREEZE["startDate"] - 1}, "/endDate: must not be before startDate"),  # type: ignore[operator]
        ({"startDate": "soon"}, "/startDate: must be a date"),
        ({"type": {"id": "blackout"}}, "/type/id: must be a UUID"),
        ({"name": ""}, "/name: must not be empty"),
        ({"componentId": "ari:1"}, "has what the contract does not know: componentId"),
    ],
)
def test_a_calendar_event_is_checked_by_its_own_contract(change: dict[str, Any], told: str) -> None:
    assert refused([{**FREEZE, **change}]).startswith(f"element 0: {told}")


# --- `to: release`, and `direct`, in a mapping file

TO_RELEASE = """
- name: freeze
  when: {.kind: freeze}
  component: ${ component(.service) }
  events:
    - to: release
      event:
        calendar:
          name: "Freeze of ${ .service }"
          startDate: ${ .from }
          endDate: ${ .until }
          type: {id: 00000000-0000-1100-0000-000000000011}
    - event: EVENT
""".replace("EVENT", FLAG)


def test_a_rule_sends_one_event_to_the_calendar_and_another_to_compass() -> None:
    mapping = good(acme(TO_RELEASE), components={"shop": ["ari:1", "ari:2"]})
    body = {"kind": "freeze", "service": "shop", "from": "2026-12-20", "until": "2026-12-21", "id": "f"}
    told = shown(mapping, body)["events"]
    assert [(one["type"], one["component"]) for one in told] == [
        ("calendar", None),
        ("flag", "ari:1"),
        ("flag", "ari:2"),
    ]
    assert told[0]["event"] == {
        "name": "Freeze of shop",
        "startDate": 1_797_724_800_000,
        "endDate": 1_797_811_200_000,
        "type": {"id": BLACKOUT},
    }
    unlisted = shown(mapping, {**body, "service": "other"})["events"]
    assert [one.get("unrouted") for one in unlisted] == [None, "other"]


def test_a_calendar_event_that_cannot_be_is_told_with_its_field() -> None:
    mapping = good(acme(TO_RELEASE))
    told = shown(mapping, {"kind": "freeze", "from": "2026-12-20", "until": "2026-12-19", "id": "f"})
    assert (told["status"], told["field"]) == ("failed", "events[0].event.calendar.endDate")


CALENDAR = f"{{calendar: {{name: n, startDate: 1, endDate: 1, type: {{id: {BLACKOUT}}}}}}}"


@pytest.mark.parametrize(
    ("rule", "fault"),
    [
        (f"event: {CALENDAR}", "event.calendar: needs `to: release`; Compass has no such kind of event"),
        (f"to: release\n  event: {FLAG}", "event.flag: is no kind of event that release takes; it takes calendar"),
        ("to: release\n  event: {calendar: {name: n}}", "event.calendar.endDate: is required by the contract"),
        (
            f"to: release\n  component: x\n  event: {CALENDAR}",
            "component: only events for Compass belong to a component",
        ),
        (f"to: jira\n  event: {CALENDAR}", "to: 'jira' is not one of ['compass', 'release']"),
    ],
)
def test_a_destination_and_a_kind_that_do_not_fit_are_told_at_load(rule: str, fault: str) -> None:
    faults = compile_text(acme(f"- name: r\n  {rule}"))
    assert isinstance(faults, list)
    assert any(f"rules[0].{fault}" in one for one in faults), faults


def test_a_rule_for_the_calendar_alone_needs_no_component() -> None:
    mapping = good(acme(f"- name: r\n  to: release\n  event: {CALENDAR}"), components={})
    assert not mapping.rules[0].routed


def test_calendar_events_have_one_mapping_file(tmp_path: Path) -> None:
    for name in ("a", "b"):
        text = (
            acme(f"- name: r\n  event: {FLAG}", "direct: calendar\n")
            .replace("acme", name)
            .replace("ACME", name.upper())
        )
        (tmp_path / f"{name}.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(MappingError, match=r"b\.yaml:3: direct: .*a\.yaml translates the calendar events already"):
        load_mappings(tmp_path, environ={})


# --- the outbox


def compass(number: int) -> Event:
    body = least("custom")
    body["custom"]["customEventProperties"]["id"] = f"c{number}"
    (event,) = read(body, calendars=NOWHERE, now=NOW)
    assert isinstance(event, Event)
    return event


def blackout() -> Arrival:
    (arrival,) = read(FREEZE, calendars=Calendars(server=True, mapping=BUNDLED), now=NOW)
    assert isinstance(arrival, Arrival)
    return arrival


def key(name: str = "k", body: str = "b") -> Key:
    return Key(digest(name), digest(body))


def stored(outbox: Outbox, *elements: Event | Arrival, at: int = NOW) -> tuple[Element, ...]:
    told = direct.append(outbox, elements, now=at)
    assert not isinstance(told, Answered)
    return told


def count(outbox: Outbox, table: sa.Table) -> int:
    with outbox.read() as connection:
        return int(connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one())


def test_what_is_answered_is_what_is_stored_in_the_order_in_which_it_was_given(outbox: Outbox) -> None:
    woken: list[int] = []
    outbox.on_commit = lambda: woken.append(1)
    told = stored(outbox, compass(3), blackout(), compass(1))
    ids = [element.event.id for element in told]
    assert ids == sorted(ids)
    assert [element.event.type for element in told] == ["custom", "calendar", "custom"]
    assert told[1].others == (ids[1] + 1,)
    assert direct.with_ids(outbox, ids, calendars="release") == told
    assert direct.with_ids(outbox, ids[::-1], calendars="release") == told[::-1]
    assert [one.posted for one in told] == [None, FREEZE, None]
    (other,) = direct.with_ids(outbox, told[1].others, calendars="release")
    assert (other.event.type, other.others, other.posted) == ("custom", (ids[1],), None)
    assert woken == [1]


def test_a_calendar_event_is_kept_as_a_webhook_with_all_that_it_became(outbox: Outbox) -> None:
    (element,) = stored(outbox, blackout())
    assert element.event.webhook is not None
    webhook = views.show_webhook(outbox, element.event.webhook)
    assert (webhook.webhook.source, webhook.webhook.rule) == ("release", "calendar event")
    assert [event.destination for event in webhook.events] == ["release", "compass"]
    assert json.loads(views.webhook_body(outbox, element.event.webhook)) == FREEZE


def test_a_calendar_event_without_a_component_is_released_once_one_is_listed(outbox: Outbox) -> None:
    calendars = Calendars(server=True, mapping=good(RELEASE, components={}))
    (element,) = stored(outbox, *read(FREEZE, calendars=calendars, now=NOW))
    (waiting,) = element.others
    assert views.show_event(outbox, waiting).event.status is EventStatus.UNROUTED
    listed = {"release": good(RELEASE, components={"blackout": "ari:1"})}
    (replayed,) = replay_events(outbox, EventStatus.UNROUTED, translate=partial(retranslate, listed))
    assert replayed.outcome is Outcome.ROUTED
    (routed,) = replayed.events
    event = views.show_event(outbox, routed).event
    assert (event.status, event.component, event.source_order) == (EventStatus.PENDING, "ari:1", NOW)
    assert views.show_event(outbox, element.event.id).event.status is EventStatus.PENDING


def test_thousands_are_stored_in_order(outbox: Outbox) -> None:
    told = stored(outbox, *(compass(number) for number in range(1500)))
    with outbox.read() as connection:
        bodies = connection.scalars(sa.select(events.c.body).order_by(events.c.id)).all()
    kept = [json.loads(body)["custom"]["customEventProperties"]["id"] for body in bodies]
    assert kept == [f"c{number}" for number in range(1500)]
    ids = [element.event.id for element in told]
    assert ids == sorted(ids)
    assert [one.body for one in direct.with_ids(outbox, ids)] == [one.body for one in told]


def test_a_key_that_is_known_stores_nothing_and_tells_what_it_was_answered_with(outbox: Outbox) -> None:
    assert direct.recall(outbox, key()) is None
    first = direct.append(outbox, [compass(1), blackout(), compass(2)], now=NOW, key=key())
    assert not isinstance(first, Answered)
    ids = tuple(element.event.id for element in first)
    assert direct.append(outbox, [compass(7)], now=NOW, key=key()) == Answered(ids, same=True)
    assert direct.append(outbox, [compass(7)], now=NOW, key=key(body="other")) == Answered(ids, same=False)
    assert direct.recall(outbox, key()) == Answered(ids, same=True)
    assert count(outbox, events) == 4


def test_of_two_requests_with_one_key_at_once_one_is_stored(outbox: Outbox) -> None:
    told: list[tuple[int, ...]] = []
    begin = threading.Barrier(4)

    def post(number: int) -> None:
        begin.wait()
        answer = direct.append(outbox, [compass(number)], now=NOW, key=key())
        told.append(answer.events if isinstance(answer, Answered) else tuple(one.event.id for one in answer))

    threads = [threading.Thread(target=post, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 4
    assert len(set(told)) == 1
    assert count(outbox, events) == 1


def test_a_failure_in_the_middle_stores_nothing_at_all(outbox: Outbox) -> None:
    wrong = replace(compass(2), order=2**70)  # which no column holds
    with pytest.raises(Exception, match=r"(?i)too large|out of range"):
        direct.append(outbox, [compass(1), blackout(), wrong], now=NOW, key=key())
    assert (count(outbox, events), count(outbox, submissions)) == (0, 0)


def test_events_of_one_entity_are_found_by_it(outbox: Outbox) -> None:
    first, other, again = stored(outbox, compass(1), compass(2), compass(1))
    entity = digest("compass", entity_of("custom", first.body, None))
    found = views.list_events(outbox, entity=[entity])
    assert [view.id for view in found] == [again.event.id, first.event.id]
    assert [view.id for view in views.list_events(outbox, entity=[entity], before=again.event.id)] == [first.event.id]
    assert other.event.id not in {view.id for view in found}


@pytest.fixture
def aged(outbox: Outbox) -> Outbox:
    """Three old events without a webhook: delivered, dead and waiting; an old key, and a new one."""
    at = NOW - 40 * 24 * 3600 * 1000
    told = direct.append(outbox, [compass(number) for number in range(3)], now=at, key=key("old"))
    assert not isinstance(told, Answered)
    send(outbox, [Delivered(), Refused("no", "no")])
    with outbox.write() as connection:
        connection.execute(sa.text("UPDATE attempts SET held_until = 0"))
    direct.append(outbox, [compass(9)], now=NOW, key=key("new"))
    return outbox


def test_pruning_takes_what_is_settled_and_old_and_the_keys_with_it(aged: Outbox) -> None:
    assert sum(prune(aged, before=NOW - 1, step=1)) == 1
    left = [(view.id, view.status) for view in views.list_events(aged)]
    assert [status for _, status in left] == [EventStatus.PENDING, EventStatus.PENDING, EventStatus.DEAD]
    assert direct.recall(aged, key("old")) is None
    assert direct.recall(aged, key("new")) is not None
    with pytest.raises(NotFound):
        views.show_event(aged, left[-1][0] - 1)


def test_pruning_leaves_a_slot_that_is_still_held(aged: Outbox) -> None:
    with aged.write() as connection:
        connection.execute(sa.text("UPDATE attempts SET held_until = 9999999999999"))
    assert sum(prune(aged, before=NOW - 1)) == 0
    assert count(aged, events) == 4
