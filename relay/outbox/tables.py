"""The outbox's tables, one schema for SQLite and PostgreSQL.

Ids are integers that are never used again; digests are 16 bytes, so that indexes stay small; times are
milliseconds since 1970 UTC. The migrations in `migrations/` create this; a test compares the two.
"""

import hashlib
from json.encoder import encode_basestring_ascii

from sqlalchemy import (
    BigInteger,
    Column,
    Double,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    Text,
    UniqueConstraint,
    text,
)

metadata = MetaData()

# SQLite gives out ids by itself only for a column declared INTEGER.
Id = BigInteger().with_variant(Integer, "sqlite")
Digest = LargeBinary(16)


def digest(*parts: str) -> bytes:
    """16 bytes that stand for these texts: an entity, an event source, the key of a delivery."""
    # What `json.dumps` makes of the list, at a quarter of its price.
    listed = f"[{', '.join(map(encode_basestring_ascii, parts))}]"
    return hashlib.blake2b(listed.encode(), digest_size=16).digest()


webhooks = Table(
    "webhooks",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("source", Text, nullable=False),
    Column("received_at", BigInteger, nullable=False),
    Column("dedupe", Digest),
    Column("status", Text, nullable=False),
    Column("rule", Text),
    Column("reason", Text),
    Column("field", Text),
    Column("mapping", Text, nullable=False),
    Column("headers", Text, nullable=False),
    Column("body", LargeBinary, nullable=False),
    UniqueConstraint("source", "dedupe", name="uq_webhooks_dedupe"),
    # What a person must look at; translated and ignored webhooks are not in it.
    Index(
        "ix_webhooks_open",
        "status",
        "id",
        sqlite_where=text("status IN ('unmatched', 'failed')"),
        postgresql_where=text("status IN ('unmatched', 'failed')"),
    ),
    sqlite_autoincrement=True,
)

events = Table(
    "events",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("webhook_id", Id, ForeignKey("webhooks.id")),
    Column("created_at", BigInteger, nullable=False),
    Column("destination", Text, nullable=False),
    Column("type", Text, nullable=False),
    Column("component", Text),
    Column("unrouted", Text),
    Column("body", Text, nullable=False),
    Column("entity", Digest, nullable=False),
    Column("state", Text),
    Column("source_order", BigInteger, nullable=False),
    Column("terminal", SmallInteger, nullable=False, server_default="0"),
    # Digest of kind and externalEventSourceId: a missing event source holds all its events back at once.
    Column("event_source", Digest),
    Column("lane", SmallInteger, nullable=False),
    # The lane in which it queues: its own, or another one in view of its entity's other events.
    Column("rank", SmallInteger, nullable=False),
    Column("coalesce", Text, nullable=False),
    Column("status", Text, nullable=False),
    # 0 while an event waits behind another one of its entity; claims look only at 1.
    Column("ready", SmallInteger, nullable=False, server_default="1"),
    Column("due_at", BigInteger, nullable=False),
    Column("trigger", Text, nullable=False, server_default="auto"),
    Column("failures", SmallInteger, nullable=False, server_default="0"),
    Column("number", BigInteger),
    Column("lease", Text),
    Column("lease_until", BigInteger),
    Column("successor_id", Id),
    Column("reason", Text),
    Column("settled_at", BigInteger),
    Index(
        "ix_events_ready",
        "destination",
        "rank",
        "due_at",
        "id",
        sqlite_where=text("status = 'pending' AND ready = 1"),
        postgresql_where=text("status = 'pending' AND ready = 1"),
    ),
    # What waits for one entity, in the order in which it is sent.
    Index(
        "ix_events_entity",
        "destination",
        "entity",
        "source_order",
        "terminal",
        "id",
        sqlite_where=text("status = 'pending'"),
        postgresql_where=text("status = 'pending'"),
    ),
    # One event of an entity is on its way at a time: the database itself sees to it.
    Index(
        "ix_events_sending",
        "destination",
        "entity",
        unique=True,
        sqlite_where=text("status = 'sending'"),
        postgresql_where=text("status = 'sending'"),
    ),
    Index(
        "ix_events_leased",
        "lease_until",
        sqlite_where=text("status = 'sending'"),
        postgresql_where=text("status = 'sending'"),
    ),
    Index(
        "ix_events_held",
        "status",
        "id",
        sqlite_where=text("status IN ('dead', 'unrouted')"),
        postgresql_where=text("status IN ('dead', 'unrouted')"),
    ),
    # While one of its events is held, what is known of an entity is not forgotten.
    Index(
        "ix_events_held_entity",
        "destination",
        "entity",
        sqlite_where=text("status IN ('dead', 'unrouted')"),
        postgresql_where=text("status IN ('dead', 'unrouted')"),
    ),
    Index("ix_events_webhook", "webhook_id"),
    # What came without a webhook is pruned by itself.
    Index(
        "ix_events_direct",
        "id",
        sqlite_where=text("webhook_id IS NULL"),
        postgresql_where=text("webhook_id IS NULL"),
    ),
    sqlite_autoincrement=True,
)

submissions = Table(
    "submissions",
    metadata,
    # Digest of an Idempotency-Key, and of the body that came with it.
    Column("key", Digest, primary_key=True),
    Column("body", Digest, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    # The id with which each element was answered, as a JSON list.
    Column("events", Text, nullable=False),
    Index("ix_submissions_created", "created_at"),
)

attempts = Table(
    "attempts",
    metadata,
    Column("id", Id, primary_key=True, autoincrement=True),
    Column("event_id", Id, nullable=False),
    Column("destination", Text, nullable=False),
    Column("trigger", Text, nullable=False),
    Column("claimed_at", BigInteger, nullable=False),
    # The slot of the quota is held until then: see `relay.dispatch.quota`.
    Column("held_until", BigInteger, nullable=False),
    Column("answered_at", BigInteger),
    Column("outcome", Text),
    Column("status", SmallInteger),
    Column("error", Text),
    Column("message", Text),
    Column("took_ms", Integer),
    Index("ix_attempts_held", "destination", "held_until"),
    Index("ix_attempts_event", "event_id"),
    sqlite_autoincrement=True,
)

entities = Table(
    "entities",
    metadata,
    Column("destination", Text, primary_key=True),
    Column("entity", Digest, primary_key=True),
    # The newest that was sent (delivered, or never answered): older ones are superseded.
    Column("source_order", BigInteger),
    Column("terminal", SmallInteger),
    # The greatest number given out, whatever became of its event.
    Column("number", BigInteger),
    Column("state", Text),
    Column("event_id", Id),
    Column("touched_at", BigInteger, nullable=False),
)

destinations = Table(
    "destinations",
    metadata,
    Column("name", Text, primary_key=True),
    Column("paused", SmallInteger, nullable=False, server_default="0"),
    # open, limited (429), blocked (our credentials or URL are refused) or down (it does not answer).
    Column("state", Text, nullable=False, server_default="open"),
    Column("reason", Text),
    Column("since", BigInteger),
    # No request before then: a 429's pause, or the next probe.
    Column("wait_until", BigInteger, nullable=False, server_default="0"),
    # No request before then either: the clock has stepped, and the slots cannot be trusted.
    Column("frozen_until", BigInteger, nullable=False, server_default="0"),
    Column("probes", Integer, nullable=False, server_default="0"),
    # The event whose attempt failed last, with no answer of another kind since.
    Column("failing", Id),
    # The events that were answered 403 since something was delivered; a JSON list of ids.
    Column("forbidden", Text, nullable=False, server_default="[]"),
    # How many claims there were, and when the last one that was not urgent.
    Column("claims", BigInteger, nullable=False, server_default="0"),
    Column("paced_at", BigInteger, nullable=False, server_default="0"),
)

counters = Table(
    "counters",
    metadata,
    # A sample of /metrics, and its labels as JSON; how much all processes have counted.
    Column("name", Text, primary_key=True),
    Column("labels", Text, primary_key=True),
    Column("value", Double, nullable=False),
)
