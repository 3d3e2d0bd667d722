"""What the prelude offers to every mapping file."""

from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given as always
from hypothesis import settings as limits
from hypothesis import strategies as st

from relay.contract.fitting import epoch_ms
from tests.mapping_files import acme, given, good, shown

NOON = 1769857200000
"""2026-01-31T11:00:00Z in milliseconds."""

DATES: dict[str, int | None] = {
    "null": None,
    '""': None,
    '"2026-01-31T11:00:00Z"': NOON,
    '"2026-01-31T11:00:00z"': NOON,
    '"2026-01-31t11:00:00Z"': NOON,
    '"2026-01-31 11:00:00"': NOON,
    '"2026-01-31T11:00:00"': NOON,
    '"2026-01-31T11:00:00+00:00"': NOON,
    '"2026-01-31T12:00:00+01:00"': NOON,
    '"2026-01-31T12:00:00+0100"': NOON,
    '"2026-01-31T12:00:00+01"': NOON,
    '"2026-01-31 12:00:00 +0100"': NOON,
    '"2026-01-31T05:30:00-05:30"': NOON,
    '"2026-01-31T11:00:00.5Z"': NOON + 500,
    '"2026-01-31T11:00:00,5Z"': NOON + 500,
    '"2026-01-31T11:00:00.123456Z"': NOON + 123,
    '"2026-01-31T11:00:00.123456789+00:00"': NOON + 123,
    '"2026-01-31T12:00:00.007+0100"': NOON + 7,
    '"2026-01-31T11:00:00.050"': NOON + 50,
    '"2026-01-31"': NOON - 11 * 3600_000,
    "1769857200": NOON,
    "1769857200.5": NOON + 500,
    "1769857200000": NOON,
    "1769857200000.4": NOON,
    "0": 0,
}


@pytest.mark.parametrize("date", DATES)
def test_a_date_in_any_usual_form_is_milliseconds(date):
    assert given(f"{date} | epoch_ms") == DATES[date]


moments = st.datetimes(
    min_value=datetime(1971, 1, 1), max_value=datetime(2099, 1, 1),  # noqa: DTZ001 - hypothesis adds the time zone
    timezones=st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes))),
)  # fmt: skip


@limits(deadline=None)
@always(moments, st.sampled_from(["seconds", "milliseconds", "microseconds"]), st.sampled_from(["T", " "]))
def test_the_prelude_and_the_contract_read_a_date_alike(date_of, moment, precision, separator):
    text = moment.isoformat(timespec=precision, sep=separator)
    assert date_of(text) == epoch_ms(text)


@limits(deadline=None)
@always(st.one_of(st.integers(0, 10**13), st.floats(0, 10**10)))
def test_the_prelude_and_the_contract_read_a_number_alike(date_of, number):
    assert abs(date_of(number) - (epoch_ms(number) or 0)) <= 1  # a half may be rounded up or down


@pytest.fixture(scope="module")
def date_of():
    mapping = good(acme("- {name: r, ignore: '${ .[0] | epoch_ms }'}"))
    return lambda value: int(float(shown(mapping, [value])["reason"]))


@pytest.mark.parametrize("date", ['"soon"', '"2026-13-45T00:00:00Z"', "true", "[]", "{}", '"31.1.2026"'])
def test_what_is_no_date_is_an_error_that_says_so(date):
    described = shown(good(acme(f"- {{name: r, when: {{.a: 1}}, ignore: '${{ {date} | epoch_ms }}'}}")), {"a": 1})
    assert (described["status"], described["field"]) == ("failed", "ignore")
    assert described["reason"].startswith(("is no date: ", "date "))


VALUES: list[tuple[str, Any, Any]] = [
    ("newest(.a, .b)", {"a": "2026-01-31T11:00:00Z", "b": NOON + 1}, NOON + 1),
    ("newest(.a, .b)", {"a": None}, None),
    ("newest(empty)", {}, None),
    ("newest(.a, .l[]?)", {"a": None, "l": [None, 1769857200, "2026-01-31T11:00:01Z"]}, NOON + 1000),
    ('words("a", null, "", 7, true)', None, "a · 7 · true"),
    ("words(.a, .b)", {}, ""),
    ("words(empty)", {}, ""),
    ("words(.a[])", {"a": ["x", "y"]}, "x · y"),
    ('"" | nonempty', None, None),
    ('" \\t\\n" | nonempty', None, None),
    ("null | nonempty", None, None),
    ('" a " | nonempty', None, " a "),
    ("0 | nonempty", None, 0),
    ("false | nonempty", None, False),
    ("[] | nonempty", None, []),
    ('.a | nonempty // "none"', {"a": " "}, "none"),
    ('"https://x.example/a" | absolute("https://b")', None, "https://x.example/a"),
    ('"http://x.example/a" | absolute("https://b")', None, "http://x.example/a"),
    ('"a/b" | absolute("https://b")', None, "https://b/a/b"),
    ('"/a/b" | absolute("https://b/")', None, "https://b/a/b"),
    ('"" | absolute("https://b")', None, None),
    ("null | absolute(null)", None, None),
    ('"Tue, 03 Mar 2026 09:15:00 GMT" | http_date', None, 1772529300000),
    ('"2026-03-03" | http_date', None, None),
    ("null | http_date", None, None),
    ("7 | http_date", None, None),
    ('component("x")', None, None),
    ("component(null)", None, None),
    ("component(.a.b.c)", {}, None),
]


@pytest.mark.parametrize(("jq", "body", "value"), VALUES)
def test_what_is_offered_gives_what_it_says(jq, body, value):
    assert given(jq, body) == value


def test_a_file_may_have_its_own_function_of_an_offered_name():
    assert (
        given("words(1) + nonempty", None, top='define: |\n  def words(f): "my ";\n  def nonempty: "own";\n')
        == "my own"
    )
    assert given("absolute(1)", "x", top="define: |\n  def absolute($b): $b;\n") == 1


def test_what_the_prelude_itself_calls_does_not_change_with_a_files_functions():
    definitions = ["epoch_ms: 7", 'tostring: "no"', "select(f): empty", 'trim: ""', 'startswith($x): "no"']
    top = "define: |\n" + "".join(f"  def {definition};\n" for definition in definitions)
    assert given('[newest(1769857200), words(1, 2), ("a" | nonempty)] | @json', None, top=top) == (
        '[1769857200000,"1 · 2","a"]'
    )


@pytest.mark.parametrize("zone", ["UTC", "Asia/Tokyo"])
def test_dates_do_not_depend_on_where_the_relay_runs(monkeypatch, zone):
    monkeypatch.setenv("TZ", zone)
    assert given('"2026-01-31T11:00:00Z" | epoch_ms') == NOON
    assert given("0 | todate") == "1970-01-01T00:00:00Z"
    assert given('"Tue, 03 Mar 2026 09:15:00 GMT" | strptime("%a, %d %b %Y %H:%M:%S GMT") | mktime') == 1772529300
