"""Identities: people of a tenant, their consent, and the face-LoRAs that were learned of them.

An identity has no state of its own to disagree with its jobs: it is computed from its versions and its newest training.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.errors import UnacceptableError
from studiolo.service.database import Database
from studiolo.service.records import Consent, Kind, Lease, Page, State, is_id
from studiolo.service.tables import IdentityRow, JobRow, VersionRow

_BLANK = ""
"""Name of a row that is nothing any more but the mark of an erasure that has yet to be signed."""


class IdentityState(StrEnum):
    """Where an identity stands."""

    TRAINING = "training"
    READY = "ready"
    FAILED = "failed"
    ERASING = "erasing"


@dataclass(frozen=True)
class Version:
    """One face-LoRA of an identity. Times are seconds since 1970."""

    number: int
    job_id: str
    record: dict[str, Any]
    """Paths and sha256, references with verdicts, curve."""
    created_at: float


@dataclass(frozen=True)
class Identity:
    """A person of a tenant. Times are seconds since 1970."""

    id: str
    tenant_id: str
    name: str
    consent: Consent
    created_at: float
    state: IdentityState
    job_id: str | None
    """The newest training; its reason says why an identity failed, its result what was said of each photo."""
    versions: tuple[Version, ...]
    """Oldest first; orders take the last."""


def album_folder(identity_id: str) -> str:
    """Where the photos lie that an identity is learned from, relative to the store."""
    return f"albums/{identity_id}"


def photo_path(identity_id: str, number: int) -> str:
    """Where photo `number` of the album lies, from 1 in the order they were sent."""
    return f"{album_folder(identity_id)}/{number:03d}"


class Identities:
    """The identities in `database`; can be pickled. They are made by a job with a `Person`, see `NewJob`."""

    def __init__(self, database: Database) -> None:
        self.database = database

    def get(self, tenant_id: str, identity_id: str) -> Identity | None:
        """The tenant's identity; None for one that is not there or another's."""

        def look(session: Session) -> Identity | None:
            row = session.get(IdentityRow, identity_id) if is_id(identity_id) else None
            hers = row is not None and row.tenant_id == tenant_id and row.name != _BLANK
            return _identities(session, [row])[0] if hers and row is not None else None

        return self.database.read(look)

    def page(self, tenant_id: str, limit: int = 20, before: str | None = None) -> Page[Identity]:
        """The tenant's identities, newest first; `before` is the `next` of the page before.

        Raises `UnacceptableError` for a `before` that is none.
        """
        if before is not None and not is_id(before):
            raise UnacceptableError("cursor", "The page asked for does not exist; begin anew without a cursor.")
        query = sa.select(IdentityRow).where(IdentityRow.tenant_id == tenant_id, IdentityRow.name != _BLANK)
        query = query.order_by(IdentityRow.id.desc()).limit(limit + 1)
        if before is not None:
            query = query.where(IdentityRow.id < before)

        def look(session: Session) -> Page[Identity]:
            rows = list(session.scalars(query))
            return Page(_identities(session, rows[:limit]), rows[limit - 1].id if len(rows) > limit else None)

        return self.database.read(look)

    def learned(self, lease: Lease, record: dict[str, Any]) -> Callable[[Session], None]:
        """Adds the version that a training made: give it to `JobQueue.complete` as `within`."""

        def add(session: Session) -> None:
            identity_id = lease.job.identity_id
            numbers = sa.select(sa.func.count()).select_from(VersionRow).filter_by(identity_id=identity_id)
            version = VersionRow(identity_id=identity_id, number=session.scalars(numbers).one() + 1, record=record)
            version.job_id, version.created_at = lease.job.id, self.database.now(session)
            session.add(version)

        return add


def _identities(session: Session, rows: list[IdentityRow]) -> list[Identity]:
    """The records of rows, with two questions for all of them."""
    ids = [row.id for row in rows]
    versions: dict[str, list[Version]] = {identity_id: [] for identity_id in ids}
    found = sa.select(VersionRow).where(VersionRow.identity_id.in_(ids)).order_by(VersionRow.number)
    for version in session.scalars(found):
        record = Version(version.number, version.job_id, version.record, version.created_at)
        versions[version.identity_id].append(record)
    trainings = (
        sa.select(JobRow.identity_id, JobRow.id, JobRow.state)
        .where(JobRow.identity_id.in_(ids), JobRow.kind == Kind.IDENTITY)
        .order_by(JobRow.id)
    )
    newest = {identity_id: (job_id, State(state)) for identity_id, job_id, state in session.execute(trainings)}
    return [_identity(row, tuple(versions[row.id]), newest.get(row.id)) for row in rows]


def _identity(row: IdentityRow, versions: tuple[Version, ...], training: tuple[str, State] | None) -> Identity:
    job_id, job_state = training or (None, State.FAILED)
    if row.erasing is not None:
        state = IdentityState.ERASING
    elif versions:
        state = IdentityState.READY
    else:
        state = IdentityState.FAILED if job_state.final else IdentityState.TRAINING
    consent = Consent.model_validate(row.consent)
    return Identity(row.id, row.tenant_id, row.name, consent, row.created_at, state, job_id, versions)
