"""Examples beside the mapping files are tests: they say what a request becomes, and are told where they are wrong."""

import json
from pathlib import Path
from textwrap import dedent

import pytest

from relay.mapping import load_mappings
from relay.mapping.examples import describe, run_examples
from relay.model import Failed, Ignored, Translated, Unmatched
from tests.mapping_files import acme, flag

ROOT = Path(__file__).parents[1]

MAPPING = acme(
    f"""
- name: flag
  when:
    $headers["x-kind"]: flag
  component: ${{ component(.team) }}
  event: {flag("${ .id }", status="${ $settings.word }")}
- name: quiet
  when: {{.quiet: true}}
  ignore: quiet at ${{ $settings.sites | join("+") }}
- name: broken
  when: {{.broken: true}}
  ignore: ${{ error("it broke") }}
""",
    """
    dedupe: ${ .id }
    settings:
      word: {env: ACME_WORD, default: on, one_of: [on, off]}
      sites: {env: ACME_SITES, default: [a, b]}
    """,
)
EVENT = json.loads(flag("7", status="on"))


def faults_of(folder: Path, example: str, *, name: str = "acme/case.yaml") -> list[str]:
    """What is said of one example, without the folder's path and the file's name."""
    (folder / "acme.yaml").write_text(MAPPING, encoding="utf-8")
    path = folder / "examples" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(example).lstrip(), encoding="utf-8")
    (ran,) = run_examples(folder)
    assert (ran.source, ran.case) == (path.parent.name, path.stem)
    return [str(fault).removeprefix(str(path)) for fault in ran.faults]


RIGHT = {
    "a status is enough": "{body: {}, expect: {status: unmatched}}",
    "no body is null": "expect: {status: unmatched, rule: null, events: []}",
    "an event whole": f"""
        headers: {{X-Kind: flag, Other: 7}}
        body: {{id: 7}}
        expect: {{status: translated, rule: flag, dedupe: "7", events: [{{type: flag, event: {json.dumps(EVENT)}}}]}}
        """,
    "with components": f"""
        about: A team of the list
        headers: {{X-Kind: flag}}
        body: {{id: 7, team: shop}}
        components: {{shop: c1}}
        expect: {{status: translated, events: [{{type: flag, component: c1, event: {json.dumps(EVENT)}}}]}}
        """,
    "and without the one": f"""
        headers: {{X-Kind: flag}}
        body: {{id: 7, team: bar}}
        components: {{shop: c1}}
        expect:
          status: translated
          events: [{{type: flag, component: null, unrouted: bar, event: {json.dumps(EVENT)}}}]
        """,
    "with settings": "{settings: {sites: [x, y]}, body: {quiet: true}, expect: {status: ignored, rule: quiet, "
    "reason: quiet at x+y}}",
    "a failure": "{body: {broken: true}, expect: {status: failed, rule: broken, field: ignore, reason: it broke}}",
    "no key": "{body: {quiet: true}, expect: {status: ignored, dedupe: null}}",
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_example_has_no_faults(tmp_path, name):
    assert faults_of(tmp_path, RIGHT[name]) == []


WRONG = {
    "body: [": [":1: not YAML: expected the node content, but found '<stream end>'"],
    "[]": [":1: [] is not of type 'object'"],
    "": [": None is not of type 'object'"],
    "body: 1": [":1: 'expect' is a required property"],
    "expect: {status: fine, colour: red}\nheaders: {a: [b]}\nsetings: 1": [
        ":1: Additional properties are not allowed ('setings' was unexpected)",
        ":1: expect: Additional properties are not allowed ('colour' was unexpected)",
        ":1: expect.status: 'fine' is not one of ['translated', 'ignored', 'unmatched', 'failed']",
        ":2: headers.a: ['b'] is not of type 'string', 'number'",
    ],
    "settings: {nosuch: x}\nexpect: {status: unmatched}": [":1: settings.nosuch: FOLDER/acme.yaml has no such setting"],
    "settings: {word: maybe}\nexpect: {status: unmatched}": ["ACME_WORD: must be one of on, off; 'maybe' is not"],
    "body: {quiet: true}\nexpect:\n  status: unmatched\n  rule: loud\n  reason: quiet at a\n  dedupe: x": [
        ':3: expect.status: expected "unmatched", got "ignored"',
        ':4: expect.rule: expected "loud", got "quiet"',
        ':5: expect.reason: expected "quiet at a", got "quiet at a+b"',
        ':6: expect.dedupe: expected "x", got null',
    ],
    "body: {quiet: true}\nexpect: {status: ignored, events: [{type: flag, event: {}}]}": [
        ":2: expect.events: expected 1 of them, got 0: []"
    ],
}


@pytest.mark.parametrize("example", WRONG)
def test_a_wrong_example_is_told_where_it_is_wrong(tmp_path, example):
    assert faults_of(tmp_path, example) == [fault.replace("FOLDER", str(tmp_path)) for fault in WRONG[example]]


def test_every_member_of_an_event_that_is_other_than_expected_is_told(tmp_path):
    example = f"""
        headers: {{x-kind: flag}}
        body: {{id: 7, team: shop}}
        components: {{shop: c1}}
        expect:
          status: translated
          events:
            - type: push
              event:
                flag:
                  displayName: Shop
                  updateSequenceNumber: true
                  lastUpdated: null
                  colour: null
                  flagProperties: {json.dumps(EVENT["flag"]["flagProperties"]["id"])}
        """
    assert faults_of(tmp_path, example) == [
        ':7: expect.events[0].type: expected "push", got "flag"',
        ":11: expect.events[0].event.flag.updateSequenceNumber: expected true, got 7",
        ':12: expect.events[0].event.flag.lastUpdated: expected null, got "2026-01-31T10:00:00Z"',
        ':14: expect.events[0].event.flag.flagProperties: expected "7", got {"id": "7", "status": "on"}',
        ':9: expect.events[0].event.flag.description: is not expected, but is "About the shop"',
        ':9: expect.events[0].event.flag.externalEventSourceId: is not expected, but is "shop"',
        ':9: expect.events[0].event.flag.url: is not expected, but is "https://acme.example/1"',
        ':7: expect.events[0].component: is not expected, but is "c1"',
    ]


def test_an_example_of_a_source_without_a_file_is_a_fault(tmp_path):
    faults = faults_of(tmp_path, "expect: {status: unmatched}", name="nobody/case.yaml")
    assert faults == [": no mapping file is for the source 'nobody'"]


def test_the_environment_has_no_say_in_examples(tmp_path, monkeypatch):
    monkeypatch.setenv("ACME_SITES", "from the environment")
    assert faults_of(tmp_path, "{body: {quiet: true}, expect: {status: ignored, reason: quiet at a+b}}") == []


def test_an_example_sees_no_more_headers_than_a_real_webhook(tmp_path):
    example = f"""
        headers: {{X-Kind: flag, X-Acme-Signature: "00"}}
        body: {{id: 7}}
        expect: {{status: translated, events: [{{type: flag, event: {json.dumps(EVENT)}}}]}}
        """
    assert faults_of(tmp_path, example) == []


def test_examples_run_in_the_order_of_their_names(tmp_path):
    (tmp_path / "acme.yaml").write_text(MAPPING, encoding="utf-8")
    for name in ("b", "a", "c"):
        (tmp_path / "examples" / "acme").mkdir(parents=True, exist_ok=True)
        (tmp_path / "examples" / "acme" / f"{name}.yaml").write_text("expect: {status: unmatched}")
    assert [example.case for example in run_examples(tmp_path)] == ["a", "b", "c"]
    assert not list(run_examples(tmp_path / "examples"))


def test_a_translation_is_described_as_the_command_line_prints_it():
    assert describe(Translated("r", ())) == {"status": "translated", "rule": "r", "events": []}
    assert describe(Unmatched()) == {"status": "unmatched", "rule": None, "events": []}
    assert describe(Ignored("r", "why")) == {"status": "ignored", "rule": "r", "reason": "why", "events": []}
    failed = {"status": "failed", "rule": "r", "field": "when", "reason": "why", "events": []}
    assert describe(Failed("r", "when", "why")) == failed


def test_the_bundled_examples_are_right_and_every_source_has_some():
    folder = ROOT / "mappings"
    ran = list(run_examples(folder))
    assert [str(fault) for example in ran for fault in example.faults] == []
    assert {example.source for example in ran} == set(load_mappings(folder, environ={}))
