"""Alembic runs this file for every command; the connection comes from `migrations.migrate`."""

from alembic import context

from relay.outbox.tables import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most things in place: later migrations copy the table.
    render_as_batch=True,
    # The caller's transaction holds all of it, on SQLite too.
    transactional_ddl=True,
)
context.run_migrations()
