"""What the controls of the tab *Edit* do, against the real application: asked as Gradio asks them."""

import asyncio
import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from studiolo.albums.records import Reason
from studiolo.portraits.requests import EditRequest
from studiolo.service.live import LiveMemory, Progress
from studiolo.service.records import Kind, State, template_path
from tests.web.page.conftest import Front
from tests.web.page.pictures import PAIR, group
from tests.web.server import served
from tests.web.test_identities import photo
from tests.web.world import SETTINGS
from web.app import create_app
from web.page import edit, portraits
from web.page.client import AnswerError
from web.page.photos import GONE, Dropped, Face, Template
from web.page.studio import AGAIN

LEFT, RIGHT = Face(0.1, 0.2, 0.2, 0.4), Face(0.6, 0.1, 0.2, 0.2)
USUAL: dict[str, Any] = {
    "face": None,
    "person": "id_1",
    "count": 2,
    "strength": 0.65,
    "prompt": "",
    "against": "",
    "seed": "",
}


@pytest.fixture
def dropped(tmp_path: Path) -> Template:
    """A picture as it is known after it was looked at, with two faces."""
    path = tmp_path / "picture.jpg"
    path.write_bytes(photo(1))
    sha256 = hashlib.sha256(photo(1)).hexdigest()
    return Template(Dropped(path, "data:image/jpeg;base64,AAAA", "", True, sha256), (LEFT, RIGHT))


@pytest.mark.usefixtures("weights")
def test_a_picture_is_looked_at_and_its_faces_are_offered(front: Front, people: Path, tmp_path: Path) -> None:
    tasks = edit._Tasks(front.studio())
    paths = [tmp_path / name for name in ("two.jpg", "one.jpg", "none.jpg", "notes.txt")]
    for path, content in zip(
        paths, (*(group(people, PAIR[:count]) for count in (2, 1, 0)), b"no picture"), strict=True
    ):
        path.write_bytes(content)

    async def drop() -> list[Any]:
        return [await tasks.look(str(path), {}) for path in paths]

    two, one, none, notes = asyncio.run(drop())
    assert "2 faces were found, numbered from left to right" in two[0]
    assert two[0].count('<span class="face"') == 2
    assert two[2].choices == [("Face 1 (left)", "1"), ("Face 2 (right)", "2")]
    assert (two[2].value, two[2].visible) == (None, True)
    assert two[3] == {two[1].file.sha256: two[1].file.picture}
    assert "One face was found" in one[0]
    assert (one[2].value, one[2].visible) == ("1", False)
    for shown, why in ((none, Reason.NO_FACE), (notes, Reason.NOT_AN_IMAGE)):
        assert why.sentence() in shown[0]
        assert shown[2].visible is False
        assert shown[3]["__type__"] == "update"
    assert "<img" in none[0]
    html, template, face, _ = asyncio.run(tasks.look(None, {}))
    assert (html, template, face.visible) == ("", None, False)


@pytest.mark.usefixtures("blind")
def test_where_no_faces_can_be_looked_for_it_says_so(front: Front, tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    Image.new("RGB", (200, 200)).save(path)
    html, template, *_ = asyncio.run(edit._Tasks(front.studio()).look(str(path), {}))
    assert "No faces can be looked for at the moment" in html
    assert template is None


def test_the_newest_templates_are_remembered(dropped: Template) -> None:
    known: dict[str, str] = {}
    for name in (*map(str, range(20)), "14"):
        known = edit._with(known, replace(dropped, file=replace(dropped.file, sha256=name)))
    assert list(known) == ["12", "13", "15", "16", "17", "18", "19", "14"]
    assert edit._with(known, Template(dropped.file)) == known


@pytest.mark.parametrize("count", range(1, 8))
def test_faces_are_named_by_number_and_place(count: int) -> None:
    names = edit._names(count)
    assert [number for _, number in names] == [str(number) for number in range(1, count + 1)]
    places = [name.partition("(")[2] for name, _ in names if "(" in name]
    assert places == {1: [], 3: ["left)", "middle)", "right)"]}.get(count, ["left)", "right)"])


def order(template: Template, **changes: Any) -> dict[str, str]:
    return edit.Order(**USUAL | changes).texts(template)


def test_an_order_says_what_was_chosen_and_leaves_the_rest_to_the_service(dropped: Template) -> None:
    assert order(dropped, face="2") == {"identity_id": "id_1", "face": "0.7000,0.2000", "count": "2"}
    alone = Template(dropped.file, (LEFT,))
    more = {"strength": 0.5, "prompt": " smiling ", "against": "glasses", "seed": " 7 "}
    assert order(alone, **more) == {
        "identity_id": "id_1",
        "face": "0.2000,0.4000",
        "count": "2",
        "strength": "0.5",
        "prompt": "smiling",
        "negative_prompt": "glasses",
        "seed": "7",
    }


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "Choose which face"),
        ({"face": "3"}, "Choose which face"),
        ({"face": "1", "person": None}, "Choose whose face"),
        ({"face": "1", "seed": "1.5"}, "A seed is a whole number."),
    ],
)
def test_an_order_that_is_not_whole_says_what_is_missing(dropped: Template, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(AnswerError, match=said):
        order(dropped, **changes)
    with pytest.raises(AnswerError, match="no face"):
        order(Template(dropped.file), face="1")


async def made(front: Front, seen: list[Any], template: Template | None, **changes: Any) -> None:
    """Press *Make pictures*, and see all that comes."""
    file = None if template is None else str(template.file.path)
    befores = {} if template is None else {template.file.sha256: template.file.picture}
    fields = (USUAL | {"face": "1"} | changes).values()
    async for shown in edit._Tasks(front.studio()).make(front.request(), file, template, befores, *fields):
        seen.append(shown)


def test_edits_are_followed_step_by_step_and_shown_beside_what_was_there(
    front: Front, live: LiveMemory, dropped: Template
) -> None:
    person, seen = front.world.identity(), list[Any]()

    async def work() -> None:
        while not seen:
            await asyncio.sleep(0.01)
        lease = front.world.lease()
        live.tell(seen[0][2], Progress(1, "denoise", 3, 8, preview=b"\x89PNG"))
        while not any("Step 3 of 8" in one[0] and "data:image/png" in one[0] for one in seen):
            await asyncio.sleep(0.01)
        front.world.service.queue.release(lease)
        await asyncio.to_thread(front.world.make, 2)

    async def both() -> None:
        await asyncio.gather(made(front, seen, dropped, person=person, face="2"), work())

    asyncio.run(asyncio.wait_for(both(), 120))
    assert (seen[0][3].interactive, seen[0][4].interactive) == (False, True)
    live_html, results, job_id, make, stop, earlier = seen[-1]
    assert (live_html, job_id, make.interactive, stop.interactive) == ("", "", True, False)
    assert (results.count("<img"), results.count('type="range"')) == (2, 2)
    assert results.count(dropped.file.picture) == 1
    assert "An edit, Anna" in results
    ((_, made_id),) = earlier.choices
    request = front.world.ask("GET", f"/v1/jobs/{made_id}").json()["request"]
    assert EditRequest.model_validate(request).face == pytest.approx((0.7, 0.2))
    assert front.world.service.store.read_bytes(template_path(made_id)) == photo(1)
    assert dropped.file.path.exists()  # for another order; the timer takes it


def test_an_edit_that_is_stopped_says_so(front: Front, dropped: Template) -> None:
    person, seen = front.world.identity(), list[Any]()

    async def stop() -> None:
        while not seen:
            await asyncio.sleep(0.01)
        await edit._Tasks(front.studio()).stop(seen[0][2], front.request())

    async def both() -> None:
        await asyncio.gather(made(front, seen, dropped, person=person), stop())

    asyncio.run(asyncio.wait_for(both(), 120))
    assert "It was cancelled." in seen[-1][1]


def test_an_edit_that_cannot_be_ordered_says_why(front: Front, dropped: Template) -> None:
    person = front.world.identity()

    def said(template: Template | None, **changes: Any) -> str:
        seen: list[Any] = []
        asyncio.run(made(front, seen, template, **{"person": person} | changes))
        (shown,) = seen
        assert (shown[3].interactive, shown[4].interactive) == (True, False)
        return str(shown[0])

    assert "Drop a picture to edit." in said(None)
    assert "Choose which face" in said(dropped, face=None)
    assert "There is no identity" in said(dropped, person="id_" + "0" * 32)
    assert "With this strength nothing is drawn" in said(dropped, strength=0.1)
    dropped.file.path.unlink()
    assert GONE in said(dropped)
    assert front.world.service.store.list("results") == []


@pytest.mark.usefixtures("weights")
def test_who_is_quicker_than_the_look_at_a_picture_is_not_asked_for_it_again(
    front: Front, people: Path, tmp_path: Path
) -> None:
    person, path = front.world.identity(), tmp_path / "picture.jpg"
    tasks, fields = edit._Tasks(front.studio()), USUAL | {"person": person, "face": "2"}

    async def press(faces: int) -> Any:
        path.write_bytes(group(people, PAIR[:faces]))
        async for shown in tasks.make(front.request(), str(path), None, {}, *fields.values()):
            return shown

    assert "Choose which face" in asyncio.run(press(2))[0]  # what is chosen is of another picture
    assert "Next in the queue" in asyncio.run(press(1))[0]


def test_people_and_earlier_edits_are_offered_to_their_tenant(front: Front, dropped: Template) -> None:
    ready, _ = front.world.identity(), front.world.identity("bert")
    front.world.identity(ready=False)
    form = {"identity_id": ready, "face": LEFT.point}
    job_id = front.world.ask("POST", "/v1/edits", files={"template": photo(1)}, data=form).json()["id"]
    front.world.make(2)
    front.world.ask("POST", "/v1/portraits", json={"style": "studio"})
    portrait = front.world.make(1)
    tasks = edit._Tasks(front.studio())
    person, known, row, none, earlier = asyncio.run(tasks.choices(None, None, front.request()))
    assert ([value for _, value in person.choices], person.value) == ([ready], ready)
    assert (known, row.visible, none) == ("", True, "")
    assert [value for _, value in earlier.choices] == [job_id]
    *_, others, _ = asyncio.run(portraits._Tasks(front.studio()).choices(None, None, None, front.request()))
    assert [value for _, value in others.choices] == [portrait.id]

    def shown(befores: dict[str, str], by: str = "anna") -> Any:
        return asyncio.run(edit._Tasks(front.studio()).earlier(job_id, befores, front.request(by)))

    assert shown({dropped.file.sha256: "data:image/jpeg;base64,AAAA"})[0].count('type="range"') == 2
    later, _ = shown({})
    assert (later.count("<img"), later.count('type="range"')) == (2, 0)
    assert "There is no job" in shown({}, "bert")[1]


def test_where_no_edits_are_made_a_sentence_stands_for_the_form(front: Front) -> None:
    plain = create_app(front.world.service, SETTINGS.model_copy(update={"controlnets": None}))
    with served(plain) as url:
        there = Front(front.world, url)
        _, known, row, none, _ = asyncio.run(edit._Tasks(there.studio()).choices(None, None, there.request()))
        assert row.visible is False
        assert "the operator has named no ControlNets" in none
    away = Front(front.world, "http://127.0.0.1:9")  # what is known is not asked again
    _, again, row, *_ = asyncio.run(edit._Tasks(away.studio()).choices(None, known, away.request()))
    assert (again, row.visible) == (known, False)


def test_asking_whether_edits_are_made_leaves_nothing(front: Front) -> None:
    assert asyncio.run(front.client().no_edits()) == ""
    assert front.world.service.store.list("results") == []
    assert front.world.ask("GET", "/v1/jobs").json()["data"] == []
    with pytest.raises(AnswerError) as refused:
        asyncio.run(Front(front.world, "http://127.0.0.1:9").client().no_edits())
    assert refused.value.status == 503


def test_who_is_signed_out_is_told_so(front: Front, dropped: Template) -> None:
    tasks, nobody = edit._Tasks(front.studio()), front.request(None)

    async def ask() -> list[Any]:
        made = [shown async for shown in tasks.make(nobody, None, None, {}, *USUAL.values())]
        return [(await tasks.choices(None, None, nobody))[3], made[0][0], await tasks.stop("job_1", nobody)]

    for shown in asyncio.run(ask()):
        assert AGAIN in shown


def test_a_job_that_found_no_template_says_so(front: Front, dropped: Template) -> None:
    person, seen = front.world.identity(), list[Any]()
    sentence = Reason.TURNED_AWAY.sentence()

    async def work() -> None:
        while not seen:
            await asyncio.sleep(0.01)
        lease = front.world.lease(Kind.PORTRAITS)
        await asyncio.to_thread(front.world.service.queue.fail, lease, "turned_away", sentence)

    async def both() -> None:
        await asyncio.gather(made(front, seen, dropped, person=person), work())

    asyncio.run(asyncio.wait_for(both(), 120))
    assert sentence in seen[-1][1]
    (job,) = front.world.ask("GET", "/v1/jobs?kind=portraits").json()["data"]
    assert job["state"] == State.FAILED
