"""Real PagerDuty webhooks, as their authors published them, become what the mapping file promises."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from relay.intake import read_json
from relay.mapping import load_mappings
from relay.mapping.compiled import Mapping
from relay.mapping.examples import describe
from relay.model import Lane, Translated, Webhook
from relay.translate import translate

ROOT = Path(__file__).parents[1]
CORPUS = Path(os.environ.get("RELAY_PAYLOADS", ROOT.parent / "shared" / "payloads")) / "pagerduty"

pytestmark = pytest.mark.skipif(not CORPUS.is_dir(), reason="the published payloads are not here")


@dataclass(frozen=True)
class Incident:
    """What is expected of a webhook that becomes an incident."""

    id: str
    service: str
    title: str
    description: str
    order: int
    start: str
    state: str = "OPEN"
    end: str | None = None
    severity: dict[str, str] | None = None


INCIDENTS = {
    "gopagerduty_incident.priority_updated_signed.json": Incident(
        "PGR0VU2",
        "PF9KMXH",
        "A little bump in the road",
        "API Service · #2 · high urgency · priority changed by Tenex Engineer",
        1619458587458,
        "2021-04-26T17:36:27.458Z",
        severity={"label": "P1", "level": "ONE"},
    ),
    "pddocs_incident.priority_updated.json": Incident(
        "PGR0VU2",
        "PF9KMXH",
        "A little bump in the road",
        "API Service · #2 · high urgency · priority changed by Tenex Engineer",
        1601664322169,
        "2020-04-09T15:16:27Z",
        severity={"label": "P1", "level": "ONE"},
    ),
    "zulip_triggered_v3.json": Incident(
        "PFQZPSY",
        "PA2P440",
        "Test Incident 3",
        "pig208 · #9 · high urgency · triggered by PIG 208",
        1622813729781,
        "2021-06-04T13:35:29.781Z",
    ),
    "zulip_acknowledged_v3.json": Incident(
        "PQ1K5C8",
        "PA2P440",
        "Test Incident",
        "pig208 · #10 · high urgency · acknowledged by PIG 208",
        1622814930394,
        "2021-06-04T13:55:30.394Z",
    ),
    "zulip_unacknowledged_v3.json": Incident(
        "PQ1K5C8",
        "PA2P440",
        "Test Incident",
        "pig208 · #10 · high urgency · unacknowledged by PIG 208",
        1622814863185,
        "2021-06-04T13:54:23.185Z",
    ),
    "zulip_reassigned_v3.json": Incident(
        "PIQUG8X",
        "PA2P440",
        "Test Incident",
        "pig208 · #3 · high urgency · reassigned by PIG 208",
        1622801874838,
        "2021-06-04T10:17:54.838Z",
    ),
    "zulip_escalate_v3.json": Incident(
        "Q3B15VLMF3ASBD",
        "PLVTM9H",
        "Critical: Checkout API High Latency",
        "Default Service · #5 · high urgency · escalated by Harsh Santwani",
        1775009284642,
        "2026-04-01T02:07:30Z",
        severity={"label": "P1", "level": "ONE"},
    ),
    "zulip_reopened_v3.json": Incident(
        "Q05XJA8GDXGOB3",
        "PLVTM9H",
        "Test Incident 2",
        "Default Service · #4 · low urgency · reopened by Harsh Santwani",
        1775009702274,
        "2026-03-30T13:37:07Z",
        severity={"label": "P3", "level": "THREE"},
    ),
    "zulip_resolved_v3.json": Incident(
        "PCPZE64",
        "PA2P440",
        "Test Incident",
        "pig208 · #6 · high urgency · resolved by PIG 208",
        1622812613816,
        "2021-06-04T13:16:53.816Z",
        state="RESOLVED",
        end="2021-06-04T13:16:53.816Z",
    ),
}

IGNORED = {
    "aldaviva_pagey.ping_signed.json": "test event",
    "axonius_pagey.ping.json": "test event",
    "pddocs_service.updated.json": "service",
    "pddocs_v2_incident.acknowledge.json": "V2 webhook",
    "pddocs_v2_incident.assign.json": "V2 webhook",
    "pddocs_v2_incident.resolve.json": "V2 webhook",
    "pddocs_v2_incident.trigger.json": "V2 webhook",
    "zulip_annotated_v3.json": "note",
    "zulip_conference_bridge_updated_v3.json": "incident details",
    "zulip_responder_added.json": "responder",
    "zulip_service_created_v3.json": "service",
    "zulip_status_updated_v3.json": "status update",
}


@pytest.fixture(scope="module")
def mapping() -> Mapping:
    return load_mappings(ROOT / "mappings", environ={})["pagerduty"]


def read(file: str) -> tuple[Webhook, Any]:
    raw = (CORPUS / file).read_bytes()
    text, body = read_json(raw)
    return Webhook("pagerduty", {}, raw, text, body), body


@pytest.mark.parametrize("file", INCIDENTS)
def test_an_incident_stands_in_compass_as_in_pagerduty(mapping: Mapping, file: str) -> None:
    expected = INCIDENTS[file]
    webhook, body = read(file)
    translation, key = translate(webhook, mapping)
    assert isinstance(translation, Translated), describe(translation)
    (event,) = translation.events
    properties = event.body["incident"]["incidentProperties"]
    assert (translation.rule, event.type, event.lane) == ("incident", "incident", Lane.URGENT)
    assert (event.component, event.unrouted) == (None, None)
    assert (event.order, event.state, event.event_source) == (expected.order, expected.state, expected.service)
    assert event.entity == f'["incident", "{expected.service}", "{expected.id}", null]'
    assert event.body["incident"]["displayName"] == expected.title
    assert event.body["incident"]["description"] == expected.description
    assert event.body["incident"]["url"] == body["event"]["data"]["html_url"]
    assert event.body["incident"]["lastUpdated"] == body["event"]["occurred_at"]
    assert (properties["startTime"], properties.get("endTime")) == (expected.start, expected.end)
    assert properties.get("severity") == expected.severity
    assert key == body["event"]["id"]


@pytest.mark.parametrize("file", IGNORED)
def test_what_says_nothing_about_an_incidents_state_is_ignored_with_a_reason(mapping: Mapping, file: str) -> None:
    described = describe(translate(read(file)[0], mapping)[0])
    assert (described["status"], described["rule"]) == ("ignored", IGNORED[file])
    assert described["reason"]


def test_every_payload_is_expected() -> None:
    assert {path.name for path in CORPUS.glob("*.json")} == {*INCIDENTS, *IGNORED}
