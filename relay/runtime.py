"""The relay put together from its settings: what the web processes, the worker and the demo have in common."""

import sys
from collections.abc import Callable
from collections.abc import Mapping as Members
from dataclasses import dataclass
from functools import partial
from random import SystemRandom

import structlog

from relay.contract import DESTINATION, calendar
from relay.counting import Counting
from relay.destinations import Destination
from relay.destinations.compass import CompassDestination
from relay.destinations.release import ReleaseDestination
from relay.direct import Calendars
from relay.dispatch.health import Outcome, State
from relay.dispatch.loop import Dispatcher
from relay.errors import ConfigError, Fault, SettingsError, UnknownSource
from relay.intake import Intake, read_json, secrets_of
from relay.mapping import load_mappings
from relay.mapping.compiled import Mapping
from relay.model import EventStatus, Webhook
from relay.outbox import Outbox, claims, database_url, upkeep, views
from relay.outbox.append import Appender
from relay.outbox.replay import Retranslation, StoredWebhook
from relay.settings import NEEDED_TO_DELIVER, NEEDED_WITH_RELEASE, Settings, load_settings, mappings_folder
from relay.telemetry import DestinationGauges, configure_logging, count_attempt
from relay.translate import translate

log: structlog.stdlib.BoundLogger = structlog.get_logger(__name__)

DAY_MS = 24 * 3600 * 1000


@dataclass(frozen=True)
class Relay:
    """One process's relay: its settings, its mappings, and its view of the outbox."""

    settings: Settings
    mappings: Members[str, Mapping]
    outbox: Outbox
    intake: Intake
    calendars: Calendars
    counting: Counting


def load(environ: Members[str, str], *, delivers: bool) -> tuple[Settings, dict[str, Mapping]]:
    """The settings and the mapping files, both checked. Raises ConfigError with the faults of both."""
    faults: list[Fault] = []
    settings, mappings = None, {}
    try:
        settings = load_settings(environ, delivers=delivers)
    except ConfigError as error:
        faults += error.faults
    try:
        mappings = load_mappings(mappings_folder(environ), environ=environ)
    except ConfigError as error:
        faults += error.faults
    if settings is not None and settings.release_url is None and delivers:
        faults += _lost(mappings)
    if settings is None or faults:
        raise ConfigError(faults)
    return settings, mappings


def _lost(mappings: Members[str, Mapping]) -> list[Fault]:
    """The rules that send events to a calendar, where there is none."""
    return [
        Fault(
            mapping.file,
            f"the rule '{rule.name}' sends to {calendar.DESTINATION}, but RELEASE_URL is not set",
            rule.line,
        )
        for mapping in mappings.values()
        for rule in mapping.rules
        if any(output.to == calendar.DESTINATION for output in rule.outputs)
    ]


def assemble(
    settings: Settings,
    mappings: Members[str, Mapping],
    *,
    appender: Callable[[Outbox], Appender] = Appender,
) -> Relay:
    """One process's relay. Call it after the fork; `Relay.outbox.close()` ends it.

    `appender` stores what is taken in.
    """
    outbox = Outbox(settings.database_url)
    return Relay(
        settings=settings,
        mappings=mappings,
        outbox=outbox,
        intake=Intake(
            mappings=mappings,
            secrets=secrets_of(mappings, settings.environ),
            unsigned=settings.allow_unsigned,
            store=appender(outbox).append,
        ),
        calendars=Calendars(
            server=settings.release_url is not None,
            mapping=next((mapping for mapping in mappings.values() if mapping.direct == calendar.KIND), None),
        ),
        counting=Counting(outbox),
    )


def dispatcher(relay: Relay) -> Dispatcher:
    """The dispatcher of this process, not yet started. The settings must be complete (see `load_settings`)."""
    settings = relay.settings
    destinations: list[Destination] = [_compass(settings)]
    if settings.release_url is not None:
        destinations.append(_release(settings.release_url, settings))
    return Dispatcher(
        relay.outbox,
        destinations,
        {destination.name: settings.quota(destination.name) for destination in destinations},
        rng=SystemRandom(),
        daily=partial(prune_old, relay),
        observe=_observe,
    )


def _compass(settings: Settings) -> Destination:
    url, cloud_id, email = settings.compass_url, settings.compass_cloud_id, settings.compass_email
    if url is None or cloud_id is None or email is None or settings.compass_api_token is None:
        raise SettingsError([Fault(name, "is not set") for name in NEEDED_TO_DELIVER])
    return CompassDestination(url=url, cloud_id=cloud_id, email=email, token=settings.compass_api_token)


def _release(url: str, settings: Settings) -> Destination:
    user, password = settings.release_user, settings.release_password
    if user is None or password is None:
        raise SettingsError([Fault(name, "is not set") for name in NEEDED_WITH_RELEASE])
    return ReleaseDestination(url=url, user=user, password=password, unit=settings.release_date_unit)


def prune_old(relay: Relay) -> None:
    """Delete what is settled and older than the retention, in small steps."""
    with relay.outbox.read() as connection:
        before = relay.outbox.now(connection) - relay.settings.retention_days * DAY_MS
    removed = sum(upkeep.prune(relay.outbox, before=before))
    log.info("outbox.pruned", webhooks=removed, retention_days=relay.settings.retention_days)


def log_setup(settings: Settings, mappings: Members[str, Mapping]) -> None:
    """Logs of this process as the settings say, on standard output, without any of the secrets."""
    readable = settings.log_format == "console" or (settings.log_format == "auto" and sys.stdout.isatty())
    configure_logging(
        json=not readable, level=settings.log_level, secrets=secret_values(settings, mappings), stream=sys.stdout
    )


def retranslate(mappings: Members[str, Mapping], stored: StoredWebhook) -> Retranslation:
    """What a stored webhook becomes with these mappings. Raises UnknownSource when its source has none any more."""
    mapping = mappings.get(stored.source)
    if mapping is None:
        raise UnknownSource(f"no mapping file is for the source {stored.source!r} any more")
    text, body = read_json(stored.raw)
    webhook = Webhook(stored.source, mapping.kept(stored.headers), stored.raw, text, body)
    return Retranslation(translate(webhook, mapping)[0], mapping.digest)


def warnings(relay_settings: Settings, mappings: Members[str, Mapping]) -> list[str]:
    """What an operator should know at start, in words."""
    secrets = secrets_of(mappings, relay_settings.environ)
    said = [
        f"{mapping.secret} is not set: webhooks of {source!r} are answered 503 until it is"
        for source, mapping in sorted(mappings.items())
        # What comes directly needs no signature; whoever wants to post it as a webhook sees the 503.
        if not secrets[source] and source not in relay_settings.allow_unsigned and mapping.direct is None
    ]
    unsigned = sorted(relay_settings.allow_unsigned)
    said += [f"webhooks of {source!r} are taken without a signature" for source in unsigned]
    if relay_settings.dyno and database_url(relay_settings.database_url).get_backend_name() == "sqlite":
        said.append(
            "the database is a SQLite file, and this platform empties its disks with every restart: what is stored "
            "will be lost; add a PostgreSQL to the app, which sets DATABASE_URL"
        )
    return said


def secret_values(settings: Settings, mappings: Members[str, Mapping]) -> set[str]:
    """Every value that must never be seen in a log."""
    given = {secret for several in secrets_of(mappings, settings.environ).values() for secret in several}
    for held in (settings.compass_api_token, settings.admin_token, settings.release_password):
        if held is not None:
            given.add(held.get_secret_value())
    if password := database_url(settings.database_url).password:
        given.add(password)
    return given


def _observe(destination: str, outcome: Outcome) -> None:
    count_attempt(destination=destination, outcome=outcome.word)


def destination_names(settings: Settings) -> set[str]:
    """The destinations that these settings know."""
    return {DESTINATION} if settings.release_url is None else {DESTINATION, calendar.DESTINATION}


def gauges(relay: Relay) -> dict[str, DestinationGauges]:
    """What the outbox says of each destination now, for /metrics."""
    seen = views.status(relay.outbox)
    names = {view.name for view in seen.destinations} | destination_names(relay.settings)
    standing = {view.name: view for view in seen.destinations}
    result = {}
    for name in sorted(names):
        view = standing.get(name)
        open_events = [count for count in seen.events if count.destination == name and count.status in _UNSETTLED]
        ahead = claims.forecast(relay.outbox, name, quota=relay.settings.quota(name))
        held = view.slots_held if view else 0
        result[name] = DestinationGauges(
            state="paused" if view and view.paused else (view.state if view else State.OPEN).value,
            states=[*(state.value for state in State), "paused"],
            events={(count.status.value, count.lane.name.lower()): count.count for count in open_events},
            oldest_pending_seconds=max(
                ((seen.now - count.oldest_at) / 1000 for count in open_events if count.status is EventStatus.PENDING),
                default=0.0,
            ),
            slots_held=held,
            slots_free=max(0, relay.settings.quota(name).limit - held),
            forecast_requests=ahead.requests,
            forecast_seconds=0.0 if ahead.drained_at is None else max(0.0, (ahead.drained_at - seen.now) / 1000),
        )
    return result


_UNSETTLED = (EventStatus.PENDING, EventStatus.SENDING, EventStatus.UNROUTED, EventStatus.DEAD)
