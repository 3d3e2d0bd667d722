"""What is wrong with a mapping file is said when it is loaded, all at once, each fault with its line and place."""

import json
import threading
from typing import Any

import pytest
from hypothesis import given as always
from hypothesis import settings as limits
from hypothesis import strategies as st

from relay.errors import Fault
from relay.mapping.compiled import Mapping
from relay.mapping.compiler import compile_mapping
from relay.mapping.document import Document, parse_document
from tests.mapping_files import FIELDS, FLAG, HEAD, acme, compile_text, flag, good, shown, translated

VERIFY = "verify: {hmac: sha256, header: X-Acme-Signature, secret: ACME_WEBHOOK_SECRET}"
RULES = "rules: [{name: r, ignore: x}]"

SCHEMA = {
    "": ["f: None is not of type 'object'"],
    "[]": ["f:1: [] is not of type 'object'"],
    "source: acme": ["f:1: 'rules' is a required property", "f:1: 'verify' is a required property"],
    f"source: Acme\n{VERIFY}\n{RULES}": [
        "f:1: source: 'Acme' does not match '^[a-z][a-z0-9-]{0,39}$(?!\\\\n)'",
    ],
    f"source: |\n  acme\n{VERIFY}\n{RULES}": [
        "f:1: source: 'acme\\n' does not match '^[a-z][a-z0-9-]{0,39}$(?!\\\\n)'",
    ],
    f"source: [a]\n{VERIFY}\n{RULES}": ["f:1: source: ['a'] is not of type 'string'"],
    f"source: acme\nverify: {{}}\n{RULES}": [
        "f:2: verify: 'header' is a required property",
        "f:2: verify: 'hmac' is a required property",
        "f:2: verify: 'secret' is a required property",
    ],
    f"source: acme\nverify: {{hmac: md5, header: 'X Y', secret: acme_secret, key: x}}\n{RULES}": [
        "f:2: verify: Additional properties are not allowed ('key' was unexpected)",
        "f:2: verify.header: 'X Y' does not match '^[A-Za-z0-9-]+$(?!\\\\n)'",
        "f:2: verify.hmac: 'md5' is not one of ['sha256']",
        "f:2: verify.secret: 'acme_secret' does not match '^[A-Z][A-Z0-9_]*$(?!\\\\n)'",
    ],
    f"{HEAD}rules: []": ["f:3: rules: [] should be non-empty"],
    f"{HEAD}rules: {{}}": ["f:3: rules: {} is not of type 'array'"],
    f"{HEAD}{RULES}\nwebhook: 1": ["f:1: Additional properties are not allowed ('webhook' was unexpected)"],
    f"{HEAD}rules:\n  - ignore: x": ["f:4: rules[0]: 'name' is a required property"],
    f'{HEAD}rules:\n  - {{name: "a\\nb", ignore: x}}': [
        "f:4: rules[0].name: 'a\\nb' does not match '^[^\\\\x00-\\\\x1f]+$(?!\\\\n)'"
    ],
    f"{HEAD}rules:\n  - name: r\n    ignore: ''": ["f:5: rules[0].ignore: '' should be non-empty"],
    f"{HEAD}rules:\n  - name: r\n    ignore: x\n    when: true": [
        "f:6: rules[0].when: True is not of type 'string', 'object'",
    ],
    f"{HEAD}rules:\n  - name: r\n    ignore: x\n    when:\n      .a: {{b: 1}}": [
        "f:7: rules[0].when..a: {'b': 1} is not of type 'string', 'number', 'boolean', 'null', 'array'",
    ],
    f"{HEAD}rules:\n  - name: r\n    ignore: x\n    priority: high": [
        "f:6: rules[0].priority: 'high' is not one of ['urgent', 'normal', 'low']",
    ],
    f"{HEAD}rules:\n  - name: r\n    component: []\n    coalesce: no\n    event: {FLAG}": [
        "f:5: rules[0].component: [] should be non-empty",
        "f:6: rules[0].coalesce: 'no' is not one of ['transitions', 'latest', 'off']",
    ],
    f"{HEAD}rules:\n  - name: r\n    event: {{}}": ["f:5: rules[0].event: {} should be non-empty"],
    f"{HEAD}tables: {{headers: {{}}, body: {{}}, item: [], settings: {{}}, components: {{}}}}\n{RULES}": [
        f"f:3: tables: '{name}' should not be valid under {{'enum': ['headers', 'body', 'settings', 'components', "
        "'item']}"
        for name in ("body", "components", "headers", "item", "settings")
    ],
    f"{HEAD}tables: {{One: {{}}, b: 1}}\n{RULES}": [
        "f:3: tables: 'One' does not match '^[a-z][a-z0-9_]*$(?!\\\\n)'",
        "f:3: tables.b: 1 is not of type 'object', 'array'",
    ],
}

SETTINGS = {
    "{a: {env: OTHER_A, default: x}}": [
        "settings.a.env: must begin with ACME_ and must not end in _SECRET, _TOKEN, _PASSWORD"
    ],
    "{a: {env: ACMEA, default: x}}": [
        "settings.a.env: must begin with ACME_ and must not end in _SECRET, _TOKEN, _PASSWORD"
    ],
    "{a: {env: ACME_WEBHOOK_SECRET, default: x}}": [
        "settings.a.env: must begin with ACME_ and must not end in _SECRET, _TOKEN, _PASSWORD"
    ],
    "{a: {env: ACME_TOKEN, default: x}, b: {env: ACME_DB_PASSWORD, default: x}}": [
        "settings.a.env: must begin with ACME_ and must not end in _SECRET, _TOKEN, _PASSWORD",
        "settings.b.env: must begin with ACME_ and must not end in _SECRET, _TOKEN, _PASSWORD",
    ],
    "{a: {env: ACME_API_KEY, default: x}}": [
        "settings.a.env: may be a secret by its name; a mapping cannot read secrets"
    ],
    "{a: {env: ACME_SECRET_ACCESS_ID, default: x}}": [
        "settings.a.env: may be a secret by its name; a mapping cannot read secrets"
    ],
    "{a: {env: ACME_A, default: x, one_of: [y, z]}}": ["settings.a.default: must be one of y, z"],
    "{a: {env: ACME_A, default: [y, x], one_of: [y, z]}}": ["settings.a.default: must be one of y, z"],
}

REFUSED = [
    "env",
    "env.PATH",
    "input",
    "inputs",
    "debug",
    'debug("x")',
    "stderr",
    "now",
    "localtime",
    'strflocaltime("%Z")',
    "halt",
    "halt_error",
    "halt_error(1)",
    "input_filename",
    "input_line_number",
    "get_search_list",
    "get_jq_origin",
    "get_prog_origin",
    "modulemeta",
]
"""What jq offers, and a mapping must not have."""

UNKNOWN = {
    "$__prog_args": "$__prog_args is not defined",
    "$ARGS": "$ARGS is not defined",
    "$components_": "$components_ is not defined",
    "$item": "$item is not defined",
    "$__c": "$__c is not defined",
    "nosuch": "nosuch/0 is not defined",
    "component": "component/0 is not defined",
    "$ ENV": "syntax error, unexpected IDENT, expecting '$'",
}
"""What is not there, and how jq says so."""

NOT_JQ = [
    ".a.[",
    "1) | (2",
    "1 ) catch (2",
    "1; 2",
    "1 end",
    "} {",
    "1, ",
    "| 1",
    'import "a" as a; 1',
    'include "a"; 1',
    "def f: 1;",
    "1 as $x",
    '"\\(1) ',
    "# nothing",
    "1) as $x | ($x",
    "1] | [2",
    "1} | {a: 2",
    "1 then 2 else 3",
    "if . then 1",
]
"""What does not stand on its own, though some of it would between the brackets around it."""


@pytest.mark.parametrize("text", SCHEMA)
def test_what_breaks_the_schema_is_named(text):
    assert compile_text(text) == SCHEMA[text]


@pytest.mark.parametrize("settings", SETTINGS)
def test_a_setting_is_no_way_to_a_secret_and_keeps_to_its_values(settings):
    faults = compile_text(acme("- {name: r, ignore: x}", f"settings: {settings}\n"))
    assert faults == [f"f:3: {fault}" for fault in SETTINGS[settings]]


def test_the_sources_own_secret_is_no_setting_however_it_is_named():
    text = acme("- {name: r, ignore: x}", "settings: {a: {env: ACME_SIGNING, default: x}}\n")
    text = text.replace("ACME_WEBHOOK_SECRET", "ACME_SIGNING")
    assert compile_text(text) == ["f:3: settings.a.env: may be a secret by its name; a mapping cannot read secrets"]


def test_the_databases_url_is_no_setting_of_a_source_called_database():
    text = acme("- {name: r, ignore: x}", "settings: {a: {env: DATABASE_URL, default: x}}\n")
    text = text.replace("source: acme", "source: database")
    assert compile_text(text) == ["f:3: settings.a.env: may be a secret by its name; a mapping cannot read secrets"]


def test_a_value_in_the_environment_that_is_not_allowed_is_a_fault_of_its_variable():
    text = acme(
        "- {name: r, ignore: x}",
        "settings: {a: {env: ACME_A, default: y, one_of: [y, z]}, b: {env: ACME_B, default: [y], one_of: [y, z]}}\n",
    )
    assert compile_text(text, environ={"ACME_A": "x", "ACME_B": "z, x"}) == [
        "ACME_A: must be one of y, z; 'x' is not",
        "ACME_B: must be one of y, z; 'z, x' is not",
    ]
    mapping = good(text, environ={"ACME_A": " z ", "ACME_B": "z, y,"})
    assert [(setting.value, setting.default) for setting in mapping.settings] == [("z", "y"), (("z", "y"), ("y",))]


@pytest.mark.parametrize("jq", REFUSED)
def test_what_reads_more_than_the_webhook_is_refused_wherever_it_stands(jq):
    reason = f"'{jq.partition('(')[0].partition('.')[0]}' is not available in a mapping"
    rule = "- {name: r, when: {.a: 1}, ignore: '%s'}"
    quoted = jq.replace('"', '\\"')
    places = {
        f"dedupe: ${{ {jq} }}\nrules: [{{name: r, ignore: x}}]": "f:3: dedupe",
        acme(rule % f"${{ {jq} }}").removeprefix(HEAD): "f:4: rules[0].ignore",
        acme(rule % f"a ${{ [{jq}] }}").removeprefix(HEAD): "f:4: rules[0].ignore",
        acme(rule % f"${{ if false then {jq} else 1 end }}").removeprefix(HEAD): "f:4: rules[0].ignore",
        acme(rule % f'${{ "\\({jq})" }}').removeprefix(HEAD): "f:4: rules[0].ignore",
        acme(rule % f"${{ (try {jq} catch 1)? }}").removeprefix(HEAD): "f:4: rules[0].ignore",
        acme(rule % f"${{ def f: {jq}; f }}").removeprefix(HEAD): "f:4: rules[0].ignore",
        f'rules: [{{name: r, ignore: x, when: "{quoted}"}}]': "f:3: rules[0].when",
        f'rules: [{{name: r, ignore: x, when: {{"{quoted}": 1}}}}]': f"f:3: rules[0].when.{jq}",
        f'rules: [{{name: r, for_each: "{quoted}", event: {FLAG}}}]': "f:3: rules[0].for_each",
        f'rules: [{{name: r, component: "${{ {quoted} }}", event: {FLAG}}}]': "f:3: rules[0].component",
        f"define: |\n  def a: 1;\n  def f: {jq};\nrules: [{{name: r, ignore: x}}]": "f:3: define",
        f"define: |\n  def f: def g: {jq}; g;\nrules: [{{name: r, ignore: '${{ f }}'}}]": "f:3: define",
        f"define: |\n  def f(x; $y): {jq};\nrules: [{{name: r, ignore: x}}]": "f:3: define",
    }
    for text, place in places.items():
        assert compile_text(HEAD + text) == [f"{place}: {reason}"], text
    unsigned = HEAD.replace("_SECRET}", f'_SECRET, unsigned_when: "{quoted}"}}')
    assert compile_text(f"{unsigned}rules: [{{name: r, ignore: x}}]") == [f"f:2: verify.unsigned_when: {reason}"]


ENVIRONMENT = ["$ENV", "$ENV.PATH", "{$ENV}", '"\\($ENV.PATH)"', "[$ENV[]]", "$ENV | to_entries", "def f: $ENV; f"]


@pytest.mark.parametrize("jq", ENVIRONMENT)
def test_the_environment_is_empty_wherever_a_mapping_looks_for_it(jq, monkeypatch):
    monkeypatch.setenv("PATH", "hidden")
    in_a_rule = acme(f"- {{name: r, ignore: '${{ {jq} | tojson }}'}}")
    in_a_definition = acme("- {name: r, ignore: '${ f | tojson }'}", f"define: |\n  def f: {jq};\n")
    for text in (in_a_rule, in_a_definition):
        assert shown(good(text), None)["reason"] in ("{}", "[]", "null", '"null"', '{"ENV":{}}')


def test_a_test_button_cannot_tell_what_is_in_the_environment(monkeypatch):
    monkeypatch.setenv("ACME_WEBHOOK_SECRET", "s")
    head = HEAD.replace("_SECRET}", '_SECRET, unsigned_when: "$ENV.ACME_WEBHOOK_SECRET != null"}')
    assert not good(f"{head}{RULES}").lets_pass_unsigned({}, "{}")


@pytest.mark.parametrize("jq", UNKNOWN)
def test_a_name_that_is_not_there_is_named(jq):
    faults = compile_text(acme(f"- {{name: r, when: {{.a: 1}}, ignore: '${{ {jq} }}'}}"))
    assert faults == [f"f:4: rules[0].ignore: jq: {UNKNOWN[jq]}"]


@pytest.mark.parametrize("jq", NOT_JQ)
def test_an_expression_cannot_break_out_of_its_place(jq):
    text = f"{HEAD}rules:\n  - name: r\n    ignore: x\n    when: |-\n      {jq}\n"
    faults = compile_text(text)
    assert isinstance(faults, list)
    assert len(faults) == 1
    assert faults[0].startswith(("f:6: rules[0].when: jq: ", "f:6: rules[0].when: must "))


@pytest.mark.parametrize("end", ["# why", "# why \\", "# why \\\\", "#\\\\\\", "# ) \\"])
def test_a_comment_ends_with_its_expression(end):
    text = f"{HEAD}rules:\n  - name: r\n    ignore: x\n    when: |-\n      .a == 1 {end}\n"
    assert [shown(good(text), {"a": a})["status"] for a in (1, 2)] == ["ignored", "unmatched"]
    text = acme("- {name: r, when: f, ignore: x}", f"define: |-\n  def f: .a == 1;\n  {end}\n")
    assert [shown(good(text), {"a": a})["status"] for a in (1, 2)] == ["ignored", "unmatched"]


DEFINE = {
    "def a: b;": "4: define: jq: b/0 is not defined",
    "def a: 1;\ndef c:\n  nosuch(.a);": "6: define: jq: nosuch/1 is not defined",
    "def a: $nosuch;": "4: define: jq: $nosuch is not defined",
    "def a: 1": "4: define: jq: syntax error, unexpected end of file, expecting '|' or ',' or ';'",
    "def a: 1; .b": "3: define: must hold nothing but definitions, as `def name: …;`",
    "def a: 1;\n.b |": "5: define: jq: syntax error, unexpected end of file",
    "def a: 1; {} as $x |": "4: define: jq: syntax error, unexpected end of file",
    "1": "3: define: must hold nothing but definitions, as `def name: …;`",
    'import "a" as a; def b: 1;': "4: define: jq: syntax error, unexpected import",
    "def _fail($x): 1;": "3: define: '_fail' is a name of the relay's own; choose another",
    "def _mine: 1;": "3: define: '_mine' is a name of the relay's own; choose another",
    "def component(k): 1;": "3: define: 'component' is a name of the relay's own; choose another",
    "def length: 1;": "3: define: 'length' is a name of the relay's own; choose another",
    "def a: $headers;": '3: define: headers are read by their names, as $headers["x-event-key"], because only '
    "those are kept",
}


@pytest.mark.parametrize("define", DEFINE)
def test_definitions_are_checked_even_if_nothing_calls_them(define):
    block = "".join(f"  {line}\n" for line in define.splitlines())
    faults = compile_text(acme("- {name: r, ignore: '${ a }', when: 'a | nosuch'}", f"define: |\n{block}"))
    assert isinstance(faults, list)
    own = [fault for fault in faults if ": define: " in fault]
    assert own == [f"f:{DEFINE[define]}"]
    # And what calls them is checked as if they were all right.
    if "def a:" in define:
        assert [fault for fault in faults if fault not in own] == [
            f"f:{6 + define.count(chr(10))}: rules[0].when: jq: nosuch/0 is not defined"
        ]


def test_what_is_local_to_a_definition_is_no_fault():
    top = """
    define: |
      # def in a comment: not one;
      def outer($x; f): def inner: . + $x; def other(g): g; [inner, other(f)];
      def recursive: if . > 3 then . else . + 1 | recursive end;
      def uses: "def text: in a text;" | length;
    """
    text = acme("- {name: r, ignore: '${ outer(1; .+2) + [recursive, uses] | tojson }'}", top)
    assert shown(good(text), 1)["reason"] == "[2,3,4,20]"


HEADERS = {
    "$headers": ['headers are read by their names, as $headers["x-event-key"], because only those are kept'],
    "$headers | keys": ['headers are read by their names, as $headers["x-event-key"], because only those are kept'],
    "$headers[.name]": ['headers are read by their names, as $headers["x-event-key"], because only those are kept'],
    '$headers["x-" + .a]': ['headers are read by their names, as $headers["x-event-key"], because only those are kept'],
    '$headers["X-Event-Key"]': ['the names of headers are in lower case here: $headers["x-event-key"]'],
    '$headers["authorization"]': ["the header authorization may hold a credential, which no mapping may read"],
    "$headers.cookie": ["the header cookie may hold a credential, which no mapping may read"],
    '$headers."x-gitlab-token"': ["the header x-gitlab-token may hold a credential, which no mapping may read"],
    '$headers["x-hub-signature-256"]': [
        "the header x-hub-signature-256 may hold a credential, which no mapping may read"
    ],
    '$headers["x-acme-signature"]': ["the header x-acme-signature may hold a credential, which no mapping may read"],
}


@pytest.mark.parametrize("jq", HEADERS)
def test_a_header_is_read_by_its_name_and_no_credential_is(jq):
    faults = compile_text(f"{HEAD}rules:\n  - name: r\n    ignore: x\n    when: |-\n      {jq}\n")
    assert faults == [f"f:6: rules[0].when: {reason}" for reason in HEADERS[jq]]


def test_the_header_that_signs_is_never_read_whatever_its_name():
    text = acme('- {name: r, when: "$headers[\\"x-proof\\"] != null", ignore: x}').replace(
        "X-Acme-Signature", "X-Proof"
    )
    assert compile_text(text) == [
        "f:4: rules[0].when: the header x-proof may hold a credential, which no mapping may read"
    ]


def test_only_the_headers_that_some_expression_reads_are_kept():
    text = f"""{HEAD.replace("_SECRET}", '_SECRET, unsigned_when: {$headers."x-test": yes}}')}
dedupe: ${{ $headers["x-request-id"] }}
define: |
  # the kind stands in $headers, of all places
  def kind: $headers["x-event-key"];
rules:
  - name: r
    when: {{ $headers.a_b: [x], kind: y }}
    ignore: ${{ $headers ["c"] // $headers . "d" }}
"""
    headers = dict.fromkeys(("x-request-id", "x-event-key", "x-test", "a_b", "c", "d", "e", "authorization"), "v")
    headers |= {"x-acme-signature": "v1=00", "cookie": "x"}
    assert set(good(text).kept(headers)) == {"x-request-id", "x-event-key", "x-test", "a_b", "c", "d"}


RULE_FAULTS = {
    "- name: r": ["4: rules[0]: needs exactly one of `ignore`, `event` and `events`"],
    f"- name: r\n  ignore: x\n  event: {FLAG}": ["4: rules[0]: needs exactly one of `ignore`, `event` and `events`"],
    f"- name: r\n  for_each: .a\n  events: [{{event: {FLAG}}}]": [
        "5: rules[0].for_each: belongs beside `event`; under `events` each entry has its own"
    ],
    "- name: r\n  ignore: x\n  component: none": ["6: rules[0].component: a rule that ignores makes no event to route"],
    "- name: r\n  ignore: a ${ .b": ["5: rules[0].ignore: '${' has no closing '}'"],
    "- name: r\n  ignore: a ${ }": ["5: rules[0].ignore: '${ }' holds no expression"],
    "- name: r\n  ignore: x\n  when: ${ .a } b": ["6: rules[0].when: must be one jq expression"],
    f"- name: r\n  for_each: ''\n  event: {FLAG}": ["5: rules[0].for_each: '' should be non-empty"],
    f"- name: r\n  event: {FLAG.replace('flag:', 'flags:')}": [
        (
            "5: rules[0].event.flags: is no kind of Compass event; the kinds are deployment, build, incident, flag, "
            "alert, lifecycle, custom, push, pullRequest, vulnerability"
        )
    ],
    "- name: r\n  event:\n    flag:\n      title: x\n      flagProperties: {id: 1, colour: red}": [
        "6: rules[0].event.flag.description: is required by the contract",
        "6: rules[0].event.flag.displayName: is required by the contract",
        "6: rules[0].event.flag.externalEventSourceId: is required by the contract",
        "6: rules[0].event.flag.lastUpdated: is required by the contract",
        "6: rules[0].event.flag.updateSequenceNumber: is required by the contract",
        "6: rules[0].event.flag.url: is required by the contract",
        (
            "7: rules[0].event.flag.title: is no field of the contract; here it has displayName, description, url, "
            "externalEventSourceId, lastUpdated, updateSequenceNumber, flagProperties"
        ),
        "8: rules[0].event.flag.flagProperties.colour: is no field of the contract; here it has id, status",
    ],
    "- name: r\n  events:\n    - event:\n        custom: {"
    + FIELDS
    + ", customEventProperties: {id: x, icon: STAR}}": [
        (
            "7: rules[0].events[0].event.custom.customEventProperties.icon: 'STAR' is none of the contract's words: "
            "INFO, WARNING, CHECKPOINT"
        )
    ],
    "- name: r\n  event: {custom: {" + FIELDS + ", customEventProperties: {id: x, icon: 1}}}": [
        (
            "5: rules[0].event.custom.customEventProperties.icon: 1 is none of the contract's words: "
            "INFO, WARNING, CHECKPOINT"
        )
    ],
    "- name: r\n  event: {custom: {" + FIELDS + ", customEventProperties: {id: x, icon: null}}}": [
        "5: rules[0].event.custom.customEventProperties.icon: is required by the contract, and null leaves it out"
    ],
    "- name: r\n  event: {flag: {" + FIELDS + ", flagProperties: {id: [x]}}}": [
        "5: rules[0].event.flag.flagProperties.id: must be one value"
    ],
    "- name: r\n  event: {flag: {" + FIELDS + ", flagProperties: x}}": [
        "5: rules[0].event.flag.flagProperties: must be an object with the contract's fields"
    ],
}


@pytest.mark.parametrize("rule", RULE_FAULTS)
def test_a_rule_that_could_never_be_right_is_refused(rule):
    assert compile_text(acme(rule)) == [f"f:{fault}" for fault in RULE_FAULTS[rule]]


def test_nulls_and_expressions_may_stand_where_the_contract_asks_for_no_word():
    fields = FIELDS + ", incidentProperties: {id: 1, state: '${ .s }', startTime: 1700000000, endTime: null, "
    described = shown(
        good(acme("- name: r\n  event: {incident: {" + fields + "severity: {level: null}}}}")), {"s": "OPEN"}
    )
    properties = described["events"][0]["event"]["incident"]["incidentProperties"]
    assert properties == {"id": "1", "state": "OPEN", "startTime": "2023-11-14T22:13:20Z"}


UNREACHABLE = {
    ("", "{.a: 1}"): True,
    ("", ""): True,
    ("{.a: 1}", "{.a: 1}"): True,
    ("{.a: 1}", "{.a: 1, .b: 2}"): True,
    ("{.a: [1, 2]}", "{.a: 2}"): True,
    ("{.a: [1, 2]}", "{.a: [2, 1]}"): True,
    ("{.a: 1.0}", "{.a: 1}"): True,
    ("{.a: null}", "{.a: null}"): True,
    (".a == 1", " .a == 1 "): True,
    ("{.a: 1}", ""): False,
    ("{.a: 1, .b: 2}", "{.a: 1}"): False,
    ("{.a: 2}", "{.a: [1, 2]}"): False,
    ("{.a: 1}", "{.a: true}"): False,
    ("{.a: '1'}", "{.a: 1}"): False,
    ("{.a: 1}", "{.b: 1}"): False,
    (".a == 1", ".a==1"): False,
    (".a == 1", ""): False,
}
"""The conditions of two rules, and whether the second is never reached."""


@pytest.mark.parametrize("whens", UNREACHABLE)
def test_a_rule_that_another_one_hides_is_refused(whens):
    first, second = (
        f", when: '{when}'" if when and not when.startswith("{") else f", when: {when}" if when else ""
        for when in whens
    )
    compiled = compile_text(acme(f"- {{name: one, ignore: x{first}}}\n- {{name: two, ignore: x{second}}}"))
    if UNREACHABLE[whens]:
        assert compiled == ["f:5: rules[1]: is never reached: the rule 'one' above matches all of it"]
    else:
        assert isinstance(compiled, Mapping)


def test_every_kind_of_fault_is_told_at_once_and_in_the_order_of_the_file():
    text = """
source: acme
verify: {hmac: sha256, header: X-A, secret: ACME_S, format: 'v1={hex},'}
colour: red
dedupe: ${ nosuch }
settings:
  a: {env: B, default: x}
  b: {default: x}
tables:
  severity: {P1: ONE}
  wrong: 7
define: |
  def f: env;
rules:
  - name: one
    ignore: ${ f | $severity.P1 | $wrong.x }
  - name: two
    when: .a.[
    priority: high
    event: {}
  - when: {.a: 1}
  - name: three
    event: {nokind: {a: '${ $ENV | 1) }'}}
""".lstrip()
    assert compile_text(text) == [
        "f:1: Additional properties are not allowed ('colour' was unexpected)",
        "f:2: verify.format: the format 'v1={hex},' is one entry of a comma-separated list; leave the comma out",
        "f:4: dedupe: jq: nosuch/0 is not defined",
        "f:7: settings.b: 'env' is a required property",
        "f:10: tables.wrong: 7 is not of type 'object', 'array'",
        "f:11: define: 'env' is not available in a mapping",
        "f:18: rules[1].priority: 'high' is not one of ['urgent', 'normal', 'low']",
        "f:19: rules[1].event: {} should be non-empty",
        "f:20: rules[2]: 'name' is a required property",
        "f:21: rules[3]: is never reached: the rule 'one' above matches all of it",
        (
            "f:22: rules[3].event.nokind: is no kind of Compass event; the kinds are deployment, build, incident, "
            "flag, alert, lifecycle, custom, push, pullRequest, vulnerability"
        ),
        "f:22: rules[3].event.nokind.a: jq: syntax error, unexpected INVALID_CHARACTER, expecting end of file",
    ]


def test_with_components_a_rule_says_which_component():
    text = acme(f"- {{name: a, when: {{.a: 1}}, ignore: x}}\n- name: r\n  event: {FLAG}")
    assert compile_text(text, components={}) == [
        (
            "f:5: rules[1]: components.yaml is there, so a rule says which component its events belong to; "
            "`component: none` sends them without one"
        )
    ]
    assert isinstance(compile_text(text), Mapping)


def test_the_digest_changes_with_what_is_mapped_and_with_nothing_else():
    text = acme(
        f"- name: r\n  component: ${{ component(.a) }}\n  event: {FLAG}", "settings: {a: {env: ACME_A, default: x}}\n"
    )
    digest = good(text).digest
    assert len(digest) == 16
    assert good(f"# a comment\n{text}", environ={"OTHER": "x"}).digest == digest
    others = [
        good(text.replace("name: r", "name: s")),
        good(text.replace("about the shop".title(), "x").replace("Shop,", "Shops,")),
        good(text, environ={"ACME_A": "y"}),
        good(text, components={"a": "b"}),
        good(text, components={"a": "c"}),
    ]
    assert len({digest, *(other.digest for other in others)}) == 6


def test_a_rule_knows_its_line():
    assert [
        rule.line for rule in good(acme("- name: a\n  when: {.a: 1}\n  ignore: x\n- {name: b, ignore: x}")).rules
    ] == [4, 7]


def test_one_program_serves_many_threads():
    mapping = good(acme(f"- name: r\n  event: {FLAG}"))
    wrong: list[object] = []

    def work(number: int) -> None:
        for _ in range(200):
            described = shown(mapping, {"id": number})
            if described["events"][0]["event"]["flag"]["flagProperties"]["id"] != str(number):
                wrong.append(described)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_hundred_rules_with_long_events_are_one_program():
    event = flag("${ .id }").replace('"Shop"', '"${ .a } ${ .b } ${ .c } ${ .d } ${ .e } ${ .f } ${ .g } ${ .h }"')
    rules = "\n".join(f"- {{name: rule {n}, when: {{.n: {n}}}, event: {event}}}" for n in range(100))
    mapping = good(acme(rules))
    assert shown(mapping, {"n": 99, "id": 1, "a": "x"})["rule"] == "rule 99"
    assert shown(mapping, {"n": 100})["status"] == "unmatched"


words = st.sampled_from(
    ["source", "acme", "verify", "rules", "name", "when", "ignore", "event", "events", "flag", "settings", "tables",
     "define", "env", "default", "one_of", "component", "none", "for_each", "priority", "urgent", "dedupe", "hmac",
     "sha256", "header", "X-A", "secret", "ACME_S", "ACME_A", "${ .a }", "${ . } ${", ".a", "def f: 1;", "docs", "a.b"]
)  # fmt: skip
scalars = st.one_of(words, st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))
anything = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=4), max_leaves=12
)


@st.composite
def nearly_right(draw):
    """A right file with one part replaced, at any depth, by something else."""
    data: dict[str, Any] = {
        "source": "acme",
        "verify": {"hmac": "sha256", "header": "X-A", "secret": "ACME_S", "unsigned_when": {".a": 1}},
        "dedupe": "${ .id }",
        "settings": {"a": {"env": "ACME_A", "default": "x", "one_of": ["x"]}},
        "tables": {"t": {"a": "b"}},
        "define": "def f: 1;",
        "rules": [
            {"name": "a", "when": {".a": [1, None]}, "ignore": "${ f }"},
            {
                "name": "b",
                "component": ["${ component(.a) }"],
                "events": [{"when": ".b", "for_each": ".c", "event": {"flag": {"displayName": "${ $item }"}}}],
            },
        ],
    }
    part: Any = data
    while True:
        key = draw(st.sampled_from(list(part) if isinstance(part, dict) else list(range(len(part)))))
        inner = part[key]
        if not isinstance(inner, (dict, list)) or not inner or draw(st.booleans()):
            part[key] = draw(anything)
            return data
        part = inner


@limits(deadline=None)
@always(st.one_of(anything, nearly_right()), st.sampled_from([None, {}, {"a": "b"}]))
def test_any_document_is_a_mapping_or_a_list_of_faults(data, components):
    document = parse_document(json.dumps(data, ensure_ascii=False), file="f")
    if isinstance(document, Fault):  # YAML knows characters that it does not allow
        return
    match compile_mapping(document, environ={"ACME_A": "y"}, components=components):
        case Mapping() as mapping:
            assert translated(mapping, {"a": 1})
        case faults:
            assert faults
            assert all(isinstance(fault, Fault) and fault.reason for fault in faults)


def test_a_document_of_any_shape_knows_at_least_its_file():
    document = parse_document("rules: 7", file="f")
    assert isinstance(document, Document)
    assert all(fault.where == "f" for fault in document.violations("schema.json")[()])
