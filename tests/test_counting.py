"""What several processes count adds up, on both databases, whoever is asked and whoever has ended."""

import subprocess
import sys

import pytest

from relay.counting import Counting
from relay.errors import StoreUnavailable
from relay.telemetry import count_attempt, count_webhook

COUNT = """
import sys
from relay.counting import Counting
from relay.outbox import Outbox
from relay.telemetry import count_attempt, count_webhook
outbox = Outbox(sys.argv[1])
counting = Counting(outbox)
counting.start()
for _ in range(int(sys.argv[2])):
    count_webhook(source="acme", status="translated", seconds=0.004)
    count_attempt(destination="compass", outcome="delivered")
counting.stop()
outbox.close()
"""

WEBHOOKS = ("relay_webhooks_total", '{"source": "acme", "status": "translated"}')
ATTEMPTS = ("relay_attempts_total", '{"destination": "compass", "outcome": "delivered"}')


def test_processes_add_up_even_those_that_have_ended(database_url, outbox):
    started = [subprocess.Popen([sys.executable, "-c", COUNT, database_url, str(times)]) for times in (1, 20, 300)]
    assert [process.wait(30) for process in started] == [0, 0, 0]
    totals = Counting(outbox).totals()
    assert totals[WEBHOOKS] == totals[ATTEMPTS] == 321
    assert totals["relay_intake_seconds_count", "{}"] == 321
    assert totals["relay_intake_seconds_bucket", '{"le": "+Inf"}'] == 321
    assert totals["relay_intake_seconds_sum", "{}"] == pytest.approx(321 * 0.004)


def test_a_counter_never_goes_back_whoever_is_asked(outbox):
    one, other = Counting(outbox), Counting(outbox)
    count_webhook(source="acme", status="translated", seconds=0.004)
    told = [who.totals()[WEBHOOKS] for who in (one, other, one, other)]
    assert told == sorted(told)


def test_what_is_counted_while_the_database_refuses_is_added_later(outbox):
    counting = Counting(outbox)
    with outbox.write() as connection:
        connection.exec_driver_sql("ALTER TABLE counters RENAME TO away")
    count_attempt(destination="compass", outcome="delivered")
    with pytest.raises(StoreUnavailable):
        counting.totals()
    with outbox.write() as connection:
        connection.exec_driver_sql("ALTER TABLE away RENAME TO counters")
    count_attempt(destination="compass", outcome="delivered")
    assert counting.totals()[ATTEMPTS] == 2
