"""Commands that show where everything stands. Tables for people, `--json` for scripts."""

import dataclasses
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from enum import Enum
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table

from relay.errors import StoreUnavailable
from relay.model import EventStatus, WebhookStatus
from relay.outbox import Outbox, claims, views
from relay.outbox.claims import Forecast
from relay.outbox.migrations import is_current
from relay.outbox.views import DestinationView, EventView, StatusView, WebhookView
from relay.settings import Settings, load_settings

JSON = click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
LIMIT = click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000), help="At most so many.")
BEFORE = click.option("--before", type=int, help="Only older ones than this id: the last id of the page before.")


@contextmanager
def opened() -> Iterator[tuple[Settings, Outbox]]:
    """The settings and the outbox they name."""
    settings = load_settings()
    outbox = Outbox(settings.database_url)
    file = outbox.url.database
    if outbox.sqlite and not (file and Path(file).exists()):
        raise StoreUnavailable(f"there is no database at {file}; `relay serve` or `relay migrate` makes one")
    try:
        if not is_current(outbox):
            raise StoreUnavailable("the database's tables are not those of this release; run `relay migrate`")
        yield settings, outbox
    finally:
        outbox.close()


def show_json(value: Any) -> None:
    """Print records as JSON: dates as milliseconds since 1970, words as they are stored."""
    click.echo(json.dumps(value, default=_plain, ensure_ascii=False))


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    return dict(value)  # a mapping that is no dict


def when(milliseconds: int | None) -> str:
    """A time as people read it, in UTC."""
    if milliseconds is None:
        return ""
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


def console() -> Console:
    """Standard output. What came from outside is never read as markup."""
    return Console(highlight=False, markup=False)


def table(*columns: str, title: str | None = None) -> Table:
    """An empty table with these columns."""
    return Table(
        *columns, title=title, box=None, pad_edge=False, header_style="bold", title_style="bold", title_justify="left"
    )


def row(table: Table, *cells: object) -> None:
    """Add a row; None is an empty cell, and what a terminal would obey is made visible instead."""
    table.add_row(
        *("" if cell is None else "".join(c if c.isprintable() else "�" for c in str(cell)) for cell in cells)
    )


@click.command()
@JSON
def status(as_json: bool) -> None:
    """Show where everything stands.

    What came, what waits, what is stuck and why, and when the backlog will be gone.
    """
    with opened() as (settings, outbox):
        seen = views.status(outbox)
        forecasts = {
            view.name: claims.forecast(outbox, view.name, quota=settings.quota(view.name)) for view in seen.destinations
        }
    if as_json:
        show_json({**_plain(seen), "forecasts": forecasts})
        return
    out = console()
    for view in seen.destinations:
        out.print(view.name, _destination(view, settings), style="bold")
        out.print(f"  {_forecast(forecasts[view.name])}")
    for shown in _status_tables(seen):
        out.print()
        out.print(shown)


def _destination(view: DestinationView, settings: Settings) -> str:
    state = "paused by hand" if view.paused else view.state.value
    reason = f" ({view.reason})" if view.reason else ""
    return f"{state}{reason}, {view.slots_held} of {settings.quota(view.name)} in use"


def _forecast(ahead: Forecast) -> str:
    if not ahead.requests:
        return "nothing waits"
    drained = "once it is free again" if ahead.drained_at is None else f"by {when(ahead.drained_at)} UTC"
    later = f" and {ahead.later} to be tried again later" if ahead.later else ""
    return f"{ahead.waiting} events wait, which come to {ahead.requests} requests{later}: sent {drained}"


def _status_tables(seen: StatusView) -> Iterator[Table]:
    since = f" since {when(seen.recent_since)} UTC" if seen.recent_since is not None else ""
    webhooks = table("source", "status", "count", title=f"Webhooks{since}")
    for count in seen.webhooks:
        row(webhooks, count.source, count.status, count.count)
    yield webhooks
    events = table("destination", "status", "priority", "count", "oldest", title="Events")
    for line in seen.events:
        row(events, line.destination, line.status, line.lane.name.lower(), line.count, when(line.oldest_at))
    yield events
    if seen.held:
        held = table("status", "key or reason", "count", title="Kept back")
        for kept in seen.held:
            row(held, kept.status, kept.key or kept.reason, kept.count)
        yield held


@click.group(invoke_without_command=True)
@click.option("--status", "word", type=click.Choice([status.value for status in WebhookStatus]), help="Only these.")
@click.option("--source", help="Only this source's.")
@LIMIT
@BEFORE
@JSON
@click.pass_context
def webhooks(
    context: click.Context, word: str | None, source: str | None, limit: int, before: int | None, as_json: bool
) -> None:
    """List the newest webhooks, or show one.

    `relay webhooks show ID` shows one.
    """
    if context.invoked_subcommand is not None:
        return
    with opened() as (_, outbox):
        chosen = None if word is None else WebhookStatus(word)
        listed = views.list_webhooks(outbox, status=chosen, source=source, limit=limit, before=before)
    if as_json:
        show_json(listed)
        return
    shown = table("id", "received", "source", "status", "rule", "why")
    for webhook in listed:
        why = ": ".join(part for part in (webhook.field, webhook.reason) if part)
        row(shown, webhook.id, when(webhook.received_at), webhook.source, webhook.status, webhook.rule, why)
    console().print(shown)


@webhooks.command("show")
@click.argument("webhook", type=int)
@click.option("--body", is_flag=True, help="Print the body as received, and nothing else.")
@JSON
def show_webhook(webhook: int, body: bool, as_json: bool) -> None:
    """Show one webhook and what became of it."""
    with opened() as (_, outbox):
        if body:
            click.echo(views.webhook_body(outbox, webhook), nl=False)
            return
        detail = views.show_webhook(outbox, webhook)
    if as_json:
        show_json(detail)
        return
    out = console()
    out.print(_facts(detail.webhook, headers=json.dumps(dict(detail.headers)), size=f"{detail.size} bytes"))
    out.print(_events(detail.events))


@click.group(invoke_without_command=True)
@click.option("--status", "word", type=click.Choice([status.value for status in EventStatus]), help="Only these.")
@click.option("--type", "kind", help="Only this kind, as `incident`.")
@LIMIT
@BEFORE
@JSON
@click.pass_context
def events(
    context: click.Context, word: str | None, kind: str | None, limit: int, before: int | None, as_json: bool
) -> None:
    """List the newest events, or show one.

    `relay events show ID` shows one with its attempts.
    """
    if context.invoked_subcommand is not None:
        return
    with opened() as (_, outbox):
        chosen = None if word is None else EventStatus(word)
        listed = views.list_events(outbox, status=chosen, type=kind, limit=limit, before=before)
    if as_json:
        show_json(listed)
    else:
        console().print(_events(listed))


@events.command("show")
@click.argument("event", type=int)
@JSON
def show_event(event: int, as_json: bool) -> None:
    """Show one event, its body and every attempt to send it."""
    with opened() as (_, outbox):
        detail = views.show_event(outbox, event)
    if as_json:
        show_json(detail)
        return
    out = console()
    out.print(_facts(detail.event))
    out.print_json(data=dict(detail.body))
    shown = table("attempt", "trigger", "sent", "outcome", "status", "error", "message", "ms")
    for tried in detail.attempts:
        outcome = tried.outcome or "on its way"
        answer = (tried.status, tried.error, tried.message, tried.took_ms)
        row(shown, tried.id, tried.trigger, when(tried.claimed_at), outcome, *answer)
    out.print(shown)


def _events(listed: Sequence[EventView]) -> Table:
    shown = table("id", "webhook", "created", "type", "state", "status", "component", "why")
    for event in listed:
        why = event.reason or (f"no component for {event.unrouted}" if event.unrouted else None)
        if event.successor is not None:
            why = f"event {event.successor} is newer"
        what = (event.type, event.state, event.status, event.component, why)
        row(shown, event.id, event.webhook, when(event.created_at), *what)
    return shown


def _facts(record: WebhookView | EventView, **more: str) -> Table:
    shown = Table(box=None, show_header=False, pad_edge=False)
    for name, value in {**_plain(record), **more}.items():
        if value is not None:
            text = f"{when(value)} UTC" if name.endswith("_at") else getattr(value, "name", str(value)).lower()
            row(shown, name.replace("_", " "), text if name.endswith("_at") or isinstance(value, Enum) else value)
    return shown
