"""Commands that change what is stored: replay, prune, pause, resume."""

import sys
from functools import partial
from operator import length_hint
from typing import Literal

import click
from rich.console import Console
from rich.progress import Progress

from relay.cli.show import JSON, console, opened, row, show_json, table, when
from relay.errors import NotFound
from relay.mapping import load_mappings
from relay.model import EventStatus, WebhookStatus
from relay.outbox import Outbox, claims, views
from relay.outbox.replay import Outcome, Replayed, Replays, replay_events, replay_webhooks
from relay.outbox.upkeep import prune
from relay.runtime import DAY_MS, destination_names, retranslate
from relay.settings import Settings

IDS = click.argument("ids", nargs=-1, type=int)
DRY_RUN = click.option("--dry-run", is_flag=True, help="Only tell what would be done.")

WEBHOOKS: dict[str, Literal[WebhookStatus.FAILED, WebhookStatus.UNMATCHED]] = {
    "failed": WebhookStatus.FAILED,
    "unmatched": WebhookStatus.UNMATCHED,
}
EVENTS: dict[str, Literal[EventStatus.DEAD, EventStatus.UNROUTED]] = {
    "dead": EventStatus.DEAD,
    "unrouted": EventStatus.UNROUTED,
}


@click.group()
def replay() -> None:
    """Translate or send again."""


@replay.command("webhooks")
@IDS
@click.option("--failed", "word", flag_value="failed", help="All that failed.")
@click.option("--unmatched", "word", flag_value="unmatched", help="All that no rule spoke of.")
@DRY_RUN
@JSON
def replay_webhooks_command(ids: tuple[int, ...], word: str | None, dry_run: bool, as_json: bool) -> None:
    """Translate webhooks again, with the mapping files of today, under their ids."""
    _either(ids, word)
    with opened() as (settings, outbox):
        translate = partial(retranslate, load_mappings(settings.mappings_folder, environ=settings.environ))
        which = WEBHOOKS[word] if word else ids
        _show(replay_webhooks(outbox, which, translate=translate, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


@replay.command("events")
@IDS
@click.option("--dead", "word", flag_value="dead", help="All that were refused for good.")
@click.option("--unrouted", "word", flag_value="unrouted", help="All without a component.")
@DRY_RUN
@JSON
def replay_events_command(ids: tuple[int, ...], word: str | None, dry_run: bool, as_json: bool) -> None:
    """Send events again. One that the destination would ignore is told so and left alone."""
    _either(ids, word)
    with opened() as (settings, outbox):
        translate = partial(retranslate, load_mappings(settings.mappings_folder, environ=settings.environ))
        which = EVENTS[word] if word else ids
        _show(replay_events(outbox, which, translate=translate, dry_run=dry_run), as_json=as_json, dry_run=dry_run)


def _either(ids: tuple[int, ...], word: str | None) -> None:
    if bool(ids) == bool(word):
        raise click.UsageError("say which: ids, or one of the options for all of a kind")


def _show(replayed: Replays, *, as_json: bool, dry_run: bool) -> None:
    """Show progress while it goes on, and the outcome even of a part that was interrupted."""
    done: list[Replayed] = []
    interrupted = False
    with Progress(console=Console(stderr=True), transient=True) as progress:
        total = length_hint(replayed)
        step = progress.add_task("looking" if dry_run else "replaying", total=total)
        try:
            for one in replayed:
                done.append(one)
                progress.update(step, completed=len(done), description=f"{len(done)} of {total} done")
        except KeyboardInterrupt:
            interrupted = True
    if as_json:
        show_json(done)
    else:
        shown = table("id", "would be" if dry_run else "outcome", "status", "new events", "why")
        for one in done:
            row(shown, one.id, one.outcome, one.status, " ".join(map(str, one.events)), one.reason)
        console().print(shown)
    if interrupted:
        click.echo("interrupted; what is listed is done, the rest is as it was", err=True)
        sys.exit(130)
    if any(one.outcome is Outcome.MISSING for one in done):
        raise NotFound("some of these ids are not there; perhaps they were pruned")


@click.command("prune")
@click.option("--days", type=click.IntRange(min=1), help="Keep so many days. [default: RELAY_RETENTION_DAYS]")
def prune_command(days: int | None) -> None:
    """Delete what is settled and old.

    What is undelivered is never touched.
    """
    with opened() as (settings, outbox):
        with outbox.read() as connection:
            before = outbox.now(connection) - (days or settings.retention_days) * DAY_MS
        removed, interrupted = 0, False
        try:
            with Progress(console=Console(stderr=True), transient=True) as progress:
                step = progress.add_task("pruning", total=None)
                for count in prune(outbox, before=before):
                    removed += count
                    progress.update(step, completed=removed, description=f"{removed} deleted")
        except KeyboardInterrupt:
            interrupted = True
    click.echo(f"{removed} webhooks and events of your own from before {when(before)} UTC deleted", err=True)
    if interrupted:
        click.echo("interrupted; the rest stays for the next time", err=True)
        sys.exit(130)


@click.command()
@click.argument("destination")
def pause(destination: str) -> None:
    """Hold a destination by hand.

    What is on its way is finished; nothing more is sent until `relay resume`.
    """
    with opened() as (settings, outbox):
        claims.pause(outbox, _known(settings, outbox, destination))
    click.echo(f"{destination} is paused", err=True)


@click.command()
@click.argument("destination")
def resume(destination: str) -> None:
    """Let go of a destination.

    One that is blocked or down is tried at once.
    """
    with opened() as (settings, outbox):
        claims.resume(outbox, _known(settings, outbox, destination))
    click.echo(f"{destination} is let go", err=True)


def _known(settings: Settings, outbox: Outbox, destination: str) -> str:
    known = {view.name for view in views.status(outbox).destinations} | destination_names(settings)
    if destination not in known:
        raise NotFound(f"there is no destination {destination!r}; there are {', '.join(sorted(known))}")
    return destination
