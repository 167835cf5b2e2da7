"""Jobs of portraits through a dispatcher: the bulk job's pictures, and what becomes of them when things go wrong."""

import threading
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from sqlalchemy.orm import Session

from actors.portraitist import ORDER_INPUT, Portraitist
from studiolo.errors import (
    WorkersAwayError,
)
from studiolo.generation.base import load_base
from studiolo.generation.tiny import tiny_base
from studiolo.identities.learned import LearnedVersion
from studiolo.portraits.orders import order_seed
from studiolo.portraits.rounds import Draft, Drawing, Drawn
from studiolo.provenance.manifests import ManifestState, read_manifest, without_manifest
from studiolo.service.live import Progress
from studiolo.service.metrics import MemoryMeters
from studiolo.service.records import Kind, Lease
from studiolo.service.tables import JobRow
from studiolo.settings import GenerationSettings
from studiolo.weights.fetch import pull
from tests.actors.house import NOBODY, House, Slow, small_service, until
from tests.service.learned import learn

pytestmark = [pytest.mark.usefixtures("weights"), pytest.mark.timeout(90)]


def test_the_portraits_are_the_bulk_jobs(tmp_path: Path, people: Path) -> None:
    service = small_service(tmp_path)
    settings = GenerationSettings(steps=3, slots=4, accept_similarity=0.0, face_share=(0.05, 1.0))
    house, base = House(service, settings, "embedded-base"), load_base(pull("embedded-base"))
    house.sampler.use(base)
    identity_id = learn(service, "ten_shop", people / "P001" / "portrait.jpg", base)
    request = {"identity_id": identity_id, "style": "black-and-white", "count": 2, "seed": 7}
    job = house.order(request, steps=12, identity_id=identity_id)
    dispatcher = house.dispatcher()
    done = house.ended(job)
    dispatcher.drain(10)
    bulk = Portraitist(service.store, "embedded", "embedded-base", settings, house.settings.selection.unsafe_above)
    bulk.open()
    identity = service.identities.get("ten_shop", identity_id)
    assert identity is not None
    learned = LearnedVersion.model_validate(identity.versions[-1].record)
    row = {
        "identity_id": identity_id,
        "style": "black-and-white",
        "count": 2,
        "seed": order_seed(7, "black-and-white"),
        "first_index": 0,
        **learned.model_dump(include={"trigger", "common_tags", "lora_path", "lora_sha256", "references"}),
    }
    rows = bulk(pa.Table.from_pylist([row], ORDER_INPUT)).to_pylist()
    accepted = sorted((one for one in rows if one["rank"]), key=lambda one: one["rank"])
    assert len(accepted) == 2
    assert {one["fusion"] for one in accepted} == {"done"}
    assert house.pictures(done) == [one["image_sha256"] for one in accepted]
    assert done.result is not None
    files = [service.store.read_bytes(image["path"]) for image in done.result["images"]]
    bare = [without_manifest(content) for content in files]
    assert bare == [service.store.read_bytes(one["path"]) for one in accepted]  # what they say of themselves, too
    ours = service.provenance.signer.credentials.ours
    assert {read_manifest(content, ours) for content in files} == {ManifestState.OURS}
    assert all(service.provenance.known(one["image_sha256"]) for one in accepted)
    similarities = [image["similarity"] for image in done.result["images"]]
    assert similarities == pytest.approx([one["similarity"] for one in accepted], rel=1e-6)  # a row's are float32
    assert sum(one["count"] for one in done.result["rejected"]) == len(rows) - 2
    house.close()
    service.close()


def test_a_job_is_made_told_of_and_measured(house: House) -> None:
    slow, seen = Slow(house), []
    dispatcher = house.dispatcher(slow)
    tell = dispatcher.live.tell
    dispatcher.live.tell = lambda job_id, news: (seen.append(news), tell(job_id, news))  # type: ignore[method-assign]
    job = house.order({**NOBODY, "count": 2}, steps=8)
    assert slow.begun.wait(30)
    slow.go_on.set()
    done = house.ended(job)
    assert (done.state, done.attempts) == ("succeeded", 1)
    assert done.result is not None
    assert [image["similarity"] for image in done.result["images"]] == [None, None]
    assert [image["width_px"] for image in done.result["images"]] == [64, 64]
    news = [one for one in seen if isinstance(one, Progress)]
    assert {one.stage for one in news} == {"denoise", "finish"}
    assert [one.done for one in news] == sorted(one.done for one in news)
    assert (news[-1].done, news[-1].total, len(news[-1].candidates)) == (8, 8, 2)
    assert any(one.preview for one in news)
    until(lambda: not dispatcher._hands)
    assert dispatcher.live._news == {}  # no picture of it is left
    meters = house.service.meters
    assert isinstance(meters, MemoryMeters)
    assert meters.total("studiolo_candidates_accepted_total") == 2
    stages = {labels["stage"] for labels in meters.series("studiolo_job_seconds")}
    assert stages == {"queued", "sample", "finish", "store", "whole"}


def test_after_a_sampler_died_the_job_is_made_again_the_same(house: House) -> None:
    deaths = iter([True])

    class Dying:
        def __init__(self, inner: Any) -> None:
            self.inner = inner

        def __iter__(self) -> "Dying":
            return self

        def __next__(self) -> Drawing | Drawn:
            event: Drawing | Drawn = next(self.inner)
            if isinstance(event, Drawn) and next(deaths, False):
                self.inner.close()
                raise RuntimeError("the actor died")
            return event

        def close(self) -> None:
            self.inner.close()

    house.dispatcher(lambda draft: Dying(house.sampler.sample(draft)))
    first = house.ended(house.order(NOBODY))
    again = house.ended(house.order(NOBODY))
    assert [(one.state, one.attempts) for one in (first, again)] == [("succeeded", 2), ("succeeded", 1)]
    assert house.pictures(first) == house.pictures(again)


def test_a_job_whose_workers_always_die_fails_with_the_reason(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actors.dispatcher._PAUSE_S", 0.01)
    house.dispatcher(lambda draft: 1 / 0)
    failed = house.ended(house.order(NOBODY))
    assert (failed.state, failed.reason, failed.attempts) == ("failed", "gave_up", 3)


def test_while_no_sampler_is_there_a_job_waits_and_no_attempt_counts(house: House) -> None:
    away = iter([True, True])

    def draw(draft: Draft) -> Any:
        if next(away, False):
            raise WorkersAwayError("no replica")
        return house.sampler.sample(draft)

    house.dispatcher(draw)
    done = house.ended(house.order(NOBODY))
    assert (done.state, done.attempts) == ("succeeded", 1)


def test_a_job_that_is_cancelled_stops_at_once_and_leaves_nothing(house: House) -> None:
    slow = Slow(house)
    dispatcher = house.dispatcher(slow)
    job = house.order(NOBODY)
    assert slow.begun.wait(30)
    house.service.queue.cancel("ten_shop", job.id)
    until(lambda: not dispatcher._hands)
    assert house.sampler.engine._requests == []
    assert house.job(job).state == "cancelled"
    assert house.service.store.list("results") == []


def test_who_lost_the_lease_stops_and_the_other_delivers(house: House) -> None:
    slow = Slow(house)
    first = house.dispatcher(slow)
    job = house.order(NOBODY)
    assert slow.begun.wait(30)
    service = house.service

    def take(session: Session) -> list[Lease]:
        session.get_one(JobRow, job.id).lease_until = 0.0
        return service.queue._lease([Kind.PORTRAITS], "other", 60, ["token"], False, session)  # before the first does

    (taken,) = service.database.write(take)
    until(lambda: not first._hands)
    assert house.sampler.engine._requests == []
    slow.go_on.set()
    assert (house.job(job).state, house.job(job).attempts) == ("running", 2)
    assert service.store.list("results") == []
    service.queue.release(taken)
    assert house.ended(job).state == "succeeded"


def test_a_dispatcher_that_is_drained_ends_what_it_can_and_gives_the_rest_back(house: House) -> None:
    slow = Slow(house)
    leaving = house.dispatcher(slow)
    job = house.order(NOBODY)
    assert slow.begun.wait(30)
    leaving.drain(0)
    back = house.job(job)
    assert (back.state, back.attempts) == ("queued", 0)
    slow.begun.clear()
    next_one = house.dispatcher(slow)
    assert slow.begun.wait(30)
    drained = threading.Thread(target=next_one.drain, args=(60,))
    drained.start()
    until(next_one._draining.is_set)
    next_one._looked_s -= 1e9
    next_one.check()  # that it looks for no more is as it should be
    slow.go_on.set()
    drained.join(60)
    assert (house.job(job).state, house.job(job).attempts) == ("succeeded", 1)
    assert house.service.queue.lease([Kind.PORTRAITS], "w", 1) == []


def test_several_dispatchers_do_each_job_once(house: House) -> None:
    jobs = [house.order({**NOBODY, "seed": seed}) for seed in range(6)]
    for _ in range(2):
        house.dispatcher(jobs=2)
    done = [house.ended(job) for job in jobs]
    assert {(job.state, job.attempts) for job in done} == {("succeeded", 1)}
    assert len({picture for job in done for picture in house.pictures(job)}) == 6


def test_a_fault_of_the_request_is_not_tried_again(house: House) -> None:
    house.dispatcher()
    failed = house.ended(house.order({"style": "stduio"}))
    assert (failed.state, failed.reason, failed.attempts) == ("failed", "request", 1)
    assert "did you mean 'studio'" in failed.sentence
    old = house.ended(house.order({"stile": "studio"}))
    assert (old.state, old.reason, old.attempts) == ("failed", "request", 1)
    gone = house.ended(house.order({"style": "studio", "identity_id": "id_" + "0" * 32}))
    assert (gone.state, gone.reason) == ("failed", "identity")


def test_an_erased_person_is_stopped_for_and_forgotten_everywhere(house: House, people: Path) -> None:
    service = house.service
    identity_id = learn(service, "ten_shop", people / "P001" / "portrait.jpg", tiny_base())
    request = {"identity_id": identity_id, "style": "studio", "seed": 1}
    slow = Slow(house)
    slow.go_on.set()
    dispatcher = house.dispatcher(slow)
    failed = house.ended(house.order(request, steps=8, identity_id=identity_id))
    assert (failed.state, failed.reason) == ("failed", "none_accepted")  # the tiny base draws no faces
    assert failed.result is not None
    assert [one["reason"] for one in failed.result["rejected"]] == ["not_one_face"]
    slow.go_on.clear()
    slow.begun.clear()
    running = house.order(request, steps=8, identity_id=identity_id)
    assert slow.begun.wait(30)
    begun = service.erasure.erase("ten_shop", identity_id)
    assert begun is not None
    assert begun.receipt is None
    until(lambda: service.erasure.unfinished() == [])  # the dispatcher has done it, the receipt is there
    assert service.identities.get("ten_shop", identity_id) is None
    assert service.queue.get("ten_shop", running.id) is None
    until(lambda: not dispatcher._hands)
    done = service.erasure.erase("ten_shop", identity_id)
    assert done is not None
    assert done.receipt is not None
    counts = done.receipt["erased"]
    assert (counts["adapters"], counts["templates"], counts["prompts"]) == (1, 1, 2)
    assert service.store.list("results") == service.store.list("identities") == []
    assert house.sampler.forget(identity_id) == {"copies of face-LoRAs": 0, "adapters": 0, "prompts": 0}
    assert house.finisher.forget(identity_id) == {"templates": 0}
