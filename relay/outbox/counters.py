"""What all processes have counted, added up where they all meet.

Not within the commits that are counted: every webhook would wait for the one row of its source. A process
adds what has come together every few seconds (`relay.counting`).
"""

from collections.abc import Mapping

import sqlalchemy as sa

from relay.outbox import Outbox

Series = tuple[str, str]
"""A sample's name, and its labels as JSON with sorted keys."""


def add(outbox: Outbox, growth: Mapping[Series, float]) -> None:
    """Every series has grown by so much. Raises StoreUnavailable."""
    # In one order for everybody, so that two processes never wait for each other.
    rows = [{"name": name, "labels": labels, "value": growth[name, labels]} for name, labels in sorted(growth)]
    with outbox.write() as connection:
        if not outbox.sqlite:
            # A count needs no flush of the disk of its own.
            connection.execute(sa.text("SET LOCAL synchronous_commit = off"))
        connection.execute(_ADD, rows)


def totals(outbox: Outbox) -> dict[Series, float]:
    """Every series as it stands. Raises StoreUnavailable."""
    with outbox.read() as connection:
        return {(row.name, row.labels): row.value for row in connection.execute(_TOTALS)}


_ADD = sa.text("""
INSERT INTO counters (name, labels, value) VALUES (:name, :labels, :value)
ON CONFLICT (name, labels) DO UPDATE SET value = counters.value + excluded.value
""")

_TOTALS = sa.text("SELECT name, labels, value FROM counters")
