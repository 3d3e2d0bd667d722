"""Webhooks to post: PagerDuty incidents as its documentation describes them, no two alike, each signed."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from relay.signature import Scheme, sign

SOURCE = "pagerduty"
SCHEME = Scheme("X-PagerDuty-Signature", "v1={hex}")
SECRET = "a-secret-of-the-benchmarks"  # noqa: S105 - it opens nothing

_STATUSES = (("triggered", "incident.triggered"), ("acknowledged", "incident.acknowledged"))
_START = datetime(2026, 3, 2, 8, 14, 5, tzinfo=UTC)


def webhook(number: int) -> dict[str, Any]:
    """One webhook, about 1.9 KB as JSON; `number` makes it unlike all others."""
    status, event_type = _STATUSES[number % 2]
    at = (_START + timedelta(milliseconds=37 * number)).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    incident = f"Q{number // 2:013d}"
    service = f"PSRV{number % 50:03d}"
    return {
        "event": {
            "id": f"01E{number:023d}",
            "event_type": event_type,
            "resource_type": "incident",
            "occurred_at": at,
            "agent": _reference("user", f"PUSR{number % 9:03d}", "Ada Lovelace"),
            "client": {"name": "Monitoring", "url": "https://monitoring.example.com"},
            "data": {
                "id": incident,
                "type": "incident",
                "self": f"https://api.pagerduty.com/incidents/{incident}",
                "html_url": f"https://acme.pagerduty.com/incidents/{incident}",
                "number": number // 2,
                "status": status,
                "incident_key": f"{number:032x}",
                "created_at": at,
                "title": f"Checkout answers slowly in zone {number % 7}: p99 is {number % 9000} ms",
                "service": _reference("service", service, f"Checkout API {number % 50}"),
                "assignees": [
                    _reference("user", "PUSR001", "Ada Lovelace"),
                    _reference("user", "PUSR002", "Grace Hopper"),
                ],
                "escalation_policy": _reference("escalation_policy", "PESC001", "Checkout, day and night"),
                "teams": [_reference("team", "PTEAM01", "Checkout")],
                "priority": _reference("priority", f"PPRIO0{number % 5}", f"P{number % 5 + 1}"),
                "urgency": "high",
                "conference_bridge": {"conference_number": "+1-555-0100,,1234#", "conference_url": None},
                "resolve_reason": None,
            },
        }
    }


def _reference(kind: str, key: str, summary: str) -> dict[str, str]:
    return {
        "html_url": f"https://acme.pagerduty.com/{kind}s/{key}",
        "id": key,
        "self": f"https://api.pagerduty.com/{kind}s/{key}",
        "summary": summary,
        "type": f"{kind}_reference",
    }


def signed(numbers: range) -> Iterator[tuple[str, bytes]]:
    """The signature header's value and the body of each."""
    for number in numbers:
        body = json.dumps(webhook(number)).encode()
        yield sign(SCHEME, body=body, secret=SECRET), body


def write(path: Path, count: int) -> None:
    """A file for `post.lua`."""
    with path.open("wb") as file:
        for signature, body in signed(range(count)):
            file.write(signature.encode() + b"\t" + body + b"\n")
