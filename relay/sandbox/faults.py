"""What the sandbox does wrong on purpose: slow, refusing, broken off, or somebody else's page."""

import random
import threading
from collections.abc import Sequence
from typing import Literal, Protocol

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

PAGE = "<!DOCTYPE html><title>Log in</title><p>This is not the page you are looking for."
"""What `html` answers."""


class Asked(Protocol):
    """What is known of a request, so that a fault can be meant for it."""

    @property
    def kind(self) -> str:
        """The kind of its event; `calendar` for those of Release."""

    @property
    def entity(self) -> str:
        """What it is about, for people."""

    @property
    def source(self) -> str | None:
        """Its event source, where there is one."""


class Fault(BaseModel):
    """One instruction to go wrong. Without any of its effects it does nothing but count requests."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hold_ms: int = Field(default=0, ge=0, le=600_000)
    """The request arrives this much later, as over a slow network."""
    status: int | None = Field(default=None, ge=200, le=599)
    """Answer this instead of looking at the request."""
    retry_after: int | None = Field(default=None, ge=0)
    """Seconds for the header `Retry-After`; with no other effect the status is 429."""
    type: str | None = None
    """The error's type in the answer, as `STORE_CONFLICT_EXCEPTION`; with no other effect the status is 400."""
    html: bool = False
    """Answer a page of HTML, as a gateway or a login page would; status 200 unless one is given."""
    redirect: str | None = None
    """Answer a redirect to this address; status 302 unless one is given."""
    drop: Literal["before", "after"] | None = None
    """Close the connection without an answer: before the request took effect, or after."""
    delay_ms: int = Field(default=0, ge=0, le=600_000)
    """Whatever the answer is, it comes this much later; the request has long taken effect by then."""

    kind: str | None = None
    """Only requests with this kind of event."""
    entity: str | None = None
    """Only requests about this entity, by its id as `GET /sandbox/requests` shows it."""
    source: str | None = None
    """Only requests of this `externalEventSourceId`."""
    probability: float = Field(default=1.0, gt=0, le=1)
    """The share of those requests that it strikes."""
    times: int | None = Field(default=None, ge=1)
    """How often; unless given once, or without end where a probability is given."""

    @property
    def answers(self) -> int | None:
        """The status that it answers instead of Compass, or None when the request is looked at as usual."""
        if self.status is not None:
            return self.status
        if self.html:
            return 200
        if self.redirect is not None:
            return 302
        if self.retry_after is not None:
            return 429
        return 400 if self.type is not None else None

    def is_for(self, asked: Asked | None) -> bool:
        """Whether it is meant for this request; None is one that is not valid."""
        wanted = (self.kind, self.entity, self.source)
        given = (None, None, None) if asked is None else (asked.kind, asked.entity, asked.source)
        return all(want is None or want == got for want, got in zip(wanted, given, strict=True))


FAULTS: TypeAdapter[list[Fault]] = TypeAdapter(list[Fault])
"""Reads a list of instructions; raises pydantic's ValidationError."""

NO_FAULT = Fault()


class Standing:
    """The instructions that have not run out. The first that fits a request strikes it."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng
        self._lock = threading.Lock()
        self._standing: list[tuple[Fault, int | None]] = []

    def add(self, faults: Sequence[Fault]) -> None:
        """Put these behind those that stand."""
        with self._lock:
            for fault in faults:
                once = 1 if fault.probability == 1 else None
                self._standing.append((fault, once if fault.times is None else fault.times))

    def clear(self) -> None:
        """Behave again."""
        with self._lock:
            self._standing.clear()

    def left(self) -> list[tuple[Fault, int | None]]:
        """Those that stand, each with how often it will still strike (None: without end)."""
        with self._lock:
            return list(self._standing)

    def strike(self, asked: Asked | None) -> Fault:
        """The fault for this request, counted; `NO_FAULT` for none. None is a request that is not valid."""
        with self._lock:
            for place, (fault, left) in enumerate(self._standing):
                if not fault.is_for(asked) or self._rng.random() >= fault.probability:
                    continue
                if left == 1:
                    del self._standing[place]
                elif left is not None:
                    self._standing[place] = (fault, left - 1)
                return fault
        return NO_FAULT
