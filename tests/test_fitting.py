import time
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.contract import KINDS, check
from relay.contract.fitting import epoch_ms, fit, parse_date
from tests.compass_events import least, whole


def fitted(place: str, value: Any, kind: str = "incident") -> Any:
    """What one value becomes in a field of the kind, `/` between the names; KeyError where it is left out."""
    *above, name = place.split("/")
    event: dict[str, Any] = {name: value}
    for part in reversed(above):
        event = {part: event}
    result: Any = fit(kind, event)
    for part in (*above, name):
        result = result[part]
    return result


@pytest.mark.parametrize("kind", KINDS)
def test_a_valid_event_stays_as_it_is(kind: str):
    assert fit(kind, whole(kind)[kind]) == whole(kind)[kind]


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2019-03-01T10:31:15Z", "2019-03-01T10:31:15Z"),
        ("2019-03-01T10:31:15.000Z", "2019-03-01T10:31:15.000Z"),
        ("2019-03-01T10:31:15+01:00", "2019-03-01T09:31:15Z"),
        ("2019-03-01T10:31:15+0100", "2019-03-01T09:31:15Z"),
        ("2019-03-01T00:31:15-11", "2019-03-01T11:31:15Z"),
        ("2019-03-01T10:31:15.5Z", "2019-03-01T10:31:15.500Z"),
        ("2019-03-01T10:31:15.123456+00:00", "2019-03-01T10:31:15.123Z"),
        ("2019-03-01T10:31:15.123456789Z", "2019-03-01T10:31:15.123Z"),
        ("2019-03-01T10:31:15.000999Z", "2019-03-01T10:31:15Z"),
        ("2019-03-01 10:31:15", "2019-03-01T10:31:15Z"),
        (" 2019-03-01 10:31:15+01:00\n", "2019-03-01T09:31:15Z"),
        ("2019-03-01", "2019-03-01T00:00:00Z"),
        ("20190301T103115Z", "2019-03-01T10:31:15Z"),
        ("2019-03-01t10:31:15z", "2019-03-01T10:31:15Z"),
        ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59Z"),
        ("0900-01-01T00:00:00Z", "0900-01-01T00:00:00Z"),
        (1551436275, "2019-03-01T10:31:15Z"),
        (1551436275.5, "2019-03-01T10:31:15.500Z"),
        (1551436275123, "2019-03-01T10:31:15.123Z"),
        (1551436275123.0, "2019-03-01T10:31:15.123Z"),
        ("1551436275", "2019-03-01T10:31:15Z"),
        ("1551436275123", "2019-03-01T10:31:15.123Z"),
    ],
)
def test_a_date_in_any_form_becomes_rfc_3339_in_utc(date: Any, expected: str):
    assert fitted("lastUpdated", date) == expected
    assert check({"incident": {**least("incident")["incident"], **fit("incident", {"lastUpdated": date})}}) == ()


@pytest.mark.parametrize(
    "value",
    [
        "",
        "soon",
        "2019-13-01T00:00:00Z",
        "2019-02-30",
        "1",
        "99999999999999999",
        True,
        [],
        {"a": 1},
        1e300,
        float("nan"),
    ],
)
def test_what_is_no_date_stays_for_the_check_to_name(value: Any):
    assert fitted("lastUpdated", value) is value
    problems = check({"incident": {**least("incident")["incident"], **fit("incident", {"lastUpdated": value})}})
    assert "/incident/lastUpdated" in {problem.pointer for problem in problems}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2019-03-01T10:31:15.123Z", 1551436275123),
        ("2019-03-01T11:31:15+0100", 1551436275000),
        ("1969-12-31T23:59:59.999Z", -1),
        (1551436275123, 1551436275123),
        (7, 7),
        (7.0, 7),
        ("7", 7),
        ("-7", -7),
        ("1551436275", 1551436275),
        (7.5, 7.5),
        ("seven", "seven"),
        (True, True),
    ],
)
def test_a_date_for_a_number_becomes_milliseconds_and_a_number_stays_one(value: Any, expected: Any):
    number = fitted("updateSequenceNumber", value)
    assert (number, type(number)) == (expected, type(expected))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (42, "42"),
        (42.0, "42"),
        (4.5, "4.5"),
        (2**63, str(2**63)),
        ("a\0b", "ab"),
        ("", ""),
        (True, True),
        (["a"], ["a"]),
        pytest.param(10**5000, 10**5000, id="thousands of digits"),
    ],
)
def test_a_number_for_a_text_becomes_text_and_nul_is_dropped(value: Any, expected: Any):
    assert fitted("incidentProperties/id", value) == expected


def test_a_title_is_cut_at_255_characters_with_an_ellipsis_for_the_last():
    assert fitted("displayName", "x" * 255) == "x" * 255
    assert fitted("displayName", "🦊" * 256) == "🦊" * 254 + "…"


def test_an_id_is_never_cut():
    assert fitted("incidentProperties/id", "x" * 10_000) == "x" * 10_000


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://a.example/b?c=d&e=%20#f", "https://a.example/b?c=d&e=%20#f"),
        (" https://a.example/b \n", "https://a.example/b"),
        ("HTTPS://a.example/B", "https://a.example/B"),
        ("https://a.example/feature branch", "https://a.example/feature%20branch"),
        ("https://a.example/ü/{b}|c", "https://a.example/%C3%BC/%7Bb%7D%7Cc"),
        ("https://a.example/100%", "https://a.example/100%25"),
        ("https://a.example/?q=[1]#a#b", "https://a.example/?q=%5B1%5D#a%23b"),
        ("https://[::1]:8080/x", "https://[::1]:8080/x"),
        ("https://bücher.example/", "https://b%C3%BCcher.example/"),
        ("https://a.example/b\0c", "https://a.example/bc"),
        ("https://u:p@a.example/", "https://u:p@a.example/"),
    ],
)
def test_what_a_url_may_not_hold_is_escaped(url: str, expected: str):
    assert fitted("url", url) == expected
    assert check({"incident": {**least("incident")["incident"], "url": expected}}) == ()


@pytest.mark.parametrize("url", ["", "a.example/b", "/b", "https://", "javascript:alert(1)", 5, []])
def test_what_is_no_url_stays_for_the_check_to_name(url: Any):
    assert fitted("url", url) == url
    (problem,) = check({"incident": {**least("incident")["incident"], "url": url}})
    assert problem.pointer == "/incident/url"


def test_nulls_and_objects_with_nothing_in_them_are_left_out():
    severity = {"label": None, "level": None}
    assert fit("incident", {"description": None, "incidentProperties": {"id": "1", "severity": severity}}) == {
        "incidentProperties": {"id": "1"}
    }
    assert fit("incident", {"incidentProperties": {"severity": severity}}) == {}


def test_what_the_contract_does_not_know_stays_for_the_check_to_name():
    assert fit("incident", {"colour": None, "incidentProperties": {"shape": [1]}, "description": {"a": 1}}) == {
        "colour": None,
        "incidentProperties": {"shape": [1]},
        "description": {"a": 1},
    }


def test_fit_leaves_what_it_was_given_untouched():
    given_ = {"displayName": "x" * 300, "incidentProperties": {"endTime": None, "id": 5}}
    fit("incident", given_)
    assert given_ == {"displayName": "x" * 300, "incidentProperties": {"endTime": None, "id": 5}}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.datetimes().map(str),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=5), inner, max_size=2),
    max_leaves=5,
)


def like(value: Any) -> st.SearchStrategy[Any]:
    """JSON of the same shape, with anything in any place and anything left out."""
    if not isinstance(value, dict):
        return JSON
    return JSON | st.fixed_dictionaries({}, optional={name: like(member) for name, member in value.items()})


EVENTS = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), like(whole(kind)[kind])))


@given(EVENTS)
def test_fit_is_total_and_fitting_twice_changes_nothing_more(event: tuple[str, Any]):
    kind, value = event
    once = fit(kind, value)
    assert repr(fit(kind, once)) == repr(once)
    check({kind: once})


@given(st.text(alphabet=st.characters(), max_size=300))
def test_any_text_behind_a_host_makes_a_valid_link(text: str):
    url = fitted("url", f"https://a.example/{text}")
    assert check({"incident": {**least("incident")["incident"], "url": url}}) == ()
    assert fitted("url", url) == url


@given(st.text(min_size=1).filter(lambda text: text.replace("\0", "").strip()))
def test_any_text_that_is_not_blank_makes_a_valid_title(text: str):
    title = fitted("displayName", text)
    assert check({"incident": {**least("incident")["incident"], "displayName": title}}) == ()


OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(datetime(1, 1, 3), datetime(9999, 12, 29), timezones=OFFSETS)  # noqa: DTZ001 - given zones


@given(MOMENTS)
def test_every_date_keeps_its_moment_to_the_millisecond(moment: datetime):
    milliseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)
    text = fitted("lastUpdated", moment.isoformat())
    assert epoch_ms(text) == epoch_ms(moment.isoformat()) == milliseconds
    assert fitted("updateSequenceNumber", moment.isoformat()) == milliseconds
    assert check({"incident": {**least("incident")["incident"], "lastUpdated": text}}) == ()


@pytest.mark.parametrize(
    ("date", "milliseconds"),
    [("9999-12-31T23:59:59-23:59", 253_402_387_139_000), ("0001-01-01T00:00:00+23:59", -62_135_683_140_000)],
)
def test_a_date_beyond_the_calendar_of_utc_stays_as_it_is_and_keeps_its_moment(date: str, milliseconds: int):
    assert fitted("lastUpdated", date) == date
    assert epoch_ms(date) == milliseconds


@pytest.mark.parametrize(
    "text",
    ["https://" + "a" * 300_000 + " ", "https://a.example/" + "%" * 300_000, ":60" * 100_000, "1" * 300_000],
    ids=["long host", "escapes", "leap seconds", "digits"],
)
def test_a_long_text_is_read_in_the_time_that_it_is_long(text: str):
    """A hostile body must not hold a web process for minutes."""
    began = time.process_time()  # what others do on this machine does not count
    for place in ("url", "lastUpdated", "updateSequenceNumber", "displayName"):
        fitted(place, text)
    assert time.process_time() - began < 3


@given(JSON)
def test_reading_dates_is_total(value: Any):
    assert (parse_date(value) is None) == (epoch_ms(value) is None)


@pytest.mark.parametrize(
    "value",
    [None, True, [], {}, "", "x", pytest.param(10**400, id="hundreds of digits"), float("inf"), "9" * 15, -(10**15)],
)
def test_what_has_no_moment_has_no_milliseconds(value: Any):
    assert epoch_ms(value) is None
