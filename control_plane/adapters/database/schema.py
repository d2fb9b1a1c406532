"""Tables of Backstay's own state. Migrations make them; this is the shape that queries are written against."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
)


class UtcDateTime(TypeDecorator[datetime]):
    """An aware instant. Stored in UTC without a zone, since SQLite keeps none; a naive value is a bug and refused."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError(f"{value!r} carries no time zone")
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


metadata = MetaData()

# Numbers that order a chain or a list. On SQLite only an INTEGER counts up by itself.
Number = BigInteger().with_variant(Integer(), "sqlite")

decisions = Table(
    "decisions",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("id", String(64), nullable=False, unique=True),
    Column("at", UtcDateTime, nullable=False),
    Column("service", String(100), nullable=False),
    Column("action", String(40), nullable=False),
    Column("target", String(100), nullable=False),
    Column("reason", String(60), nullable=False),
    Column("drill", Boolean, nullable=False),
    Column("content", Text, nullable=False),  # canonical JSON of all that never changes; what the hash covers
    Column("hash", String(64), nullable=False),
    Column("state", String(40), nullable=False),
    Column("saga_id", String(64)),
    Index("decisions_by_service", "service", "number"),
)

sagas = Table(
    "sagas",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("kind", String(40), nullable=False),
    Column("target", String(100), nullable=False),
    Column("plan", Text, nullable=False),  # canonical JSON
    Column("plan_hash", String(64), nullable=False),
    Column("by", String(100), nullable=False),
    Column("reason", Text, nullable=False),
    Column("automatic", Boolean, nullable=False),
    Column("drill", Boolean, nullable=False),
    Column("decision_id", String(64)),
    Column("began_at", UtcDateTime, nullable=False),
    Column("state", String(20), nullable=False),
    Column("ended_at", UtcDateTime),
    Index("sagas_by_state", "state"),
    Index("sagas_by_beginning", "began_at"),
)

saga_entries = Table(
    "saga_entries",
    metadata,
    Column("saga_id", String(64), ForeignKey("sagas.id"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("kind", String(20), nullable=False),
    Column("step", Integer),
    Column("data", Text, nullable=False),  # canonical JSON
    Column("fence", Number, nullable=False),
)

fences = Table(
    "fences",
    metadata,
    Column("token", Number, primary_key=True, autoincrement=False),
    Column("holder", String(200), nullable=False),
    Column("at", UtcDateTime, nullable=False),
)

audit = Table(
    "audit",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("actor", String(100), nullable=False),
    Column("action", String(100), nullable=False),
    Column("target", String(100), nullable=False),
    Column("content", Text, nullable=False),  # canonical JSON of the whole record; what the hash covers
    Column("hash", String(64), nullable=False),
)

exclusions = Table(
    "exclusions",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("service", String(100), nullable=False),
    Column("began_at", UtcDateTime, nullable=False),
    Column("ended_at", UtcDateTime),
    Column("reason", Text, nullable=False),
    Index("exclusions_by_end", "ended_at"),
)

first_seen = Table(
    "first_seen",
    metadata,
    Column("slo", String(200), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
)

snapshots = Table(
    "snapshots",
    metadata,
    Column("name", String(200), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("payload", LargeBinary, nullable=False),
    Column("sha256", String(64), nullable=False),
)

changes = Table(
    "changes",
    metadata,
    Column("number", Number, primary_key=True, autoincrement=True),
    Column("at", UtcDateTime, nullable=False),
    Column("service", String(100), nullable=False),
    Column("kind", String(40), nullable=False),
    Column("version", String(100), nullable=False),
    Column("by", String(100), nullable=False),
    Column("detail", Text, nullable=False),  # JSON
    Index("changes_by_time", "at"),
)

switches = Table(
    "switches",
    metadata,
    Column("name", String(40), primary_key=True),
    Column("at", UtcDateTime, nullable=False),
    Column("by", String(100), nullable=False),
    Column("reason", Text, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("username", String(100), primary_key=True),
    Column("password_hash", Text, nullable=False),  # argon2id, with its parameters and salt
    Column("changed_at", UtcDateTime, nullable=False),
)

sessions = Table(
    "sessions",
    metadata,
    Column("token_hash", String(64), primary_key=True),  # SHA-256: who reads the database cannot sign in with it
    Column("username", String(100), ForeignKey("users.username"), nullable=False),
    Column("began_at", UtcDateTime, nullable=False),
    Column("expires_at", UtcDateTime, nullable=False),
    Index("sessions_by_expiry", "expires_at"),
)
