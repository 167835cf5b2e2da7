"""All parts together, from the settings."""

import time
from pathlib import Path

import pytest

from studiolo.errors import SettingsError, StoreError
from studiolo.service.database import Database
from studiolo.service.expiry import Expiry
from studiolo.service.identities import album_folder
from studiolo.service.metrics import MemoryMeters
from studiolo.service.queue import JobQueue
from studiolo.service.records import Consent, Kind, NewJob, Person, new_id
from studiolo.service.service import Service
from studiolo.service.settings import ServiceSettings
from studiolo.service.webhooks import Webhooks
from tests.jobs.finished_job import empty_database
from tests.service.receiver import Receiver
from tests.service.rows import add_identity, portraits


def settings(folder: Path, **more: object) -> ServiceSettings:
    places = {
        "database": f"sqlite:///{folder}/service.db",
        "store": str(folder / "store"),
        "receipt_key": str(folder / "receipts.pem"),
        "provenance": {"development": str(folder / "provenance")},
        "webhooks": {"plain_http": True, "networks": ["127.0.0.0/8"]},
    }
    return ServiceSettings.load(None, places | more)


def test_tending_does_what_is_due(tmp_path: Path):
    meters = MemoryMeters()
    service = Service.open(settings(tmp_path, queue={"result_days": 1e-9}), meters)
    service.store.write_bytes("mlflow.db", empty_database())
    caller = service.keys.authenticate(service.keys.create("shop").token)
    person = Person(name="Anna", consent=Consent(given_by="Anna", statement="Yes.", given_at=0.0))
    training = NewJob(kind=Kind.IDENTITY, request={}, steps=8, identity_id=new_id("id"), person=person)
    identity_id = str(service.admission.submit(caller, training).identity_id)
    with Receiver.started() as receiver:
        hook = f"http://127.0.0.1:{receiver.port}/"
        job = service.admission.submit(caller, portraits(webhook_url=hook))
        (lease,) = service.queue.lease([Kind.PORTRAITS], "w", 60)
        service.store.write_bytes(f"{lease.folder}/000.png", b"x")
        service.queue.complete(lease, {"n": 1})
        late = service.admission.submit(caller, portraits())
        service.queue.lease([Kind.PORTRAITS], "w", 1e-6)
        service.database.write(lambda session: service.erasure._begin(caller.tenant_id, identity_id, session))
        assert service.tend() == {"swept": 1, "webhooks": 1}
        assert service.tend() == {"swept": 0, "webhooks": 0}
        assert service.tidy() == {"expired": 2, "erased": 0, "styles": 0, "orphans": 0}
        assert service.tidy(nobody) == {"expired": 0, "erased": 1, "styles": 0, "orphans": 0}
        assert service.tidy(nobody) == dict.fromkeys(("expired", "erased", "styles", "orphans"), 0)
        assert meters.values("studiolo_queue_jobs", kind="portraits", state="queued") == [0, 1]
        assert len(receiver.posts) == 1
    over, again = service.queue.get(caller.tenant_id, job.id), service.queue.get(caller.tenant_id, late.id)
    assert over is not None
    assert again is not None
    assert (over.result, again.state) == (None, "queued")
    assert service.identities.get(caller.tenant_id, identity_id) is None
    assert service.store.list("results") == []
    service.close()


def test_one_fault_holds_up_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    meters = MemoryMeters()
    service = Service.open(settings(tmp_path), meters)
    service.store.write_bytes("mlflow.db", empty_database())
    service.tidy()
    caller = service.keys.authenticate(service.keys.create("shop").token)
    people = [add_identity(service.database, caller.tenant_id, number) for number in (1, 2)]
    for identity_id in people:
        service.erasure.erase(caller.tenant_id, identity_id)
    service.store.write_bytes(f"{album_folder('id_' + '0' * 32)}/0.jpg", b"x")
    service.admission.submit(caller, portraits())
    later = time.time() + 86_401
    service.database.clock = lambda: later
    broken = ((JobQueue, "sweep"), (Webhooks, "deliver"), (Expiry, "expire_results"))
    for owner, name in broken:
        monkeypatch.setattr(owner, name, _fault)
    compact, calls = Database.compact, iter((_fault, Database.compact))
    monkeypatch.setattr(Database, "compact", lambda self: next(calls, compact)(self))
    assert service.tend() == {"swept": 0, "webhooks": 0}
    assert meters.values("studiolo_queue_jobs", kind="portraits", state="queued") == [1]
    assert service.tidy(nobody) == {"expired": 0, "erased": 1, "styles": 0, "orphans": 1}
    assert service.tidy(nobody) == {"expired": 0, "erased": 1, "styles": 0, "orphans": 0}
    service.close()


def nobody(_identity_id: str) -> dict[str, int]:
    """There are no samplers."""
    return {}


def _fault(*_arguments: object) -> int:
    raise StoreError("a fault")


def test_a_store_without_a_disk_needs_a_tracking_uri(tmp_path: Path):
    with pytest.raises(SettingsError, match="tracking_uri"):
        Service.open(settings(tmp_path, store="memory://service"))
