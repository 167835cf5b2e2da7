"""What the page shows: words of people stay words, figures are right, nothing is missing that is to be seen."""

import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.albums.records import Reason
from studiolo.identities.learned import PhotoVerdict
from studiolo.portraits.requests import RejectedImages
from studiolo.service.endpoint import PageSettings
from studiolo.service.identities import IdentityState
from studiolo.service.records import State
from tests.web.world import REJECTED
from web import examples
from web.page import views
from web.page.photos import Dropped, Face, Template
from web.types import CurvePoint, ErasureView, IdentityView, ImageView, JobPage, JobView, StyleView

WORDS = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=40)
HOSTILE = [
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    '" onmouseover="alert(1)',
    "</p></section><h1>x",
    "${alert(1)}",
    "{{7*7}}{% raw %}",
    "[x](javascript:alert(1))",
    "&lt;b&gt;",
]

NONE_GOOD: dict[str, Any] = {
    "state": State.FAILED,
    "reason": Reason.NONE_ACCEPTED,
    "sentence": Reason.NONE_ACCEPTED.sentence(),
    "images": [],
    "rejected": REJECTED,
}


def job(**changes: Any) -> JobView:
    return JobView.model_validate(examples.JOB | changes)


def someone(**changes: Any) -> IdentityView:
    return IdentityView.model_validate(examples.IDENTITY | changes)


def edited(one: JobView) -> JobView:
    """The same as a job of edits."""
    return one.model_copy(update={"request": one.request | {"template_sha256": "0" * 64}})


def listed(*jobs: JobView, more: bool = False) -> JobPage:
    return JobPage(data=list(jobs), next="job_1" if more else None)


def own_style(title: str) -> StyleView:
    return StyleView.model_validate(examples.STYLE | {"title": title})


def with_words(words: str) -> list[str]:
    """Everything that shows what somebody wrote, or what the service says of it."""
    verdict = PhotoVerdict(number=1, status="failed", stage="decode", reason="x", sentence=words)
    version = examples.IDENTITY["versions"][0] | {"photos": [verdict.model_dump()]}
    consent = {"given_by": words, "statement": words, "given_at": 0.0}
    person = someone(name=words, consent=consent, versions=[version])
    failed = job(state=State.FAILED, reason="x", sentence=words, images=[], identity_id=person.id)
    rejected = [RejectedImages(reason="x", sentence=words, count=2).model_dump()]
    none_good = job(**NONE_GOOD | {"rejected": rejected, "identity_id": person.id})
    done = job(identity_id=person.id, rejected=rejected, request={"style": words, "prompt": words})
    names, styles = {person.id: words}, {"studio": words, words: words}
    news = views.News(sentences=[words], stage=words)
    erasure = ErasureView(state="erased", receipt={"erased": {words: 1}, "note": words})
    return [
        views.notice(words, "bad"),
        views.empty(words, words),
        views.dropped([Dropped(Path(words), "", words, sent=True)]),
        views.person(person, failed, done, ["data:image/png;base64,"], 0.0),
        views.person(person, failed, done, [], 0.0),
        views.making(news, 1),
        views.template(Template(Dropped(Path("x"), "data:image/png;base64,", words, sent=True))),
        views.edits(edited(done), names, "data:image/png;base64,"),
        views.edits(edited(failed), names, ""),
        views.results(done, names, styles),
        views.results(failed, names, styles),
        views.results(none_good, names, styles),
        views.jobs([done, failed, none_good, job(state=State.RUNNING, identity_id=person.id)], names, styles, 0.0),
        views.kept([person], listed(done), {person.id: 3}, [own_style(words)], PageSettings()),
        views.erased(words, erasure),
    ]


class Seen(HTMLParser):
    """Elements with the names of their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, list[str]]] = []
        self.text = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, [name for name, _ in attrs]))

    def handle_data(self, data: str) -> None:
        self.text += data


PLAIN = [Seen(html).elements for html in with_words("plain")]


@pytest.mark.parametrize("words", HOSTILE)
def test_markup_in_words_is_shown_as_it_was_written(words: str) -> None:
    for plain, html in zip(PLAIN, with_words(words), strict=True):
        seen = Seen(html)
        assert seen.elements == plain
        assert words in seen.text or "<pre>" in html


@given(WORDS)
@settings(max_examples=60, deadline=None)
def test_no_words_make_an_element_or_an_attribute(words: str) -> None:
    assert [Seen(html).elements for html in with_words(words)] == PLAIN


def attributes(html: str, tag: str) -> list[dict[str, str | None]]:
    found: list[dict[str, str | None]] = []

    class Look(HTMLParser):
        def handle_starttag(self, name: str, attrs: list[tuple[str, str | None]]) -> None:
            if name == tag:
                found.append(dict(attrs))

    Look().feed(html)
    return found


def test_every_picture_has_words_and_comes_from_the_page_itself() -> None:
    pictures = [one for html in with_words("Anna") for one in attributes(html, "img")]
    assert pictures
    for one in pictures:
        assert one["alt"]
        assert str(one["src"]).startswith(("portraits/job_", "data:image/"))


@pytest.mark.parametrize("state", [*IdentityState])
def test_a_person_shows_where_it_stands(state: IdentityState) -> None:
    html = views.person(someone(state=state), job(kind="identity"), None, [], 0.0)
    assert f'badge {state}"' in html
    assert ("Portraits can be made" in html) == (state == IdentityState.READY)


def test_a_training_shows_its_steps_and_what_is_left_at_its_pace() -> None:
    running = job(kind="identity", state=State.RUNNING, steps=800, steps_done=200, started_at=1000.0)
    html = views.person(someone(state=IdentityState.TRAINING, versions=[]), running, None, [], 1100.0)
    assert "step 200 of 800" in html
    assert "about 5 min left" in html
    so_far = running.model_copy(update={"curve": [CurvePoint(step=step, loss=1 / step) for step in (1, 100, 200)]})
    html = views.person(someone(state=IdentityState.TRAINING, versions=[]), so_far, None, [], 1100.0)
    assert "Loss over 200 steps: 1.000 to 0.005" in html
    assert 'aria-valuenow="25"' in html
    for unknown in ({"steps_done": 0}, {"steps_done": 800}, {"started_at": None}, {"state": State.QUEUED}):
        assert views.left(running.model_copy(update=unknown), 1100.0) == ""


def test_each_photo_has_its_verdict_and_its_picture_while_there_is_one() -> None:
    html = views.person(someone(), job(kind="identity"), None, ["data:image/jpeg;base64,AA=="], 0.0)
    text = " ".join(Seen(html).text.split())
    assert "Photo 1 Used." in text
    assert "Photo 2 Not used. No face was found." in text
    assert [one["alt"] for one in attributes(html, "img")] == ["Photo 1"]
    later = views.person(someone(), job(kind="identity"), None, [], 0.0)
    assert "2 Not used. No face was found." in " ".join(Seen(later).text.split())
    assert attributes(later, "img") == []


@given(st.lists(st.floats(0.001, 10), min_size=0, max_size=900))
@settings(max_examples=50, deadline=None)
def test_a_curve_stays_in_its_frame(losses: list[float]) -> None:
    html = views.curve([CurvePoint(step=step, loss=loss) for step, loss in enumerate(losses, 1)])
    if len(losses) < 2:
        assert html == ""
        return
    (line,) = attributes(html, "polyline")
    points = [tuple(map(float, point.split(","))) for point in str(line["points"]).split()]
    assert 2 <= len(points) <= 2 * views._CURVE_POINTS
    assert all(0 <= x <= 560 and 0 <= y <= 150 for x, y in points)
    assert [x for x, _ in points] == sorted(x for x, _ in points)


def test_results_are_in_order_with_a_download_and_what_was_put_aside() -> None:
    image = examples.JOB["images"][0]
    images = [ImageView.model_validate(image | {"similarity": one, "verdict": "same"}) for one in (0.9, 0.5)]
    rejected = [RejectedImages(reason="no_face", sentence="No face was found.", count=3)]
    done = job(identity_id="id_1", images=images, rejected=rejected)
    html = views.results(done, {"id_1": "Anna"}, {"studio": "Studio"})
    assert [one["alt"] for one in attributes(html, "img")] == [
        "Portrait 1 of Anna, likeness 0.90",
        "Portrait 2 of Anna, likeness 0.50",
    ]
    assert attributes(html, "a")[0]["href"] == f"portraits/{done.id}.zip"
    assert "Why 3 candidates were put aside" in html
    assert "Studio, Anna" in html


def test_each_photo_that_was_dropped_has_its_verdict_and_those_that_are_sent_the_number_they_keep() -> None:
    picture = "data:image/jpeg;base64,AA=="
    photos = [
        Dropped(Path("/tmp/1/face.jpg"), picture, "", True, "1", face=True),
        Dropped(Path("/tmp/2/notes.txt"), "", Reason.NOT_AN_IMAGE.sentence(), sent=False),
        Dropped(Path("/tmp/3/read.jpg"), picture, "", True, "2"),
        Dropped(Path("/tmp/4/tree.jpg"), picture, Reason.NO_FACE.sentence(), True, "3"),
    ]
    html = views.dropped(photos)
    text = " ".join(Seen(html).text.split())
    assert "3 of 4 photos will be sent." in text
    assert "Photo 1 face.jpg A face was found." in text
    assert f"– Left out notes.txt {Reason.NOT_AN_IMAGE.sentence()} Photo 2" in text
    assert "Photo 2 read.jpg Can be read." in text
    assert text.endswith(f"Photo 3 tree.jpg {Reason.NO_FACE.sentence()}")
    assert [one["class"] for one in attributes(html, "li")] == ["photo ok", "photo bad", "photo ok", "photo off"]


FACES = (Face(0.1, 0.2, 0.25, 0.5), Face(0.6, 0.2, 0.25, 0.5))


@pytest.mark.parametrize(
    ("faces", "small", "said"),
    [
        (FACES[:1], (), "One face was found; it is drawn anew."),
        (FACES, (), "2 faces were found, numbered from left to right."),
        (FACES, FACES[:1], "One more is too small to be drawn anew."),
        (FACES, FACES, "2 more are too small to be drawn anew."),
        ((), FACES[:1], Reason.FACE_TOO_SMALL.sentence()),
        ((), (), Reason.NO_FACE.sentence()),
    ],
)
def test_a_template_has_its_faces_numbered_where_they_are(
    faces: tuple[Face, ...], small: tuple[Face, ...], said: str
) -> None:
    html = views.template(Template(Dropped(Path("x"), "data:image/png;base64,", "", sent=True), faces, small))
    assert said in " ".join(Seen(html).text.split())
    boxes = attributes(html, "span")
    assert len(boxes) == len(faces)
    for box, face in zip(boxes, faces, strict=True):
        wanted = f"left: {100 * face.left:.2f}%; top: {100 * face.top:.2f}%; width: 25.00%; height: 50.00%"
        assert box["style"] == wanted
    assert [Seen(html).text.count(str(number)) >= 1 for number in range(1, len(faces) + 1)] == [True] * len(faces)
    assert len(attributes(html, "i")) == len(small)


def test_edits_are_in_order_each_with_a_slider_over_what_was_there() -> None:
    image = examples.JOB["images"][0]
    images = [ImageView.model_validate(image | {"similarity": one, "verdict": "same"}) for one in (0.9, 0.5)]
    rejected = [RejectedImages(reason="no_face", sentence="No face was found.", count=3)]
    done = edited(job(identity_id="id_1", images=images, rejected=rejected))
    html = views.edits(done, {"id_1": "Anna"}, "data:image/jpeg;base64,AA==")
    assert [one["alt"] for one in attributes(html, "img")] == [
        "Picture 1, after: Anna in it, likeness 0.90",
        "Picture 2, after: Anna in it, likeness 0.50",
    ]
    sliders = attributes(html, "input")
    assert [one["type"] for one in sliders] == ["range", "range"]
    assert all(one["aria-label"] for one in sliders)
    assert attributes(html, "section")[0]["style"] == "--before: url(data:image/jpeg;base64,AA==)"
    assert attributes(html, "a")[0]["href"] == f"portraits/{done.id}.zip"
    assert "Why 3 candidates were put aside" in html
    without = views.edits(done, {"id_1": "Anna"}, "")
    assert attributes(without, "input") == []
    assert "drop the picture again" in without


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (NONE_GOOD, "No picture was good enough"),
        (NONE_GOOD | {"rejected": [], "expires_at": None}, "No picture was good enough"),
        ({"expires_at": None}, "Nothing is kept of it any more"),
        ({"state": State.FAILED, "reason": "gave_up", "sentence": "It broke."}, "It broke."),
        ({"state": State.CANCELLED, "reason": "cancelled", "sentence": "It was cancelled."}, "It was cancelled."),
    ],
)
def test_an_order_without_pictures_says_why(changes: dict[str, Any], said: str) -> None:
    ended = job(**{"images": []} | changes)
    listed = views.jobs([ended], {}, {}, 0.0)
    for html in (views.results(ended, {}, {}), views.edits(edited(ended), {}, "data:image/png;base64,")):
        assert said in html
        assert ("may help" in html) == (ended.reason == Reason.NONE_ACCEPTED)
        assert attributes(html, "img") == []
        for one in ended.rejected:
            assert one.sentence in html
            assert one.sentence in listed
    assert (ended.sentence or "not kept any more") in listed


def test_a_sample_sheet_that_came_to_nothing_says_why() -> None:
    html = views.person(someone(), None, job(**NONE_GOOD), [], 0.0)
    assert "No sample was good enough" in html
    assert Reason.LOW_SIMILARITY.sentence() in html
    broken = job(images=[], state=State.FAILED, reason="gave_up", sentence="It broke.")
    assert "The sample sheet: It broke." in views.person(someone(), None, broken, [], 0.0)
    assert "ample" not in views.person(someone(), None, job(images=[], expires_at=None), [], 0.0)


def test_only_jobs_that_go_on_can_be_cancelled() -> None:
    states = [job(id=f"job_{state}", state=state, images=[]) for state in State]
    html = views.jobs(states, {}, {}, 0.0)
    assert [one["data-job"] for one in attributes(html, "button")] == ["job_queued", "job_running"]
    assert "uncut" in views.jobs([edited(job())], {}, {}, 0.0)
    assert "uncut" not in views.jobs([job()], {}, {}, 0.0)
    assert "No jobs yet" in views.jobs([], {}, {}, 0.0)


def test_news_of_a_later_attempt_begin_anew() -> None:
    news = views.News()
    candidate = {"attempt": 1, "index": 0, "accepted": True, "reason": "", "sentence": ""}
    events: list[tuple[str, dict[str, Any]]] = [
        ("state", {"state": "queued", "position": 3, "attempt": 0}),
        ("progress", {"attempt": 1, "stage": "denoise", "done": 3, "total": 8}),
        ("preview", {"attempt": 1, "png": "AAAA"}),
        ("candidate", candidate),
        ("candidate", candidate | {"accepted": False, "sentence": "No face was found."}),
    ]
    for name, data in events:
        news.take(name, data)
    assert (news.accepted, news.sentences, news.preview) == (1, ["No face was found."], "data:image/png;base64,AAAA")
    assert "Step 3 of 8" in views.making(news, 2)
    news.take("progress", {"attempt": 2, "stage": "denoise", "done": 0, "total": 8})
    assert (news.accepted, news.sentences, news.preview) == (0, [], "")


@pytest.mark.parametrize(
    ("seconds", "said"), [(3, "less than a minute"), (61, "about 1 min"), (3000, "about 50 min"), (7300, "about 2 h")]
)
def test_waits_are_said_in_words(seconds: float, said: str) -> None:
    assert views.span(seconds) == said


def test_what_is_kept_names_everyone_and_until_when() -> None:
    people = [someone(), someone(id="id_2", name="Bert", versions=[])]
    page = PageSettings(cache_s=900, signed_in_s=7200)
    orders = listed(job(), job(images=[]), job(images=[], expires_at=None), more=True)
    html = views.kept(people, orders, {people[0].id: 7}, [own_style("Oil")], page)
    text = Seen(html).text
    assert "Anna" in text
    assert "Bert" in text
    assert "7 photos" in text
    assert "after 15 minutes" in text
    assert text.count(views.moment(examples.JOB["expires_at"])) == 1
    for said in ("studio, nobody in particular", "Oil", "Of the newest 3 orders.", "at most 2 hours"):
        assert said in text
    nothing = views.kept([], listed(), {}, [], page)
    assert "Nobody has been learned." in nothing
    for absent in ("Styles of your own", "Of the newest"):
        assert absent not in nothing
    assert "and the picture they were made in" not in text
    edits = Seen(views.kept(people, listed(edited(job()), edited(job(**NONE_GOOD))), {}, [], page)).text
    assert "and the picture they were made in" in edits
    assert "The picture that was to be edited" in edits


@given(WORDS)
@settings(max_examples=60, deadline=None)
def test_initials_are_letters_whatever_a_style_is_called(title: str) -> None:
    html = views.initials([own_style(title)])
    assert Seen(html).elements == [("style", [])]
    (letters,) = re.findall(r'content: "(.*)"; }', html)
    assert 1 <= len(letters) <= 4  # capitals of some letters are two
    assert letters.isalnum()
    assert views.initials([own_style(title).model_copy(update={"own": None})]) == ""


def test_an_erasure_shows_its_receipt_or_that_it_goes_on() -> None:
    done = views.erased("Anna", ErasureView.model_validate(examples.ERASURE))
    (link,) = attributes(done, "a")
    assert str(link["href"]).startswith("data:application/json;base64,")
    assert link["download"] == "erasure-receipt.json"
    assert "is being erased" in views.erased("Anna", ErasureView(state="erasing", receipt=None))


SHOWN: list[Callable[[], str]] = [views.header, lambda: views.notice("x"), lambda: views.empty("x", "y")]


@pytest.mark.parametrize("show", SHOWN)
def test_small_parts_are_shown(show: Callable[[], str]) -> None:
    assert Seen(show()).elements
