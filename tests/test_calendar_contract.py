"""The contract of calendar events: what may be sent, how values are fitted to it, what makes two events the same."""

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.contract import Problem, Value
from relay.contract.calendar import FIELDS, check, fit, identify

BLACKOUT = "00000000-0000-1100-0000-000000000011"
HOLIDAY = "00000000-0000-1100-0000-000000000013"
START, END = 1_413_384_452_000, 1_413_394_452_000
FREEZE = {
    "name": "Freeze",
    "description": "Nothing goes live",
    "startDate": START,
    "endDate": END,
    "type": {"id": BLACKOUT},
}


def freeze(**changes: Any) -> dict[str, Any]:
    """A valid event with these members; those that are None are left out."""
    return {name: value for name, value in {**copy.deepcopy(FREEZE), **changes}.items() if value is not None}


# --- what is valid


def test_an_event_with_every_field_and_one_with_the_least_are_valid() -> None:
    assert check(FREEZE) == ()
    assert check(freeze(description=None)) == ()
    assert check(freeze(endDate=START)) == ()


@pytest.mark.parametrize("name", ["name", "startDate", "endDate", "type"])
def test_a_required_field_that_is_missing_is_named(name: str) -> None:
    assert check(freeze(**{name: None})) == (Problem(f"/{name}", "is required", "required"),)


@pytest.mark.parametrize(
    ("changes", "pointer", "reason"),
    [
        ({"name": " "}, "/name", "must not be empty"),
        ({"name": "x" * 256}, "/name", "must have at most 255 characters, not 256"),
        ({"name": 7}, "/name", "must be of type string, not 7"),
        (
            {"startDate": "tomorrow"},
            "/startDate",
            'must be a date, as 2026-01-31T10:00:00Z or in milliseconds since 1970, not "tomorrow"',
        ),
        (
            {"startDate": 1_413_384_452},
            "/startDate",
            "must be a date, as 2026-01-31T10:00:00Z or in milliseconds since 1970, not 1413384452",
        ),
        (
            {"endDate": 10**15},
            "/endDate",
            "must be a date, as 2026-01-31T10:00:00Z or in milliseconds since 1970, not 1000000000000000",
        ),
        ({"endDate": START - 1}, "/endDate", "must not be before startDate"),
        ({"type": {}}, "/type/id", "is required"),
        ({"type": BLACKOUT}, "/type", f'must be of type object, not "{BLACKOUT}"'),
        (
            {"type": {"id": "Blackout"}},
            "/type/id",
            'must be a UUID, as 00000000-0000-1100-0000-000000000011, not "Blackout"',
        ),
        ({"type": {"id": 11}}, "/type/id", "must be of type string, not 11"),
        ({"type": {"id": BLACKOUT, "color": "red"}}, "/type", "has what the contract does not know: color"),
        ({"releases": [{"id": "1"}]}, "", "has what the contract does not know: releases"),
    ],
)
def test_what_breaks_the_contract_is_named_in_a_persons_words(
    changes: dict[str, Any], pointer: str, reason: str
) -> None:
    assert [(problem.pointer, problem.reason) for problem in check(freeze(**changes))] == [(pointer, reason)]


def test_all_that_is_wrong_is_told_at_once() -> None:
    assert [problem.pointer for problem in check({"name": "", "startDate": "x", "colour": 1})] == [
        "",
        "/endDate",
        "/name",
        "/startDate",
        "/type",
    ]


@pytest.mark.parametrize("event", [None, [], "x", 7, {}, {"name": "\ud800"}, {1: 2}, float("nan")])
def test_whatever_is_no_calendar_event_has_a_problem(event: Any) -> None:
    assert check(event)


# --- fitting


@pytest.mark.parametrize(
    "date",
    [START, float(START), START // 1000, str(START // 1000), "2014-10-15T14:47:32Z", "2014-10-15T16:47:32+02:00"],
)
def test_a_date_in_any_form_becomes_milliseconds(date: Any) -> None:
    fitted = fit(freeze(startDate=date))
    assert fitted == FREEZE
    assert type(fitted["startDate"]) is int


@pytest.mark.parametrize("reference", [BLACKOUT, {"id": BLACKOUT}, {"id": BLACKOUT, "name": "Blackout", "version": 3}])
def test_a_type_is_named_by_its_id_or_by_an_object_with_one(reference: Any) -> None:
    assert fit(freeze(type=reference)) == FREEZE


def test_an_event_as_a_server_shows_it_may_be_sent_as_it_is() -> None:
    shown = {
        **freeze(),
        "id": "f3d1",
        "version": 4,
        "dateCreated": 1_402_065_609_393,
        "isOneDay": False,
        "releases": [],
        "type": {"id": BLACKOUT, "name": "Blackout", "color": "#808080", "ghostedDate": 0},
    }
    assert fit(shown) == FREEZE


def test_texts_are_cut_numbers_become_text_and_nulls_are_left_out() -> None:
    fitted = fit({"name": "x" * 300, "description": 5, "startDate": None, "type": None, "releases": None})
    assert fitted == {"name": "x" * 254 + "…", "description": "5"}


def test_what_cannot_be_fitted_is_left_for_the_check_to_name() -> None:
    odd = {"name": ["x"], "startDate": "tomorrow", "endDate": True, "type": ["x"], "colour": "red"}
    assert fit(odd) == odd


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
almost_events = st.fixed_dictionaries(
    {},
    optional={
        "name": st.text() | json_values,
        "description": st.text() | json_values,
        "startDate": st.integers(0, 2 * 10**14) | st.datetimes().map(str) | json_values,
        "endDate": st.integers(0, 2 * 10**14) | st.datetimes().map(str) | json_values,
        "type": st.just(BLACKOUT) | st.just({"id": HOLIDAY}) | json_values,
        "releases": json_values,
    },
)


@given(almost_events)
def test_fitting_never_fails_and_what_is_valid_then_is_fitted_for_good(value: dict[str, Any]) -> None:
    fitted = fit(value)
    if check(fitted) == ():
        assert fit(fitted) == fitted
        assert identify(fitted) == identify(fit(fitted))


# --- identity


def test_events_of_one_name_type_start_and_end_are_the_same() -> None:
    known = identify(freeze())
    assert identify(freeze(description="another")) == known
    mixed, upper = (
        identify(freeze(type={"id": f"6{letters}7b810-9dad-11d1-80b4-00c04fd430c8"})) for letters in ("ba", "BA")
    )
    assert mixed == upper
    for changes in ({"name": "Other"}, {"type": {"id": HOLIDAY}}, {"startDate": START - 1}, {"endDate": END + 1}):
        assert identify(freeze(**changes)).entity != known.entity


def test_an_event_has_no_state_and_its_start_for_an_order() -> None:
    identity = identify(freeze())
    assert (identity.state, identity.terminal, identity.order) == (None, False, START)


def test_the_fields_are_known_to_those_who_check_mapping_files() -> None:
    assert FIELDS.members is not None
    assert {name: (one.value, one.required) for name, one in FIELDS.members.items()} == {
        "name": (Value.TEXT, True),
        "description": (Value.TEXT, False),
        "startDate": (Value.INTEGER, True),
        "endDate": (Value.INTEGER, True),
        "type": (Value.OBJECT, True),
    }
