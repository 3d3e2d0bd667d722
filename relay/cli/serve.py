"""Commands that run for long: serve, worker, migrate, sandbox; and config, which shows how they are set up."""

import json
import os
import signal
import sys
from collections.abc import Mapping as Members
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import NoReturn

import click
import structlog
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from relay.demo import run_demo
from relay.dispatch.quota import Quota
from relay.mapping.compiled import Mapping
from relay.outbox import Outbox
from relay.outbox.migrations import current_revision, migrate
from relay.runtime import assemble, dispatcher, load, log_setup, warnings
from relay.sandbox.compass import SandboxConfig
from relay.sandbox.server import serve as serve_sandbox
from relay.sandbox.sources import read_sources
from relay.settings import Settings, effective, environment, load_settings
from relay.web import server as web
from relay.web.beside import WebSide

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

STOP_WITHIN = 25.0


@click.command()
def serve() -> None:
    """Take webhooks in and deliver.

    Migrates the database, then runs gunicorn with the settings of the environment.
    """
    settings, mappings = load(environment(), delivers=True)
    log_setup(settings, mappings)
    outbox = Outbox(settings.database_url)
    migrate(outbox)
    outbox.close()
    for sentence in warnings(settings, mappings):
        log.warning("start.warning", message=sentence)
    log.info(
        "start",
        version=metadata.version("compass-relay"),
        port=settings.port,
        sources=sorted(mappings),
        dispatcher=settings.dispatcher,
    )
    if settings.dispatcher == "off":
        web.serve(settings, mappings)
    _deliver(settings, mappings, WebSide(settings, mappings))


@click.command()
def worker() -> None:
    """Deliver only, without the web side."""
    # RELAY_DISPATCHER speaks to the web processes; this one is here to deliver.
    settings, mappings = load({**environment(), "RELAY_DISPATCHER": "on"}, delivers=True)
    log_setup(settings, mappings)
    outbox = Outbox(settings.database_url)
    migrate(outbox)
    outbox.close()
    _deliver(settings, mappings, None)


def _deliver(settings: Settings, mappings: Members[str, Mapping], web_side: WebSide | None) -> NoReturn:
    """Deliver until SIGTERM or SIGINT, with or without a web side beside; then exit."""
    relay = assemble(settings, mappings)
    end = {signal.SIGTERM, signal.SIGINT}
    # Before there are threads: they all leave these signals to `sigwait`.
    signal.pthread_sigmask(signal.SIG_BLOCK, end)
    delivering = dispatcher(relay)
    delivering.start()
    relay.counting.start()
    if web_side is not None:
        web_side.listen(delivering.wake, partial(os.kill, os.getpid(), signal.SIGTERM))
    signal.sigwait(end)
    if web_side is not None:
        web_side.terminate()
    finished = delivering.stop(STOP_WITHIN - 2)
    code = 0 if web_side is None else web_side.wait()
    relay.counting.stop()
    relay.outbox.close()
    sys.exit(code if finished else 1)


@click.command("migrate")
def migrate_command() -> None:
    """Migrate the database to this release.

    Right also when several processes start at once.
    """
    outbox = Outbox(load_settings().database_url)
    migrate(outbox)
    click.echo(f"the database is at revision {current_revision(outbox)}", err=True)
    outbox.close()


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def config(as_json: bool) -> None:
    """Show the effective settings, secrets masked."""
    shown = effective(load_settings())
    if as_json:
        click.echo(json.dumps(shown))
        return
    table = Table("variable", "value", box=None)
    for name, value in shown.items():
        table.add_row(name, value)
    Console(soft_wrap=True).print(table)


@click.command()
@click.option("--port", default=8081, show_default=True, help="The port to listen on.")
@click.option(
    "--sources",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="YAML or JSON list of {externalEventSourceId, eventType}: only these event sources exist.",
)
@click.option("--quota", default="100/60s", show_default=True, help="Requests per rolling window and user.")
@click.option("--email", help="The only account that is let in. [default: any]")
@click.option("--token", help="The only API token that is let in. [default: any]")
def sandbox(port: int, sources: Path | None, quota: str, email: str | None, token: str | None) -> None:
    """Run a local stand-in for Compass, and for UrbanCode Release.

    With credentials, contract, event sources, quota, and faults on purpose.
    """
    try:
        limit = Quota.parse(quota)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--quota") from None
    config = SandboxConfig(
        email=email,
        token=None if token is None else SecretStr(token),
        quota=limit,
        sources=None if sources is None else read_sources(sources),
    )
    try:
        serve_sandbox(config, port=port, ready=_say_where)
    except OSError as error:
        raise click.ClickException(f"port {port} cannot be used: {error.strerror}") from error
    except KeyboardInterrupt:
        pass


def _say_where(url: str) -> None:
    click.echo(
        f"the sandbox stands in for Compass at {url}\n"
        f"  COMPASS_URL={url}\n"
        f"  GET {url}/sandbox/requests   what came\n"
        f"  GET {url}/sandbox/events     what Compass would show\n"
        f"and for UrbanCode Release, with any user and password\n"
        f"  RELEASE_URL={url}/release\n"
        f"  GET {url}/sandbox/calendar   what is in its calendar",
        err=True,
    )


@click.command()
@click.option("--once", is_flag=True, help="End when everything arrived: exit 0; or did not: exit 1.")
def demo(once: bool) -> None:
    """Show the whole road on this machine.

    A sandbox, the relay, one signed webhook of every source, and what Compass received.
    """
    sys.exit(0 if run_demo(Console(), once=once) else 1)
