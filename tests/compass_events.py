"""Valid Compass events, written from the contract's facts: the least of every kind, and everything of every kind."""

import copy
from typing import Any

DATE = "2026-10-01T10:00:00Z"

_SHARED: dict[str, Any] = {
    "displayName": "Checkout errors",
    "description": "Payments are refused",
    "url": "https://tool.example/things/1",
    "externalEventSourceId": "source-1",
    "lastUpdated": DATE,
    "updateSequenceNumber": 1_790_848_800_000,
}

LEAST: dict[str, dict[str, Any]] = {
    "deployment": {
        **_SHARED,
        "deploymentProperties": {
            "sequenceNumber": 7,
            "state": "PENDING",
            "pipeline": {"pipelineId": "p1", "url": "https://ci.example/p1", "displayName": "release"},
            "environment": {"category": "PRODUCTION", "displayName": "prod", "environmentId": "e1"},
        },
    },
    "build": {
        **_SHARED,
        "buildProperties": {"state": "IN_PROGRESS", "pipeline": {"pipelineId": "p1"}, "startedAt": DATE},
    },
    "incident": {**_SHARED, "incidentProperties": {"id": "i1", "state": "OPEN", "startTime": DATE}},
    "flag": {**_SHARED, "flagProperties": {"id": "f1"}},
    "alert": {**_SHARED, "alertProperties": {"id": "a1"}},
    "lifecycle": {**_SHARED, "lifecycleProperties": {"id": "l1", "stage": "PRE_RELEASE"}},
    "custom": {**_SHARED, "customEventProperties": {"id": "c1", "icon": "INFO"}},
    "push": {**_SHARED, "pushEventProperties": {"id": "abc", "branchName": "main"}},
    "pullRequest": {
        "lastUpdated": DATE,
        "pullRequestProperties": {
            "id": "1",
            "repoUrl": "https://git.example/repo",
            "pullRequestUrl": "https://git.example/repo/1",
            "status": "CREATED",
        },
    },
    "vulnerability": {
        **_SHARED,
        "vulnerabilityProperties": {
            "id": "v1",
            "state": "OPEN",
            "severity": {"level": "HIGH"},
            "vulnerabilityStartTime": DATE,
        },
    },
}

_MORE: dict[str, dict[str, Any]] = {
    "deployment": {"deploymentProperties": {"startedAt": DATE, "completedAt": DATE}},
    "build": {
        "buildProperties": {
            "completedAt": DATE,
            "pipeline": {"url": "https://ci.example/p1", "displayName": "build"},
        }
    },
    "incident": {"incidentProperties": {"endTime": DATE, "severity": {"label": "P1", "level": "ONE"}}},
    "flag": {"flagProperties": {"status": "on"}},
    "alert": {
        "alertProperties": {
            "status": "OPENED",
            "priority": "P1",
            "createdAt": DATE,
            "acknowledgedAt": DATE,
            "snoozedAt": DATE,
            "closedAt": DATE,
        }
    },
    "push": {"pushEventProperties": {"author": {"name": "Ada", "email": "ada@example.org"}}},
    "pullRequest": {"cloudId": "cloud-1"},
    "vulnerability": {
        "vulnerabilityProperties": {
            "severity": {"label": "high"},
            "score": 7.5,
            "discoverySource": "scanner",
            "vulnerableTarget": "libfoo",
            "remediationTime": DATE,
        }
    },
}


def least(kind: str) -> dict[str, Any]:
    """An event of this kind with its required fields only; yours to change."""
    return {kind: copy.deepcopy(LEAST[kind])}


def whole(kind: str) -> dict[str, Any]:
    """An event of this kind with every field that it can have; yours to change."""
    return _merged(least(kind), {kind: _MORE.get(kind, {})})


def _merged(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    for name, value in copy.deepcopy(more).items():
        into[name] = _merged(into[name], value) if isinstance(into.get(name), dict) else value
    return into
