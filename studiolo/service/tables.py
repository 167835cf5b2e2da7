"""The tables of the endpoint, one class a table; docs/decisions/0011-sql-is-the-queue.md says what each is for.

All `_at` and `_until` are seconds since 1970 (UTC). A change here needs a migration (`migrations/versions/`); a test
compares the two.
"""

import json
from typing import Any

from sqlalchemy import BigInteger, Double, ForeignKey, Index, MetaData, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column
from sqlalchemy.types import TypeDecorator

from studiolo.keys import canonical_json


class Json(TypeDecorator[Any]):
    """A JSON value as canonical ASCII text, the same on every database."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: object) -> str | None:
        """The text of `value`; None stays None."""
        return None if value is None else canonical_json(value)

    def process_result_value(self, value: str | None, dialect: object) -> Any:
        """The value of a text."""
        return None if value is None else json.loads(value)


class Base(DeclarativeBase):
    """Base of all tables; constraints have names that migrations can use."""

    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(column_0_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        }
    )
    type_annotation_map = {float: Double, dict[str, Any]: Json, str: Text}  # noqa: RUF012


class TenantRow(Base):
    """A customer of the service."""

    __tablename__ = "tenants"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(unique=True)
    webhook_secret: Mapped[str]
    """Signs the tenant's webhooks; it has to be readable to sign with."""
    created_at: Mapped[float]


class KeyRow(Base):
    """An API key: of its secret only the hash."""

    __tablename__ = "keys"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    prefix: Mapped[str] = mapped_column(String(16), unique=True)
    """The public part of the key, by which it is looked up."""
    sha256: Mapped[str] = mapped_column(String(64))
    """Of the whole key."""
    limits: Mapped[dict[str, Any]]
    """`studiolo.service.keys.Limits` of this key; the settings' where it says nothing."""
    created_at: Mapped[float]
    expires_at: Mapped[float | None]
    revoked_at: Mapped[float | None]


class UsageRow(Base):
    """How much of one thing a key used on one day (UTC)."""

    __tablename__ = "usage"

    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"), primary_key=True)
    day: Mapped[str] = mapped_column(String(10), primary_key=True)
    """YYYY-MM-DD."""
    what: Mapped[str] = mapped_column(String(16), primary_key=True)
    """`requests`, `steps`, or a kind of job."""
    amount: Mapped[int] = mapped_column(BigInteger)


class BucketRow(Base):
    """The token bucket of a key."""

    __tablename__ = "buckets"

    key_id: Mapped[str] = mapped_column(ForeignKey("keys.id"), primary_key=True)
    tokens: Mapped[float]
    """At `filled_at`."""
    filled_at: Mapped[float]


class IdentityRow(Base):
    """A person of a tenant."""

    __tablename__ = "identities"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str]
    consent: Mapped[dict[str, Any]]
    """`studiolo.service.identities.Consent`."""
    created_at: Mapped[float]
    erasing: Mapped[dict[str, Any] | None] = mapped_column(Json)
    """Since when its erasure goes on and what was found at its beginning; the row is the last to go."""


class VersionRow(Base):
    """A face-LoRA of an identity."""

    __tablename__ = "versions"

    identity_id: Mapped[str] = mapped_column(ForeignKey("identities.id"), primary_key=True)
    number: Mapped[int] = mapped_column(primary_key=True)
    """From 1."""
    job_id: Mapped[str] = mapped_column(String(40), unique=True)
    record: Mapped[dict[str, Any]]
    """What the training said: paths and sha256, references with verdicts, curve."""
    created_at: Mapped[float]


class JobRow(Base):
    """Accepted work."""

    __tablename__ = "jobs"
    __table_args__ = (
        UniqueConstraint("tenant_id", "idempotency_key"),
        Index("ix_jobs_order", "state", "kind", "deadline_at", "id"),
        Index("ix_jobs_lease", "state", "lease_until"),
    )

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    """Ids of later jobs sort behind those of earlier ones."""
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    key_id: Mapped[str | None] = mapped_column(ForeignKey("keys.id"))
    """The key that it was asked for with."""
    identity_id: Mapped[str | None] = mapped_column(ForeignKey("identities.id"), index=True)
    kind: Mapped[str] = mapped_column(String(16))
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(String(64))
    sentence: Mapped[str]
    request: Mapped[dict[str, Any]]
    request_sha256: Mapped[str] = mapped_column(String(64))
    result: Mapped[dict[str, Any] | None] = mapped_column(Json)
    units: Mapped[int]
    steps: Mapped[int] = mapped_column(BigInteger)
    steps_done: Mapped[int] = mapped_column(BigInteger)
    """As the newest attempt said when it last extended its lease."""
    curve: Mapped[list[Any] | None] = mapped_column(Json)
    """Said with it: step and loss, a hundred pairs at most; null of what is no training, and when it has ended."""
    created_at: Mapped[float]
    ready_at: Mapped[float]
    """Not leased before."""
    deadline_at: Mapped[float]
    started_at: Mapped[float | None]
    """Beginning of the newest attempt."""
    finished_at: Mapped[float | None]
    idempotency_key: Mapped[str | None]
    request_id: Mapped[str | None] = mapped_column(String(64))
    """The HTTP request that it was asked for in."""
    attempts: Mapped[int]
    lease_owner: Mapped[str | None]
    lease_until: Mapped[float | None]
    attempt_token: Mapped[str | None] = mapped_column(String(32), unique=True)
    """Of the newest attempt; it stays with a finished job."""
    webhook_url: Mapped[str | None]
    result_until: Mapped[float | None] = mapped_column(index=True)
    """When the result is thrown away; null before there is one, and after."""


class PixelsRow(Base):
    """The pixels of a picture that was made here; written, and gone, with the result of its job."""

    __tablename__ = "pixels"

    sha256: Mapped[str] = mapped_column(String(64), primary_key=True)
    """`studiolo.portraits.files.image_sha256`."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), primary_key=True, index=True)


class DeliveryRow(Base):
    """A webhook to send, written in the transaction that ends its job."""

    __tablename__ = "deliveries"
    __table_args__ = (Index("ix_deliveries_next", "next_at"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id"), unique=True)
    url: Mapped[str]
    body: Mapped[dict[str, Any]]
    attempts: Mapped[int]
    next_at: Mapped[float | None]
    """When it is tried next; null when it was delivered or given up."""
    delivered_at: Mapped[float | None]
    error: Mapped[str]
    """What the newest attempt came to grief on."""


class SpeedRow(Base):
    """What one sampler or trainer does."""

    __tablename__ = "speeds"

    worker: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    steps_per_s: Mapped[float | None]
    """Of busy time, moving; null before it has done any."""
    reported_at: Mapped[float]


class ChoreRow(Base):
    """Work that is done now and then by one process of all."""

    __tablename__ = "chores"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    next_at: Mapped[float]
    """Not begun before; whoever begins it moves this first."""


class BindingRow(Base):
    """What this database belongs together with: an id that the other keeps a copy of."""

    __tablename__ = "bindings"

    name: Mapped[str] = mapped_column(String(40), primary_key=True)
    id: Mapped[str] = mapped_column(String(40))


class StyleRow(Base):
    """A style of a tenant's own."""

    __tablename__ = "styles"
    __table_args__ = (UniqueConstraint("tenant_id", "name"),)

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    name: Mapped[str] = mapped_column(String(64))
    """How it is ordered."""
    look: Mapped[dict[str, Any]]
    """`studiolo.service.styles.Look`: words and weight."""
    lora: Mapped[dict[str, Any]]
    """`studiolo.service.styles.StyleLora`: its file in the store."""
    created_at: Mapped[float]
    ending_at: Mapped[float | None]
    """Since when it is being deleted; the row is the last to go."""


class ReceiptRow(Base):
    """The signed receipt of an erasure; it says nothing about the person but the id that was hers."""

    __tablename__ = "receipts"

    identity_id: Mapped[str] = mapped_column(String(40), primary_key=True)
    tenant_id: Mapped[str] = mapped_column(ForeignKey("tenants.id"), index=True)
    receipt: Mapped[dict[str, Any]]
    created_at: Mapped[float]
