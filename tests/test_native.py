"""What is read without jq is what jq reads: the same result, or none at all and jq is asked."""

import copy
import json
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from relay.mapping.compiled import Mapping, Program, _input
from relay.mapping.compiler import compile_mapping
from relay.mapping.document import Document, read_document
from relay.mapping.expressions import PRELUDE, SCOPE
from relay.mapping.native import Native, compile_native

FOLDER = Path(__file__).parent.parent / "mappings"
SOURCES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
FOR_JQ = {
    "bitbucket/push-with-an-odd-time-in-a-header",
    "launchdarkly/tags-and-attributes",  # a regular expression
    "pagerduty/ignored-v2-webhook",  # a text is missing that a condition takes apart
}
"""The examples that jq is asked about, besides those that fail or have no rule."""


@cache
def examples(source: str) -> dict[str, tuple[dict[str, str], Any, str]]:
    """The shipped examples of a source: headers, body and expected status, by name."""
    found = {}
    for path in sorted((FOLDER / "examples" / source).glob("*.yaml")):
        document = read_document(path)
        assert isinstance(document, Document)
        data = document.data
        headers = {name.lower(): str(value) for name, value in data.get("headers", {}).items()}
        found[path.stem] = headers, data.get("body"), data["expect"]["status"]
    return found


@cache
def mapping(source: str, *, routed: bool) -> Mapping:
    """A shipped mapping; `routed` with a components.yaml, and with pull requests sent in both ways."""
    document = read_document(FOLDER / f"{source}.yaml")
    assert isinstance(document, Document)
    environ, components = {}, None
    if routed:
        environ = {"BITBUCKET_PULL_REQUESTS": "both", "BITBUCKET_SERVER_PULL_REQUESTS": "both"}
        components = {"PSHOP1": "c-1", "web": ["c-1", "c-2"], "acme/shop": "c-3", "SHOP/web": "c-4", "blackout": "c-5"}
    compiled = compile_mapping(document, environ=environ, components=components)
    assert isinstance(compiled, Mapping)
    return compiled


def by_jq(program: Program, headers: dict[str, str], text: str) -> Any:
    """What jq reads; a ValueError where it fails."""
    try:
        return program.run(_input(headers, text))
    except ValueError as error:
        return error


def agree(native: Native | None, program: Program, headers: dict[str, str], text: str) -> bool:
    """Whether it was read without jq, and then as jq does, `1` and `true` kept apart."""
    assert native is not None
    body = json.loads(text)
    result = native.run(headers, body)
    assert body == json.loads(text), "the body was changed"
    if result is None:
        return False
    expected = by_jq(program, headers, text)
    assert not isinstance(expected, ValueError), (result, expected)
    assert json.dumps(result, sort_keys=True) == json.dumps(expected, sort_keys=True)
    return True


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("routed", [False, True], ids=["", "routed"])
def test_every_shipped_example_is_read_as_jq_reads_it(source, routed):
    read = mapping(source, routed=routed)
    for headers, body, _ in examples(source).values():
        agree(read.native, read.program, read.kept(headers), json.dumps(body))


@pytest.mark.parametrize("source", [source for source in SOURCES if source != "release"])
def test_jq_is_not_asked_about_the_webhooks_of_the_shipped_mappings(source):
    read = mapping(source, routed=False)
    asked = {
        f"{source}/{name}"
        for name, (headers, body, status) in examples(source).items()
        if status not in {"failed", "unmatched"}
        and not agree(read.native, read.program, read.kept(headers), json.dumps(body))
    }
    assert asked <= FOR_JQ


ODD_TEXTS = (
    "", " ", "a", "\x1c", "\xa0", "Ä", "a/b/c", "https://a.example/x", "/x", "~ada", "BRANCH", "branch", "OPEN", "on",
    "2026-03-02T08:14:05Z", "2026-03-02T08:14:05.5+02:00", "2026-03-02", "2026-02-30T08:14:05Z",
    "1969-12-31T23:59:59Z", "2026-03-02T08:14:60Z", "2026-03-02T08:14:05", "2026-03-02 08:14:05-0530",
    "2026-03-02T08:14:05+02", "Archived it", "2026-03-02T08:14:05.123456Z", "2026-03-02t08:14:05z",
    "2026-03-02T24:00:00Z", "Tue, 03 Mar 2026 09:15:00 GMT", "Tue, 3 Mar 2026 09:15:00 GMT",
    "proj/web;a:env/production;{b:c}:flag/x", "turned the flag on", "Ada <ada@acme.example>",
)  # fmt: skip
ODD_VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 7, 1772439245, 1772439245112, 2**53, 2**53 + 1, -(2**60), 1.0, 0.5, 1e30, [], {},
    [None], [[]], ["a", "a"], {"a": 1}, {"id": 7}, [{"id": "a"}], ["a", 1],
)  # fmt: skip
odd = st.one_of(st.sampled_from(ODD_VALUES), st.sampled_from(ODD_TEXTS), st.text(max_size=5), st.integers())


def places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where something stands in a body."""
    yield place
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in members:
        yield from places(inner, (*place, key))


@st.composite
def changed(draw: st.DrawFn, source: str) -> tuple[dict[str, str], str]:
    """The headers and the body of an example, with some members deleted or replaced."""
    known = examples(source)
    headers, body, _ = known[draw(st.sampled_from(sorted(known)))]
    headers, body = dict(headers), {"": copy.deepcopy(body)}
    for _ in range(draw(st.integers(0, 3))):
        *way, last = draw(st.sampled_from([place for place in places(body) if place]))
        parent = body
        for key in way:
            parent = parent[key]
        if draw(st.booleans()) and way:
            del parent[last]
        else:
            parent[last] = copy.deepcopy(draw(odd))
    if headers and draw(st.integers(0, 9)) == 0:
        name = draw(st.sampled_from(sorted(headers)))
        headers[name] = draw(st.sampled_from(ODD_TEXTS))
    return headers, json.dumps(body[""])


@pytest.mark.parametrize("source", SOURCES)
@settings(deadline=None, max_examples=100)
@given(data=st.data(), routed=st.booleans())
def test_whatever_is_changed_in_an_example_it_is_read_as_jq_reads_it_or_not_at_all(source, data, routed):
    read = mapping(source, routed=routed)
    headers, text = data.draw(changed(source))
    agree(read.native, read.program, read.kept(headers), text)


# -- expressions of all kinds ----------------------------------------------------------------------

ARGUMENTS: dict[str, Any] = {
    "settings": {"base_url": "https://a.example/", "list": ("*", "b")},
    "t": {"a": "x", "b": {"c": 1}, "": "empty"},
    "components": {"a": "c-1", "b": ["c-2", "c-3"], "1": "c-4"},
}
LEAVES = (
    ".", ".a", ".b", ".a.b", ".a.b.c", '."a"', '.["b"]', ".[0]", ".[-1]", ".[1:]", ".[:1]", ".[0:2]", ".a[0]", ".a?",
    ".a[]?", ".[]?", ".[]", "(.a.b)?", "(.a[])?", "(try .a.b catch null)", "(try error catch null)", '$headers["x"]',
    "$headers.x", "$t", "$t.a", "$t.b.c", "$settings.list[]", "$v", "$v.a", "null", "true", "false", "0", "1", "-3",
    '""', '"a"', '"b c"', r'"\u00e4\n"', "[]", "{}", "empty", 'error("x")', "{a}", "{$v}", "f", "g(.a)", "h(.b)",
    "k(.a; .b)", ".[$v]?", "$t[.a]",
)  # fmt: skip
NO_ARGUMENT = (
    "length", "not", "type", "tostring", "trim", "add", "first", "last", "unique", "ascii_downcase", "ascii_upcase",
    "strings", "numbers", "booleans", "objects", "arrays", "values", "nonempty", "epoch_ms", "http_date", "_text",
    "_list", "_ids", "_key", "f",
)  # fmt: skip
ONE_ARGUMENT = (
    "split", "join", "startswith", "endswith", "ltrimstr", "rtrimstr", "contains", "index", "has", "absolute",
    "component", "words", "newest", "first", "any", "all", "map", "select", "IN", "g", "h",
)  # fmt: skip
PATTERNS = (
    "({0})", "[{0}]", "({0} | {1})", "({0}, {1})", "({0} // {1})", "({0} == {1})", "({0} != {1})", "({0} < {1})",
    "({0} >= {1})", "({0} and {1})", "({0} or {1})", "({0} + {1})", "({0} - {1})", "({0} % {1})",
    "(if {0} then {1} else {2} end)", "(if {0} then {1} elif {2} then 1 end)", "({0} as $v | {1})",
    "{{a: {0}, b: ({1})}}", "{{({0}): {1}}}", r'"x\({0})y"', r'"\({0})\({1})"', "({0})?", "(try {0} catch null)",
    "words({0}, {1})", "newest({0}, {1})", "any({0}; {1})", "all({0}; {1})", "(def f: {0}; {1})",
    "(def g($v): {0}; {1})", "k({0}; {1})", '({0} == "a" or {0} == "b")', '({0} | test("\\\\ba( b)?\\\\s*c"; "i"))',
    "({0})[0]", "({0}).a", "({0})[{1}]", "({0})[{1}:]", "({0})[]?",
    "([{0}] | if length == 1 then .[0] else _not_one end)",
)  # fmt: skip
expressions = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.one_of(
        st.builds(str.format, st.sampled_from(PATTERNS), inner, inner, inner),
        st.builds("({} | {})".format, inner, st.sampled_from(NO_ARGUMENT)),
        st.builds("({} | {}({}))".format, inner, st.sampled_from(ONE_ARGUMENT), inner),
    ),
    max_leaves=6,
)
bodies = st.recursive(
    odd,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b", "c"]), inner, max_size=3),
    max_leaves=8,
).map(json.dumps)
BEFORE = "def f: .a; def g(x): x | .b?; def h($x): [$x, (.b? | x)]; def k(x; $y): [.[]? | x] + [$y]; null as $v |"


def both_ways(expression: str) -> tuple[Native, Program]:
    text = f"{BEFORE} {{all: [{expression}]}}"
    try:
        program = Program(f"{PRELUDE}\n{SCOPE}\n{text}\n| _result", ARGUMENTS)
    except ValueError:
        assume(condition=False)
    native = compile_native(text, ARGUMENTS)
    assert native is not None, expression
    return native, program


@settings(deadline=None, max_examples=150)
@given(expressions, st.lists(bodies, min_size=4, max_size=4))
@example('"\\(.a)"', ['{"a": -0}', '{"a": 0}', '{"a": 1e2}', '{"a": 12345678901234567890}'])
@example("component(.a)", ['{"a": -0}', '{"a": 1}', '{"a": "a"}', '{"a": null}'])
@example("first(.a, .b.c)", ['{"a": 1, "b": 2}', '{"b": {"c": 3}}', "{}", "[]"])
@example("try (first(.a, .b.c)) catch null", ['{"a": 1, "b": 2}', '{"b": {"c": 3}}', "{}", "[]"])
@example(".a == 1", ['{"a": true}', '{"a": 1.0}', '{"a": 1}', '{"a": "1"}'])
@example(".a + .b | . == [1, true]", ['{"a": [1], "b": [true]}', '{"a": [true], "b": [1]}', "{}", '{"a": [1.0]}'])
def test_an_expression_gives_what_jq_gives_or_nothing(expression, texts):
    native, program = both_ways(expression)
    for text in texts:
        agree(native, program, {"x": "a"}, text)


def deep(levels: int, branch: str = "if .a then 1 else {} end") -> str:
    text = "2"
    for _ in range(levels):
        text = branch.format(text)
    return text


def test_rules_beyond_what_python_nests_are_left_to_jq():
    native = compile_native(f"{{x: ({deep(120)})}}", {})
    assert native is not None
    assert native.run({}, {"a": True}) == {"x": 1}, "the first of them are still read"
    assert native.run({}, {"a": False}) is None


def test_a_program_that_grows_beyond_all_measure_is_left_to_jq():
    doubled = "".join(f"def f{n}($x): [f{n - 1}($x + 1), f{n - 1}($x + 2)];" for n in range(1, 25))
    assert compile_native(f"def f0($x): $x + .a; {doubled} {{x: f24(.b)}}", {}) is None


def test_a_definition_is_read_once_for_each_input():
    native = compile_native("def f: .a | ascii_upcase; {x: (f + f), y: (.b | f), z: (f + (.b | f))}", {})
    assert native is not None
    assert native.run({}, {"a": "p", "b": {"a": "q"}}) == {"x": "PP", "y": "Q", "z": "PQ"}


@pytest.mark.parametrize("name", ["a'b", 'a"b', "a\\b", "a\nb", "{a}", "\N{SNOWMAN}", "__class__", "value"])
def test_a_name_stands_for_itself_whatever_is_in_it(name):
    quoted = json.dumps(name)
    native, program = both_ways(f"{{({quoted}): .[{quoted}]}}, {{{quoted}: 1}}, (.[{quoted}] == {quoted})")
    assert agree(native, program, {}, json.dumps({name: name}))


@pytest.mark.parametrize(
    ("program", "bodies"),
    [
        ("{x: (.a // .b as $v | [$v])}", ['{"a": "s", "b": "t"}', '{"b": "t"}']),
        ("{x: [..]}", ['{"a": 1}', "[[]]"]),
        ("{x: ((.a.b | 1) + 1)}", ['{"a": "s"}', "{}"]),
        ("{x: ((.a.b as $q | 1) + 1)}", ['{"a": "s"}', "{}"]),
        ('{x: (if (.a.b as $k | "y") then 1 else 2 end)}', ['{"a": "s"}', "{}"]),
        ("def g($v): 1; {x: (g(.a.b) + 1)}", ['{"a": "s"}', "{}"]),
        ('{x: ((error("x") | 1) + 1)}', ["{}"]),
        ("{x: [(.a[][])?]}", ['{"a": ["s", [1]]}', '{"a": [[1], "s"]}', '{"a": [[1], [2]]}', "{}"]),
        ("{x: [try .a.b? catch null]}", ['{"a": "s"}', '{"a": {"b": 1}}']),
        ('.a as $components | {x: component("a")}', ['{"a": {"a": "other"}}', '{"a": 5}']),
        ("def h(g): def d: g; d; .a as $x | {x: h($x)}", ['{"a": 1}']),
        ("def h(g): def d: g; d; {x: [(.a, .b) as $x | h($x)]}", ['{"a": 1, "b": 2}']),
        (".a as $headers | def f: $headers; {x: f}", ['{"a": 1}']),
        ("def null: 5; {x: null}", ["{}"]),
        ("def f(null): null; {x: f(7)}", ["{}"]),
        ('def any(a; b): "mine"; {x: any(.a)}', ['[{"a": 1}]']),
        ("def length: 7; {x: ([.a] | length)}", ['{"a": 1}']),
        (
            "{x: (.a | add)}",
            ['{"a": ["a", null, "b"]}', '{"a": [[1], [], [2]]}', '{"a": [{"b": 1}, {"b": 2, "c": 3}]}'],
        ),
        ("{x: (.a | add)}", ['{"a": [1, 2]}', '{"a": []}', '{"a": [null]}', '{"a": ["a", 1]}']),
    ],
)
def test_what_was_read_wrongly_once_is_read_as_jq_does(program, bodies):
    by_python = compile_native(program, ARGUMENTS)
    try:
        by_jq_itself = Program(f"{PRELUDE}\n{SCOPE}\n{program}\n| _result", ARGUMENTS)
    except ValueError:  # jq refuses it, so no mapping has it
        return
    for body in bodies:
        if by_python is not None:
            agree(by_python, by_jq_itself, {}, body)


def test_what_nests_deeper_than_python_calls_is_left_to_jq():
    native = compile_native("{x: (.a == .a)}", {})
    assert native is not None
    assert native.run({}, {"a": json.loads("[" * 900 + "]" * 900)}) is None


def test_definitions_that_only_call_each_other_do_not_grow_beyond_all_measure():
    doubled = "".join(f"def f{number}: f{number - 1} | f{number - 1};" for number in range(1, 40))
    assert compile_native(f".a as $v | def f0: .; {doubled} {{x: f39}}", {}) is None


def test_a_constant_that_is_large_is_not_made_beforehand():
    doubled = "".join(f"def f{number}: f{number - 1} + f{number - 1};" for number in range(1, 36))
    assert compile_native(f'def f0: "x"; {doubled} {{x: (if .a then f35 else 1 end)}}', {}) is not None


def test_a_sum_takes_no_more_time_than_its_items():
    native = compile_native("{x: (.a | add | length)}", {})
    assert native is not None
    began = time.process_time()
    for items in ([["x"] * 10] * 50_000, ["x" * 10] * 500_000, [{"x": 1, "y": 2}] * 100_000):
        assert native.run({}, {"a": items}) is not None
    assert time.process_time() - began < 5
