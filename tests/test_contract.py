import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from relay.contract import KINDS, SCHEMA, Field, Problem, Value, check, fields_of
from tests.compass_events import LEAST, least, whole

VENDOR = Path(
    os.environ.get("RELAY_PAYLOADS", Path(__file__).parents[2] / "shared" / "payloads"),
    "../contracts/compass-openapi.json",
)

PLACES = {
    "text": ("incident", "displayName"),
    "id": ("incident", "incidentProperties", "id"),
    "url": ("incident", "url"),
    "date": ("incident", "lastUpdated"),
    "number": ("incident", "updateSequenceNumber"),
    "word": ("incident", "incidentProperties", "state"),
}


def put(event: dict[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    holder = event
    for name in place[:-1]:
        holder = holder[name]
    holder[place[-1]] = value
    return event


def fields(field: Field, place: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Field]]:
    yield place, field
    for name, member in (field.members or {}).items():
        yield from fields(member, (*place, name))


ALL_FIELDS = [found for kind in KINDS for found in fields(fields_of(kind), (kind,))]
REQUIRED = [place for place, field in ALL_FIELDS if field.required and len(place) > 1]


def pointer(place: tuple[str, ...]) -> str:
    return "".join(f"/{name}" for name in place)


def test_the_kinds_are_the_ten_of_compass():
    assert sorted(KINDS) == sorted(LEAST)
    assert len(KINDS) == 10


@pytest.mark.parametrize("kind", KINDS)
def test_the_least_and_the_most_of_every_kind_are_valid(kind: str):
    assert check(least(kind)) == ()
    assert check(whole(kind)) == ()


@pytest.mark.parametrize("place", REQUIRED, ids=pointer)
def test_every_required_field_is_missed_by_its_own_name(place: tuple[str, ...]):
    event = whole(place[0])
    holder = event
    for name in place[:-1]:
        holder = holder[name]
    del holder[place[-1]]
    assert check(event) == (Problem(pointer(place), "is required", "required"),)


@pytest.mark.parametrize("place", [place for place, field in ALL_FIELDS if field.enum], ids=pointer)
def test_a_word_outside_an_enumeration_is_refused_and_the_right_ones_are_named(place: tuple[str, ...]):
    (problem,) = check(put(whole(place[0]), place, "Sideways"))
    assert (problem.pointer, problem.rule) == (pointer(place), "enum")
    assert '"Sideways"' in problem.reason
    word = dict(ALL_FIELDS)[place].enum[0]
    assert word in problem.reason
    assert check(put(whole(place[0]), place, word)) == ()


@pytest.mark.parametrize("place", [place for place, field in ALL_FIELDS if not field.required], ids=pointer)
def test_a_field_that_is_not_required_may_be_null(place: tuple[str, ...]):
    assert check(put(whole(place[0]), place, None)) == ()


@pytest.mark.parametrize("place", [place for place, field in ALL_FIELDS if field.members], ids=pointer)
def test_a_field_that_the_contract_does_not_know_is_refused_on_every_level(place: tuple[str, ...]):
    (problem,) = check(put(whole(place[0]), (*place, "colour"), "red"))
    assert (problem.pointer, problem.rule) == (pointer(place), "additionalProperties")
    assert "colour" in problem.reason


@pytest.mark.parametrize(
    ("place", "value", "reason"),
    [
        (PLACES["text"], "", "must not be empty"),
        (PLACES["text"], " \n", "must not be empty"),
        (PLACES["text"], "x" * 256, "must have at most 255 characters, not 256"),
        (PLACES["text"], 5, "must be of type string, not 5"),
        (PLACES["text"], None, "must be of type string, not null"),
        (PLACES["id"], " ", "must not be empty"),
        (PLACES["url"], "", "must not be empty"),
        (PLACES["url"], "/incidents/1", 'must be an absolute URL (https://…), not "/incidents/1"'),
        (PLACES["url"], "mailto:a@b.c", 'must be an absolute URL (https://…), not "mailto:a@b.c"'),
        (PLACES["url"], "https://", 'must be an absolute URL (https://…), not "https://"'),
        (PLACES["url"], "https://a.b/c d", 'must be an absolute URL (https://…), not "https://a.b/c d"'),
        (PLACES["date"], "yesterday", 'must be a date as 2026-01-31T10:00:00Z, not "yesterday"'),
        (PLACES["date"], "2026-02-30T00:00:00Z", 'must be a date as 2026-01-31T10:00:00Z, not "2026-02-30T00:00:00Z"'),
        (PLACES["date"], "2026-02-03T00:00:00", 'must be a date as 2026-01-31T10:00:00Z, not "2026-02-03T00:00:00"'),
        (PLACES["number"], "7", 'must be of type integer, not "7"'),
        (PLACES["number"], True, "must be of type integer, not true"),
        (PLACES["number"], 1.5, "must be of type integer, not 1.5"),
    ],
)
def test_a_value_that_does_not_fit_is_refused_in_a_persons_words(place: tuple[str, ...], value: Any, reason: str):
    problems = check(put(least("incident"), place, value))
    assert [(problem.pointer, problem.reason) for problem in problems] == [(pointer(place), reason)]


@pytest.mark.parametrize(("number", "rule"), [(2**63, "maximum"), (-(2**63) - 1, "minimum"), (10**400, "maximum")])
def test_a_number_beyond_64_bits_is_refused(number: int, rule: str):
    (problem,) = check(put(least("incident"), PLACES["number"], number))
    assert problem.rule == rule
    assert check(put(least("incident"), PLACES["number"], 2**63 - 1)) == ()


def test_texts_are_counted_in_characters():
    assert check(put(least("incident"), PLACES["text"], "🦊" * 255)) == ()


@pytest.mark.parametrize("date", ["2026-10-01T10:00:00Z", "2026-10-01T10:00:00.123Z", "2026-10-01T10:00:00+02:00"])
def test_dates_of_rfc_3339_are_taken(date: str):
    assert check(put(least("incident"), PLACES["date"], date)) == ()


@pytest.mark.parametrize("event", [{}, {**least("flag"), **least("alert")}, {"flag": 1, "nothing": 2}])
def test_anything_but_one_kind_is_one_problem(event: dict[str, Any]):
    (problem,) = check(event)
    assert (problem.pointer, problem.rule) == ("", "oneKind")
    assert f"but holds {len(event)}" in problem.reason


def test_all_problems_are_told_at_once_in_a_fixed_order():
    event = put(put(least("incident"), PLACES["url"], "x"), PLACES["word"], "open")
    del event["incident"]["description"]
    assert [problem.pointer for problem in check(event)] == [
        "/incident/description",
        "/incident/incidentProperties/state",
        "/incident/url",
    ]


def test_pointers_escape_what_json_pointers_reserve():
    (problem,) = check({"a/b~c": 1})
    assert problem.pointer == ""
    (problem,) = check({"incident": 5})
    assert problem.pointer == "/incident"


def test_a_long_value_is_not_quoted_in_full():
    for place in (PLACES["url"], PLACES["date"], PLACES["word"], PLACES["text"]):
        for problem in check(put(least("incident"), place, "x" * 100_000)):
            assert len(problem.reason) < 300


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(JSON)
def test_check_is_total(value: Any):
    assert all(isinstance(problem, Problem) for problem in check(value))
    assert check(value)


@given(st.sampled_from(ALL_FIELDS), JSON)
def test_check_is_total_in_every_place_and_points_there_or_below(found: tuple[tuple[str, ...], Field], value: Any):
    place, _ = found
    for problem in check(put(whole(place[0]), place, value)):
        assert problem.pointer.startswith(pointer(place)) or problem.reason.startswith("cannot be written as JSON")


def nested(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize("value", ["\ud800", {1: 2}, nested(600), nested(50_000), object(), float("nan"), "\0"])
def test_what_cannot_be_json_is_a_problem_and_not_an_error(value: Any):
    assert check(put(least("incident"), PLACES["date"], value))
    assert check(value)


@pytest.mark.parametrize(
    ("place", "field"),
    [
        (("incident", "incidentProperties", "state"), Field(Value.TEXT, True, ("OPEN", "RESOLVED", "DELETED"))),
        (("incident", "lastUpdated"), Field(Value.DATE, True)),
        (("incident", "incidentProperties", "endTime"), Field(Value.DATE, False)),
        (("incident", "updateSequenceNumber"), Field(Value.INTEGER, True)),
        (("vulnerability", "vulnerabilityProperties", "score"), Field(Value.NUMBER, False)),
        (("build", "displayName"), Field(Value.TEXT, True, limit=255)),
        (("build", "buildProperties", "pipeline", "url"), Field(Value.TEXT, False, url=True)),
        (("push", "pushEventProperties", "author", "name"), Field(Value.TEXT, False)),
    ],
)
def test_the_tree_of_fields_says_what_each_one_takes(place: tuple[str, ...], field: Field):
    assert dict(ALL_FIELDS)[place] == field


def test_an_unknown_kind_has_no_fields():
    with pytest.raises(KeyError):
        fields_of("party")


def vendor_tree(schemas: dict[str, Any], schema: dict[str, Any]) -> dict[str, Any]:
    """The vendor's schema with its references followed and its prose left out."""
    for one in schema.get("oneOf", ()):
        if one.get("type") != "null":
            return vendor_tree(schemas, one)
    if "$ref" in schema:
        return vendor_tree(schemas, schemas[schema["$ref"].rpartition("/")[2]])
    return {
        "required": sorted(schema.get("required", ())),
        "enum": sorted(schema.get("enum", ())),
        "members": {name: vendor_tree(schemas, inner) for name, inner in schema.get("properties", {}).items()},
    }


def our_tree(field: Field) -> dict[str, Any]:
    members = field.members or {}
    return {
        "required": sorted(name for name, member in members.items() if member.required),
        "enum": sorted(field.enum),
        "members": {name: our_tree(member) for name, member in members.items()},
    }


@pytest.mark.skipif(not VENDOR.exists(), reason="the vendor's file is not here")
def test_the_contract_agrees_with_the_vendors_own_on_fields_required_ones_and_enumerations():
    schemas = json.loads(VENDOR.read_text(encoding="utf-8"))["components"]["schemas"]
    assert {kind: our_tree(fields_of(kind)) for kind in KINDS} == {
        kind: vendor_tree(schemas, schema) for kind, schema in schemas["CompassEventInputDto"]["properties"].items()
    }


def test_the_schema_can_be_read_by_every_tool():
    """No references outside itself."""
    assert {ref for ref in _references(SCHEMA) if not ref.startswith("#/$defs/")} == set()


def _references(schema: Any) -> Iterator[str]:
    match schema:
        case {"$ref": str(ref)}:
            yield ref
        case dict():
            for inner in schema.values():
                yield from _references(inner)
