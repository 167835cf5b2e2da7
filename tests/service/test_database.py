"""Migrations, transactions that are tried again, and what is left of deleted rows."""

import pickle
import sqlite3
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy.orm import Session

from studiolo.errors import DatabaseError, SettingsError
from studiolo.service.database import Database, migrate
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind
from studiolo.service.tables import Base, BucketRow, TenantRow
from tests.processes import ROOT, started
from tests.service.clock import Clock
from tests.service.postgresql import Cluster
from tests.service.rows import add_tenant


def names(database: Database) -> list[str]:
    return database.read(lambda session: list(session.scalars(sa.select(TenantRow.name).order_by(TenantRow.name))))


def test_migrations_make_the_tables_of_the_models(url: str):
    migrate(url)
    database = Database(url)
    options = {"compare_type": True, "compare_server_default": True}

    def compare(session: Session) -> list:
        return compare_metadata(MigrationContext.configure(session.connection(), opts=options), Base.metadata)

    assert database.read(compare) == []
    assert len(Base.metadata.tables) == 14
    add_tenant(database, "kept")
    migrate(url)
    assert names(database) == ["kept"]
    database.close()


def test_jobs_of_the_first_version_stay_and_have_no_request(url: str):
    from alembic import command
    from alembic.config import Config

    database, config = Database(url), Config()
    config.set_main_option("script_location", str(ROOT / "studiolo/service/migrations"))

    def first(session: Session) -> None:
        config.attributes["connection"] = session.connection()
        command.upgrade(config, "0001")
        session.execute(sa.text("INSERT INTO tenants VALUES ('ten_a', 'a', 's', 0)"))
        values = "'ten_a', 'portraits', 'queued', '', '', '{}', '', 1, 30, 0, 0, 0, 9e9, 0"
        columns = "tenant_id, kind, state, reason, sentence, request, request_sha256, units, steps, steps_done"
        columns += ", created_at, ready_at, deadline_at, attempts"
        session.execute(sa.text(f"INSERT INTO jobs (id, {columns}) VALUES ('job_{'0' * 32}', {values})"))

    database.write(first)
    migrate(url)
    (lease,) = JobQueue(database).lease([Kind.PORTRAITS], "w", 10)
    assert (lease.job.id, lease.job.request_id) == ("job_" + "0" * 32, None)
    database.close()


def test_a_forgotten_migration_would_be_found(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/service.db"
    migrate(url)
    database = Database(url)
    database.write(lambda session: session.execute(sa.text("ALTER TABLE jobs DROP COLUMN units")))
    found = database.read(
        lambda session: compare_metadata(MigrationContext.configure(session.connection()), Base.metadata)
    )
    assert [(change[0], change[3].name) for change in found] == [("add_column", "units")]


def test_several_processes_migrate_at_once(url: str):
    script = "import sys; from studiolo.service.database import migrate; migrate(sys.argv[1])"
    command = [sys.executable, "-c", script, url]
    with started(command, cwd=ROOT) as one, started(command, cwd=ROOT) as two, started(command, cwd=ROOT) as three:
        assert [process.wait(60) for process in (one, two, three)] == [0, 0, 0]
    database = Database(url)
    assert names(database) == []
    database.close()


def test_a_database_of_a_newer_version_is_refused(url: str):
    migrate(url)
    database = Database(url)
    database.write(lambda session: session.execute(sa.text("UPDATE alembic_version SET version_num = '9999'")))
    with pytest.raises(DatabaseError, match=r"9999.*newer version"):
        migrate(url)
    database.close()


def test_missing_tables_are_said_at_once(url: str):
    database, began_s = Database(url, patience_s=30), time.monotonic()
    with pytest.raises(DatabaseError, match="migrate"):
        names(database)
    assert time.monotonic() - began_s < 5
    database.close()


@pytest.mark.parametrize(
    "url",
    ["service.db", "sqlite://", "sqlite:///:memory:", "mysql://me:secret@host/x", "postgresql+psycopg2://host/x"],
)
def test_other_databases_are_refused_without_showing_passwords(url: str):
    with pytest.raises(SettingsError, match="wanted sqlite:///FILE or postgresql://USER@HOST/NAME") as caught:
        Database(url)
    assert "secret" not in str(caught.value)


def test_a_password_is_shown_nowhere():
    database = Database("postgresql://me:secret@127.0.0.1:1/x", patience_s=0.1)
    with pytest.raises(DatabaseError, match=r"me:\*\*\*@127\.0\.0\.1") as caught:
        names(database)
    assert "secret" not in str(caught.value) + repr(database)


def test_a_write_is_whole_or_nothing(database: Database):
    def half(session: Session) -> None:
        session.add(TenantRow(id="x", name="x", webhook_secret="", created_at=0.0))
        session.flush()
        raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        database.write(half)
    assert names(database) == ["a", "b"]


def test_it_is_the_same_database_in_another_process(database: Database):
    assert names(pickle.loads(pickle.dumps(database))) == ["a", "b"]


def test_the_clock_is_one_in_a_transaction(url: str, database: Database, clock: Clock):
    def twice(session: Session) -> tuple[float, float]:
        first = database.now(session)
        clock.move(5)
        return first, database.now(session)

    first, second = database.write(twice)
    assert first == second
    real = Database(url)
    assert abs(real.read(real.now) - time.time()) < 5
    real.close()


def test_a_busy_file_is_waited_for(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/service.db"
    migrate(url)
    with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match="database is locked"):
            add_tenant(Database(url, patience_s=0.2), "early")
        timer = threading.Timer(0.5, lambda: other.execute("ROLLBACK"))
        timer.start()
        database = Database(url, patience_s=20)
        add_tenant(database, "late")
        timer.join()
    assert names(database) == ["late"]


def test_rows_belong_to_somebody(database: Database):
    orphan = BucketRow(key_id="key_nobody", tokens=0.0, filled_at=0.0)
    with pytest.raises(sa.exc.IntegrityError) as caught:
        database.write(lambda session: session.add(orphan))
    assert "key_nobody" not in str(caught.value).split("DETAIL")[0]  # what is stored ends in no log


def test_nothing_is_left_of_deleted_rows(tmp_path: Path):
    url, marker = f"sqlite:///{tmp_path}/service.db", "MARKER" * 2000
    migrate(url)
    database = Database(url)
    add_tenant(database, marker)
    add_tenant(database, "stays")
    assert traces(tmp_path)
    database.write(lambda session: session.execute(sa.delete(TenantRow).where(TenantRow.name == marker)))
    database.compact()
    assert traces(tmp_path) == []
    assert names(database) == ["stays"]


def test_compacting_waits_for_readers(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/service.db"
    migrate(url)
    database = Database(url, patience_s=0.5)
    with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None)) as reader:
        reader.execute("BEGIN")
        reader.execute("SELECT * FROM tenants").fetchall()
        with pytest.raises(DatabaseError, match="somebody reads"):
            database.compact()
        reader.execute("COMMIT")
        database.compact()


@pytest.mark.slow
def test_a_server_that_goes_away_is_waited_for(postgresql: Cluster):
    url = postgresql.create_database()
    migrate(url)
    database = Database(url, patience_s=60)
    add_tenant(database, "before")
    postgresql.stop("immediate")
    timer = threading.Timer(3, postgresql.start)
    timer.start()
    add_tenant(database, "after")
    timer.join(60)
    assert names(database) == ["after", "before"]
    database.close()


def traces(folder: Path) -> list[str]:
    """Files that hold the marker."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and b"MARKERMARKER" in path.read_bytes()]


def test_more_threads_than_connections_is_an_error_of_the_moment(tmp_path: Path):
    url = f"sqlite:///{tmp_path}/service.db"
    migrate(url)
    database = pickle.loads(pickle.dumps(Database(url, patience_s=0.2, connections=1)))
    with pytest.raises(DatabaseError, match="all 1 connections"):
        database.read(lambda session: (session.execute(sa.text("SELECT 1")), names(database)))
    assert names(database) == []
    database.close()
