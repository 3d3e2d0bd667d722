"""Two relays on one database, killed at random while the destination misbehaves in every way it knows."""

import json
import random
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import pytest
import requests

from relay.dispatch.quota import Quota
from relay.mapping import load_mappings
from relay.sandbox.compass import Effect, SandboxConfig
from relay.sandbox.server import Sandbox, running_sandbox
from tests.running import ROOT, Process, environment, eventually, free_port, post, process, serving

MAPPING = load_mappings(ROOT / "mappings", environ={})["pagerduty"]
QUOTA = Quota.parse("30/2s")
FAULTS: list[dict[str, object]] = [
    {"status": 500},
    {"status": 503, "retry_after": 1},
    {"status": 429, "retry_after": 1},
    {"delay_ms": 300},
    {"hold_ms": 300},
    {"drop": "before"},
    {"drop": "after"},
    {"html": True, "status": 200},
    {"redirect": "https://login.example.com/"},
    {"status": 401},
    {"type": "STORE_CONFLICT_EXCEPTION"},
]
"""Every kind there is, but for the answers that refuse an event for good: a dead letter would be right then."""


class Crowd:
    """Posts updates of a few incidents to the relays, and remembers what was promised with a 202."""

    def __init__(self, urls: list[str], rng: random.Random) -> None:
        self.promised: dict[str, int] = {}
        """By incident: the moment of its newest update that was answered 202."""
        self.posted: dict[tuple[str, str], str] = {}
        """By incident and moment: the state of every update, also of those that were killed before an answer."""
        self._urls = urls
        self._rng = rng
        self._clock = 0
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        self._thread.join()

    def _work(self) -> None:
        while not self._stopping.wait(self._rng.uniform(0, 0.04)):
            self._clock += 1
            incident = f"P{self._rng.randrange(40):04d}"
            status = self._rng.choice(["triggered", "acknowledged", "resolved"])
            self.posted[incident, _at(self._clock)] = "RESOLVED" if status == "resolved" else "OPEN"
            body = _body(incident, status, self._clock)
            try:
                answer = post(self._rng.choice(self._urls), MAPPING, body, {})
            except requests.RequestException:
                continue  # killed before it answered: nothing was promised
            assert answer.status_code in (202, 503), answer.text
            if answer.status_code == 202:
                self.promised[incident] = self._clock


def _at(clock: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(1_790_000_000 + clock))


def _body(incident: str, status: str, clock: int) -> bytes:
    data = {
        "id": incident,
        "type": "incident",
        "status": status,
        "title": "T",
        "number": 1,
        "html_url": f"https://acme.pagerduty.com/incidents/{incident}",
        "service": {"id": "S1", "summary": "s"},
    }
    event = {"id": f"e{clock}", "event_type": "incident.triggered", "occurred_at": _at(clock), "data": data}
    return json.dumps({"event": event}).encode()


@pytest.mark.parametrize(("rounds", "worst"), [(3, 2), pytest.param(100, 5, marks=pytest.mark.long)])
def test_nothing_promised_is_lost_and_the_quota_holds(tmp_path, rounds, worst):
    rng = random.Random(rounds)
    with running_sandbox(SandboxConfig(quota=QUOTA)) as sandbox, ExitStack() as processes:
        database = f"sqlite:///{tmp_path}/relay.db"
        envs = [
            environment(database, compass_url=sandbox.url, port=free_port(), COMPASS_QUOTA=str(QUOTA)) for _ in range(2)
        ]
        relays = [_start(processes, env, tmp_path / f"relay-{at}.log") for at, env in enumerate(envs)]
        with Crowd([f"http://127.0.0.1:{env['PORT']}" for env in envs], rng) as crowd:
            for _ in range(rounds):
                sandbox.fail({**rng.choice(FAULTS), "times": rng.randint(1, worst)})
                time.sleep(rng.uniform(0.1, 1.5))
                at = rng.randrange(2)
                relays[at].kill()
                relays[at] = _start(processes, envs[at], tmp_path / f"relay-{at}.log")
        sandbox.behave()
        with process("resume", "compass", env=envs[0], log=tmp_path / "resume.log") as resume:
            assert resume.popen.wait(30) == 0
        assert len(crowd.promised) > 10
        # The last leases that were killed end after 30 s, the longest retry that counts comes after 2 minutes.
        eventually(lambda: _missing(sandbox, crowd) == set(), within=240)
    _the_quota_held(sandbox)
    _nothing_went_backwards(sandbox)


def _start(processes: ExitStack, env: dict[str, str], log: Path) -> Process:
    return processes.enter_context(serving(env, log))


def _missing(sandbox: Sandbox, crowd: Crowd) -> set[str]:
    """The incidents of which Compass does not show what was promised, or something newer."""
    shown = {event.entity: event for event in sandbox.events()}
    missing = set()
    for incident, clock in crowd.promised.items():
        event = shown.get(incident)
        at = "" if event is None else event.event["incident"]["lastUpdated"]
        if event is None or at < _at(clock) or crowd.posted[incident, at] != event.state:
            missing.add(incident)
    return missing


def _the_quota_held(sandbox: Sandbox) -> None:
    seen = sandbox.requests()
    arrivals = [request.at for request in seen]
    most = max(
        sum(1 for other in arrivals[at:] if other < arrivals[at] + QUOTA.window_ms) for at in range(len(arrivals))
    )
    assert most <= QUOTA.limit
    assert [request for request in seen if request.status == 429 and not request.faulty] == []


def _nothing_went_backwards(sandbox: Sandbox) -> None:
    """Of one entity no older update was sent after a newer one had taken effect."""
    newest: dict[str | None, int] = defaultdict(int)
    for request in sandbox.requests():
        if request.effect is Effect.STORED:
            assert request.number is not None
            assert request.number > newest[request.entity]
            newest[request.entity] = request.number
