"""Identities: made with their training, known by it, apart by tenant."""

import pytest

from studiolo.errors import ConflictError, NotFoundError, UnacceptableError
from studiolo.service.database import Database
from studiolo.service.identities import Identities, IdentityState
from studiolo.service.queue import JobQueue
from studiolo.service.records import Consent, Job, Kind, NewJob, Person, new_id
from tests.service.rows import portraits

A, B = "ten_a", "ten_b"
CONSENT = Consent(given_by="Anna Ä.", statement="Portraits of me may be made.", given_at=1.0)


@pytest.fixture
def identities(database: Database) -> Identities:
    return Identities(database)


def training(queue: JobQueue, tenant: str = A, name: str = "Anna", **fields: object) -> Job:
    person = Person(name=name, consent=CONSENT)
    values = {"kind": Kind.IDENTITY, "request": {"photos": ["00"]}, "steps": 800, "identity_id": new_id("id")}
    return queue.submit(tenant, NewJob(**(values | {"person": person} | fields)))


def state(identities: Identities, job: Job) -> IdentityState:
    identity = identities.get(job.tenant_id, str(job.identity_id))
    assert identity is not None
    return identity.state


def test_an_identity_comes_with_its_training(queue: JobQueue, identities: Identities):
    job = training(queue)
    identity = identities.get(A, str(job.identity_id))
    assert identity is not None
    assert (identity.name, identity.consent, identity.state) == ("Anna", CONSENT, IdentityState.TRAINING)
    assert (identity.job_id, identity.versions) == (job.id, ())
    (lease,) = queue.lease([Kind.IDENTITY], "trainer", 60)
    assert state(identities, job) == IdentityState.TRAINING
    assert queue.complete(lease, {"loss": 0.1}, within=identities.learned(lease, {"path": "lora", "curve": [1, 0.5]}))
    assert not queue.complete(lease, {"loss": 0.1}, within=identities.learned(lease, {"path": "again"}))
    identity = identities.get(A, str(job.identity_id))
    assert identity is not None
    assert identity.state == IdentityState.READY
    (version,) = identity.versions
    assert (version.number, version.job_id, version.record["path"]) == (1, job.id, "lora")


def test_another_training_is_another_version(queue: JobQueue, identities: Identities):
    job = training(queue)
    for number in (1, 2, 3):
        if number > 1:
            training(queue, identity_id=job.identity_id, person=None)
        (lease,) = queue.lease([Kind.IDENTITY], "trainer", 60)
        if number == 2:
            queue.fail(lease, "training_failed", "Learning this person's face did not succeed.")
        else:
            queue.complete(lease, {}, within=identities.learned(lease, {"number": number}))
        assert state(identities, job) == IdentityState.READY
    identity = identities.get(A, str(job.identity_id))
    assert identity is not None
    assert [(version.number, version.record["number"]) for version in identity.versions] == [(1, 1), (2, 3)]


@pytest.mark.parametrize("end", ["fail", "cancel"])
def test_a_training_without_a_result_says_why(queue: JobQueue, identities: Identities, end: str):
    job = training(queue)
    (lease,) = queue.lease([Kind.IDENTITY], "trainer", 60)
    if end == "fail":
        verdicts = {"photos": [{"name": "a.jpg", "reason": "no_face"}]}
        queue.fail(lease, "nothing_usable", "No picture of this album could be used.", verdicts)
        ended = queue.get(A, job.id)
        assert ended is not None
        assert ended.result == verdicts
    else:
        queue.cancel(A, job.id)
    assert state(identities, job) == IdentityState.FAILED
    training(queue, identity_id=job.identity_id, person=None)
    assert state(identities, job) == IdentityState.TRAINING


def test_the_same_upload_under_a_key_is_the_same_identity(queue: JobQueue, identities: Identities):
    first, again = training(queue, idempotency_key="k"), training(queue, idempotency_key="k")
    assert again == first
    assert [identity.id for identity in identities.page(A).items] == [first.identity_id]
    for other in ({"name": "Berta"}, {"request": {"photos": ["11"]}}):
        with pytest.raises(ConflictError):
            training(queue, idempotency_key="k", **other)
    assert len(identities.page(A).items) == 1


def test_what_is_anothers_is_not_there(queue: JobQueue, identities: Identities):
    job = training(queue)
    for wanted in (job.identity_id, new_id("id"), "", "x\0", "\ud800"):
        assert identities.get(B, str(wanted)) is None
    assert identities.page(B).items == []
    with pytest.raises(NotFoundError):
        queue.submit(B, portraits(identity_id=job.identity_id))
    assert queue.submit(A, portraits(identity_id=job.identity_id)).identity_id == job.identity_id


def test_pages(queue: JobQueue, identities: Identities):
    ids = sorted((str(training(queue, name=f"P{number}").identity_id) for number in range(5)), reverse=True)
    first = identities.page(A, limit=3)
    second = identities.page(A, limit=3, before=first.next)
    assert [identity.id for identity in first.items + second.items] == ids
    assert second.next is None
    with pytest.raises(UnacceptableError):
        identities.page(A, before="\0")


@pytest.mark.parametrize(
    "fields",
    [{"identity_id": None}, {"identity_id": "../etc"}, {"kind": Kind.PORTRAITS}, {"name": ""}, {"name": "a\0"}],
    ids=str,
)
def test_persons_that_do_not_fit_are_refused(queue: JobQueue, fields: dict):
    with pytest.raises(ValueError, match="validation error"):
        training(queue, **fields)
