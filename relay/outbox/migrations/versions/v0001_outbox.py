"""The first tables: webhooks, events, submissions, attempts, entities, destinations."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

Id = sa.BigInteger().with_variant(sa.Integer, "sqlite")
Digest = sa.LargeBinary(16)


def upgrade() -> None:
    """Create everything."""
    op.create_table(
        "webhooks",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("source", sa.Text, nullable=False),
        sa.Column("received_at", sa.BigInteger, nullable=False),
        sa.Column("dedupe", Digest),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("rule", sa.Text),
        sa.Column("reason", sa.Text),
        sa.Column("field", sa.Text),
        sa.Column("mapping", sa.Text, nullable=False),
        sa.Column("headers", sa.Text, nullable=False),
        sa.Column("body", sa.LargeBinary, nullable=False),
        sa.UniqueConstraint("source", "dedupe", name="uq_webhooks_dedupe"),
        sqlite_autoincrement=True,
    )
    _partial_index("ix_webhooks_open", "webhooks", ["status", "id"], "status IN ('unmatched', 'failed')")

    op.create_table(
        "events",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("webhook_id", Id, sa.ForeignKey("webhooks.id")),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("type", sa.Text, nullable=False),
        sa.Column("component", sa.Text),
        sa.Column("unrouted", sa.Text),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("entity", Digest, nullable=False),
        sa.Column("state", sa.Text),
        sa.Column("source_order", sa.BigInteger, nullable=False),
        sa.Column("terminal", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("event_source", Digest),
        sa.Column("lane", sa.SmallInteger, nullable=False),
        sa.Column("rank", sa.SmallInteger, nullable=False),
        sa.Column("coalesce", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("ready", sa.SmallInteger, nullable=False, server_default="1"),
        sa.Column("due_at", sa.BigInteger, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False, server_default="auto"),
        sa.Column("failures", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("number", sa.BigInteger),
        sa.Column("lease", sa.Text),
        sa.Column("lease_until", sa.BigInteger),
        sa.Column("successor_id", Id),
        sa.Column("reason", sa.Text),
        sa.Column("settled_at", sa.BigInteger),
        sqlite_autoincrement=True,
    )
    _partial_index(
        "ix_events_ready",
        "events",
        ["destination", "rank", "due_at", "id"],
        "status = 'pending' AND ready = 1",
    )
    _partial_index(
        "ix_events_entity",
        "events",
        ["destination", "entity", "source_order", "terminal", "id"],
        "status = 'pending'",
    )
    _partial_index("ix_events_sending", "events", ["destination", "entity"], "status = 'sending'", unique=True)
    _partial_index("ix_events_leased", "events", ["lease_until"], "status = 'sending'")
    _partial_index("ix_events_held", "events", ["status", "id"], "status IN ('dead', 'unrouted')")
    _partial_index("ix_events_held_entity", "events", ["destination", "entity"], "status IN ('dead', 'unrouted')")
    op.create_index("ix_events_webhook", "events", ["webhook_id"])
    _partial_index("ix_events_direct", "events", ["id"], "webhook_id IS NULL")

    op.create_table(
        "submissions",
        sa.Column("key", Digest, primary_key=True),
        sa.Column("body", Digest, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
    )
    op.create_index("ix_submissions_created", "submissions", ["created_at"])

    op.create_table(
        "attempts",
        sa.Column("id", Id, primary_key=True, autoincrement=True),
        sa.Column("event_id", Id, nullable=False),
        sa.Column("destination", sa.Text, nullable=False),
        sa.Column("trigger", sa.Text, nullable=False),
        sa.Column("claimed_at", sa.BigInteger, nullable=False),
        sa.Column("held_until", sa.BigInteger, nullable=False),
        sa.Column("answered_at", sa.BigInteger),
        sa.Column("outcome", sa.Text),
        sa.Column("status", sa.SmallInteger),
        sa.Column("error", sa.Text),
        sa.Column("message", sa.Text),
        sa.Column("took_ms", sa.Integer),
        sqlite_autoincrement=True,
    )
    op.create_index("ix_attempts_held", "attempts", ["destination", "held_until"])
    op.create_index("ix_attempts_event", "attempts", ["event_id"])

    op.create_table(
        "entities",
        sa.Column("destination", sa.Text, primary_key=True),
        sa.Column("entity", Digest, primary_key=True),
        sa.Column("source_order", sa.BigInteger),
        sa.Column("terminal", sa.SmallInteger),
        sa.Column("number", sa.BigInteger),
        sa.Column("state", sa.Text),
        sa.Column("event_id", Id),
        sa.Column("touched_at", sa.BigInteger, nullable=False),
    )

    op.create_table(
        "destinations",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("paused", sa.SmallInteger, nullable=False, server_default="0"),
        sa.Column("state", sa.Text, nullable=False, server_default="open"),
        sa.Column("reason", sa.Text),
        sa.Column("since", sa.BigInteger),
        sa.Column("wait_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("frozen_until", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("probes", sa.Integer, nullable=False, server_default="0"),
        sa.Column("failing", Id),
        sa.Column("forbidden", sa.Text, nullable=False, server_default="[]"),
        sa.Column("claims", sa.BigInteger, nullable=False, server_default="0"),
        sa.Column("paced_at", sa.BigInteger, nullable=False, server_default="0"),
    )


def _partial_index(name: str, table: str, columns: list[str], where: str, *, unique: bool = False) -> None:
    condition = sa.text(where)
    op.create_index(name, table, columns, unique=unique, sqlite_where=condition, postgresql_where=condition)
