"""What is thrown away in time: results that are over, and files that belong to nobody."""

from functools import partial

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from studiolo.service.queue import JobQueue
from studiolo.service.records import is_id, made_at, result_folder
from studiolo.service.tables import ChoreRow, IdentityRow, JobRow
from studiolo.storage.store import Store

_OWNERS: dict[str, type[IdentityRow] | type[JobRow]] = {
    "albums": IdentityRow,
    "identities": IdentityRow,
    "results": JobRow,
}
"""Folders of the store, and the rows whose ids name the folders in them."""
_ORPHANS = "orphans"
_DAY_S = 86_400.0
_TAKES_S = 3600.0
"""After so long, who has begun is taken to be dead."""


class Expiry:
    """Throws away what is over in a database and a store."""

    def __init__(self, queue: JobQueue, store: Store) -> None:
        self.database, self.store = queue.database, store

    def expire_results(self, count: int = 100) -> int:
        """Remove files and results of up to `count` jobs that ended long ago; how many. Their rows stay."""
        due = self.database.read(partial(self._due, count))
        for job_id in due:
            for path in self.store.list(result_folder(job_id)):
                self.store.remove(path)
            self.database.write(partial(self._forget, job_id))
        return len(due)

    def remove_orphans(self, older_s: float = 3600.0) -> list[str]:
        """Remove files of identities and jobs that no row knows, as a broken upload or a late worker leaves them.

        Younger ones than `older_s` may belong to an upload that goes on. Returns the paths. It lists the whole store.
        """
        removed = []
        for place, table in _OWNERS.items():
            files = [path for path in self.store.list(place) if is_id(path.split("/")[1])]
            ids = {path.split("/")[1] for path in files}
            orphans = ids - self.database.read(partial(self._known, table, ids, older_s))
            removed += [path for path in files if path.split("/")[1] in orphans]
        for path in removed:
            self.store.remove(path)
        return removed

    def remove_orphans_daily(self) -> int:
        """`remove_orphans`, once a day whatever the number of processes that call this; how many files went.

        One that is killed meanwhile is followed by another after an hour.
        """
        if not self.database.read(self._orphans_due) or not self.database.write(self._begin_orphans):
            return 0
        removed = self.remove_orphans()
        self.database.write(self._end_orphans)
        return len(removed)

    def _orphans_due(self, session: Session) -> bool:
        row = session.get(ChoreRow, _ORPHANS)
        return row is None or row.next_at <= self.database.now(session)

    def _begin_orphans(self, session: Session) -> bool:
        """Whether it is ours to do: the first one moves the next date, and the others find it moved."""
        dialect = postgresql if session.get_bind().dialect.name == "postgresql" else sqlite
        session.execute(dialect.insert(ChoreRow).values(name=_ORPHANS, next_at=0.0).on_conflict_do_nothing())
        row, now = session.get_one(ChoreRow, _ORPHANS, with_for_update=True), self.database.now(session)
        ours = row.next_at <= now
        if ours:
            row.next_at = now + _TAKES_S
        return ours

    def _end_orphans(self, session: Session) -> None:
        row = session.get_one(ChoreRow, _ORPHANS, with_for_update=True)
        row.next_at = self.database.now(session) + _DAY_S

    def _due(self, count: int, session: Session) -> list[str]:
        over = JobRow.result_until < self.database.now(session)
        return list(session.scalars(sa.select(JobRow.id).where(over).order_by(JobRow.result_until).limit(count)))

    @staticmethod
    def _forget(job_id: str, session: Session) -> None:
        row = session.get(JobRow, job_id, with_for_update=True)
        if row is not None:
            row.result, row.result_until = None, None

    def _known(
        self, table: type[IdentityRow] | type[JobRow], ids: set[str], older_s: float, session: Session
    ) -> set[str]:
        """Those that are young or have a row."""
        young_from = self.database.now(session) - older_s
        known = {name for name in ids if made_at(name) >= young_from}
        return known | {name for name in ids - known if session.get(table, name) is not None}
