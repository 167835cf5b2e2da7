"""One SQL database, SQLite or PostgreSQL: short transactions that are tried again, one clock, and its migrations."""

import secrets
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError, ProgrammingError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.orm import Session

from studiolo.errors import DatabaseError, SettingsError
from studiolo.service.tables import Base

Result = TypeVar("Result")
Clock = Callable[[], float]
"""Seconds since 1970 (UTC)."""

_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x5354554449  # any number that nothing else in the database uses
_LONGEST_PAUSE_S = 1.0
_KEPT_OPEN = 5
_QUIET: dict[str, Any] = {"hide_parameters": True}
"""Errors end in logs, where neither prompts nor keys may be."""
_SQLITE_PRAGMAS = ("foreign_keys = ON", "secure_delete = ON", "synchronous = FULL")


class Database:
    """The database at `url`: `sqlite:///service.db`, or `postgresql://user@host/name` through psycopg 3.

    It can be pickled and means the same database in every process. `clock` replaces the one clock of all times
    written: PostgreSQL's own, on SQLite the machine's. At most `connections` threads use it at a time. A database that
    is away or busy is asked again for `patience_s`, then `DatabaseError` is raised. A URL that does not fit is a
    `SettingsError`.
    """

    def __init__(self, url: str, clock: Clock | None = None, patience_s: float = 5.0, connections: int = 15) -> None:
        self.url, self.clock, self.patience_s, self.connections = url, clock, patience_s, connections
        self._engine = _engine(url, patience_s, connections)
        self._writing = self._engine.execution_options(writes=True)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.url, self.clock, self.patience_s, self.connections)

    def __repr__(self) -> str:
        return f"Database({self._engine.url.render_as_string(hide_password=True)!r})"

    def read(self, work: Callable[[Session], Result]) -> Result:
        """What `work` makes of one consistent look; it writes nothing, and may be called again after a fault."""
        return self._attempt(self._engine, work)

    def write(self, work: Callable[[Session], Result]) -> Result:
        """What `work` does, whole or not at all. It is called again after a fault, even one that hid a commit.

        So it makes no random names of its own, and finds what an earlier call of it has done.
        """
        return self._attempt(self._writing, work)

    def now(self, session: Session) -> float:
        """Seconds since 1970, the same in the whole transaction."""
        if "now" not in session.info:
            if self.clock is not None:
                session.info["now"] = self.clock()
            elif self._engine.dialect.name == "postgresql":
                session.info["now"] = float(
                    session.scalars(sa.text("SELECT extract(epoch FROM clock_timestamp())")).one()
                )
            else:
                session.info["now"] = time.time()
        return float(session.info["now"])

    @staticmethod
    def when_kept(session: Session, tell: Callable[[], None]) -> None:
        """Call `tell` when the transaction is kept: not for one that is given up, and once for one that is repeated."""
        event.listen(session, "after_commit", lambda _session: tell(), once=True)

    def compact(self) -> None:
        """Write the files anew without what was deleted, so that its bytes are gone; waits for who reads or writes.

        PostgreSQL's write-ahead log and all backups keep them until they are recycled.
        """
        if self._engine.dialect.name == "postgresql":
            tables = ", ".join(f'"{name}"' for name in Base.metadata.tables)
            try:
                with self._engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
                    connection.exec_driver_sql(f"VACUUM FULL {tables}")
            except DBAPIError as error:
                raise DatabaseError(f"{self!r}: cannot be compacted: {_first_line(error)}; {_advice(error)}") from error
            return
        give_up_s = time.monotonic() + self.patience_s
        raw = self._engine.raw_connection()
        try:
            while not _vacuumed(raw.cursor()):
                if time.monotonic() > give_up_s:
                    raise DatabaseError(
                        f"{self!r}: cannot be compacted, somebody reads in it without an end; try again"
                    )
                time.sleep(0.05)
        finally:
            raw.close()

    def close(self) -> None:
        """Give all connections back."""
        self._engine.dispose()

    def _attempt(self, engine: sa.Engine, work: Callable[[Session], Result]) -> Result:
        give_up_s, pause_s = time.monotonic() + self.patience_s, 0.02
        while True:
            try:
                with Session(engine, expire_on_commit=False) as session, session.begin():
                    return work(session)
            except PoolTimeoutError as error:  # it has waited as long as it may
                raise DatabaseError(
                    f"{self!r}: all {self.connections} connections of this process are in use; it may pass, or set"
                    " database_connections higher"
                ) from error
            except (OperationalError, InterfaceError, ProgrammingError) as error:
                if not _may_pass(error) or time.monotonic() + pause_s > give_up_s:
                    raise DatabaseError(f"{self!r}: {_first_line(error)}; {_advice(error)}") from error
            time.sleep(pause_s * (0.5 + secrets.randbelow(1000) / 1000))
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def migrate(url: str) -> None:
    """Bring the database at `url` to the tables of this version, from nothing or from any earlier one.

    All or nothing, and several processes may do it at once. Raises `DatabaseError`.
    """
    from alembic import command
    from alembic.config import Config
    from alembic.util.exc import CommandError

    database = Database(url)
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))

    def upgrade(session: Session) -> None:
        if session.get_bind().dialect.name == "postgresql":
            session.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "head")

    try:
        _use_wal(database)
        database.write(upgrade)
    except CommandError as error:
        raise DatabaseError(f"{database!r}: {error}; is it of a newer version of Studiolo?") from error
    finally:
        database.close()


def _engine(url: str, patience_s: float, connections: int) -> sa.Engine:
    kept = min(connections, _KEPT_OPEN)
    pool = {"pool_size": kept, "max_overflow": connections - kept, "pool_timeout": patience_s}
    try:
        place = sa.make_url(url)
    except ArgumentError:
        raise SettingsError(f"database: got {url!r}, wanted sqlite:///FILE or postgresql://USER@HOST/NAME") from None
    if place.drivername == "sqlite" and place.database not in (None, "", ":memory:"):
        engine = sa.create_engine(place, connect_args={"timeout": patience_s}, **pool, **_QUIET)
        _set_up_sqlite(engine)
        return engine
    if place.drivername not in ("postgresql", "postgresql+psycopg"):
        got = place.render_as_string(hide_password=True)
        raise SettingsError(f"database: got {got!r}, wanted sqlite:///FILE or postgresql://USER@HOST/NAME")
    alive = {"connect_timeout": 5, "keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 3}
    try:
        return sa.create_engine(
            place.set(drivername="postgresql+psycopg"),
            pool_pre_ping=True,
            **pool,
            **_QUIET,
            connect_args={**alive, "tcp_user_timeout": 20_000},
        )
    except ImportError:
        raise SettingsError(
            "database: PostgreSQL needs psycopg; install the extra: pip install 'studiolo[postgresql]'"
        ) from None


def _set_up_sqlite(engine: sa.Engine) -> None:
    """Pragmas for each connection; writers say so when they begin, so that none has to give up in the middle."""

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, _record: object) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself
        for pragma in _SQLITE_PRAGMAS:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def begin(connection: sa.Connection) -> None:
        writes = connection.get_execution_options().get("writes", False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(database: Database) -> None:
    """Readers and a writer side by side; the file remembers it. Two that switch at once get no second chance from
    SQLite's own waiting, so it is tried again here."""
    if database._engine.dialect.name != "sqlite":
        return
    Path(str(database._engine.url.database)).absolute().parent.mkdir(parents=True, exist_ok=True)

    def switch(_session: Session) -> None:
        connection = database._engine.raw_connection()
        try:
            connection.cursor().execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            raise OperationalError("PRAGMA journal_mode", None, error) from error
        finally:
            connection.close()

    database.read(switch)


def _vacuumed(cursor: Any) -> bool:
    """Whether the file was written anew and the write-ahead log emptied into it."""
    try:
        cursor.execute("VACUUM")
        busy, _pages, _moved = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return False
        raise DatabaseError(f"the database cannot be compacted: {error}; check free space and permissions") from error
    return not busy


def _may_pass(error: DBAPIError) -> bool:
    """Whether the same again has a chance: not for missing tables or a file that cannot be opened."""
    if isinstance(error.orig, sqlite3.Error):
        code = getattr(error.orig, "sqlite_errorcode", 0) & 0xFF
        return code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
    return error.connection_invalidated or isinstance(error, OperationalError | InterfaceError)


def _advice(error: DBAPIError) -> str:
    text = str(error.orig)
    if "no such table" in text or "does not exist" in text:
        return "bring its tables up to date with studiolo.service.database.migrate"
    return "check that it is there and can be written"


def _first_line(error: DBAPIError) -> str:
    return str(error.orig).strip().split("\n")[0]
