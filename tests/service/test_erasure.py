"""What is left of an identity after its erasure: a receipt, and no byte of what was hers."""

import hashlib
import json
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.orm import Session

from studiolo.errors import DatabaseError, LeaseLostError, NotFoundError
from studiolo.identities.artifacts import checkpoint_path, crop_path, kohya_path, lora_path
from studiolo.service.database import Database, migrate
from studiolo.service.erasure import Erased, Erasure, _Begun
from studiolo.service.identities import Identities, IdentityState, album_folder
from studiolo.service.provenance import Provenance
from studiolo.service.queue import JobQueue
from studiolo.service.receipts import ReceiptKey, verify_receipt
from studiolo.service.records import Consent, Kind, NewJob, Person, new_id
from studiolo.service.tables import DeliveryRow, JobRow
from studiolo.storage.ledger import Ledger
from studiolo.storage.retention import Found
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from tests.jobs.finished_job import empty_database
from tests.service.clock import Clock
from tests.service.postgresql import Cluster
from tests.service.rows import NOBODY_SIGNS, add_identity, add_tenant, portraits
from tests.service.traces import traces

A, B = "ten_a", "ten_b"


def nobody(_identity_id: str) -> dict[str, int]:
    """There are no samplers."""
    return {}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "store")
    store.write_bytes("mlflow.db", empty_database())
    return store


@pytest.fixture
def erasure(queue: JobQueue, store: Store, tmp_path: Path) -> Erasure:
    return Erasure(queue, store, MlflowTracker.beside(store), ReceiptKey.open(tmp_path / "receipts.pem"))


def pixels_of(mark: str, number: int) -> str:
    """Stands for the hash of a picture's pixels."""
    return hashlib.sha256(f"{mark} {number}".encode()).hexdigest()


def learned(queue: JobQueue, store: Store, mark: str, tenant: str = A) -> str:
    """An identity with all that is ever kept of one, each thing marked; the id."""
    identity_id = new_id("id")
    person = Person(name=mark, consent=Consent(given_by=mark, statement=mark, given_at=0.0))
    new = NewJob(kind=Kind.IDENTITY, request={"note": mark}, steps=800, identity_id=identity_id, person=person)
    queue.submit(tenant, new)
    (lease,) = queue.lease([Kind.IDENTITY], "trainer", 60)
    for path in (
        f"{album_folder(identity_id)}/0.jpg",
        f"{album_folder(identity_id)}/1.jpg",
        crop_path(identity_id, "0" * 64),
        lora_path(identity_id),
        *(place(identity_id, digit * 64) for place in (lora_path, kohya_path) for digit in "01"),
        checkpoint_path(identity_id),
    ):
        store.write_bytes(path, mark.encode() * 100)
    if (folder := store.local_path(album_folder(identity_id))) is not None:
        (folder / ".0123.tmp").write_bytes(mark.encode())  # whoever wrote it was killed
    ledger, tracker = Ledger(store), MlflowTracker.beside(store)
    key = identity_id[-20:].zfill(64)
    ledger.complete("identity", key, {"identity_id": identity_id, "note": mark}, [lora_path(identity_id)])
    ledger.fail("order", key, "crashed_worker", f"order of {identity_id!r}: {mark}")
    run = tracker.start(key, identity_id, {"note": mark}, parent=tracker.start("service", "service", {}))
    tracker.log_artifact(run, "samples.png", mark.encode())
    tracker.finish(run, ok=True)
    queue.complete(lease, {"note": mark}, within=Identities(queue.database).learned(lease, {"note": mark}))
    for number in (1, 2):
        hook = f"https://x.org/{mark}"
        queue.submit(
            tenant, portraits(identity_id=identity_id, request={"prompt": mark, "n": number}, webhook_url=hook)
        )
        (lease,) = queue.lease([Kind.PORTRAITS], "sampler", 60)
        store.write_bytes(f"{lease.folder}/000.png", mark.encode() * 100)
        known = Provenance(queue.database, NOBODY_SIGNS).remember(lease.job.id, [pixels_of(mark, number)])
        queue.complete(lease, {"path": f"{lease.folder}/000.png", "note": mark}, within=known)
    return identity_id


def test_no_byte_of_it_is_left_and_the_others_stay(
    queue: JobQueue, store: Store, erasure: Erasure, tmp_path: Path, clock: Clock
):
    gone, stays = learned(queue, store, "MARKGONE"), learned(queue, store, "MARKSTAYS")
    others = traces(store.local_path("x").parent, "MARKSTAYS", stays)  # type: ignore[union-attr]
    slots, seen = {gone: 2, stays: 1}, []

    def elsewhere(identity_id: str) -> dict[str, int]:
        """A sampler that has just begun to read the files holds them again after the first call."""
        seen.append(store.exists(lora_path(identity_id)))
        forgotten = slots.pop(identity_id)
        if seen[-1]:
            slots[identity_id] = 1
        return {"adapter slots": forgotten}

    erased = erasure.erase(A, gone, elsewhere)
    assert erased is not None
    receipt = erased.receipt
    assert receipt is not None
    assert traces(tmp_path, "MARKGONE") == []
    assert traces(tmp_path / "store", gone) == []
    assert traces(tmp_path / "store", "MARKSTAYS", stays) == others
    assert (slots, seen) == ({stays: 1}, [True, False])
    known = Provenance(queue.database, NOBODY_SIGNS).known
    assert [known(pixels_of(mark, 1)) for mark in ("MARKGONE", "MARKSTAYS")] == [False, True]
    assert verify_receipt(receipt, erasure.key.public_pem)
    assert (receipt["identity_id"], receipt["tenant_id"], receipt["erased_at"]) == (gone, A, clock.now)
    assert receipt["erased"] == {
        "photos": 2,
        "reference pictures": 1,
        "files of face-LoRAs": 5,
        "checkpoints": 1,
        "files of results": 2,
        "ledger records": 2,
        "tracked runs": 1,
        "adapter slots": 3,
        "hashes of pixels": 2,
        "rows of jobs": 3,
        "rows of versions": 1,
    }
    identity = Identities(queue.database).get(A, stays)
    assert identity is not None
    assert identity.name == "MARKSTAYS"
    assert len(queue.page(A).items) == 3
    assert Identities(queue.database).get(A, gone) is None


def test_the_receipt_can_be_asked_for_again_by_its_tenant(
    queue: JobQueue, store: Store, erasure: Erasure, clock: Clock
):
    gone = learned(queue, store, "MARKGONE")
    assert erasure.erase(B, gone, nobody) is None
    first = erasure.erase(A, gone, nobody)
    clock.move(100)
    assert erasure.erase(A, gone, nobody) == first
    for tenant, wanted in ((B, gone), (A, new_id("id")), (A, ""), (A, "\0")):
        assert erasure.erase(tenant, wanted, nobody) is None


def test_nothing_is_accepted_and_everybody_is_stopped_before_it_goes(
    queue: JobQueue, store: Store, erasure: Erasure, tmp_path: Path, clock: Clock
):
    gone = learned(queue, store, "MARKGONE")
    waiting = queue.submit(A, portraits(identity_id=gone, deadline_s=99))
    queue.submit(A, portraits(identity_id=gone, deadline_s=9))
    (lease,) = queue.lease([Kind.PORTRAITS], "sampler", 30)
    assert erasure.erase(A, gone, nobody) == Erased(None, 30)
    assert erasure.unfinished() == [(A, gone)]
    identity = Identities(queue.database).get(A, gone)
    assert identity is not None
    assert identity.state == IdentityState.ERASING
    cancelled = queue.get(A, waiting.id)
    assert cancelled is not None
    assert (cancelled.state, cancelled.reason) == ("cancelled", "erased")
    with pytest.raises(NotFoundError):
        queue.submit(A, portraits(identity_id=gone))
    clock.move(10)
    store.write_bytes(f"{lease.folder}/000.png", b"MARKGONE")  # it has not heard of it yet
    with pytest.raises(LeaseLostError):
        queue.extend(lease, 30)
    assert erasure.erase(A, gone, nobody) == Erased(None, 20)
    clock.move(20)
    erased = erasure.erase(A, gone, nobody)
    assert erased is not None
    assert erased.receipt is not None
    assert traces(tmp_path, "MARKGONE") == []
    assert erasure.unfinished() == []
    with pytest.raises(LeaseLostError) as lost:
        queue.complete(lease, {})
    assert lost.value.reason == "erased"


def test_who_cannot_reach_samplers_only_begins(queue: JobQueue, store: Store, erasure: Erasure):
    gone = learned(queue, store, "MARKGONE")
    files = store.list()
    for _ in range(2):
        assert erasure.erase(A, gone) == Erased(None, 1.0)
    assert (store.list(), erasure.unfinished()) == (files, [(A, gone)])
    erased = erasure.erase(A, gone, nobody)
    assert erased is not None
    assert erased.receipt is not None
    assert erasure.erase(A, gone) == erased


@pytest.mark.slow
def test_who_waits_for_another_eraser_gets_its_receipt(postgresql: Cluster, tmp_path: Path, store: Store):
    url = postgresql.create_database()
    migrate(url)
    database = Database(url)
    add_tenant(database, "a")
    queue = JobQueue(database)
    erasure = Erasure(queue, store, MlflowTracker.beside(store), ReceiptKey.open(tmp_path / "receipts.pem"))
    gone = add_identity(database, A)
    erasure.erase(A, gone)
    erasure.database.write(partial(erasure._note, gone, {}))
    waiting = sa.text("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name")
    name = {"name": sa.make_url(url).database}

    def finish_first(session: Session) -> tuple[object, Future[object]]:
        receipt = erasure._finish(A, gone, {}, session)
        session.flush()
        second: Future[object] = pool.submit(database.write, partial(erasure._finish, A, gone, {}))
        give_up_s = time.monotonic() + 60
        while not database.read(lambda other: other.execute(waiting, name).scalar_one()):
            assert time.monotonic() < give_up_s
            time.sleep(0.02)
        return receipt, second

    with ThreadPoolExecutor(1) as pool:
        receipt, second = database.write(finish_first)
        assert second.result(60) == receipt
    database.close()


class Killed(Exception):
    """The process ends between two calls."""


def test_killed_at_any_moment_and_asked_again_it_is_complete(
    queue: JobQueue, store: Store, erasure: Erasure, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Store, database and tracker are cut off after 0, 1, 2 ... changes; the next try starts from what lies there."""
    budget = [1000]

    def cut_off(whole: Callable[..., object]) -> Callable[..., object]:
        def cut(*arguments: object) -> object:
            budget[0] -= 1
            if budget[0] < 0:
                raise Killed
            return whole(*arguments)

        return cut

    for owner, name in ((Store, "remove"), (Database, "write"), (Database, "compact"), (MlflowTracker, "erase")):
        monkeypatch.setattr(owner, name, cut_off(getattr(owner, name)))
    for changes in (0, 1, 2, 3, 4, 8, 16, 17, 18, 19):  # of 20
        budget[0] = 1000
        gone = learned(queue, store, "MARKGONE")
        budget[0] = changes
        with pytest.raises(Killed):
            erasure.erase(A, gone, nobody)
        budget[0] = 20
        erased = erasure.erase(A, gone, nobody)
        assert erased is not None
        assert erased.receipt is not None
        counts = erased.receipt["erased"]
        assert (counts["photos"], counts["rows of jobs"], counts["tracked runs"]) == (2, 3, 1)
        assert traces(tmp_path, "MARKGONE") == []
        assert verify_receipt(erased.receipt, erasure.key.public_pem)


def test_what_one_has_forgotten_counts_when_another_finishes_first(
    queue: JobQueue, store: Store, erasure: Erasure, monkeypatch: pytest.MonkeyPatch
):
    gone, found, adapters = learned(queue, store, "MARKGONE"), erasure._found, iter([1, 0])

    def overtaken(begun: _Begun) -> Found:
        monkeypatch.setattr(erasure, "_found", found)
        assert erasure.erase(A, gone, lambda _: {"adapters": 0}) is not None
        return found(begun)

    monkeypatch.setattr(erasure, "_found", overtaken)
    erased = erasure.erase(A, gone, lambda _: {"adapters": next(adapters)})
    assert erased is not None
    assert erased.receipt is not None
    assert erased.receipt["erased"]["adapters"] == 1


def test_several_may_erase_at_once_and_all_say_the_same(queue: JobQueue, store: Store, erasure: Erasure):
    gone = learned(queue, store, "MARKGONE")
    together, adapters = threading.Barrier(3, timeout=60), iter([1, 0, 0])

    def elsewhere(identity_id: str) -> dict[str, int]:
        together.wait()  # all have begun
        return {"adapters": next(adapters, 0)}

    with ThreadPoolExecutor(3) as pool:
        erased = [*pool.map(lambda _: erasure.erase(A, gone, elsewhere), range(3))]
    receipts = [one.receipt for one in erased if one is not None]
    assert receipts[0] is not None
    assert receipts == [receipts[0]] * 3
    assert receipts[0]["erased"]["adapters"] == 1
    assert receipts[0]["erased"]["photos"] == 2


def test_a_database_that_cannot_be_compacted_gives_no_receipt(
    queue: JobQueue, store: Store, erasure: Erasure, url: str, tmp_path: Path
):
    if not url.startswith("sqlite"):
        pytest.skip("PostgreSQL compacts beside readers, or waits")
    gone = learned(queue, store, "MARKGONE")
    queue.database.patience_s = 0.3
    with queue.database._engine.connect() as reader:
        reader.execute(sa.select(JobRow.id)).all()
        with pytest.raises(DatabaseError, match="somebody reads"):
            erasure.erase(A, gone, nobody)
    assert erasure.unfinished() == [(A, gone)]
    identities = Identities(queue.database)  # nothing is left to be shown of her
    assert (identities.get(A, gone), identities.page(A).items) == (None, [])
    erased = erasure.erase(A, gone, nobody)
    assert erased is not None
    assert erased.receipt is not None
    assert traces(tmp_path, "MARKGONE") == []


@pytest.mark.slow
def test_no_byte_of_it_is_left_in_the_files_of_postgresql(postgresql: Cluster, tmp_path: Path, store: Store):
    """Its statistics keep samples of columns, and its deleted rows lie there until the table is written anew."""
    url = postgresql.create_database()
    migrate(url)
    database = Database(url)
    add_tenant(database, "a")
    queue, files = JobQueue(database), postgresql.data / "base"
    erasure = Erasure(queue, store, MlflowTracker.beside(store), ReceiptKey.open(tmp_path / "receipts.pem"))
    gone, stays = learned(queue, store, "MARKGONE"), learned(queue, store, "MARKSTAYS")
    database.write(lambda session: session.execute(sa.text("ANALYZE")))
    postgresql.checkpoint()
    assert traces(files, "MARKGONE")
    erased = erasure.erase(A, gone, nobody)
    assert erased is not None
    assert erased.receipt is not None
    database.write(lambda session: session.execute(sa.text("ANALYZE")))
    postgresql.checkpoint()
    assert traces(files, "MARKGONE") == []
    assert traces(files, "MARKSTAYS", stays)
    database.close()


def test_webhooks_of_it_are_not_sent_any_more(queue: JobQueue, store: Store, erasure: Erasure):
    gone, stays = learned(queue, store, "MARKGONE"), learned(queue, store, "MARKSTAYS")
    erasure.erase(A, gone, nobody)
    bodies = queue.database.read(lambda session: list(session.scalars(sa.select(DeliveryRow.body))))
    of_stays = {job.id for job in queue.page(A, identity_id=stays).items}
    assert len(bodies) == 2
    assert {body["id"] for body in bodies} <= of_stays
    assert "MARKGONE" not in json.dumps(bodies)
