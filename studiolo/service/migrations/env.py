"""Runs the revisions on the connection, and in the transaction, of `migrate`."""

from alembic import context

from studiolo.service.tables import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
context.run_migrations()
