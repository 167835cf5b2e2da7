"""What tests of the endpoint's trainer share: albums that were accepted, and a trainer on the tiny base."""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from diffusers import StableDiffusionPipeline

from actors import leased_trainer
from actors.leased_trainer import LeasedTrainer
from actors.perceiver import Perceiver
from actors.trainer import Trainer
from studiolo.generation.tiny import tiny_base
from studiolo.identities.learned import LearnedVersion
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.identities import IdentityState, photo_path
from studiolo.service.records import Consent, Job, Kind, NewJob, Person
from studiolo.service.service import Service
from studiolo.storage.store import Store
from tests.jobs.finished_job import empty_database
from tests.pipelines.pupils import Silent

NAMES = ("portrait.jpg", "selfie.jpg", "expression-02-happy.jpg")
TENANT = "ten_a"
FACE_LORA = {"rank": 2, "alpha": 2.0, "steps": 6, "batch_size": 2, "views_per_photo": 1, "precision": "float32"}


class TinyTrainer(Trainer):
    """The trainer on the tiny base."""

    def _load(self, device: str) -> StableDiffusionPipeline:
        return tiny_base()


def use_tiny_base(set_attribute: Callable[[object, str, Any], None] = setattr) -> None:
    """From here on the endpoint's trainer has the tiny base in place of the one on the card."""
    set_attribute(leased_trainer, "Trainer", TinyTrainer)


def endpoint_settings(folder: Path, lease_s: float = 30.0, **face_lora: Any) -> EndpointSettings:
    """Settings of an endpoint in `folder`."""
    return EndpointSettings.model_validate(
        {
            "database": f"sqlite:///{folder}/service.db",
            "store": str(folder / "store"),
            "receipt_key": str(folder / "receipts.pem"),
            "provenance": {"development": str(folder / "provenance")},
            "trainer": {"lease_s": lease_s, "poll_s": 0.05},
            "face_lora": {**FACE_LORA, "slots": 2, **face_lora},
        }
    )


def identity_id(number: int) -> str:
    """The same in every endpoint: a training's random numbers come from it."""
    return f"id_{number:032x}"


def submit(service: Service, number: int, photos: Sequence[bytes], steps: int = 6) -> Job:
    """An album that was accepted."""
    for place, content in enumerate(photos, 1):
        service.store.write_bytes(photo_path(identity_id(number), place), content)
    person = Person(name="Anna", consent=Consent(given_by="Anna", statement="Yes.", given_at=0.0))
    new = NewJob(
        kind=Kind.IDENTITY,
        request={"photos": [{"bytes": len(content)} for content in photos]},
        steps=steps,
        identity_id=identity_id(number),
        person=person,
    )
    return service.queue.submit(TENANT, new)


def album(people: Path, person: str = "P001", count: int = 1) -> list[bytes]:
    """Photos of a sample person."""
    return [(people / person / name).read_bytes() for name in NAMES[:count]]


def opened_service(settings: EndpointSettings) -> Service:
    """An endpoint with one tenant."""
    from tests.service.rows import add_tenant

    service = Service.open(settings)
    service.store.write_bytes("mlflow.db", empty_database())
    add_tenant(service.database, "a")
    return service


def untracked(settings: EndpointSettings) -> Service:
    """An endpoint with one tenant, whose trainings are not tracked."""
    return replace(opened_service(settings), tracker=Silent())  # type: ignore[arg-type]


def job_of(service: Service, job: Job) -> Job:
    """The job as it is now."""
    found = service.queue.get(TENANT, job.id)
    assert found is not None
    return found


def wait_for(what: Callable[[], object], limit_s: float = 60.0) -> None:
    """Until `what()` is true."""
    give_up_s = time.monotonic() + limit_s
    while not what():
        assert time.monotonic() < give_up_s, "it does not come"
        time.sleep(0.02)


open_perceiver = Perceiver.open


@cache
def models() -> Perceiver:
    """The perception, opened once."""
    settings = EndpointSettings()
    perceiver = Perceiver(Store("memory://unused"), "embedded", settings.perception, settings.selection)
    open_perceiver(perceiver)
    return perceiver


def trainer_of(service: Service, **changes: Any) -> LeasedTrainer:
    """A trainer with the service's settings, some of them changed."""
    settings = service.settings
    assert isinstance(settings, EndpointSettings)
    for name, values in changes.items():
        settings = settings.model_copy(update={name: getattr(settings, name).model_copy(update=values)})
    trainer = LeasedTrainer(service, settings, "trainer-1")
    trainer.open()
    return trainer


@contextmanager
def working(trainer: LeasedTrainer) -> Iterator[None]:
    """It works as long as the `with`; then it is drained."""
    thread = threading.Thread(target=trainer.work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        trainer.drain()
        thread.join(60)
        assert not thread.is_alive()


def version_of(service: Service, job: Job) -> LearnedVersion:
    """The one version of an identity."""
    identity = service.identities.get(TENANT, str(job.identity_id))
    assert identity is not None
    assert identity.state == IdentityState.READY
    (version,) = identity.versions
    assert version.job_id == job.id
    return LearnedVersion.model_validate(version.record)


def learned_alone(folder: Path, photos: list[bytes], number: int, **face_lora: Any) -> str:
    """sha256 of the face-LoRA that an undisturbed trainer makes."""
    service = untracked(endpoint_settings(folder, **face_lora))
    job = submit(service, number, photos)
    trainer_of(service).work(once=True)
    sha256 = version_of(service, job).lora_sha256
    service.close()
    return sha256


def company(trainer: LeasedTrainer) -> list[set[str]]:
    """Who is in the pack together, after each step of the training that follows."""
    seen: list[set[str]] = []
    stepped = trainer._stepped

    def look() -> None:
        seen.append({pupil.held.lease.job.id for pupil in trainer._pupils.values()})
        stepped()

    trainer._stepped = look  # type: ignore[method-assign]
    return seen
