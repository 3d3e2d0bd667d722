"""Destinations: where events are delivered, as the dispatcher sees them.

A destination sends one claimed event and says what came back. It judges nothing and stores nothing.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, runtime_checkable

from relay.model import Answer, Claim


class Destination(Protocol):
    """One system that takes events over HTTP. Its methods may be called from several threads at once."""

    @property
    def name(self) -> str:
        """The name by which events and settings know it, as `compass`."""
        ...

    def send(self, claim: Claim, *, age: Callable[[], float]) -> Answer:
        """Send the event once, and return within `Limits.total` seconds what came back. Never raises.

        `age` tells the seconds since just before the claim was made (see `stopwatch`); nothing is written to
        the destination once that is more than `Limits.write`.
        """
        ...

    def close(self) -> None:
        """Give the idle connections back."""
        ...


@runtime_checkable
class TakesSeveral(Destination, Protocol):
    """A destination that takes several events in one request."""

    @property
    def most(self) -> int:
        """How many at once."""
        ...

    def send_several(self, claims: Sequence[Claim], *, age: Callable[[], float]) -> list[Answer]:
        """Send these events in one request; an answer for each, in their order. None of them is a repeat.

        The limits of `send` hold for the whole; `age` counts from the first claim.
        """
        ...


class NoAnswer(StrEnum):
    """Why there was no answer: the word in `Answer.error` when `Answer.status` is None."""

    LATE = "late"
    """Too much time had passed since the claim, so nothing was tried; not the destination's doing."""
    CONNECTION = "connection"
    """No connection, or it broke before an answer came; the request may have arrived."""
    TLS = "tls"
    """The two sides could not agree on a secure connection."""
    TIMEOUT = "timeout"
    """No answer in time; the request may have arrived."""
    UNREADABLE = "unreadable"
    """An answer came, but it does not say whether the event is there."""
    INTERNAL = "internal"
    """Our own mistake, not foreseen."""


@dataclass(frozen=True)
class Limits:
    """How long one request may take, in seconds.

    A lease must last at least `write + total`. Then no request is on its way once its lease has ended, which
    is what the argument for the quota rests on (see `relay.dispatch.quota`).
    """

    connect: float = 5.0
    """For each address that is tried, for the TLS handshake, and for handing the request to the kernel."""
    write: float = 10.0
    """From the claim to the first byte written; after that nothing is written at all."""
    total: float = 20.0
    """From the call of `send` to its return, whatever the other side does."""


def stopwatch(
    monotonic: Callable[[], float] = time.monotonic, wall: Callable[[], float] = time.time
) -> Callable[[], float]:
    """Seconds since this call, by whichever clock says more.

    The monotonic clock stands still while a machine is suspended; the wall clock can be set back.
    """
    began = monotonic(), wall()
    return lambda: max(monotonic() - began[0], wall() - began[1])
