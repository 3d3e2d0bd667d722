"""The dispatcher: threads that deliver what the outbox holds, as soon as the quota lets them.

Each destination has a crew. One of its threads looks for work and sleeps while there is none; when it has a
claim it leaves its seat to the next one, and sends. So there are as many threads as requests under way, and
one more.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from math import ceil
from random import Random

import structlog

from relay.destinations import Destination, Limits
from relay.dispatch.deliver import deliver
from relay.dispatch.health import Outcome, State
from relay.dispatch.quota import Quota
from relay.dispatch.steady import Steady
from relay.errors import StoreUnavailable
from relay.outbox import Outbox, claims
from relay.outbox.calls import Listener
from relay.outbox.claims import Wait, Why

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

POLL = 2.0
"""Seconds after which the outbox is looked at in any case: other processes' calls may be lost, and on SQLite
there are none."""

BREATH = 0.02
"""Seconds between two looks that found nothing, however often somebody calls."""

CALM = 0.2
"""The same while something waits for its turn, and only an urgent event could go before it."""

MOST_THREADS = 40

DAY = 24 * 3600.0

FIRST_UPKEEP = 600.0
"""Seconds from the start to the first daily work: platforms restart their processes once a day, too."""

_DEAF = frozenset({Why.SLOT, Why.PAUSED, Why.TROUBLE})
"""While we wait for one of these, an arrival changes nothing."""


class Dispatcher:
    """Delivers to several destinations, in threads of its own. Start it after the fork."""

    def __init__(
        self,
        outbox: Outbox,
        destinations: Sequence[Destination],
        quotas: Mapping[str, Quota],
        *,
        rng: Random,
        daily: Callable[[], None] | None = None,
        observe: Callable[[str, Outcome], None] = lambda _destination, _outcome: None,
        poll: float = POLL,
    ) -> None:
        """Nothing is delivered before `start`.

        `quotas` has one quota for each destination's name; `daily` is work to be done once a day;
        `observe` is told every attempt's outcome; `poll` is in seconds.
        """
        self._outbox = outbox
        self._rng = rng
        self._daily = daily
        self._stopping = threading.Event()
        self._crews = [
            _Crew(
                outbox,
                destination,
                quotas[destination.name],
                stopping=self._stopping,
                rng=rng,
                observe=observe,
                poll=poll,
            )
            for destination in destinations
        ]
        self._upkeep = threading.Thread(target=self._keep_up, name="daily", daemon=True)
        self._listener = None if outbox.sqlite else Listener(outbox, self.wake)

    def start(self) -> None:
        """Begin to deliver, and be woken by this process's own commits and by other processes' calls."""
        self._outbox.on_commit = self.wake
        if self._listener is not None:
            self._listener.start()
        for crew in self._crews:
            crew.start()
        if self._daily is not None:
            self._upkeep.start()
        log.info("dispatcher.started", destinations=[crew.name for crew in self._crews])

    def wake(self) -> None:
        """Something was stored; call it as often as you like."""
        for crew in self._crews:
            crew.wake()

    def stop(self, timeout: float = 25.0) -> bool:
        """Finish what is on its way and take nothing new; True when that was done within `timeout` seconds.

        A request lives shorter than that, so normally no lease is left behind.
        """
        deadline = time.monotonic() + timeout
        self._stopping.set()
        if self._listener is not None:
            self._listener.stop()
        finished = all([crew.join(deadline) for crew in self._crews])  # noqa: C419 - every crew is asked
        log.info("dispatcher.stopped", finished=finished)
        return finished

    def _keep_up(self) -> None:
        pause = FIRST_UPKEEP
        while self._daily is not None and not self._stopping.wait(pause * self._rng.uniform(0.8, 1.2)):
            pause = DAY
            try:
                self._daily()
            except Exception:
                log.exception("dispatcher.daily_work_failed")


class _Crew:
    """The threads that deliver to one destination."""

    def __init__(
        self,
        outbox: Outbox,
        destination: Destination,
        quota: Quota,
        *,
        stopping: threading.Event,
        rng: Random,
        observe: Callable[[str, Outcome], None],
        poll: float,
    ) -> None:
        self.name = destination.name
        self._outbox = outbox
        self._destination = destination
        self._quota = quota
        self._stopping = stopping
        self._rng = rng
        self._observe = observe
        self._poll = poll
        self._steady = Steady(quota.margin_ms // 2)
        self._state = State.OPEN
        # One thread at a time asks the outbox. All is decided under the destination's lock anyway, and whoever
        # waits for that one in the database holds a connection meanwhile, of which there are few.
        self._turn = threading.Lock()
        # The seat of the one who looks for work, and who waits for it.
        self._seat = threading.Condition()
        self._looker: threading.Thread | None = None
        self._resting = 0
        # Enough to use the quota in full when every request takes as long as it may.
        self._most = min(MOST_THREADS, 1 + ceil(quota.limit * Limits().total * 1000 / quota.window_ms))
        self._threads: list[threading.Thread] = []
        self._bell = threading.Event()
        self._deaf = False

    def start(self) -> None:
        with suppress(StoreUnavailable):
            # Whoever starts us may just have put right what was wrong.
            claims.probe_soon(self._outbox, self.name)
        with self._seat:
            self._hire()

    def wake(self) -> None:
        if not self._deaf:
            self._bell.set()

    def join(self, deadline: float) -> bool:
        self._bell.set()
        with self._seat:
            self._seat.notify_all()
            threads = tuple(self._threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _hire(self) -> None:
        thread = threading.Thread(target=self._work, name=f"deliver-{self.name}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def _work(self) -> None:
        while self._sit():
            began = time.monotonic()
            result: tuple[Outcome, ...] | Wait
            try:
                result = deliver(
                    self._outbox,
                    self._destination,
                    quota=self._quota,
                    rng=self._rng,
                    steady=self._steady,
                    turn=self._turn,
                    claimed=self._found,
                )
                if not isinstance(result, Wait):
                    self._tell(result)
            except StoreUnavailable as error:
                log.warning("dispatcher.store_unavailable", destination=self.name, reason=str(error))
                result = Wait(None, Why.TROUBLE, now=0)
            except Exception:
                # One delivery's fault must not be the end of all.
                log.exception("dispatcher.fault", destination=self.name)
                result = Wait(None, Why.TROUBLE, now=0)
            if self._looker is not threading.current_thread():
                # Something was settled: the next event of its entity may go, or anything at all.
                self._bell.set()
            elif isinstance(result, Wait):
                self._rest(result, began)

    def _sit(self) -> bool:
        """Wait for the seat, if it is not ours already; False when it is time to go."""
        me = threading.current_thread()
        with self._seat:
            self._resting += 1
            self._seat.wait_for(lambda: self._looker in (None, me) or self._stopping.is_set())
            self._resting -= 1
            if self._stopping.is_set():
                return False
            self._looker = me
            return True

    def _found(self) -> bool:
        """There is something to send: somebody else shall look for more. False when it is time to go."""
        with self._seat:
            self._looker = None
            if self._stopping.is_set():
                return False
            if self._resting:
                self._seat.notify()
            elif len(self._threads) < self._most:
                self._hire()
            return True

    def _rest(self, wait: Wait, began: float) -> None:
        """Sleep until there may be something to send."""
        if wait.why is Why.MORE:
            return
        seconds = self._poll if wait.until is None else (wait.until - wait.now) / 1000
        ends = time.monotonic() + min(seconds, self._poll)
        self._deaf = wait.why in _DEAF
        self._bell.wait(ends - time.monotonic())
        self._deaf = False
        self._bell.clear()
        calm = min(began + CALM, ends) if wait.why is Why.PACE else began + BREATH
        self._stopping.wait(calm - time.monotonic())

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            self._observe(self.name, outcome)
            if outcome.health.state is not self._state:
                self._state = outcome.health.state
                tell = log.info if self._state is State.OPEN else log.warning
                tell("destination", destination=self.name, state=self._state.value, reason=outcome.health.reason)
