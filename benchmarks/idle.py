"""`python -m benchmarks.idle`: what a default `relay serve` costs while there is nothing to do.

From its start to the first 200 on /healthz; its memory; its processor time and context switches at rest.
"""

import statistics
import tempfile
import time
from pathlib import Path

from benchmarks import machine, servers
from benchmarks.lone import delivering

STARTS, REST = 5, 20


def main() -> None:
    """Measure and print."""
    took: list[float] = []
    for number in range(STARTS):
        with tempfile.TemporaryDirectory(prefix="relay-bench-") as name:
            began = time.monotonic()
            nowhere = f"http://127.0.0.1:{servers.free_port()}"
            url = f"sqlite:///{name}/relay.db"
            with servers.relay(Path(name), url, page="healthz", **delivering(nowhere)) as (_, pid):
                took.append(time.monotonic() - began)
                if number == STARTS - 1:
                    time.sleep(3)  # what a start still has to do afterwards
                    before = machine.usage(pid)
                    time.sleep(REST)
                    after = machine.usage(pid)
    print(f"start to the first 200 on /healthz: {statistics.median(took):.2f} s (best of {STARTS}: {min(took):.2f} s)")
    print(f"memory: {after.memory / 2**20:.0f} MB (PSS, all processes)")
    print(f"at rest: {(after.cpu - before.cpu) / REST * 100:.2f} % of a core, ", end="")
    print(f"{(after.switches - before.switches) / REST:.0f} context switches per second; load {machine.load():.1f}")


if __name__ == "__main__":
    main()
