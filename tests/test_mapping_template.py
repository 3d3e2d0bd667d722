"""Texts with `${ jq }` in them are taken apart where a person would."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relay.mapping.template import Expression, TemplateError, parse_expression, parse_template
from tests.mapping_files import FIELDS, acme, good, shown

PARTS = {
    "": [],
    "plain": ["plain"],
    "$5 {a} }": ["$5 {a} }"],
    "${.a}": [".a"],
    "${ .a }": [".a"],
    "a ${ .b } c": ["a ", ".b", " c"],
    "${.a}${.b}": [".a", ".b"],
    "${ {a: {b: 1}} }": ["{a: {b: 1}}"],
    '${ "}" }': ['"}"'],
    '${ "${" }': ['"${"'],
    r'${ "\"}" }': [r'"\"}"'],
    r'${ "\\" }}': [r'"\\"', "}"],
    r'${ "a \(.b | "}" ) c" } d': [r'"a \(.b | "}" ) c"', " d"],
    r'${ "\("\("}")")" }': [r'"\("\("}")")"'],
    r'${ "\( {a: ")"} )" }': [r'"\( {a: ")"} )"'],
    "${ .a # not here }\n}": [".a # not here }"],
    "${ .a # it's\n | .b }": [".a # it's\n | .b"],
    "${ .a # goes on \\\n } \n}": [".a # goes on \\\n }"],
    "${ .a # ends \\\\\n } b": [".a # ends \\\\", " b"],
    '${ "#" }': ['"#"'],
    "${ [.a[], (.b)] }": ["[.a[], (.b)]"],
}
"""A text, and its parts; every other one that stood between `${` and `}` is an expression."""

UNFINISHED = ["${", "${ .a", "a ${ {b: 1}", '${ "} }', '${ "\\(.a" }', "${ .a # }", "${ (.a }", "${ [.a } ]"]


def flat(text: str) -> list[str]:
    return [part.jq if isinstance(part, Expression) else part for part in parse_template(text)]


@pytest.mark.parametrize("text", PARTS)
def test_an_expression_ends_where_its_jq_does(text):
    assert flat(text) == PARTS[text]


@pytest.mark.parametrize("text", UNFINISHED)
def test_an_expression_without_an_end_is_refused(text):
    with pytest.raises(TemplateError, match="'\\$\\{' has no closing '}'"):
        parse_template(text)


@pytest.mark.parametrize("text", ["${}", "${ }", "a ${\n}"])
def test_an_expression_with_nothing_in_it_is_refused(text):
    with pytest.raises(TemplateError, match="'\\$\\{ }' holds no expression"):
        parse_template(text)


@pytest.mark.parametrize(("text", "jq"), [(".a == 1", ".a == 1"), (" ${ .a } ", ".a"), ("{a: 1}.a", "{a: 1}.a")])
def test_where_jq_always_stands_its_brackets_may_be_left_out(text, jq):
    assert parse_expression(text) == Expression(jq)


@pytest.mark.parametrize("text", ["${ .a } and .b", "", "  "])
def test_where_jq_always_stands_a_mixture_is_refused(text):
    with pytest.raises(TemplateError, match="must be one jq expression"):
        parse_expression(text)


@settings(deadline=None)
@given(st.text('${}"\\()[]# \nab.', max_size=40))
def test_any_text_has_parts_or_is_refused(text):
    try:
        parts = parse_template(text)
    except TemplateError:
        return
    assert all(part.jq if isinstance(part, Expression) else part for part in parts)


@settings(deadline=None)
@given(st.lists(st.text(min_size=1).filter(lambda text: "$" not in text), max_size=3))
def test_literals_and_expressions_come_out_as_they_went_in(literals):
    text = "".join(f"{literal}${{ .a }}" for literal in literals)
    expected = [part for literal in literals for part in (literal, Expression(".a"))]
    assert list(parse_template(text)) == expected


VALUES = {
    "'just text'": "just text",
    "'${ .text }'": "words",
    "'${ .number }'": "7",
    "'<${ .text }>'": "<words>",
    "'<${ .number }>'": "<7>",
    "'<${ .real }>'": "<1.5>",
    "'<${ .yes }>'": "<true>",
    "'<${ .none }>'": "<>",
    "'<${ .missing.deeper }>'": "<>",
    "'<${ .list }>'": "<[1,2]>",
    "'<${ .object }>'": '<{"a":null}>',
    "'${ .text }${ .text }'": "wordswords",
    "'$${ .number }'": "$7",
    "'{a} $ \\'": "{a} $ \\",
    r'"\u00fc ${ .text } \" \\("': 'ü words " \\(',
    '"${ \\"\\\\(.text)!\\" }"': "words!",
    "'${ \"a\" # why\n\n    }'": "a",
    "'${ \"a\" # why \\\n\n\n    }'": "a",
    "'${ def f: .text; f }'": "words",
    "'${ .a as $x | .text }'": "words",
    "'${ first(.list[]) }'": "1",
    "'${ try error catch .text }'": "words",
    "'${ label $out | .list[] | ., break $out }'": "1",
}
"""What stands in the file, and what the event's field then is."""

BODY = {"text": "words", "number": 7, "real": 1.5, "yes": True, "none": None, "list": [1, 2], "object": {"a": None}}


@pytest.mark.parametrize("yaml", VALUES)
def test_a_field_is_what_its_text_says(yaml):
    mapping = good(acme("- name: r\n  event: {flag: {" + FIELDS + ", flagProperties: {id: x, status: " + yaml + "}}}"))
    described = shown(mapping, BODY)
    assert described["status"] == "translated", described
    assert described["events"][0]["event"]["flag"]["flagProperties"]["status"] == VALUES[yaml]


def test_a_single_expression_may_give_a_whole_object():
    text = acme("- name: r\n  event: {flag: {" + FIELDS + ", flagProperties: '${ {id: .text, status: null} }'}}")
    properties = shown(good(text), BODY)["events"][0]["event"]["flag"]["flagProperties"]
    assert properties == {"id": "words"}
