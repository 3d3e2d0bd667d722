"""`python -m benchmarks.lone`: how soon a lone webhook is at its destination, when nothing else is to do.

A default `relay serve` in front of a sandbox; a hundred signed webhooks, one each 100 ms; from the first byte that is
posted to the arrival of the event's request at the sandbox.
"""

import sys
import tempfile
import time
from pathlib import Path

import requests

from benchmarks import machine, servers, webhooks
from relay.dispatch.quota import Quota
from relay.sandbox.compass import SandboxConfig
from relay.sandbox.server import running_sandbox

COUNT, WARM_UP, EVERY = 100, 10, 0.1
QUOTA = "500/60s"  # the documented 100 would do for the hundred, not for the warm-up as well


def main() -> None:
    """Measure and print."""
    posted: dict[str, float] = {}
    with (
        tempfile.TemporaryDirectory(prefix="relay-bench-") as name,
        running_sandbox(SandboxConfig(quota=Quota.parse(QUOTA)), clock=_now_ms) as sandbox,
        servers.relay(Path(name), f"sqlite:///{name}/relay.db", **delivering(sandbox.url)) as (url, _),
        requests.Session() as session,
    ):
        for number, (signature, body) in enumerate(webhooks.signed(range(0, 2 * (WARM_UP + COUNT), 2))):
            began = time.time()
            headers = {"Content-Type": "application/json", webhooks.SCHEME.header: signature}
            answer = session.post(f"{url}/webhooks/{webhooks.SOURCE}", data=body, headers=headers, timeout=10)
            if answer.status_code != 202:
                sys.exit(f"answered {answer.status_code}: {answer.text}")
            posted[f"Q{number:013d}"] = began
            time.sleep(max(0.0, began + EVERY - time.time()))
        time.sleep(1)
        seen = sandbox.requests()
    took = sorted(
        max(0.0, request.at - began * 1000)
        for incident, began in list(posted.items())[WARM_UP:]
        for request in seen
        if request.entity is not None and incident in request.entity
    )
    print(f"{len(took)} of {COUNT} arrived; load {machine.load():.1f}")
    if len(took) == COUNT:
        for what, value, goal in (("p50", took[COUNT // 2], 15), ("p99", took[COUNT * 99 // 100 - 1], 60)):
            print(f"{what} {value:.1f} ms (goal: under {goal} ms) {'reached' if value < goal else 'NOT REACHED'}")
        print(f"max {took[-1]:.1f} ms")


def delivering(compass_url: str) -> dict[str, str]:
    """The settings of a relay that delivers there."""
    return {
        "RELAY_DISPATCHER": "on",
        "COMPASS_URL": compass_url,
        "COMPASS_CLOUD_ID": "cloud-1",
        "COMPASS_EMAIL": "relay@example.com",
        "COMPASS_API_TOKEN": "token-of-the-benchmarks",
        "COMPASS_QUOTA": QUOTA,
    }


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


if __name__ == "__main__":
    main()
