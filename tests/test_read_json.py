"""A body is exactly one JSON value that every reader understands alike, or it is refused with a reason."""

import json
import math
import random
import tracemalloc
from typing import Any

import jq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.errors import MalformedBody
from relay.intake import MAX_DEPTH, _depth, read_json

REFUSED = {
    b"": "the body is not one JSON value: Expecting value: line 1 column 1 (char 0)",
    b" \n": "the body is not one JSON value: Expecting value: line 2 column 1 (char 2)",
    b"{": "the body is not one JSON value: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)",
    b"{'a': 1}": "the body is not one JSON value: Expecting property name enclosed in double quotes: line 1 column 2 "
    "(char 1)",
    b"1 2": "the body is not one JSON value: Extra data: line 1 column 3 (char 2)",
    b"{}{}": "the body is not one JSON value: Extra data: line 1 column 3 (char 2)",
    b"nul": "the body is not one JSON value: Expecting value: line 1 column 1 (char 0)",
    b"01": "the body is not one JSON value: Extra data: line 1 column 2 (char 1)",
    b"+1": "the body is not one JSON value: Expecting value: line 1 column 1 (char 0)",
    b".5": "the body is not one JSON value: Expecting value: line 1 column 1 (char 0)",
    b"NaN": "the body is not one JSON value: NaN is no JSON number",
    b"[Infinity]": "the body is not one JSON value: Infinity is no JSON number",
    b"[-Infinity]": "the body is not one JSON value: -Infinity is no JSON number",
    b"1e400": "the body is not one JSON value: the number 1e400 is out of range",
    b"-1e400": "the body is not one JSON value: the number -1e400 is out of range",
    b"9" * 301: f"the body is not one JSON value: the number {'9' * 30}… is out of range",
    b"9" * 5000: f"the body is not one JSON value: the number {'9' * 30}… is out of range",
    b"\xef\xbb\xbf{}": "the body is not one JSON value: it begins with a byte order mark",
    b'"\x00"': "the body is not one JSON value: Invalid control character at: line 1 column 2 (char 1)",
    b'"\n"': "the body is not one JSON value: Invalid control character at: line 1 column 2 (char 1)",
    b"\x00": "the body is not one JSON value: Expecting value: line 1 column 1 (char 0)",
    b"{}\x00": "the body is not one JSON value: Extra data: line 1 column 3 (char 2)",
    b'"\\x41"': "the body is not one JSON value: Invalid \\escape: line 1 column 2 (char 1)",
    b'"\\u12"': "the body is not one JSON value: Invalid \\uXXXX escape: line 1 column 3 (char 2)",
    b'"\xff"': "the body is not UTF-8: byte 1 is wrong",
    b'"\xed\xa0\x80"': "the body is not UTF-8: byte 1 is wrong",
    b'"\xc0\x80"': "the body is not UTF-8: byte 1 is wrong",
    '{"a": 1}'.encode("utf-16"): "the body is not UTF-8: byte 0 is wrong",
    b"payload=%7B%7D": "the body is not one JSON value: Expecting value: line 1 column 1 (char 0)",
    b"[" * (MAX_DEPTH + 1) + b"]" * (MAX_DEPTH + 1): "the body nests deeper than 200 levels",
    b'{"a":' * (MAX_DEPTH + 1) + b"1" + b"}" * (MAX_DEPTH + 1): "the body nests deeper than 200 levels",
    b"[" * 1_000_000: "the body nests deeper than 200 levels",
    b'{"a":' * 500_000: "the body nests deeper than 200 levels",
}

TAKEN: dict[bytes, Any] = {
    b"null": None,
    b" [1, 2.5, -0] \n": [1, 2.5, 0],
    b'"text"': "text",
    b'{"a": 1, "a": 2}': {"a": 2},
    b'{"a": {"b": 1}, "a": {"c": 2}}': {"a": {"c": 2}},
    b'"\\u0000"': "\0",
    b'"\\ud83d\\ude00"': "\N{GRINNING FACE}",
    b'"\xf0\x9f\x98\x80"': "\N{GRINNING FACE}",
    b'"a\\ud83d"': "a\N{REPLACEMENT CHARACTER}",
    b'"\\ude00a"': "\N{REPLACEMENT CHARACTER}a",
    b'{"\\udead": ["\\uD800", "\\ud83d\\ude00"]}': {
        "\N{REPLACEMENT CHARACTER}": ["\N{REPLACEMENT CHARACTER}", "\N{GRINNING FACE}"]
    },
    b'"\\\\ud800"': "\\ud800",
    b"12345678901234567891": 12345678901234567891,
    b"9" * 300: int("9" * 300),
    b"1e308": 1e308,
    b"1e-999": 0.0,
    b"[" * MAX_DEPTH + b"]" * MAX_DEPTH: json.loads("[" * MAX_DEPTH + "]" * MAX_DEPTH),
    b'["' + b"[" * 1000 + b'"]': ["[" * 1000],
    b'["\\"' + b"[{" * 1000 + b'"]': ['"' + "[{" * 1000],
    b"[" + b"[]," * 1000 + b"{}]": [[]] * 1000 + [{}],
}


@pytest.mark.parametrize("raw", REFUSED, ids=lambda raw: ascii(raw[:20]))
def test_what_is_not_one_json_value_is_refused_with_the_reason(raw):
    with pytest.raises(MalformedBody) as raised:
        read_json(raw)
    assert str(raised.value) == REFUSED[raw]
    assert raised.value.status == 400


@pytest.mark.parametrize("raw", TAKEN, ids=lambda raw: ascii(raw[:20]))
def test_one_json_value_is_taken_and_its_text_says_the_same(raw):
    text, body = read_json(raw)
    assert body == TAKEN[raw]
    assert json.loads(text) == body
    text.encode()  # there is no half character in it


def test_what_is_deep_in_a_long_text_costs_no_memory():
    raw = b"[" * 100 + b'"' + b"x[" * 500_000 + b"\\\\" * 500_000 + b'"' + b"]" * 100
    tracemalloc.start()
    try:
        assert _depth(raw.decode()) == 100
        assert tracemalloc.get_traced_memory()[1] < 10 * len(raw)
    finally:
        tracemalloc.stop()


def naive_depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(naive_depth, value.values()), default=0)
    if isinstance(value, list):
        return 1 + max(map(naive_depth, value), default=0)
    return 0


texts = st.text(st.one_of(st.sampled_from('[]{}",\\:'), st.characters(codec="utf-8")), max_size=8)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), texts),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=30,
)


@settings(deadline=None)
@given(values, st.booleans(), st.sampled_from([None, 1]))
def test_whatever_json_writes_is_read_back_and_its_depth_is_counted_right(value, ascii_only, indent):
    raw = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    text, body = read_json(raw.encode())
    assert body == json.loads(text) == value
    assert text == raw or "\\ud" in raw  # pairs of escapes become the characters they stand for
    assert _depth(raw) == naive_depth(value)


@settings(deadline=None)
@given(
    st.one_of(st.binary(max_size=40), values.map(lambda value: json.dumps(value).encode()), st.text().map(str.encode))
)
def test_any_bytes_are_read_as_json_reads_them_or_refused(raw):
    try:
        text, body = read_json(raw)
    except MalformedBody:
        with pytest.raises((ValueError, OverflowError)):
            assert not strict(raw)
        return
    assert json.loads(text) == body
    if not any(0xD800 <= ord(char) <= 0xDFFF for char in json.dumps(strict(raw), ensure_ascii=False)):
        assert body == strict(raw)


def strict(raw: bytes) -> Any:
    """What the standard library makes of it, but for what is no JSON. Raises ValueError."""

    def refuse(name: str) -> Any:
        raise ValueError(name)

    def finite(literal: str) -> float:
        number = float(literal)
        if not math.isfinite(number):
            raise ValueError(literal)
        return number

    return json.loads(raw.decode(), parse_constant=refuse, parse_float=finite)


def test_jq_reads_the_same_as_python():
    """What the program sees is what was checked: random bodies, cut and changed at random places."""
    rng = random.Random(7)
    program = jq.compile("tojson")
    alphabet = b'{}[]",:\\u0d8ae1-+.nultrfs \t\n\xc3\xa9'
    seeds = [b'{"a": [1, -2.5e3, "\\u00e9\\ud83d\\ude00", null, true], "b": {"c": "\xc3\xa9"}}', b'[[],{},"\\\\"]']
    read = 0
    for _ in range(4000):
        raw = bytearray(rng.choice(seeds))
        for _ in range(rng.randint(0, 3)):
            place = rng.randrange(len(raw))
            raw[place : place + rng.randint(0, 2)] = bytes([rng.choice(alphabet)])
        try:
            text, body = read_json(bytes(raw))
        except MalformedBody:
            continue
        read += 1
        assert json.loads(program.input_text(text).first()) == body, raw
    assert read > 500
