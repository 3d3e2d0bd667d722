"""An incident storm in simulated time, on both databases: how many requests it takes, how long, and who waits."""

from dataclasses import dataclass
from itertools import groupby
from random import Random

import pytest

from relay.dispatch.quota import Quota
from relay.model import Claim, Event, Lane
from tests.simulation import BEGIN, World, event

MINUTE = 60_000
COMPASS = Quota.parse("100/60s")
TOOK_MS = 200
"""How long Compass takes for an answer."""


@dataclass(frozen=True)
class Storm:
    """What was sent, and what it might have been."""

    sent: list[tuple[int, Claim]]
    least: int
    """Each change of an incident's state, and each of the other events, once."""
    most_in_a_window: int

    @property
    def drained_ms(self) -> int:
        """From the first claim to the last."""
        return self.sent[-1][0] - self.sent[0][0]

    @property
    def use(self) -> float:
        """The part of the quota that was used until everything was drained."""
        return len(self.sent) / COMPASS.limit / (self.drained_ms / MINUTE)

    def __str__(self) -> str:
        return (
            f"{len(self.sent)} requests sent, {self.least} are the least possible "
            f"({len(self.sent) / self.least - 1:+.1%}); drained in {self.drained_ms / MINUTE:.1f} min; "
            f"{self.use:.1%} of the quota used; at most {self.most_in_a_window} requests in any 60 s"
        )


def storm(url: str, *, webhooks: int, incidents: int, low: int, minutes: float, seed: int = 1) -> Storm:
    """So many webhooks about so many incidents within minutes, and others of low priority at the beginning."""
    rng = Random(seed)
    moments = sorted(rng.randrange(int(minutes * MINUTE)) for _ in range(webhooks))
    states: dict[str, list[str]] = {}
    arrivals: list[tuple[int, Event]] = []
    for moment in moments:
        name = f"incident {rng.randrange(incidents)}"
        history = states.setdefault(name, [])
        if not history:
            history.append("OPEN")
        else:
            changed = "OPEN" if history[-1] == "RESOLVED" else "RESOLVED"
            history.append(changed if rng.random() < 0.02 else history[-1])
        one = event(name, history[-1], BEGIN + moment, lane=Lane.URGENT, terminal=False)
        arrivals.append((BEGIN + moment, one))
    arrivals += [(BEGIN, event(f"comment {n}", None, BEGIN, lane=Lane.LOW)) for n in range(low)]
    world = World(COMPASS, url)
    sent = world.run(arrivals, took_ms=TOOK_MS)
    least = sum(len(list(groupby(history))) for history in states.values()) + low
    for name, history in states.items():
        assert world.compass.shown[name, None].body["incident"]["state"] == history[-1]
        told = [claim.body["incident"]["state"] for _, claim in sent if claim.body["incident"]["id"] == name]
        assert [state for state, _ in groupby(told)] == [state for state, _ in groupby(history)]
    most = world.compass.most_in_a_window(COMPASS.window_ms)
    world.close()
    return Storm(sent, least, most)


def check(result: Storm) -> None:
    print(result)  # noqa: T201 - the figures are the point; pytest shows them with -rP
    assert result.most_in_a_window <= COMPASS.limit, "answered 429"
    assert result.use >= 0.98
    urgent = [at for at, claim in result.sent if claim.body["incident"]["id"].startswith("incident")]
    low_by_then = sum(at <= urgent[-1] for at, _ in result.sent) - len(urgent)
    assert low_by_then <= 0.2 * (len(result.sent) - len(urgent)), "urgent ones were not drained first"


def test_a_storm_takes_hardly_more_requests_than_the_least_possible(database_url: str):
    result = storm(database_url, webhooks=1000, incidents=20, low=250, minutes=0.2)
    check(result)
    # While it still comes in there are free slots, and updates that change no state use some of them.
    assert len(result.sent) <= result.least + 2 * 20


def test_a_resolved_incident_does_not_wait_behind_five_hundred_comments(database_url: str):
    """Not even when they have used up all that the quota had to give at once."""
    resolved_at = BEGIN + 2 * MINUTE
    arrivals = [(BEGIN, event(f"comment {n}", None, BEGIN, lane=Lane.LOW)) for n in range(500)]
    arrivals.append((resolved_at, event("incident", "RESOLVED", resolved_at, lane=Lane.URGENT)))
    world = World(COMPASS, database_url)
    sent = world.run(arrivals, took_ms=TOOK_MS)
    at = next(at for at, claim in sent if claim.body["incident"]["id"] == "incident")
    assert sum(1 for moment, _ in sent if moment > at) > 200, "most comments waited still"
    assert at - resolved_at <= COMPASS.window_ms / COMPASS.limit
    world.close()


@pytest.mark.long
@pytest.mark.parametrize(("minutes", "more"), [(1, 1.04), (10, 1.35)])
def test_ten_thousand_webhooks_about_fifty_incidents_and_two_thousand_others(
    database_url: str, minutes: int, more: float
):
    result = storm(database_url, webhooks=10_000, incidents=50, low=2000, minutes=minutes)
    check(result)
    assert len(result.sent) <= more * result.least
    waited = sorted(changes_waited(result))
    print(f"changes of state waited {waited[len(waited) // 2]} ms (median), {waited[len(waited) * 9 // 10]} ms (p90)")  # noqa: T201


def changes_waited(result: Storm) -> list[int]:
    """How long each change of an incident's state waited before it was sent."""
    told: dict[str, str] = {}
    waited = []
    for _, claim in result.sent:
        incident = claim.body["incident"]
        if incident["state"] is not None and told.get(incident["id"]) != incident["state"]:
            waited.append(claim.waited_ms)
            told[incident["id"]] = incident["state"]
    return waited
