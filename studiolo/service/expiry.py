"""What is thrown away in time: results that are over, and files that belong to nobody."""

import logging
import re
from collections.abc import Iterator
from functools import partial

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from studiolo.errors import StoreError
from studiolo.service.queue import JobQueue
from studiolo.service.records import is_id, made_at, new_id, result_folder
from studiolo.service.tables import BindingRow, ChoreRow, IdentityRow, JobRow, PixelsRow, StyleRow
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker

_OF_PEOPLE = ("albums", "identities")
_OF_JOBS = ("results",)
_OF_STYLES = ("styles",)
"""Folders of the store in which folders are named by the ids of rows."""
_PERSON = re.compile(r"(?<![0-9A-Za-z_])id_[0-9a-f]{32}(?![0-9a-f])")
BINDING = "database.json"
"""File of the store with the id that its database has, too."""
_STORE = "store"
_ORPHANS = "orphans"
_DAY_S = 86_400.0
_TAKES_S = 3600.0
"""After so long, who has begun is taken to be dead."""
_AGAIN_S = 3600.0
"""What could not be removed is tried again after so long."""
_FEW = 20
"""Orphans that may go whatever their share is."""
_AT_ONCE = 500
"""Ids in one question."""

_log = logging.getLogger(__name__)


class Expiry:
    """Throws away what is over in a database, a store and a tracker.

    `orphans_share` is the largest share of the ids in the store that may be orphans.
    """

    def __init__(self, queue: JobQueue, store: Store, tracker: MlflowTracker, orphans_share: float = 0.5) -> None:
        self.database, self.store, self.tracker, self.orphans_share = queue.database, store, tracker, orphans_share

    def expire_results(self, count: int = 100) -> int:
        """Remove files and results of up to `count` jobs that ended long ago; how many. Their rows stay.

        One that cannot be removed is logged and tried again in an hour.
        """
        done = 0
        for job_id in self.database.read(partial(self._due, count)):
            try:
                self._remove(result_folder(job_id))
            except StoreError as error:
                _log.error("results of job %s: %s", job_id, error)
                self.database.write(partial(self._put_off, job_id))
            else:
                self.database.write(partial(self._forget, job_id))
                done += 1
        return done

    def remove_orphans(self, older_s: float = 3600.0) -> int:
        """Remove what no row knows: files of identities, jobs and styles, ledger records and runs of identities, as a
        broken upload or a late worker leaves them; how many.

        What is younger than `older_s` may belong to an upload that goes on. It lists the whole store. Raises
        `StoreError`, before anything goes, if that would be more than `orphans_share` of all.
        """
        self.store.remove_temporary(older_s=older_s)
        records, runs = Ledger(self.store).naming(_PERSON), self.tracker.runs_of()
        people = set(filter(is_id, [*self._ids(_OF_PEOPLE), *records, *runs]))
        jobs = set(self._ids(_OF_JOBS))
        lost_people = people - self._known(IdentityRow, people, older_s)
        lost_jobs = jobs - self._known(JobRow, jobs, older_s)
        styles = set(self._ids(_OF_STYLES))
        lost_styles = styles - self._known(StyleRow, styles, older_s)
        lost, held = len(lost_people | lost_jobs | lost_styles), len(people | jobs | styles)
        if lost > max(_FEW, self.orphans_share * held):
            raise StoreError(
                f"store {self.store.url}: {self.database!r} knows nothing of {lost} of the {held} people, jobs and"
                " styles with files in it, so nothing is removed: is it the right database, and of today? Of files that"
                " may go set orphans_share higher"
            )
        gone = sum(self._remove(f"{place}/{one}") for place in _OF_PEOPLE for one in sorted(lost_people))
        gone += sum(self._remove(f"{place}/{one}") for place in _OF_JOBS for one in sorted(lost_jobs))
        gone += sum(self._remove(f"{place}/{one}") for place in _OF_STYLES for one in sorted(lost_styles))
        told = {path for one in lost_people for path in records.get(one, ())}
        for path in sorted(told):
            self.store.remove(path)
        made = [run for one in sorted(lost_people) for run in runs.get(one, ())]
        if made:
            self.tracker.erase(made)
        return gone + len(told) + len(made)

    def remove_orphans_daily(self) -> int:
        """`remove_orphans`, once a day whatever the number of processes that call this; how much went.

        The first time is a day after a database is first used. One that is killed meanwhile is followed by another
        after an hour. Raises `StoreError` if the store belongs to another database.
        """
        if not self.database.read(self._orphans_due):
            return 0
        ours = self.database.write(self._begin_orphans)
        self._bind()
        if not ours:
            return 0
        removed = self.remove_orphans()
        self.database.write(self._end_orphans)
        return removed

    def _ids(self, places: tuple[str, ...]) -> Iterator[str]:
        for place in places:
            yield from filter(is_id, self.store.folders(place))

    def _remove(self, folder: str) -> int:
        paths = self.store.list(folder)
        for path in paths:
            self.store.remove(path)
        return len(paths)

    def _bind(self) -> None:
        """Have store and database keep the same id; raises if they keep different ones."""
        name = self.database.write(partial(self._name, new_id("db")))
        if not self.store.exists(BINDING):
            self.store.write_json(BINDING, {"database": name})
        kept = self.store.read_json(BINDING)
        if kept != {"database": name}:
            raise StoreError(
                f"store {self.store.url}: its files belong to another database than {self.database!r}, so none is"
                f" removed; check database and store, or delete {BINDING} there if they belong together from now on"
            )

    @staticmethod
    def _name(fresh: str, session: Session) -> str:
        """The id of the database's store: the one it has, else `fresh`."""
        session.execute(_insert(session)(BindingRow).values(name=_STORE, id=fresh).on_conflict_do_nothing())
        return session.get_one(BindingRow, _STORE).id

    def _orphans_due(self, session: Session) -> bool:
        row = session.get(ChoreRow, _ORPHANS)
        return row is None or row.next_at <= self.database.now(session)

    def _begin_orphans(self, session: Session) -> bool:
        """Whether it is ours to do: the first one moves the next date, and the others find it moved."""
        now = self.database.now(session)
        first = _insert(session)(ChoreRow).values(name=_ORPHANS, next_at=now + _DAY_S)
        session.execute(first.on_conflict_do_nothing())
        row = session.get_one(ChoreRow, _ORPHANS, with_for_update=True)
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
            session.execute(sa.delete(PixelsRow).filter_by(job_id=job_id))

    def _put_off(self, job_id: str, session: Session) -> None:
        row = session.get(JobRow, job_id, with_for_update=True)
        if row is not None:
            row.result_until = self.database.now(session) + _AGAIN_S

    def _known(
        self, table: type[IdentityRow] | type[JobRow] | type[StyleRow], ids: set[str], older_s: float
    ) -> set[str]:
        """Those that are young or have a row."""
        young_from = self.database.read(self.database.now) - older_s
        known = {name for name in ids if made_at(name) >= young_from}
        old = sorted(ids - known)
        for first in range(0, len(old), _AT_ONCE):
            query = sa.select(table.id).where(table.id.in_(old[first : first + _AT_ONCE]))
            known.update(self.database.read(partial(_all, query)))
        return known


def _all(query: sa.Select[str], session: Session) -> list[str]:
    return list(session.scalars(query))


def _insert(session: Session) -> type[sqlite.Insert] | type[postgresql.Insert]:
    """`INSERT` that knows `on_conflict_do_nothing`."""
    return postgresql.Insert if session.get_bind().dialect.name == "postgresql" else sqlite.Insert
