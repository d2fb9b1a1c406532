"""Runs migrations on the connection that the application hands over; there is no other way to run them."""

from alembic import context

from control_plane.adapters.database.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    render_as_batch=True,  # SQLite alters a table by making another
    transactional_ddl=True,
)
context.run_migrations()
