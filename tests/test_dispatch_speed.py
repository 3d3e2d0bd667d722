"""What a claim costs does not depend on how much waits. Ratios only, from runs side by side."""

import json
import statistics
import time

import pytest
import sqlalchemy as sa

from relay.dispatch.quota import Quota
from relay.model import Answer, Claim, Lane
from relay.outbox.rows import event_row
from tests.simulation import BEGIN, World, event

PLENTY = Quota(limit=1_000_000, window_ms=60_000)


def backlog(size: int) -> World:
    """So many events wait, two for each entity, in all lanes."""
    world = World(PLENTY)
    states = ("OPEN", "RESOLVED")
    rows = []
    for n in range(size):
        one = event(f"e{n // 2}", states[n % 2], BEGIN + n, lane=Lane(n // 2 % 3))
        rows.append({**event_row(one), "created_at": BEGIN, "due_at": BEGIN, "rank": one.lane.value})
    columns = ", ".join(rows[0])
    values = ", ".join(f":{column}" for column in rows[0])
    with world.outbox.write() as connection:
        connection.execute(sa.text(f"INSERT INTO events ({columns}) VALUES ({values})"), rows)  # noqa: S608 - our own columns
    return world


def per_second(world: World, deliveries: int) -> float:
    began = time.process_time()
    for _ in range(deliveries):
        claim = world.claim()
        assert isinstance(claim, Claim)
        world.settle(claim, Answer(202))
    return deliveries / (time.process_time() - began)


def compare(few: int, many: int, *, rounds: int, deliveries: int) -> float:
    worlds = {few: backlog(few), many: backlog(many)}
    rates: dict[int, list[float]] = {few: [], many: []}
    for world in worlds.values():
        per_second(world, deliveries)
    for _ in range(rounds):
        for size, world in worlds.items():
            rates[size].append(per_second(world, deliveries))
    for world in worlds.values():
        world.close()
    medians = {size: statistics.median(rate) for size, rate in rates.items()}
    told = {f"{size} waiting": f"{median:.0f} claimed and settled per second" for size, median in medians.items()}
    print(json.dumps(told))  # noqa: T201 - the figures are the point; pytest shows them with -rP
    return medians[many] / medians[few]


def test_a_claim_costs_the_same_behind_a_backlog():
    assert compare(100, 20_000, rounds=7, deliveries=12) >= 0.7


@pytest.mark.long
def test_a_claim_costs_the_same_behind_two_hundred_thousand():
    assert compare(100, 200_000, rounds=7, deliveries=12) >= 0.7
