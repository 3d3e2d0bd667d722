"""UrbanCode Release: calendar events to its REST resource `events`, alone or as an array where several wait.

The contract: https://www.ibm.com/docs/en/devops-release/6.1.2?topic=resource-create-event-elements-from-json-input .
Three things are special about it:

- A POST makes a new event each time, and there is no id of ours that could tell two apart. So before an event is
  posted that may be there already, the calendar is asked for it; one with its name, type, start and end is taken
  for it. What nothing helps against: somebody's request that is still on its way when we look.
- A server ignores what it does not know, in silence. So its reply is compared with what was sent. What differs is
  told with the answer, but the event is there and counts as delivered: sent again it would be there twice.
- A client with cookies would have to prove that it may write. So there are Basic credentials on every call, and no
  cookies: https://www.ibm.com/support/knowledgecenter/SS4GCC_6.1.1/com.ibm.urelease.doc/topics/rest_api_ref_authenticating.html
"""

import json
import re
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import SecretStr

from relay.contract.calendar import DATES
from relay.destinations import Limits, NoAnswer
from relay.destinations.answers import answered, elsewhere, is_html, tidy
from relay.destinations.transport import Reply, Silence, Transport
from relay.model import Answer, Claim

PATH = "/events/"

LOOK = 0.4
"""The part of `Limits.total` that looking for an event may take; the rest is for posting it."""

MAX_LIST = 8 * 1024 * 1024
"""Bytes of a list that are read: more than ten thousand events, should a server not filter them."""

Unit = Literal["ms", "s"]
"""In what a server counts its dates: the vendor's pages show both. Read an event back to see which it is."""


class ReleaseDestination:
    """A Release server's calendar, as seen by the dispatcher. Safe to be called from several threads."""

    name = "release"
    most = 50

    def __init__(
        self, *, url: str, user: str, password: SecretStr, unit: Unit = "ms", limits: Limits | None = None
    ) -> None:
        """`url` is the server's base, as `https://release.acme.example:8080`; `unit` that of the dates it takes."""
        self._url = url.rstrip("/") + PATH
        self._unit: Unit = unit
        self._limits = limits or Limits()
        # Encoded here, because requests would encode text as Latin-1.
        basic = b64encode(f"{user}:{password.get_secret_value()}".encode()).decode()
        self._transport = Transport(authorization=f"Basic {basic}", limits=self._limits)
        # What an answer must not carry into logs and screens, should somebody echo it.
        self._secrets = (SecretStr(basic), password)

    def __repr__(self) -> str:
        return f"ReleaseDestination({self._url!r})"

    def send(self, claim: Claim, *, age: Callable[[], float]) -> Answer:
        """See to it that the claimed event is in the calendar, without posting it twice. See `Destination.send`.

        `Answer.message` names the event's id there. An `Answer.error` beside a 2xx says how what is there differs
        from what was sent.
        """
        began = time.monotonic()
        event = as_posted(claim.body, unit=self._unit)
        answer = self._look(event, age) if claim.repeat else None
        if answer is None:
            answer = self._post(event, age, within=self._limits.total - (time.monotonic() - began))
        return replace(answer, took_ms=round((time.monotonic() - began) * 1000))

    def send_several(self, claims: Sequence[Claim], *, age: Callable[[], float]) -> list[Answer]:
        """Post several events as one array; each is compared with its place in the reply.

        Whether a server takes an array whole or in part is not documented. So when it refuses one, the first event
        is posted alone, and the others are left for later, when the calendar is asked for them before a repeat.
        """
        if len(claims) == 1:
            return [self.send(claims[0], age=age)]
        began = time.monotonic()
        posted = [as_posted(claim.body, unit=self._unit) for claim in claims]
        outcome = self._transport.request(
            "POST", f"{self._url}?format=list", body=_encoded(posted), age=age, within=self._limits.total, most=MAX_LIST
        )
        answers: list[Answer]
        if isinstance(outcome, Silence):
            answers = [self._silent(outcome)] * len(claims)
        elif (shown := _events(outcome)) is not None and len(shown) == len(posted):
            answers = [
                self._there(outcome.status, "is there as", event, one) for event, one in zip(posted, shown, strict=True)
            ]
        elif outcome.status in range(200, 300) and not is_html(outcome):
            unread = f"answered {outcome.status}, and does not show the {len(posted)} events"
            answers = [self._unreadable(unread)] * len(claims)
        elif is_html(outcome) or outcome.status in _NOT_ABOUT_LOOKING or outcome.status // 100 in {3, 5}:
            answers = [self._answered(outcome, *_complaint(outcome))] * len(claims)
        else:
            left = self._limits.total - (time.monotonic() - began)
            later = Answer(None, error=NoAnswer.LATE, message="the array was refused; this one goes alone")
            answers = [self._post(posted[0], age, within=left), *([later] * (len(claims) - 1))]
        took_ms = round((time.monotonic() - began) * 1000)
        return [replace(answer, took_ms=took_ms) for answer in answers]

    def close(self) -> None:
        """Give the idle connections back."""
        self._transport.close()

    def _look(self, event: Mapping[str, Any], age: Callable[[], float]) -> Answer | None:
        """The answer to make of what the calendar shows; None when the event is not there and may be posted."""
        url = f"{self._url}?{_query(event)}"
        outcome = self._transport.request("GET", url, age=age, within=self._limits.total * LOOK, most=MAX_LIST)
        if isinstance(outcome, Silence):
            return self._silent(outcome)
        shown = _events(outcome)
        if shown is None:
            return self._not_looked(outcome)
        for one in shown:
            if _same(event, one):
                return self._there(200, "was there as", event, one)
        if (more := _beyond(outcome, len(shown))) is not None:
            return self._unreadable(f"cannot see whether the event is there: the list goes on: {more}")
        return None

    def _post(self, event: Mapping[str, Any], age: Callable[[], float], *, within: float) -> Answer:
        body = _encoded(event)
        # `list` is all of an event, and what the vendor advises for speed.
        url = f"{self._url}?format=list"
        outcome = self._transport.request("POST", url, body=body, age=age, within=within, most=MAX_LIST)
        if isinstance(outcome, Silence):
            return self._silent(outcome)
        if shown := _events(outcome):
            return self._there(outcome.status, "is there as", event, shown[0])
        if is_html(outcome) or outcome.status not in range(200, 300):
            return self._answered(outcome, *_complaint(outcome))
        if outcome.status == 201:  # noqa: PLR2004 - Created: that much is certain
            return self._answered(outcome, "NOT_COMPARED", "created, but the reply does not show it")
        return self._unreadable(f"answered {outcome.status}, and does not show the event")

    def _there(self, status: int, how: str, event: Mapping[str, Any], shown: Mapping[str, Any]) -> Answer:
        """The event is in the calendar, as this."""
        different = _differences(event, shown)
        told = "; ".join([f"{how} {shown.get('id')}", *different])
        return Answer(status, error="NOT_AS_SENT" if different else None, message=tidy(told, secrets=self._secrets))

    def _not_looked(self, reply: Reply) -> Answer:
        """The calendar could not be read. What is wrong with the request for the list is not the event's fault."""
        error, message = _complaint(reply)
        if is_html(reply) or reply.status in _NOT_ABOUT_LOOKING or reply.status // 100 in {3, 5}:
            return self._answered(reply, error, message)
        return self._unreadable(f"cannot see whether the event is there: answered {reply.status}: {message}")

    def _answered(self, reply: Reply, error: str | None, message: str | None) -> Answer:
        return answered(reply, error=error, message=message, secrets=self._secrets, now=time.time())

    def _silent(self, silence: Silence) -> Answer:
        return Answer(None, error=silence.why, message=tidy(silence.message, secrets=self._secrets))

    def _unreadable(self, message: str) -> Answer:
        return Answer(None, error=NoAnswer.UNREADABLE, message=tidy(message, secrets=self._secrets))


def as_posted(event: Mapping[str, Any], *, unit: Unit) -> dict[str, Any]:
    """A valid calendar event with its dates in the server's unit."""
    per = 1000 if unit == "s" else 1
    return {name: int(value) // per if name in DATES else value for name, value in event.items()}


def _encoded(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _query(event: Mapping[str, Any]) -> str:
    """Asks the list for the events of this name, as public client scripts do; whether it obeys is not documented."""
    fields = {
        "format": "list",
        "filterFields": "name",
        "filterType_name": "like",
        "filterClass_name": "String",
        "filterValue_name": event["name"],
    }
    return urlencode(fields, errors="replace")


def _events(reply: Reply) -> list[Mapping[str, Any]] | None:
    """The events that a reply shows, in an array or alone; None for a reply that shows something else."""
    if reply.status not in {200, 201} or is_html(reply):
        return None
    try:
        document = json.loads(reply.body)
    except (ValueError, RecursionError):
        return None
    several = document if isinstance(document, list) else [document]
    return several if all(isinstance(one, dict) and "id" in one for one in several) else None


def _beyond(reply: Reply, shown: int) -> str | None:
    """The `Content-Range`, when it says that there is more than so many."""
    given = reply.headers.get("Content-Range", "")
    total = re.search(r"/(\d{1,18})\s*$", given)
    return given if total is not None and int(total[1]) > shown else None


def _same(event: Mapping[str, Any], shown: Mapping[str, Any]) -> bool:
    return all(_value(event, name) == _value(shown, name) for name in ("name", "type", *DATES))


def _differences(event: Mapping[str, Any], shown: Mapping[str, Any]) -> list[str]:
    """What of the event is shown otherwise than it was sent. Texts are not quoted: the log holds no contents."""
    told = []
    for name in event:
        sent, got = _value(event, name), _value(shown, name)
        if sent != got:
            values = "" if isinstance(sent, str) and name != "type" else f": sent as {sent}, shown as {got}"
            told.append(f"{name} differs{values}")
    return told


def _value(event: Mapping[str, Any], name: str) -> Any:
    """A member to compare; of the type only its id, which is all of it that can be sent."""
    value = event.get(name)
    if name == "type":
        identifier = value.get("id") if isinstance(value, dict) else value
        return identifier.lower() if isinstance(identifier, str) else identifier
    return value


def _complaint(reply: Reply) -> tuple[str | None, str | None]:
    """The kind of error, where it is not the event's fault, and what was said. No form of errors is documented."""
    kinds = {403: "NO_PERMISSION", 404: "NO_CALENDAR", 405: "NO_CALENDAR"}
    return kinds.get(reply.status), elsewhere(reply) or reply.body[:4096].decode("utf-8", "replace")


_NOT_ABOUT_LOOKING = frozenset({401, 403, 404, 405, 408, 429})
