"""Mapping files are read strictly, and whatever is wrong with one is said with its line."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import Fault
from relay.mapping.document import MAX_DEPTH, MAX_VALUES, Document, dotted, parse_document, read_document

PLAIN = {
    "yes": "yes",
    "on": "on",
    "Off": "Off",
    "True": "True",
    "true": True,
    "false": False,
    "null": None,
    "~": None,
    "": None,
    "NULL": "NULL",
    "7": 7,
    "-7": -7,
    "0": 0,
    "1.5": 1.5,
    "-1e3": -1000.0,
    "+7": "+7",
    "0123": "0123",
    "1_000": "1_000",
    "0x1F": "0x1F",
    "12:30": "12:30",
    "12:30:45": "12:30:45",
    "1.": "1.",
    ".5": ".5",
    ".inf": ".inf",
    ".nan": ".nan",
    "2026-01-31": "2026-01-31",
    "2026-01-31T10:00:00Z": "2026-01-31T10:00:00Z",
    "=": "=",
    "'7'": "7",
    "!!str 7": "7",
    r'"\ud83d\ude00"': "\N{GRINNING FACE}",
}
"""YAML on the left, the value on the right: plain numbers are those of JSON, and dates are texts."""

REFUSED = {
    "a: [1": "f:1: not YAML: expected ',' or ']', but got '<stream end>'",
    "a: 1\nb: *other": "f:2: not YAML: found undefined alias 'other'",
    "a: 1\n\tb: 2": "f:2: not YAML: found character '\\t' that cannot start any token",
    "a: 1\n---\nb: 2": "f:2: not YAML: but found another document",
    "a:\n  b: 1\n  b: 2": "f:3: a.b: this key stands here twice",
    "a: 1\n'a': 2": "f:2: a: this key stands here twice",
    "1: x\n'1': y": "f:2: 1: this key stands here twice",
    "a: {b: {<<: {c: 1}}}": "f:1: a.b: merge keys (<<) are not supported; write the members out",
    "a:\n  ? [x, y]\n  : z": "f:2: a: a key must be plain text",
    "a: &me\n  b: *me": "f:1: a.b: an alias must not stand inside its own anchor",
    "a: !!int soon": "f:1: a: unsupported value 'soon'",
    "a: !!float .inf": "f:1: a: unsupported value '.inf'",
    "a: 1e999": "f:1: a: unsupported value '1e999'",
    "a: !!bool on": "f:1: a: unsupported value 'on'",
    "a: !!timestamp 2026-01-31": "f:1: a: unsupported value '2026-01-31'",
    "a: !!binary aGk=": "f:1: a: unsupported value 'aGk='",
    "a: !secret x": "f:1: a: unsupported value 'x'",
    "a: !!set {x}": "f:1: a: the tag tag:yaml.org,2002:set is not supported",
    "a: !!python/object/apply:os.system [x]": "f:1: a: the tag tag:yaml.org,2002:python/object/apply:os.system "
    "is not supported",
    "a: 1\nb: 'x\x01'": "f:2: not YAML: the character U+0001 is not allowed",
    r'a: "\UFFFFFFFF"': "f: not YAML: an escape in double quotes stands for no character",
    r'a: "\U7FFFFFFF"': "f: not YAML: an escape in double quotes stands for no character",
    r'a: "\ud800"': "f:1: a: an escape in double quotes stands for half a character",
    r'"\udc00": 1': "f:1: an escape in double quotes stands for half a character",
    "[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2): f"f:1: {'[0]' * (MAX_DEPTH + 1)}: nests deeper than 50 levels",
    "[" * 500: "f: nests deeper than 50 levels",
}


def read(text: str) -> Document:
    document = parse_document(text, file="f")
    assert isinstance(document, Document), str(document)
    return document


@pytest.mark.parametrize("text", PLAIN)
def test_a_plain_value_is_what_it_would_be_in_json_and_a_text_otherwise(text):
    value = read(f"a: {text}").data["a"]
    assert (value, type(value)) == (PLAIN[text], type(PLAIN[text]))


@pytest.mark.parametrize("text", REFUSED, ids=lambda text: text[:30])
def test_what_is_wrong_is_said_with_its_line_and_place(text):
    assert str(parse_document(text, file="f")) == REFUSED[text]


def test_a_file_of_few_lines_cannot_unfold_to_millions_of_values():
    bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
    bomb += "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]\n" for n in range(1, 9))
    fault = parse_document(bomb, file="f")
    assert isinstance(fault, Fault)
    assert fault.reason == f"holds more than {MAX_VALUES} values, counting what aliases repeat"


def test_numbers_of_thousands_of_digits_are_refused():
    assert isinstance(parse_document(f"a: {'9' * 5000}", file="f"), Fault)


def test_every_value_knows_its_line():
    document = read("source: acme\nrules:\n  - name: one\n    when:\n      a: 1\n  - {name: two}\n")
    assert document.lines[("source",)] == 1
    assert document.lines[("rules", 0, "when", "a")] == 5
    assert document.lines[("rules", 1, "name")] == 6


def test_a_fault_of_something_that_is_not_there_points_at_what_holds_it():
    document = read("rules:\n  - name: one\n    event: {x: 1}")
    assert str(document.fault(("rules", 0, "event", "y", "z"), "is missing")) == "f:3: rules[0].event.y.z: is missing"


def test_an_alias_is_the_value_again_with_the_anchors_lines():
    document = read("a: &x {b: 1}\nc: *x")
    assert document.data == {"a": {"b": 1}, "c": {"b": 1}}
    assert document.lines[("c",)] == 2


def test_an_empty_file_is_null():
    assert read("").data is None
    assert read("# nothing yet\n").data is None


def test_places_are_written_as_people_write_them():
    assert dotted(("rules", 0, "events", 1, "event")) == "rules[0].events[1].event"
    assert dotted(()) == ""


def test_a_file_that_cannot_be_read_is_a_fault_of_that_file(tmp_path: Path):
    for path in (tmp_path / "none.yaml", tmp_path):
        fault = read_document(path)
        assert isinstance(fault, Fault)
        assert fault.where == str(path)
        assert fault.reason.startswith("cannot be read: ")
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("a: ü".encode("latin-1"))
    assert str(read_document(latin)).startswith(f"{latin}: cannot be read: 'utf-8' codec can't decode byte")


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path):
    path = tmp_path / "marked.yaml"
    path.write_bytes(b"\xef\xbb\xbfa: 1\n")
    document = read_document(path)
    assert isinstance(document, Document)
    assert document.data == {"a": 1}


yamlish = st.text("ab:-?[]{},&*!|>'\"%@`#\\ \n\t0129.eEuUx<~=", max_size=80)


@settings(deadline=None)
@given(st.one_of(st.text(max_size=60), yamlish))
def test_any_text_is_a_document_or_a_fault(text):
    match parse_document(text, file="f"):
        case Document(data=data):
            assert data is None or isinstance(data, (dict, list, str, int, float))
        case Fault(reason=reason):
            assert reason
