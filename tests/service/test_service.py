"""All parts together, from the settings."""

from pathlib import Path

import pytest

from studiolo.errors import SettingsError
from studiolo.service.metrics import MemoryMeters
from studiolo.service.records import Consent, Kind, NewJob, Person, new_id
from studiolo.service.service import Service
from studiolo.service.settings import ServiceSettings
from tests.jobs.finished_job import empty_database
from tests.service.receiver import Receiver
from tests.service.rows import portraits


def settings(folder: Path, **more: object) -> ServiceSettings:
    places = {
        "database": f"sqlite:///{folder}/service.db",
        "store": str(folder / "store"),
        "receipt_key": str(folder / "receipts.pem"),
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
        nothing = dict.fromkeys(("swept", "webhooks", "expired", "erased", "orphans"), 0)
        assert service.tend(erasures=False) == nothing | {"swept": 1, "webhooks": 1, "expired": 2}
        assert service.tend() == nothing | {"erased": 1}
        assert service.tend() == nothing
        assert meters.values("studiolo_queue_jobs", kind="portraits", state="queued") == [1, 1, 1]
        assert len(receiver.posts) == 1
    over, again = service.queue.get(caller.tenant_id, job.id), service.queue.get(caller.tenant_id, late.id)
    assert over is not None
    assert again is not None
    assert (over.result, again.state) == (None, "queued")
    assert service.identities.get(caller.tenant_id, identity_id) is None
    assert service.store.list("results") == []
    service.close()


def test_a_store_without_a_disk_needs_a_tracking_uri(tmp_path: Path):
    with pytest.raises(SettingsError, match="tracking_uri"):
        Service.open(settings(tmp_path, store="memory://service"))
