"""Run by Alembic: applies migrations to the connection that `Database.migrate` hands over."""

from alembic import context

from lightning_pod.store.database import VERSION_TABLE, Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    version_table=VERSION_TABLE,
    render_as_batch=True,  # SQLite can't alter a column in place
)
with context.begin_transaction():
    context.run_migrations()
