"""Erasing an identity: every file, record, run and row that is hers, with a signed receipt.

It begins with a mark in the identity's row and ends with the receipt in its place. What is deleted in between is looked
for anew at every try, so an erasure that was killed is finished by the next one, with the figures of the first. Files
and records are those that `studiolo.storage.retention` finds for albums, too.
"""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.identities.artifacts import identity_folder
from studiolo.service.identities import album_folder
from studiolo.service.queue import JobQueue
from studiolo.service.receipts import ReceiptKey
from studiolo.service.records import is_id, result_folder
from studiolo.service.tables import DeliveryRow, IdentityRow, JobRow, PixelsRow, ReceiptRow, VersionRow
from studiolo.storage.retention import Found, erase, survey
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker

Elsewhere = Callable[[str], Mapping[str, int]]
"""Forgets an identity outside store, SQL and tracking (adapter slots, caches), and says how much of what that was."""

_AGAIN_S = 1.0


@dataclass(frozen=True)
class Erased:
    """How far an erasure is."""

    receipt: dict[str, Any] | None
    """None while a worker may still write."""
    again_s: float = 0.0
    """Ask again after so many seconds."""


@dataclass(frozen=True)
class _Begun:
    identity_id: str
    jobs: list[str]
    wait_s: float


class Erasure:
    """Erases identities from a database, a store and a tracker."""

    def __init__(self, queue: JobQueue, store: Store, tracker: MlflowTracker, key: ReceiptKey) -> None:
        self.queue, self.database, self.store, self.tracker, self.key = queue, queue.database, store, tracker, key

    def erase(self, tenant_id: str, identity_id: str, elsewhere: Elsewhere | None = None) -> Erased | None:
        """Erase the tenant's identity; None for one that is not there or another's.

        Its jobs are cancelled and nothing new is accepted, at once. What is kept goes when no worker holds a lease any
        more: until then `Erased.receipt` is None; call it again. Without `elsewhere` it is only begun, for one who can
        reach what samplers hold to finish. Of one that was erased the receipt comes back. Backups, logs of other
        systems and copies that were sent out are not reached.
        """
        begun = self.database.write(partial(self._begin, tenant_id, identity_id))
        if begun is None or isinstance(begun, Erased):
            return begun
        if begun.wait_s > 0 or elsewhere is None:
            return Erased(None, max(begun.wait_s, _AGAIN_S))
        self.database.write(partial(self._note, identity_id, elsewhere(identity_id)))  # another may be about to finish
        found = self._found(begun)
        self.database.write(partial(self._note, identity_id, _counts(found)))
        erase(self.store, {identity_id: found}, self.tracker)
        for folder in (identity_folder(identity_id), *_folders(begun)):
            self.store.remove_temporary(folder, older_s=0.0)  # of writers that were killed
        self.store.remove_temporary("ledger")
        self.database.write(partial(self._delete_rows, identity_id))
        self.database.compact()
        late = elsewhere(identity_id)  # what was begun before may have read the files again
        return Erased(self.database.write(partial(self._finish, tenant_id, identity_id, late)))

    def unfinished(self) -> list[tuple[str, str]]:
        """(tenant, identity) of erasures that were begun: whoever finds one finishes it."""
        query = sa.select(IdentityRow.tenant_id, IdentityRow.id).where(IdentityRow.erasing.is_not(None))
        return self.database.read(lambda session: [(tenant, identity) for tenant, identity in session.execute(query)])

    def _begin(self, tenant_id: str, identity_id: str, session: Session) -> _Begun | Erased | None:
        if not is_id(identity_id):
            return None
        row = session.get(IdentityRow, identity_id, with_for_update={"key_share": True})
        if row is None:
            done = session.get(ReceiptRow, identity_id)
            return Erased(done.receipt) if done is not None and done.tenant_id == tenant_id else None
        if row.tenant_id != tenant_id:
            return None
        now = self.database.now(session)
        if row.erasing is None:
            quiet_at = max(now, self.queue.withdraw(session, identity_id))
            row.erasing = {"since": now, "quiet_at": quiet_at, "counts": None}
        jobs = list(session.scalars(sa.select(JobRow.id).filter_by(identity_id=identity_id)))
        return _Begun(identity_id, jobs, row.erasing["quiet_at"] - now)

    def _found(self, begun: _Begun) -> Found:
        found = survey(self.store, {begun.identity_id}, self.tracker, ())[begun.identity_id]
        more = [path for folder in _folders(begun) for path in self.store.list(folder)]
        return replace(found, files=[*found.files, *more])

    def _note(self, identity_id: str, counts: Mapping[str, int], session: Session) -> None:
        """Write down how much there was, before any of it goes; who comes later, or is not alone, sees less of it."""
        row = session.get(IdentityRow, identity_id, with_for_update=True)
        if row is None:
            return  # another was faster
        jobs = sa.select(JobRow.id).filter_by(identity_id=identity_id)
        rows = {
            "hashes of pixels": sa.select(sa.func.count()).select_from(PixelsRow).where(PixelsRow.job_id.in_(jobs)),
            "rows of jobs": sa.select(sa.func.count()).select_from(JobRow).filter_by(identity_id=identity_id),
            "rows of versions": sa.select(sa.func.count()).select_from(VersionRow).filter_by(identity_id=identity_id),
        }
        counts = {**counts, **{name: session.scalars(query).one() for name, query in rows.items()}}
        seen: dict[str, int] = (row.erasing or {}).get("counts") or {}
        most = {name: max(count, seen.get(name, 0)) for name, count in (seen | counts).items()}
        row.erasing = {**(row.erasing or {}), "counts": most}

    def _delete_rows(self, identity_id: str, session: Session) -> None:
        """All but the mark, with nothing of the person in it."""
        jobs = sa.select(JobRow.id).filter_by(identity_id=identity_id)
        for of_jobs in (DeliveryRow, PixelsRow):
            session.execute(sa.delete(of_jobs).where(of_jobs.job_id.in_(jobs)))
        for table in (VersionRow, JobRow):
            session.execute(sa.delete(table).where(table.identity_id == identity_id))
        row = session.get(IdentityRow, identity_id)
        if row is not None:
            row.name, row.consent = "", {}

    def _finish(self, tenant_id: str, identity_id: str, late: Mapping[str, int], session: Session) -> dict[str, Any]:
        row = session.get(IdentityRow, identity_id, with_for_update=True)
        if row is None:  # another was faster, or the answer to an earlier try was lost
            return session.get_one(ReceiptRow, identity_id).receipt
        begun, now = row.erasing or {}, self.database.now(session)
        counts: dict[str, int] = begun["counts"]
        receipt = self.key.sign(
            {
                "kind": "studiolo erasure receipt, version 1",
                "tenant_id": tenant_id,
                "identity_id": identity_id,
                "requested_at": begun["since"],
                "erased_at": now,
                "erased": {name: counts.get(name, 0) + late.get(name, 0) for name in counts | dict(late)},
                "out_of_scope": "backups, write-ahead logs of PostgreSQL, and what was delivered to others",
            }
        )
        session.add(ReceiptRow(identity_id=identity_id, tenant_id=tenant_id, receipt=receipt, created_at=now))
        session.delete(row)
        return receipt


def _folders(begun: _Begun) -> list[str]:
    """Where the service keeps files of the person, beside the person's own folder."""
    return [album_folder(begun.identity_id), *map(result_folder, begun.jobs)]


_KINDS = {
    "references": "reference pictures",
    "lora": "files of face-LoRAs",
    "training.checkpoint": "checkpoints",
    "portraits": "portraits",
    "prints": "prints",
}
"""What a file in the identity's folder is, by the first part of its path there."""


def _counts(found: Found) -> dict[str, int]:
    """How much of what there is, in words that a receipt can use."""
    files = Counter(map(_kind, found.files))
    return {**dict(sorted(files.items())), "ledger records": len(found.ledger), "tracked runs": len(found.runs)}


def _kind(path: str) -> str:
    place, _, rest = path.partition("/")
    if place == "albums":
        return "photos"
    if place == "results":
        return "files of results"
    if place == identity_folder("x").partition("/")[0]:
        return _KINDS.get(rest.split("/")[1], "other files")
    return "other files"
