"""`POST /webhooks/<source>`: where PagerDuty, LaunchDarkly, Bitbucket and others deliver."""

import time
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import structlog
from flask import Blueprint, Request, Response, request
from werkzeug.datastructures import EnvironHeaders
from werkzeug.exceptions import RequestEntityTooLarge

from relay.as_json import as_json
from relay.errors import (
    BodyTooLarge,
    MalformedBody,
    RelayError,
    RequestError,
    SignatureError,
    StoreUnavailable,
    UnknownSource,
)
from relay.intake import TestPing, receive
from relay.model import Receipt
from relay.outbox import machine_clock
from relay.runtime import Relay
from relay.telemetry import count_webhook
from relay.web.application import Complete

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)


def blueprint(relay: Relay) -> Blueprint:
    """The endpoint, for this relay."""
    webhooks = Blueprint("webhooks", __name__)
    # Bound once: the module's own is made anew for every line.
    tell = log.bind()

    @webhooks.post("/webhooks/<source>")
    def take(source: str) -> Response:
        began = time.perf_counter()
        # One look through Flask's proxy, instead of one for each thing that is wanted of the request.
        asked = request._get_current_object()  # type: ignore[attr-defined]  # noqa: SLF001 - Flask's documented name for it
        status = "internal"
        try:
            taken = _take(relay, source, asked)
            status = "duplicate" if isinstance(taken, Receipt) and taken.duplicate else _word(taken)
            _log(tell, source, taken, status, began, asked)
        except RelayError as error:
            status = error.code if isinstance(error, RequestError) else "store_unavailable"
            _log_refusal(source, error, status, asked)
            raise
        finally:
            known = source if source in relay.mappings else None
            count_webhook(source=known, status=status, seconds=time.perf_counter() - began)
        if isinstance(taken, TestPing):
            return _answer(200, {"webhook": None, "status": status, "rule": None, "events": []})
        events = [{"id": event.id, "type": event.type} for event in taken.events]
        return _answer(202, {"webhook": taken.webhook, "status": status, "rule": taken.rule, "events": events})

    return webhooks


def _take(relay: Relay, source: str, request: Request) -> Receipt | TestPing:
    if source not in relay.mappings:  # before a byte of the body is read
        raise UnknownSource(f"no mapping file is for the source {source!r}")
    raw = _body(relay.settings.max_body, request)
    return receive(relay.intake, source=source, headers=_Headers(request.environ), raw=raw, now=machine_clock())


class _Headers(Mapping[str, str]):
    """A request's headers by their names in lower case, not copied: only a few of them are read."""

    def __init__(self, environ: "WSGIEnvironment") -> None:
        self._environ = environ

    def __getitem__(self, name: str) -> str:
        return str(self._environ[_key(name)])

    def get(self, name: str, default: Any = None) -> Any:
        return self._environ.get(_key(name), default)

    def __contains__(self, name: object) -> bool:
        return _key(str(name)) in self._environ

    def __iter__(self) -> Iterator[str]:
        return (name.lower() for name, _ in EnvironHeaders(self._environ))

    def __len__(self) -> int:
        return len(EnvironHeaders(self._environ))


@lru_cache(maxsize=256)
def _key(name: str) -> str:
    key = name.upper().replace("-", "_")
    return key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"


def _body(limit: int, request: Request) -> bytes:
    """The raw body. Raises BodyTooLarge, mostly before a byte of it is read, and MalformedBody where it breaks off."""
    too_large = BodyTooLarge(f"the body is larger than {limit} bytes")
    length = request.content_length
    if length is not None and length <= limit:
        return _exactly(length, request)
    try:
        raw = request.get_data(cache=False)
    except RequestEntityTooLarge:
        raise too_large from None
    if len(raw) > limit:
        raise too_large
    return raw


def _exactly(length: int, request: Request) -> bytes:
    """As `get_data`, whose streams around the stream cost as much as verifying the signature."""
    try:
        raw = bytes(request.environ["wsgi.input"].read(length))
    except OSError as error:
        raise MalformedBody(f"the body broke off: {error}") from None
    if len(raw) < length:
        raise MalformedBody(f"the body broke off after {len(raw)} of {length} bytes")
    return raw


def _answer(status: int, body: dict[str, Any]) -> Response:
    return Complete(as_json(body), status, content_type="application/json")


def _word(taken: Receipt | TestPing) -> str:
    return "test" if isinstance(taken, TestPing) else taken.status.value


def _log(
    tell: structlog.stdlib.BoundLogger,
    source: str,
    taken: Receipt | TestPing,
    status: str,
    began: float,
    request: Request,
) -> None:
    receipt = taken if isinstance(taken, Receipt) else None
    tell.info(
        "webhook.received",
        source=source,
        status=status,
        webhook_id=receipt and receipt.webhook,
        rule=receipt and receipt.rule,
        events=len(receipt.events) if receipt else 0,
        took_ms=round((time.perf_counter() - began) * 1000, 1),
        remote=request.remote_addr,
    )


def _log_refusal(source: str, error: RelayError, status: str, request: Request) -> None:
    reason = error.reason if isinstance(error, SignatureError) else str(error)
    level = log.error if isinstance(error, StoreUnavailable) else log.warning
    level("webhook.refused", source=source[:80], status=status, reason=reason, remote=request.remote_addr)
