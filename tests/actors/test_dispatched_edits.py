"""Edits through dispatcher, sampler and finisher: the editor's own pictures, and what becomes of jobs without any."""

import io
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from diffusers import ControlNetModel, StableDiffusionPipeline
from PIL import Image

from actors.finisher import SEEING
from studiolo.albums.decode import decode
from studiolo.albums.records import Reason
from studiolo.generation.base import load_base
from studiolo.generation.controlnets import EDGES, POSE, controlnet_for
from studiolo.generation.engine import Engine
from studiolo.generation.tiny import tiny_base
from studiolo.identities.learned import LearnedVersion
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import open_suite
from studiolo.portraits.editing import Edit, Editor, Sitter
from studiolo.portraits.edits import EditOrder, template_sha256
from studiolo.portraits.files import decode_portrait, image_sha256
from studiolo.portraits.finishing import Finisher
from studiolo.portraits.rounds import Subject
from studiolo.provenance.manifests import ManifestState, read_manifest
from studiolo.service.endpoint import DispatcherSettings
from studiolo.service.live import Progress
from studiolo.service.metrics import MemoryMeters
from studiolo.service.records import Job, template_path
from studiolo.service.service import Service
from studiolo.settings import GenerationSettings, PerceptionSettings
from studiolo.weights.fetch import pull
from tests.actors.house import NOBODY, TINY, House, Slow, small_service, until
from tests.service.learned import learn
from tests.web.test_identities import photo

pytestmark = [pytest.mark.usefixtures("weights"), pytest.mark.timeout(240)]

SETTINGS = GenerationSettings(
    steps=3,
    slots=2,
    accept_similarity=0.0,
    face_share=(0.01, 1.0),
    candidates_per_portrait=1,
    retries=0,
)
CALM = DispatcherSettings(lease_s=15, poll_s=0.02)
"""Real faces take a while on a busy machine, and no lease may run out meanwhile."""


def networks(base: StableDiffusionPipeline) -> dict[str, ControlNetModel]:
    return {name: controlnet_for(base.unet).requires_grad_(False).eval() for name in (POSE, EDGES)}


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[House]:
    """A house with the tiny base, which draws no faces."""
    service, base = small_service(tmp_path), tiny_base()
    once = TINY.model_copy(update={"retries": 0})
    house = House(service, once, base_px=64, controlnets="tiny-controlnets", dispatcher=CALM)
    house.sampler.use(base, networks(base))
    yield house
    house.close()
    service.close()


def ended(house: House, job: Job) -> Job:
    """The job when it has ended."""
    until(lambda: house.job(job).state.final, limit_s=200)
    return house.job(job)


def png(rgb_u8: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(rgb_u8).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def templates(people: Path) -> dict[str, bytes]:
    """Pictures, good and bad."""
    one = np.asarray(Image.open(people / "P001" / "portrait.jpg").convert("RGB").resize((480, 480)))
    return {
        "one": png(one),
        "two": png(np.concatenate([one, one], axis=1)),
        "none": png(np.full((200, 200, 3), 90, np.uint8)),
        "small": png(one[:32, :32]),
        "cut off": png(one)[:2000],
        "a page": b"<html><script>alert(1)</script></html>",
        "far": png(np.pad(np.asarray(Image.fromarray(one).resize((80, 80))), ((0, 600), (0, 600), (0, 0)))),
    }


def edited(service: Service, base: StableDiffusionPipeline, identity_id: str, template: bytes) -> Edit:
    """The same with the editor, in one process, by itself."""
    identity = service.identities.get("ten_shop", identity_id)
    assert identity is not None
    learned = LearnedVersion.model_validate(identity.versions[-1].record)
    finisher = Finisher(open_suite("embedded"), Similarity.load(), SETTINGS, SEEING)
    crops = [(service.store.read_bytes(one.crop_path), one.quality_score) for one in learned.references]
    sitter = Sitter(
        Subject(learned.trigger, learned.common_tags),
        str(service.store.local_path(learned.lora_path)),
        finisher.templates(identity_id, "1", lambda: crops),
        np.array([one.embedding for one in learned.references], np.float32),
    )
    rgb_u8 = decode(template, PerceptionSettings())
    order = EditOrder(
        identity_id=identity_id,
        template_sha256=template_sha256(rgb_u8),
        count=2,
        seed=7,
        prompt="smiling",
        generation=SETTINGS,
    )
    engine = Engine.configured(base, SETTINGS, networks(base))
    return Editor(engine, finisher, PerceptionSettings())(order, rgb_u8, sitter)


@pytest.mark.timeout(300)
def test_the_edits_are_the_editors_alone_and_in_company(
    tmp_path: Path, people: Path, templates: dict[str, bytes]
) -> None:
    service, base = small_service(tmp_path), load_base(pull("embedded-base"))
    house = House(service, SETTINGS, "embedded-base", controlnets="two-controlnets", dispatcher=CALM)
    house.sampler.use(base, networks(base))
    identity_id = learn(service, "ten_shop", people / "P002" / "portrait.jpg", base)
    template = templates["one"]
    request = {"identity_id": identity_id, "count": 2, "seed": 7, "prompt": "smiling"}
    dispatcher, seen = house.idle(), []
    tell = dispatcher.live.tell
    dispatcher.live.tell = lambda job_id, news: (seen.append((job_id, news)), tell(job_id, news))  # type: ignore[method-assign]
    other = {"identity_id": identity_id, "seed": 8}
    jobs = [house.edit(template, request), house.order(NOBODY), house.edit(template, other)]
    dispatcher.start()
    house.dispatchers.append(dispatcher)
    until(lambda: all(house.job(job).state.final for job in jobs), limit_s=200)
    dispatcher.drain(10)
    done = list(map(house.job, jobs))
    assert [(job.state, job.reason) for job in done] == [("succeeded", "")] * 3
    alone = edited(service, base, identity_id, template)
    assert alone.outcome is not None
    wanted = [image_sha256(alone.outcome.made[one.candidate.index].portrait.rgb_u8) for one in alone.outcome.ranked]
    assert [one.rank for one in alone.outcome.ranked] == [1, 2]
    assert house.pictures(done[0]) == wanted
    is_as_delivered(house, done[0], alone)
    was_told(done[0], [news for job_id, news in seen if job_id == done[0].id])
    meters = service.meters
    assert isinstance(meters, MemoryMeters)
    assert "look" in {labels["stage"] for labels in meters.series("studiolo_job_seconds")}
    house.close()
    service.close()


def is_as_delivered(house: House, job: Job, alone: Edit) -> None:
    """Its files: signed, known again, the template outside the mask, saying how they were made."""
    assert job.result is not None
    assert alone.template is not None
    service, untouched = house.service, alone.template.seen == 0
    for image in job.result["images"]:
        content = service.store.read_bytes(image["path"])
        assert read_manifest(content, service.provenance.signer.credentials.ours) == ManifestState.OURS
        assert b"compositeWithTrainedAlgorithmicMedia" in content
        rgb_u8, inside = decode_portrait(content)
        assert service.provenance.known(image_sha256(rgb_u8))
        assert np.array_equal(rgb_u8[untouched], alone.template.rgb_u8[untouched])
        assert not np.array_equal(rgb_u8, alone.template.rgb_u8)
        assert (inside["style"], inside["strength"], inside["controlnets"]) == ("edit", 0.65, "two-controlnets")
        assert inside["prompt"].endswith("smiling")
        assert image["similarity"] is not None


def was_told(job: Job, told: list[Progress]) -> None:
    """News of its stages, with the steps of both passes and a verdict on each picture, not on sketches."""
    assert {one.stage for one in told} == {"look", "denoise", "finish"}
    assert [one.done for one in told] == sorted(one.done for one in told)
    assert (told[-1].done, told[-1].total) == (job.steps, job.steps) == (3 + 2 * 1, 5)
    assert [one.index for one in told[-1].candidates] == [0, 1]
    assert any(one.preview for one in told)


REFUSED: list[tuple[str, Any, Reason]] = [
    ("none", None, Reason.NO_FACE),
    ("two", None, Reason.SEVERAL_FACES),
    ("two", (0.5, 0.98), Reason.NO_FACE_THERE),
    ("small", None, Reason.TOO_SMALL),
    ("cut off", None, Reason.DAMAGED),
    ("a page", None, Reason.NOT_AN_IMAGE),
    ("far", None, Reason.FACE_TOO_SMALL),
]


def test_what_is_no_template_fails_at_once_with_its_reason(
    tiny: House, people: Path, templates: dict[str, bytes]
) -> None:
    identity_id = learn(tiny.service, "ten_shop", people / "P002" / "portrait.jpg", tiny_base())
    tiny.dispatcher()
    jobs = {
        (what, face): tiny.edit(templates[what], {"identity_id": identity_id, "face": face})
        for what, face, _ in REFUSED
    }
    for what, face, reason in REFUSED:
        failed = ended(tiny, jobs[what, face])
        assert (failed.state, failed.reason, failed.sentence, failed.attempts) == (
            "failed",
            reason.value,
            reason.sentence(),
            1,
        )
    assert tiny.sampler.engine.work().turns == 0
    assert tiny.finisher._decode.pid is None  # nobody is left who opened them


def test_of_several_faces_the_one_that_is_named_is_drawn_anew(
    tiny: House, people: Path, templates: dict[str, bytes]
) -> None:
    identity_id = learn(tiny.service, "ten_shop", people / "P002" / "portrait.jpg", tiny_base())
    tiny.dispatcher()
    jobs = [
        tiny.edit(templates["two"], {"identity_id": identity_id, "face": face}) for face in ((0.25, 0.5), (0.75, 0.5))
    ]
    done = [ended(tiny, job) for job in jobs]
    assert {job.reason for job in done} == {"none_accepted"}  # the tiny base draws no faces, but it drew
    assert {job.result["rejected"][0]["count"] for job in done if job.result} == {2}
    begins = {file.face_xy: template.face.matrix[0, 2] for file, template in tiny.finisher._opened.items()}
    assert begins[0.25, 0.5] > begins[0.75, 0.5] + 30  # the crop begins further to the right


def test_a_cancelled_edit_stops_and_its_template_goes_with_its_result(
    tiny: House, people: Path, templates: dict[str, bytes]
) -> None:
    identity_id = learn(tiny.service, "ten_shop", people / "P002" / "portrait.jpg", tiny_base())
    slow = Slow(tiny)
    dispatcher = tiny.dispatcher(slow)
    job = tiny.edit(templates["one"], {"identity_id": identity_id})
    assert slow.begun.wait(90)
    tiny.service.queue.cancel("ten_shop", job.id)
    until(lambda: not dispatcher._hands, limit_s=60)
    assert tiny.sampler.engine._requests == []
    assert tiny.service.store.list("results") == [template_path(job.id)]
    later = time.time() + 8 * 86_400
    tiny.service.database.clock = lambda: later
    until(lambda: tiny.service.store.list("results") == [])  # by the dispatcher


def test_of_a_person_who_is_erased_neither_job_nor_template_is_left(
    tiny: House, people: Path, templates: dict[str, bytes]
) -> None:
    service = tiny.service
    identity_id = learn(service, "ten_shop", people / "P002" / "portrait.jpg", tiny_base())
    slow = Slow(tiny)
    slow.go_on.set()
    dispatcher = tiny.dispatcher(slow)
    done = ended(tiny, tiny.edit(templates["one"], {"identity_id": identity_id}))
    assert done.reason == "none_accepted"
    slow.go_on.clear()
    slow.begun.clear()
    running = tiny.edit(templates["one"], {"identity_id": identity_id})
    assert slow.begun.wait(90)
    assert service.erasure.erase("ten_shop", identity_id) is not None
    until(lambda: service.erasure.unfinished() == [])  # the dispatcher has done it, the receipt is there
    assert service.identities.get("ten_shop", identity_id) is None
    until(lambda: not dispatcher._hands)
    erased = service.erasure.erase("ten_shop", identity_id)
    assert erased is not None
    assert erased.receipt is not None
    assert erased.receipt["erased"]["files of results"] == 2  # both templates
    assert [service.queue.get("ten_shop", job.id) for job in (done, running)] == [None, None]
    assert service.store.list("results") == []
    assert tiny.finisher.forget(identity_id) == {"templates": 0}
    assert not tiny.finisher._opened


def test_where_edits_are_not_made_any_more_those_that_wait_say_so(
    house: House, people: Path, templates: dict[str, bytes]
) -> None:
    identity_id = learn(house.service, "ten_shop", people / "P002" / "portrait.jpg", tiny_base())
    house.settings = house.settings.model_copy(update={"controlnets": None})
    house.dispatcher()
    failed = ended(house, house.edit(templates["one"], {"identity_id": identity_id}))
    assert (failed.state, failed.reason, failed.attempts) == ("failed", "no_edits", 1)


def test_a_template_that_the_store_has_lost_is_tried_again_and_given_up(
    tiny: House, people: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("actors.dispatcher._PAUSE_S", 0.01)
    identity_id = learn(tiny.service, "ten_shop", people / "P002" / "portrait.jpg", tiny_base())
    job = tiny.edit(photo(), {"identity_id": identity_id})
    tiny.service.store.remove(template_path(job.id))
    tiny.dispatcher()
    failed = ended(tiny, job)
    assert (failed.state, failed.reason, failed.attempts) == ("failed", "store", 3)
