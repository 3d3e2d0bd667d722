"""What a webhook becomes: the first rule that matches decides, and what fails is named by rule, field and reason."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given as always
from hypothesis import settings as limits
from hypothesis import strategies as st

from relay.mapping import load_mappings
from relay.mapping.examples import describe
from relay.model import Coalesce, Failed, Ignored, Lane, Translated, Unmatched
from tests.mapping_files import FIELDS, FLAG, acme, flag, good, shown, translated

ROOT = Path(__file__).parents[1]


def flags(described: dict[str, Any]) -> list[tuple[str, Any]]:
    """The ids of the flags that were made, with their components."""
    assert described["status"] == "translated", described
    return [
        (event["event"]["flag"]["flagProperties"]["id"], event.get("unrouted", event["component"]))
        for event in described["events"]
    ]


# -- which rule decides ----------------------------------------------------------------------------

CONDITIONS: list[tuple[str, Any, bool]] = [
    ("{.a: 1}", {"a": 1}, True),
    ("{.a: 1}", {"a": 1.0}, True),
    ("{.a: 1}", {"a": True}, False),
    ("{.a: 1}", {"a": "1"}, False),
    ("{.a: [1, x, null, true]}", {"a": "x"}, True),
    ("{.a: [1, x, null, true]}", {}, True),
    ("{.a: [1, x, null, true]}", {"a": False}, False),
    ("{.a: null}", {}, True),
    ("{.a: null}", {"a": None}, True),
    ("{.a: null}", [1], False),
    ("{.a: null}", "text", False),
    ("{.a.b.c: null}", {"a": {"b": 7}}, False),
    ("{.a.b: 1, .c: 2}", {"a": {"b": 1}, "c": 2}, True),
    ("{.a.b: 1, .c: 2}", {"a": {"b": 1}, "c": 3}, False),
    ("{.a: 1}", None, False),
    ("{.a: 1}", [{"a": 1}], False),
    ("{'.a[]': 1}", {"a": [1]}, True),
    ("{'.a[]': 1}", {"a": [1, 1]}, False),
    ("{'.a | length': 2}", {"a": [1, 1]}, True),
    ("{'.[\"x-y\"]': 1}", {"x-y": 1}, True),
    ("{'.a | error': 1}", {"a": 1}, False),
    ("{.a: 12345678901234567891}", {"a": 12345678901234567891}, True),
    ("'.a == 1'", {"a": 1}, True),
    ("'${ .a == 1 }'", {"a": 2}, False),
    ("'.a'", {"a": 0}, True),
    ("'.a'", {"a": False}, False),
    ("'.a'", {"a": None}, False),
    ('\'.a // "" | startswith("x")\'', {"a": "xy"}, True),
    ("'any(.a[]; . == 1)'", {"a": [2, 1]}, True),
]


@pytest.mark.parametrize(("when", "body", "matches"), CONDITIONS)
def test_a_condition_holds_when_it_should(when, body, matches):
    described = shown(good(acme(f"- {{name: r, when: {when}, ignore: x}}")), body)
    assert described["status"] == ("ignored" if matches else "unmatched")


def test_the_first_rule_that_matches_decides():
    mapping = good(
        acme(
            "- {name: one, when: {.a: 1}, ignore: x}\n"
            "- {name: two, when: {.a: [1, 2]}, ignore: x}\n"
            "- {name: last, ignore: x}"
        )
    )
    assert [shown(mapping, {"a": a})["rule"] for a in (1, 2, 3)] == ["one", "two", "last"]


def test_rules_below_the_one_that_matches_are_not_even_looked_at():
    mapping = good(acme("- {name: one, when: {.a: 1}, ignore: x}\n- {name: two, when: 'error(\"no\")', ignore: x}"))
    assert shown(mapping, {"a": 1})["status"] == "ignored"
    assert shown(mapping, {"a": 2}) == {
        "status": "failed",
        "rule": "two",
        "field": "when",
        "reason": "no",
        "events": [],
    }


def test_a_header_tells_a_rule_whatever_case_it_was_sent_in():
    mapping = good(
        acme('- {name: r, when: {$headers["x-event-key"]: push}, ignore: x}'.replace("{$", "{'$").replace("]:", "]':"))
    )
    assert shown(mapping, {}, {"x-event-key": "push", "x-other": "y"})["status"] == "ignored"
    assert shown(mapping, {}, {})["status"] == "unmatched"


IGNORED = {
    "a test": "a test",
    "${ .by }": "Ada",
    "sent by ${ .by } at ${ .at }": "sent by Ada at 7",
    "${ .none }": "",
    "${ .at }": "7",
    "${ .list }": "[1]",
    "${ false }": "false",
}


@pytest.mark.parametrize("reason", IGNORED)
def test_what_is_ignored_says_why_in_a_text(reason):
    mapping = good(acme(f"- {{name: r, ignore: '{reason}'}}"))
    translation, _ = translated(mapping, {"by": "Ada", "at": 7, "list": [1]})
    assert translation == Ignored("r", IGNORED[reason])


# -- what is made ----------------------------------------------------------------------------------


def test_several_events_come_of_one_webhook_in_the_order_of_the_file():
    mapping = good(
        acme(f"""
- name: r
  events:
    - event: {flag("first")}
    - when: {{.b: true}}
      event: {flag("second")}
    - for_each: .list
      event: {flag("${ $item.id } of ${ .id }")}
""")
    )
    assert flags(shown(mapping, {"id": 1, "b": True, "list": [{"id": "x"}, {"id": "y"}]})) == [
        ("first", None),
        ("second", None),
        ("x of 1", None),
        ("y of 1", None),
    ]
    assert flags(shown(mapping, {"id": 1, "list": []})) == [("first", None)]


def test_an_element_may_be_passed_over_by_its_own_condition():
    mapping = good(
        acme(f"""
- name: r
  events:
    - for_each: .list
      when: {{$item.kind: flag, .on: true}}
      event: {flag("${ $item.id }")}
    - for_each: "[.list[] | select(.kind == \\"other\\")]"
      when: $item.id != "c"
      event: {flag("${ $item.id }")}
""")
    )
    listed = [{"kind": "flag", "id": "a"}, {"kind": "other", "id": "b"}, {"kind": "other", "id": "c"}]
    assert flags(shown(mapping, {"on": True, "list": listed})) == [("a", None), ("b", None)]
    assert flags(shown(mapping, {"on": False, "list": listed})) == [("b", None)]


def test_a_rule_may_make_no_event_and_still_have_matched():
    mapping = good(acme(f"- name: r\n  for_each: .list\n  event: {FLAG}"))
    assert translated(mapping, {"list": []})[0] == Translated("r", ())


def test_priority_and_coalesce_travel_with_the_event():
    rule = f"- name: r\n  event: {FLAG}"
    (event,) = translated(good(acme(rule)), {"id": 1})[0].events  # type: ignore[union-attr]
    assert (event.lane, event.coalesce, event.destination) == (Lane.NORMAL, Coalesce.TRANSITIONS, "compass")
    (event,) = translated(good(acme(f"{rule}\n  priority: low\n  coalesce: off")), {"id": 1})[0].events  # type: ignore[union-attr]
    assert (event.lane, event.coalesce) == (Lane.LOW, Coalesce.OFF)
    (event,) = translated(good(acme(f"{rule}\n  priority: urgent\n  coalesce: latest")), {"id": 1})[0].events  # type: ignore[union-attr]
    assert (event.lane, event.coalesce) == (Lane.URGENT, Coalesce.LATEST)


def test_an_event_knows_what_it_is_about():
    fields = "id: '${ .id }', state: '${ .state }', startTime: '${ .at }'"
    mapping = good(
        acme(
            "- name: r\n  event: {incident: {"
            + FIELDS.replace("7", "'${ .at }'")
            + ", incidentProperties: {"
            + fields
            + "}}}"
        )
    )
    (event,) = translated(mapping, {"id": 5, "state": "RESOLVED", "at": "2026-01-31T11:00:00+01:00"})[0].events  # type: ignore[union-attr]
    assert (event.type, event.state, event.order, event.terminal) == ("incident", "RESOLVED", 1769853600000, True)
    assert event.event_source == "shop"
    assert event.entity == '["incident", "shop", "5", null]'
    assert event.body["incident"]["incidentProperties"]["startTime"] == "2026-01-31T10:00:00Z"


@pytest.mark.parametrize(
    ("id_", "expected"),
    [
        (7, "7"),
        (7.0, "7"),
        (7.5, "7.5"),
        (12345678901234567891, "12345678901234567891"),
        (10**40 + 1, str(10**40 + 1)),
        (-(2**63), str(-(2**63))),
        (9007199254740993, "9007199254740993"),
        ("a\0b", "ab"),
        ("\ud83d half", "\N{REPLACEMENT CHARACTER} half"),
        ("\N{GRINNING FACE}", "\N{GRINNING FACE}"),
    ],
)
def test_an_id_stays_the_id_that_was_sent(id_, expected):
    mapping = good(acme(f"- name: r\n  event: {FLAG}"))
    assert flags(shown(mapping, {"id": id_})) == [(expected, None)]


# -- which component -------------------------------------------------------------------------------

COMPONENTS = {"shop": "c1", "both": ["c1", "c2"], "7": "c7", "true": "ct", "1.5": "cf", '["a"]': "cl"}
ROUTES: list[tuple[str, Any, list[str]]] = [
    ("${ component(.s) }", "shop", ["c1"]),
    ("${ component(.s) }", "both", ["c1", "c2"]),
    ("${ component(.s) }", 7, ["c7"]),
    ("${ component(.s) }", 7.0, ["unrouted 7.0"]),
    ("${ component(.s) }", True, ["ct"]),
    ("${ component(.s) }", 1.5, ["cf"]),
    ("${ component(.s) }", ["a"], ["cl"]),
    ("${ component(.s) }", "nobody", ["unrouted nobody"]),
    ("${ component(.s) }", None, ["unrouted ?"]),
    ("${ component(.s) }", "", ["unrouted ?"]),
    ("${ component(.s) }", "n" * 400, ["unrouted " + "n" * 300]),
    ("${ component(.missing) // component(.s) }", "shop", ["c1"]),
    ("${ component(.missing) // component(.s) }", "nobody", ["unrouted nobody"]),
    ("${ component(.s) // component(.t) }", "nobody", ["unrouted nobody"]),
    ("${ component(.s) // component(.t) }", None, ["unrouted tea"]),
    ("${ [component(.s), component(.t)] }", "shop", ["c1"]),
    ("${ [component(.s), component(.t)] }", "nobody", ["unrouted nobody, tea"]),
    ('${ [component(.s), component("both")] }', "shop", ["c1", "c2"]),
    ('${ component("both") + [component(.s)] }', "shop", ["c1", "c2"]),
    ("${ team }", "shop", ["c1"]),
    ("${ team }", "nobody", ["unrouted nobody"]),
    (
        '${ .s as $s | if component($s) then component($s) else component("x-\\($s)") end }',
        "nobody",
        ["unrouted nobody"],
    ),
    ("${ null }", "shop", ["unrouted ?"]),
    ("${ [] }", "shop", ["unrouted ?"]),
    ("c9", "shop", ["c9"]),
    ("${ .s }", "c9", ["c9"]),
    ("none", "shop", ["None"]),
]


@pytest.mark.parametrize(("component", "key", "expected"), ROUTES)
def test_an_event_goes_to_the_components_of_its_key_or_waits_under_it(component, key, expected):
    top = "define: |\n  def service: .s;\n  def team: component(service);\n"
    rule = f"- name: r\n  component: {json.dumps(component)}\n  event: {FLAG}"
    described = shown(good(acme(rule, top), components=COMPONENTS), {"id": 1, "s": key, "t": "tea"})
    assert described["status"] == "translated", described
    routes = [f"unrouted {e['unrouted']}" if "unrouted" in e else str(e["component"]) for e in described["events"]]
    assert routes == expected


def test_a_list_in_the_file_is_a_list_of_components():
    rule = f"- name: r\n  component: [c0, '${{ component(.s) }}', '${{ component(.t) }}']\n  event: {FLAG}"
    mapping = good(acme(rule), components=COMPONENTS)
    events = shown(mapping, {"id": 1, "s": "both", "t": "nobody"})["events"]
    assert [event["component"] for event in events] == ["c0", "c1", "c2"]
    rule = f"- name: r\n  component: ['${{ component(.s) }}', '${{ component(.t) }}']\n  event: {FLAG}"
    (event,) = shown(good(acme(rule), components=COMPONENTS), {"id": 1, "s": "x", "t": "y"})["events"]
    assert event["unrouted"] == "x, y"


def test_each_component_has_an_event_source_of_its_own():
    mapping = good(acme(f"- name: r\n  component: ${{ component(.s) }}\n  event: {FLAG}"), components=COMPONENTS)
    single = translated(mapping, {"id": 1, "s": "shop"})[0]
    several = translated(mapping, {"id": 1, "s": "both"})[0]
    assert isinstance(single, Translated)
    assert isinstance(several, Translated)
    assert [event.event_source for event in single.events] == ["shop"]
    sources = [event.event_source or "" for event in several.events]
    assert [source.partition("#")[0] for source in sources] == ["shop", "shop"]
    assert len({*sources, "shop"}) == 3
    assert [event.body["flag"]["externalEventSourceId"] for event in several.events] == sources
    assert len({event.entity for event in several.events}) == 2
    assert translated(mapping, {"id": 2, "s": "both"})[0].events[0].event_source == sources[0]  # type: ignore[union-attr]


def test_each_element_has_a_component_of_its_own():
    rule = f"- name: r\n  for_each: .list\n  component: ${{ component($item) }}\n  event: {flag('${ $item }')}"
    mapping = good(acme(rule), components=COMPONENTS)
    assert flags(shown(mapping, {"list": ["shop", "nobody", "both"]})) == [
        ("shop", "c1"),
        ("nobody", "nobody"),
        ("both", "c1"),
        ("both", "c2"),
    ]


def test_without_a_file_of_components_events_have_none_and_do_not_wait():
    mapping = good(acme(f"- name: r\n  component: ${{ component(.s) }}\n  event: {FLAG}"))
    assert flags(shown(mapping, {"id": 1, "s": "shop"})) == [("1", None)]


# -- what fails ------------------------------------------------------------------------------------


def status(jq: str) -> str:
    return flag("x", status=jq)


FAILURES: dict[str, tuple[str, str]] = {
    "- {name: r, when: .a.b.c, ignore: x}": ("when", 'Cannot index number with string ("b")'),
    "- {name: r, when: '1, 2', ignore: x}": ("when", "gives several values; it must give exactly one"),
    "- {name: r, when: 'empty', ignore: x}": ("when", "gives no value; end it with `// null` if that is meant"),
    "- {name: r, ignore: 'a ${ .a.b }'}": ("ignore", 'Cannot index number with string ("b")'),
    f"- {{name: r, for_each: .a, event: {FLAG}}}": ("for_each", "must give a list, but gives number"),
    f"- {{name: r, for_each: .o, event: {FLAG}}}": ("for_each", "must give a list, but gives object"),
    f"- {{name: r, for_each: .none, event: {FLAG}}}": ("for_each", "must give a list, but gives null"),
    f"- {{name: r, for_each: '.l, .l', event: {FLAG}}}": (
        "for_each",
        "gives several values; it must give exactly one",
    ),
    f"- {{name: r, for_each: 'error(\"no\")', event: {FLAG}}}": ("for_each", "no"),
    f"- {{name: r, events: [{{event: {status('x')}}}, {{when: .a.b, event: {FLAG}}}]}}": (
        "events[1].when",
        'Cannot index number with string ("b")',
    ),
    f"- {{name: r, events: [{{for_each: .l, when: $item.b, event: {FLAG}}}]}}": (
        "events[0].when",
        'Cannot index number with string ("b")',
    ),
    f"- {{name: r, component: '${{ .a.b }}', event: {FLAG}}}": ("component", 'Cannot index number with string ("b")'),
    f"- {{name: r, component: '${{ .a }}', event: {FLAG}}}": (
        "component",
        "must give a component id, a list of ids or null, but gives [1]",
    ),
    f"- {{name: r, component: ['${{ .l[] }}'], event: {FLAG}}}": (
        "component",
        "gives several values; it must give exactly one",
    ),
    f"- {{name: r, component: '${{ .e }}', event: {FLAG}}}": (
        "component",
        'must give a component id, a list of ids or null, but gives [""]',
    ),
    f"- {{name: r, component: '${{ .o }}', event: {FLAG}}}": (
        "component",
        "must give a component id, a list of ids or null, but gives [{}]",
    ),
    f"- {{name: r, event: {status('${ .a.b }')}}}": (
        "event.flag.flagProperties.status",
        'Cannot index number with string ("b")',
    ),
    f"- {{name: r, event: {status('x ${ .l[] }')}}}": (
        "event.flag.flagProperties.status",
        "gives several values; it must give exactly one",
    ),
    f"- {{name: r, event: {status('${ .l[] }')}}}": (
        "event.flag.flagProperties.status",
        "gives several values; it must give exactly one",
    ),
    f"- {{name: r, event: {status('${ empty }')}}}": (
        "event.flag.flagProperties.status",
        "gives no value; end it with `// null` if that is meant",
    ),
    f"- {{name: r, event: {status('${ error({a: .a}) }')}}}": ("event.flag.flagProperties.status", '{"a":1}'),
    f"- {{name: r, event: {status('${ error(null) }')}}}": ("event.flag.flagProperties.status", "null"),
    f"- {{name: r, event: {status('${ error }')}}}": (
        "event.flag.flagProperties.status",
        '{"a":1,"l":[1,2],"o":{},"e":"","none":null}',
    ),
    f"- {{name: r, event: {status('${ .o }')}}}": (
        "event.flag.flagProperties.status",
        "must be of type null or string, not {}",
    ),
    f"- {{name: r, event: {status('${ true }')}}}": (
        "event.flag.flagProperties.status",
        "must be of type null or string, not true",
    ),
    f"- {{name: r, event: {flag('${ .none }', status='on')}}}": (
        "event.flag.flagProperties.id",
        "is required",
    ),
    f"- {{name: r, event: {status('x').replace('https://acme.example/1', '${ .a }')}}}": ("event.flag.url", ""),
    "- {name: r, event: " + status("x").replace(": 7", ": 'soon'") + "}": ("event.flag.updateSequenceNumber", ""),
    f"- {{name: r, events: [{{event: {status('x').replace('Shop', '${ .e }')}}}]}}": (
        "events[0].event.flag.displayName",
        "must not be empty",
    ),
    "- name: r\n  event: {custom: {" + FIELDS + ", customEventProperties: {id: x, icon: '${ .a }'}}}": (
        "event.custom.customEventProperties.icon",
        "",
    ),
}
"""Rules that match but cannot be carried out; the field they fail at, and the reason ('' for any)."""


@pytest.mark.parametrize("rule", FAILURES)
def test_a_failure_is_told_by_rule_field_and_reason(rule):
    body = {"a": 1, "l": [1, 2], "o": {}, "e": "", "none": None}
    translation, _ = translated(good(acme(rule), components=COMPONENTS if "component" in rule else None), body)
    assert isinstance(translation, Failed), translation
    field, reason = FAILURES[rule]
    assert (translation.rule, translation.field) == ("r", field)
    assert translation.reason == reason or (reason == "" and translation.reason.strip())


def test_a_long_reason_is_cut():
    mapping = good(acme("- {name: r, when: error, ignore: x}"))
    translation, _ = translated(mapping, "x" * 1000)
    assert translation == Failed("r", "when", "x" * 300)


def test_one_event_that_fails_fails_the_webhook():
    mapping = good(acme(f"- name: r\n  for_each: .list\n  event: {flag('${ $item.id }')}"))
    described = shown(mapping, {"list": [{"id": "a"}, {}]})
    assert (described["status"], described["events"]) == ("failed", [])


AWKWARD = {
    "$x": "reduce range(30000) as $i (null; [.])",
    "deeper than jq writes": "reduce range(20000) as $i (null; {a: .})",
    "infinite": "infinite",
    "nan": "nan",
    "a deep recursion": "def down: if . > 5000 then . else . + 1 | down end; 0 | down",
    "a label": "label $out | 1, break $out, 2",
    "jq's own error object": "error({__jq: 1})",
    "a bad code point": "[1114112] | implode",
    "a failing regular expression": '"x" | test("(")',
    "a regular expression without end": '("a" * 40) + "!" | test("^(a+)+$")',
    "a negative limit": "limit(-1; 1)",
    "a huge index": "[1] | .[1e18] = 1",
    "a date beyond time": "1e300 | todate",
    "odd base64": '"!" | @base64d',
    "a text too long": '"x" * 1e10',
    "numbers beyond numbers": "1e300 * 1e300",
}


@pytest.mark.parametrize("name", AWKWARD)
def test_jq_at_its_limits_gives_a_value_or_a_failure_and_the_next_webhook_is_all_right(name):
    top = f"define: |\n  def odd: {AWKWARD[name]};\n"
    for rule in (
        f"- {{name: r, when: {{.a: 1}}, event: {status('${ odd }')}}}\n- {{name: s, ignore: x}}",
        f"- {{name: r, when: {{.a: 1}}, event: {status('- ${ odd }')}}}\n- {{name: s, ignore: x}}",
        "- {name: r, when: {.a: 1}, ignore: '${ odd }'}\n- {name: s, ignore: x}",
    ):
        mapping = good(acme(rule, top))
        translation, _ = translated(mapping, {"a": 1})
        assert isinstance(translation, (Translated, Ignored, Failed))
        json.dumps(describe(translation), allow_nan=False).encode()
        assert translated(mapping, {"a": 2})[0] == Ignored("s", "x")


# -- the key of a delivery -------------------------------------------------------------------------

KEYS: list[tuple[str, Any, str | None]] = [
    ("${ .id }", {"id": "a"}, "a"),
    ("${ .id }", {"id": 7}, "7"),
    ("${ .id }", {"id": 12345678901234567891}, "12345678901234567891"),
    ("${ .id }", {"id": ["a", {"c": 1, "b": 2}]}, '["a", {"b": 2, "c": 1}]'),
    ("${ .id }", {}, None),
    ("${ .id }", {"id": ""}, None),
    ("${ .id }", [], None),
    ("${ .id[] }", {"id": [1, 2]}, None),
    ('${ $headers["x-id"] // .id }', {"id": "a"}, "h"),
    ("${ .id }/${ .n }", {"id": "a", "n": 1}, "a/1"),
]


@pytest.mark.parametrize(("dedupe", "body", "key"), KEYS)
def test_a_delivery_has_the_key_that_the_file_says_or_none(dedupe, body, key):
    mapping = good(acme("- {name: r, when: {.x: y}, ignore: x}", f"dedupe: {dedupe}\n"))
    assert translated(mapping, body, {"x-id": "h", "x-other": "o"}) == (Unmatched(), key)


def test_a_failing_rule_leaves_the_key_alone():
    mapping = good(acme("- {name: r, ignore: '${ error }'}", "dedupe: ${ .id }\n"))
    translation, key = translated(mapping, {"id": "a"})
    assert isinstance(translation, Failed)
    assert key == "a"


# -- never an exception ----------------------------------------------------------------------------

ODD_FIELDS = FIELDS.replace("Shop", "'${ .a }'").replace("7", "'${ .b }'")
ODD_FIELDS = "{" + ODD_FIELDS + ", flagProperties: '${ .b }'}"
RICH = acme(
    """
- name: ignored
  when: {.kind: [ignored, null], $headers.kind: x}
  ignore: ${ .a } and ${ .b.c }
- name: failing
  when: .a.b.c == 1
  ignore: x
- name: many
  when: {.kind: many}
  component: ${ component(.a) // team }
  events:
    - for_each: .list
      when: {$item.a: [1, null]}
      event:
        incident:
          displayName: ${ .a }
          description: "${ .b } ${ $item }"
          url: ${ .url | absolute($settings.base) }
          externalEventSourceId: ${ $item.a // .a }
          lastUpdated: ${ newest(.a, .b, .list[]?) }
          updateSequenceNumber: ${ .a }
          incidentProperties:
            id: ${ .b }
            state: ${ $state[.a | tostring] // .b }
            startTime: ${ .a }
            severity: ${ .b }
    - event: {flag: FIELDS}
- name: rest
  component: ${ .a }
  event: {flag: FIELDS}
""".replace("FIELDS", ODD_FIELDS),
    """
    dedupe: ${ .a }
    settings: {base: {env: ACME_BASE, default: 'https://acme.example'}}
    tables: {state: {a: OPEN, "1": RESOLVED}}
    define: |
      def team: component(.b | words(.));
    """,
)  # fmt: skip

keys = st.sampled_from(["kind", "a", "b", "c", "list", "url"])
leaves = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["many", "ignored", "a", "OPEN", "2026-01-31T10:00:00Z", "2026-01-31T10:00:00.5+01:00", "/x"]),
    st.text(max_size=6),
)  # fmt: skip
bodies = st.recursive(leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=5))
header_values = st.dictionaries(st.sampled_from(["kind", "x"]), st.text(max_size=8), max_size=2)


@pytest.fixture(scope="module")
def rich():
    return good(RICH, components={"a": "c1", "b": ["c1", "c2"]})


@limits(deadline=None)
@always(body=bodies, headers=header_values)
def test_any_body_and_any_headers_have_a_translation(rich, body, headers):
    translation, key = translated(rich, body, headers)
    assert isinstance(translation, (Translated, Ignored, Unmatched, Failed))
    assert key is None or isinstance(key, str)
    json.dumps(describe(translation), allow_nan=False).encode()
    if isinstance(translation, Failed):
        assert translation.rule
        assert translation.field
        assert translation.reason


def test_headers_that_are_no_text_at_all_fail_and_no_more(rich):
    translation, _ = translated(rich, {}, {"kind": "\udcff"})
    assert isinstance(translation, Failed)


@pytest.fixture(scope="module")
def bundled():
    return load_mappings(ROOT / "mappings", environ={})


@limits(max_examples=30, deadline=None)
@always(st.data())
def test_a_bundled_mapping_copes_with_real_bodies_gone_wrong(bundled, data):
    """One part of a good body, at any depth, is replaced by something else or left out."""
    example = data.draw(st.sampled_from(EXAMPLES))
    body = json.loads(json.dumps(example["body"]))
    part: Any = body
    while isinstance(part, (dict, list)) and part:
        key = data.draw(st.sampled_from(list(part) if isinstance(part, dict) else list(range(len(part)))))
        if not isinstance(part[key], (dict, list)) or data.draw(st.integers(0, 3)) == 0:
            part[key] = data.draw(bodies)
            break
        part = part[key]
    translation, _ = translated(bundled[example["source"]], body, example["headers"])
    json.dumps(describe(translation), allow_nan=False).encode()


def _examples() -> list[dict[str, Any]]:
    from relay.mapping.document import Document, read_document  # noqa: PLC0415

    found = []
    for path in sorted((ROOT / "mappings" / "examples").glob("*/*.yaml")):
        document = read_document(path)
        if isinstance(document, Document):
            headers = {name.lower(): str(value) for name, value in document.data.get("headers", {}).items()}
            found.append({"source": path.parent.name, "headers": headers, "body": document.data.get("body")})
    return found


EXAMPLES = _examples()
