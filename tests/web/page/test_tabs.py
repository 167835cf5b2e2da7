"""What the controls of the tabs do, against the real application: asked as Gradio asks them."""

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from studiolo.portraits.styles import all_styles
from studiolo.service.live import LiveMemory, Progress
from studiolo.service.records import Kind, State, new_id
from studiolo.service.styles import Look, StyleLora
from tests.jobs.finished_job import empty_database
from tests.web.page.conftest import Front
from tests.web.test_identities import photo
from tests.web.world import REJECTED, SETTINGS
from web.page import album, data, jobs, portraits
from web.page.client import AnswerError, Client
from web.page.studio import AGAIN, NO_ONE

pytestmark = pytest.mark.usefixtures("blind")

FORM = ("Anna", "Anna herself", "Portraits may be made of me.")


@pytest.fixture
def photos(tmp_path: Path) -> list[str]:
    paths = [tmp_path / name for name in ("a.jpg", "b.jpg", "notes.txt")]
    for path, content in zip(paths, (photo(1), photo(2)[:-9], b"no picture"), strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def sent(front: Front, files: list[str] | None, by: str = "anna", **changes: Any) -> tuple[Any, ...]:
    """What comes of pressing *Learn this person*."""
    tasks = album._Tasks(front.studio())
    form = {"name": FORM[0], "files": files, "given_by": FORM[1], "statement": FORM[2], "agreed": True} | changes

    async def press() -> tuple[Any, ...]:
        return await tasks.learn(**form, looked={}, pictures={}, request=front.request(by))

    return asyncio.run(press())


def test_each_photo_has_its_verdict_at_once_and_is_looked_at_once(front: Front, photos: list[str]) -> None:
    tasks = album._Tasks(front.studio())

    async def drop() -> Any:
        first = await tasks.look(photos[:2], {})
        return first, await tasks.look(photos[1:], first[1])

    (first, looked), (second, kept) = asyncio.run(drop())
    assert "2 of 2 photos will be sent" in first
    assert "1 of 2 photos will be sent" in second
    assert "Left out" in second
    assert kept[photos[1]] is looked[photos[1]]
    assert photos[0] not in kept
    assert asyncio.run(tasks.look(None, kept)) == ("", {})


def test_an_album_is_sent_without_what_is_no_picture_and_goes_from_the_page(front: Front, photos: list[str]) -> None:
    notice, pictures, chosen, *fields = sent(front, photos)
    assert "Anna is being learned from 2 photos" in notice
    lease = front.world.lease(Kind.IDENTITY)
    assert pictures.keys() == {lease.job.identity_id}
    assert (chosen.value, chosen.visible) == (lease.job.identity_id, True)
    assert fields == ["", None, "", False]
    store = front.world.service.store
    assert [store.read_bytes(path) for path in store.list("albums")] == [photo(1), photo(2)[:-9]]
    assert [path for path in photos if Path(path).exists()] == []


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"name": "  "}, "Give the person a name."),
        ({"files": []}, "Drop at least one photo."),
        ({"files": None}, "Drop at least one photo."),
        ({"given_by": ""}, "Say who consents, and to what."),
        ({"statement": " "}, "Say who consents, and to what."),
        ({"agreed": False}, "Tick that this consent was given to you"),
        ({"name": "a\tb"}, "name"),
    ],
)
def test_a_form_that_is_not_whole_says_what_is_missing(
    front: Front, photos: list[str], changes: dict[str, Any], said: str
) -> None:
    notice, *_ = sent(front, **{"files": photos} | changes)
    assert 'role="alert"' in notice
    assert said in notice
    assert front.world.service.store.list("albums") == []
    assert all(Path(path).exists() for path in photos)


def test_photos_that_were_removed_meanwhile_are_asked_for_again(front: Front, photos: list[str]) -> None:
    Path(photos[0]).unlink()
    assert "drop them again" in sent(front, photos)[0]
    assert front.world.service.store.list("albums") == []


def test_an_album_of_no_pictures_is_not_sent(front: Front, photos: list[str]) -> None:
    assert "None of these files is a picture." in sent(front, photos[2:])[0]


def looked_at(front: Front, identity_id: str | None, shown: str = "", by: str = "anna") -> Any:
    tasks = album._Tasks(front.studio())
    return asyncio.run(tasks.tick(identity_id, {}, shown, front.request(by)))


def test_a_person_is_shown_as_it_stands_and_only_when_it_changes(front: Front) -> None:
    identity_id = front.world.identity(ready=False)
    html, shown, sample = looked_at(front, identity_id)
    assert "Next in the queue" in html
    assert sample.visible is False
    assert looked_at(front, identity_id, shown)[0]["__type__"] == "update"
    lease = front.world.lease(Kind.IDENTITY)
    front.world.service.queue.extend(lease, 60, steps_done=4)
    assert "step 4 of 8" in looked_at(front, identity_id)[0]
    ready = front.world.identity()
    html, _, sample = looked_at(front, ready)
    assert "No face was found." in html
    assert "<polyline" in html
    assert sample.visible is True
    assert "This person was erased." in looked_at(front, ready, by="bert")[0]
    assert AGAIN in asyncio.run(album._Tasks(front.studio()).tick(ready, {}, "", front.request(None)))[0]


def test_a_sample_sheet_is_four_plain_portraits(front: Front) -> None:
    identity_id = front.world.identity()
    tasks = album._Tasks(front.studio())
    html, _, sample, _ = asyncio.run(tasks.sample(identity_id, {}, front.request()))
    assert "The sample sheet is being made." in html
    assert sample.visible is False
    job = front.world.make(4)
    assert (job.request["style"], job.request["count"], job.identity_id) == (album.SHEET_STYLE, 4, identity_id)
    html, _, sample = looked_at(front, identity_id)
    assert html.count("<img") == 4
    assert f"portraits/{job.id}/3.png" in html


def test_people_and_styles_are_offered_to_their_tenant(front: Front) -> None:
    ready, other = front.world.identity(), front.world.identity("bert")
    front.world.identity(ready=False)

    def offers(person: str | None, style: str | None, known: Any = None) -> Any:
        return asyncio.run(portraits._Tasks(front.studio()).choices(person, style, known, front.request()))

    person, style, known, _, earlier, _ = offers(None, None)
    assert [value for _, value in person.choices] == [ready, NO_ONE]
    assert person.value == ready
    assert [value for _, value in style.choices] == [*all_styles(None), portraits.WORDS]
    assert earlier.visible is False
    person, style, *_ = offers(other, "sepia")
    assert person.value == ready
    assert "value" not in style.constructor_args  # somebody may choose another one meanwhile
    assert offers(ready, "sepia", known)[0]["__type__"] == "update"


def test_where_nobody_is_learned_nobody_is_chosen_yet(front: Front) -> None:
    person, *_ = asyncio.run(portraits._Tasks(front.studio()).choices(None, None, None, front.request()))
    assert (person.choices, person.value) == ([("Nobody in particular", NO_ONE)], None)


USUAL = {
    "person": NO_ONE,
    "style": "studio",
    "prompt": "",
    "count": 2,
    "threshold": SETTINGS.generation.accept_similarity,
    "face_weight": SETTINGS.generation.face_weight,
    "style_weight": SETTINGS.generation.style_weight,
    "fusion": SETTINGS.generation.fusion,
    "size": "usual",
    "against": "",
    "seed": "",
}


def order(**changes: Any) -> dict[str, Any]:
    return portraits.Order(**USUAL | changes).body()


def test_an_order_says_what_was_shown_and_leaves_the_rest_to_the_service() -> None:
    usual = SETTINGS.generation
    plain = {"count": 2, "prompt": "", "negative_prompt": ""}
    of_a_style = {"style": "studio", "style_weight": usual.style_weight}
    of_a_person = {"threshold": usual.accept_similarity, "face_weight": usual.face_weight, "fusion": usual.fusion}
    assert order() == plain | of_a_style  # nobody is fused who is nobody
    assert order(person="id_1") == plain | of_a_style | of_a_person | {"identity_id": "id_1"}
    weights = {"threshold": 0.3, "face_weight": 0.7, "fusion": 0.0}
    whole = {"person": "id_1", "style": portraits.WORDS, "prompt": " a hat ", "size": "128"}
    assert order(**whole, **weights, against="rain", seed=" 7 ") == {
        "count": 2,
        "prompt": "a hat",
        "negative_prompt": "rain",
        "identity_id": "id_1",
        "size_px": 128,
        "seed": 7,
        **weights,
    }


@pytest.mark.parametrize("person", [None, ""])
def test_an_order_of_no_choice_is_not_one_of_nobody(person: str | None) -> None:
    with pytest.raises(AnswerError, match="Choose of whom, or “Nobody in particular”"):
        order(person=person)


async def made(front: Front, seen: list[Any], **changes: Any) -> None:
    """Press *Make portraits*, and see all that comes."""
    tasks = portraits._Tasks(front.studio())
    async for shown in tasks.make(front.request(), *(USUAL | changes).values()):
        seen.append(shown)


def test_portraits_are_followed_step_by_step_to_their_pictures(front: Front, live: LiveMemory) -> None:
    seen: list[Any] = []

    async def work() -> None:
        while not seen:
            await asyncio.sleep(0.01)
        job_id = seen[0][2]
        lease = front.world.lease()
        live.tell(job_id, Progress(1, "denoise", 3, 8, preview=b"\x89PNG"))
        while not any("Step 3 of 8" in one[0] and "data:image/png" in one[0] for one in seen):
            await asyncio.sleep(0.01)
        front.world.service.queue.release(lease)
        await asyncio.to_thread(front.world.make, 2)

    async def both() -> None:
        await asyncio.gather(made(front, seen), work())

    asyncio.run(asyncio.wait_for(both(), 120))
    assert "Next in the queue" in seen[0][0]
    assert (seen[0][3].interactive, seen[0][4].interactive) == (False, True)
    live_html, results, job_id, make, stop, earlier = seen[-1]
    assert (live_html, job_id, make.interactive, stop.interactive) == ("", "", True, False)
    assert results.count("<img") == 2
    assert earlier.visible is True


def test_an_order_that_is_stopped_says_so(front: Front) -> None:
    seen: list[Any] = []

    async def stop() -> None:
        while not seen:
            await asyncio.sleep(0.01)
        await portraits._Tasks(front.studio()).stop(seen[0][2], front.request())

    async def both() -> None:
        await asyncio.gather(made(front, seen), stop())

    asyncio.run(asyncio.wait_for(both(), 120))
    assert "It was cancelled." in seen[-1][1]


def test_an_order_that_is_refused_says_why(front: Front) -> None:
    seen: list[Any] = []
    asyncio.run(made(front, seen, style=portraits.WORDS))
    (shown,) = seen
    assert "anted a style, a prompt, or both" in shown[0]
    assert (shown[3].interactive, shown[4].interactive) == (True, False)
    seen.clear()
    asyncio.run(made(front, seen, person="id_" + "0" * 32))
    assert "There is no identity" in seen[0][0]
    seen.clear()
    asyncio.run(made(front, seen, seed="1.5"))
    assert "A seed is a whole number." in seen[0][0]


def test_earlier_orders_are_shown_again_to_their_tenant_alone(front: Front) -> None:
    front.world.ask("POST", "/v1/portraits", json={"style": "studio", "count": 2})
    job = front.world.make(2)
    tasks = portraits._Tasks(front.studio())
    html, _ = asyncio.run(tasks.earlier(job.id, front.request()))
    assert html.count("<img") == 2
    _, refused = asyncio.run(tasks.earlier(job.id, front.request("bert")))
    assert "There is no job" in refused


def test_why_nothing_was_good_enough_is_shown_and_found_again(front: Front) -> None:
    identity_id, seen = front.world.identity(), list[Any]()

    async def reject() -> None:
        while not seen:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(front.world.reject)

    async def both() -> None:
        await asyncio.gather(made(front, seen, person=identity_id), reject())

    asyncio.run(asyncio.wait_for(both(), 120))
    _, results, *_, earlier = seen[-1]
    ((called, job_id),) = earlier.choices
    assert "Studio, Anna (none good enough)" in called
    again, _ = asyncio.run(portraits._Tasks(front.studio()).earlier(job_id, front.request()))
    listed, *_ = asyncio.run(jobs._Tasks(front.studio()).look(9, "", None, front.request()))
    for html in (results, again, listed):
        for one in REJECTED:
            assert f"<b>{one['count']}</b> {one['sentence']}" in html
    assert "A lower least likeness" in results


class Pressed:
    """What Gradio tells of a button in a list."""

    def __init__(self, job: str) -> None:
        self.job = job


def test_jobs_are_listed_with_their_places_and_can_be_cancelled(front: Front) -> None:
    ids = [front.world.ask("POST", "/v1/portraits", json={"style": "studio"}).json()["id"] for _ in range(3)]
    tasks = jobs._Tasks(front.studio())
    html, shown, more, names = asyncio.run(tasks.look(2, "", None, front.request()))
    assert (html.count("data-job="), more.visible) == (2, True)
    assert "3 in the queue" in html
    assert asyncio.run(jobs._Tasks(front.studio()).look(2, shown, None, front.request()))[0]["__type__"] == "update"
    other = jobs._Tasks(front.studio())
    pressed: Any = Pressed(ids[0])
    refused, *_ = asyncio.run(other.cancel(9, None, front.request("bert"), pressed))
    assert "There is no job" in refused
    tasks = jobs._Tasks(front.studio())
    html, *_ = asyncio.run(tasks.cancel(9, names, front.request(), pressed))
    assert html.count("data-job=") == 2
    assert front.world.ask("GET", f"/v1/jobs/{ids[0]}").json()["state"] == State.CANCELLED


def test_names_in_the_list_of_jobs_are_asked_for_now_and_again(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, now_s, people = list[float](), time.time(), Client.people

    async def counted(client: Client) -> Any:
        asked.append(now_s)
        return await people(client)

    monkeypatch.setattr(Client, "people", counted)
    monkeypatch.setattr(jobs, "now_s", lambda: now_s)

    def look(names: Any) -> Any:
        html, _, _, names = asyncio.run(jobs._Tasks(front.studio()).look(9, "", names, front.request()))
        return html, names

    _, names = look(None)
    _, names = look(names)
    assert len(asked) == 1
    now_s = time.time() + 1
    front.world.identity(ready=False)  # whoever was sent since is called by name at once
    html, names = look(names)
    assert "Learning Anna" in html
    _, names = look(names)
    assert len(asked) == 2
    now_s += jobs._NAMES_S + 1
    look(names)
    assert len(asked) == 3


def erased(front: Front, identity_id: str | None, sure: bool, by: str = "anna") -> tuple[Any, ...]:
    return asyncio.run(data._Tasks(front.studio()).erase(identity_id, sure, None, front.request(by)))


def test_a_person_is_erased_only_on_purpose_and_only_by_its_tenant(front: Front) -> None:
    front.world.service.store.write_bytes("mlflow.db", empty_database())
    identity_id = front.world.identity()
    kept, choice, *_ = asyncio.run(data._Tasks(front.studio()).look(None, None, front.request()))
    assert "Anna" in kept
    assert [value for _, value in choice.choices] == [identity_id]
    for chosen, sure in ((None, True), (identity_id, False)):
        assert "tick the box" in erased(front, chosen, sure)[0]
    assert "There is no identity" in erased(front, identity_id, True, "bert")[0]
    outcome, sure, kept, choice, *_ = erased(front, identity_id, True)
    assert "Anna was erased" in outcome
    assert "Nobody has been learned." in kept
    assert (choice.choices, sure) == ([], False)
    assert front.world.ask("GET", f"/v1/identities/{identity_id}").status_code == 404


def test_a_style_of_ones_own_has_its_initials_is_listed_and_deleted(front: Front) -> None:
    look, lora = Look(title="Oil painting"), StyleLora(sent_sha256="1" * 64, sha256="2" * 64, rank=4, layers=8)
    own = front.world.service.styles.add(front.world.tenant(), new_id("style"), "oil", look, lora)

    def tasks() -> Any:
        return data._Tasks(front.studio())

    _, style, _, initials, *_ = asyncio.run(portraits._Tasks(front.studio()).choices(None, None, None, front.request()))
    assert ("Oil painting", "oil") in style.choices
    assert 'input[value="oil"]' in initials
    assert '"OP"' in initials
    kept, _, choice, column = asyncio.run(tasks().look(None, None, front.request()))
    assert "Oil painting" in kept
    assert (choice.choices, choice.value, column.visible) == ([("Oil painting", own.id)], None, True)
    assert "Choose a style" in asyncio.run(tasks().delete(None, None, front.request()))[0]
    assert "There is no style" in asyncio.run(tasks().delete(own.id, None, front.request("bert")))[0]
    said, kept, _, choice, column = asyncio.run(tasks().delete(own.id, None, front.request()))
    assert "Oil painting was deleted." in said
    assert "Oil painting" not in kept
    assert (choice.choices, column.visible) == ([], False)


def test_the_picture_of_an_edit_that_came_to_nothing_is_listed_as_long_as_it_is_kept(front: Front) -> None:
    form, template = {"identity_id": front.world.identity()}, photo(1)
    front.world.ask("POST", "/v1/edits", files={"template": template}, data=form)
    front.world.ask("POST", "/v1/portraits", json={"style": "studio"})
    for _ in range(2):
        front.world.reject()
    kept, *_ = asyncio.run(data._Tasks(front.studio()).look(None, None, front.request()))
    assert "An edit, Anna" in kept
    assert "Studio, nobody" not in kept
    store = front.world.service.store
    assert [store.read_bytes(path) for path in store.list("results")] == [template]
    front.world.service.queue.database.clock = lambda: time.time() + 8 * 86_400
    front.world.service.tidy()
    kept, *_ = asyncio.run(data._Tasks(front.studio()).look(None, None, front.request()))
    assert "An edit" not in kept
    assert store.list("results") == []


def test_who_is_signed_out_is_told_so_everywhere(front: Front) -> None:
    nobody = front.request(None)

    async def ask() -> list[Any]:
        studio = front.studio()
        return [
            (await album._Tasks(studio).people(None, nobody))[1],
            (await portraits._Tasks(studio).choices(None, None, None, nobody))[5],
            (await jobs._Tasks(studio).look(9, "", None, nobody))[0],
            (await data._Tasks(studio).look(None, None, nobody))[0],
        ]

    for shown in asyncio.run(ask()):
        assert AGAIN in shown
