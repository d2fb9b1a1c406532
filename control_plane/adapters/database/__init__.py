"""Backstay's own state in a relational database: SQLite by default, PostgreSQL where it is outgrown."""

from control_plane.adapters.database.database import Database, open_database

__all__ = ["Database", "open_database"]
