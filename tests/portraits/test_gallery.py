import re
from collections.abc import Iterator
from html.parser import HTMLParser
from posixpath import dirname, normpath
from urllib.parse import unquote

import pytest

from studiolo.albums.records import Reason, Status
from studiolo.portraits.gallery import INLINE_PEOPLE, write_gallery, write_index, write_person_page
from studiolo.portraits.styles import all_styles
from studiolo.portraits.views import card, shortfall
from tests.portraits.job_rows import ODD_NAME, Job
from tests.portraits.test_summary import WANTED, figures, wanted


class Page(HTMLParser):
    """Start tags with their attributes, and the text, of one page."""

    def __init__(self, content: bytes) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(content.decode())
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def gallery(job: Job) -> dict[str, Page]:
    write_gallery(job.people, figures(job), all_styles(), wanted(job), job.access)
    return {path: Page(content) for path, content in job.files.items() if path.endswith(".html")}


def links(path: str, page: Page) -> Iterator[str]:
    """Every file the page refers to, as a path of the output."""
    for _, attributes in page.tags:
        for url in (attributes.get("src"), attributes.get("href")):
            if url and not url.startswith(("#", "data:")):
                yield normpath(f"{dirname(path)}/{unquote(url.partition('#')[0])}")


def test_index_and_one_page_a_person(job: Job):
    pages = gallery(job)
    assert len(pages) == 1 + 3
    assert {"gallery/index.html", "gallery/people/anna.html", "gallery/people/nobody.html"} < set(pages)


def test_every_link_leads_to_a_file_and_none_outside(job: Job):
    pages = gallery(job)
    job.files["summary.json"] = b"{}"
    for path, page in pages.items():
        targets = list(links(path, page))
        assert targets
        assert [target for target in targets if target not in job.files] == []


def test_pages_work_from_disk(job: Job):
    for path in gallery(job):
        assert not re.search(rb"https?://|url\(", job.files[path])
    assert not re.search(rb"https?:|url\(|@import|@font-face", job.files["gallery/assets/gallery.css"])


def test_what_customers_wrote_is_only_ever_text(job: Job):
    for page in gallery(job).values():
        assert not [tag for tag, attributes in page.tags if tag == "b" or "onclick" in attributes]
    page = Page(job.files["gallery/index.html"])
    assert ODD_NAME in page.text
    assert "blurred <img>.jpg" in page.text


def test_every_picture_has_words_and_a_size(job: Job):
    for page in gallery(job).values():
        pictures = [attributes for tag, attributes in page.tags if tag == "img"]
        assert all(item.get("alt") and item.get("width") and item.get("height") for item in pictures)
    assert pictures


def test_rejected_photos_say_why_in_plain_words_with_the_number(job: Job):
    text = gallery(job)["gallery/people/anna.html"].text
    assert Reason.LOW_QUALITY.sentence() in text
    assert Reason.NOT_AN_IMAGE.sentence() in text
    assert "quality 0.12, wanted at least 0.25" in text


def test_failed_identity_lists_its_reasons(job: Job):
    page = gallery(job)["gallery/people/nobody.html"]
    assert Reason.NOTHING_USABLE.sentence() in page.text
    assert f"1 × {Reason.LOW_QUALITY.sentence()}" in page.text
    assert "0 portraits of 4 ordered · 0 of 2 pictures used" in page.text


def test_portraits_stand_in_the_order_of_their_ranks(job: Job):
    job.people[0][2].reverse()
    text = gallery(job)["gallery/people/anna.html"].text
    studio = text[text.index("Studio ") : text.index("Warm film ")]
    assert studio.index("Best likeness 0.93") < studio.index("No. 2 likeness 0.86")
    assert "likeness unsure" in studio
    assert "please check" in text


@pytest.mark.parametrize(
    ("accepted", "rejected", "words"),
    [
        (2, {"low_similarity": 4}, ""),
        (0, {"low_similarity": 6}, "0 of 2 – none of the 6 candidates looked enough like the person"),
        (1, {"not_one_face": 1}, "1 of 2 – the only other candidate was without exactly one clear face"),
        (1, {"unsafe": 3}, "1 of 2 – none of the other 3 candidates passed the safety check"),
        (
            0,
            {"low_similarity": 4, "unsafe": 1},
            "0 of 2 – of the 5 candidates, 4 were not enough like the person, 1 was stopped by the safety check",
        ),
        (0, {}, "0 of 2 – no candidate was made"),
    ],
)
def test_an_order_with_too_few_portraits_says_why(accepted: int, rejected: dict[str, int], words: str):
    assert shortfall(accepted, 2, rejected) == words


def test_a_style_without_any_portrait_does_not_vanish(job: Job):
    rows = job.people[0][2]
    for row in rows:
        if row["style"] == "warm-film":
            row.update(status=Status.DROPPED, reason=Reason.LOW_SIMILARITY, rank=0)
    page = gallery(job)["gallery/people/anna.html"].text
    assert "0 of 2 – none of the 5 candidates looked enough like the person" in page
    assert "2 portraits of 4 ordered" in page
    assert "12 ordered, 4 orders short" in gallery(job)["gallery/index.html"].text
    for i in range(INLINE_PEOPLE):
        job.add(f"customer-{i:03}", ("studio", "warm-film"))
    cards = gallery(job)["gallery/index.html"].text
    assert cards.count("1 style short") == 2  # anna, and the person of odd name without warm film


def test_an_order_that_crashed_is_short_and_says_why(job: Job):
    rows = job.people[0][2]
    rows[:] = [row for row in rows if row["style"] == "studio"]
    nothing = dict.fromkeys(rows[0]) | {"portrait_id": "x", "identity_id": "anna", "style": "warm-film", "index": -1}
    rows.append(nothing | {"rank": 0, "path": "", "status": Status.FAILED, "reason": Reason.CRASHED_WORKER})
    assert figures(job)["orders_failed"] == 1
    assert figures(job)["portraits_rejected"] == 6  # there is no picture to reject
    page = gallery(job)["gallery/people/anna.html"].text
    assert "0 of 2 – our program broke off each time it came to this order" in page
    assert "3 further portraits made" in page


def test_a_photo_that_ended_workers_is_not_opened_for_its_thumbnail(job: Job):
    photo = job.people[0][1]["photos"][-1]
    photo.update(reason=Reason.CRASHED_WORKER, detail="2 attempts, the last: took longer than 300 s")
    del job.photos["anna", photo["uri"]]
    page = gallery(job)["gallery/people/anna.html"].text
    assert Reason.CRASHED_WORKER.sentence() in page
    assert "took longer than 300 s" in page


def test_references_show_their_verdict_and_portraits_their_quality(job: Job):
    text = gallery(job)["gallery/people/anna.html"].text
    assert "same · quality 0.81" in text
    assert "unsure · quality 0.81" in text
    assert "Best likeness 0.93 0.43 before fusion quality 0.70" in text
    assert "No. 2 likeness 0.86 No photo was worked in: none shows the face from this side. quality 0.70" in text


def test_a_person_without_an_accepted_portrait_is_not_told_of_photos(job: Job):
    identity, _, rows = job.people[0]
    identity.update(status=Status.FAILED, stage="portraits", reason=Reason.NONE_ACCEPTED)
    for row in rows:
        row.update(status=Status.DROPPED, reason=Reason.LOW_SIMILARITY, rank=0)
    page = gallery(job)["gallery/people/anna.html"]
    assert Reason.NONE_ACCEPTED.sentence() in page.text
    assert page.text.count("none of the 5 candidates looked enough") == 2
    assert "1 × " not in page.text
    assert not [tag for tag, attributes in page.tags if tag == "details" and "open" in attributes]


def test_rejected_portraits_are_folded_away_with_their_reasons(job: Job):
    content = gallery(job)["gallery/people/anna.html"].text
    folded = content[content.index("further portraits made and not chosen") :]
    for reason in (Reason.LOW_SIMILARITY, Reason.NOT_ONE_FACE, Reason.SURPLUS):
        assert reason.sentence() in folded


def test_an_apparent_minor_is_to_be_checked(job: Job):
    pages = gallery(job)
    assert "check the person's age" not in pages["gallery/people/anna.html"].text
    assert "apparent minor" not in pages["gallery/index.html"].text
    job.people[0][1]["photos"][0].update(apparent_minor=True, detail="estimated age 15.0 years")
    pages = gallery(job)
    assert "check the person's age" in pages["gallery/people/anna.html"].text
    assert "estimated age 15.0 years" in pages["gallery/people/anna.html"].text
    for i in range(INLINE_PEOPLE):
        job.add(f"customer-{i:03}")
    assert gallery(job)["gallery/index.html"].text.count("apparent minor") == 1


def test_a_photo_that_took_its_decoder_down_is_not_opened_again(job: Job):
    album = job.people[0][1]
    photo = album["photos"][2]
    photo.update(status=Status.FAILED, reason=Reason.DECODER_DIED)
    job.photos[album["album_id"], photo["uri"]] = None  # opening it would be an error
    assert Reason.DECODER_DIED.sentence() in gallery(job)["gallery/people/anna.html"].text


def test_unsafe_pictures_are_never_shown(job: Job):
    _, album, portraits = job.people[0]
    album["photos"][2]["reason"] = Reason.UNSAFE
    portraits[-1]["reason"] = Reason.UNSAFE
    page = gallery(job)["gallery/people/anna.html"]
    assert portraits[-1]["path"] not in list(links("gallery/people/anna.html", page))
    assert page.text.count(Reason.UNSAFE.sentence()) == 2
    assert not [a for tag, a in page.tags if tag == "img" and "blurred" in (a["alt"] or "")]


def test_figures_of_the_job_are_shown(job: Job):
    text = gallery(job)["gallery/index.html"].text
    for words in (
        "6 portraits of 2 people, from 10 pictures",
        "4 used",
        "3 not used",
        "3 could not be used",
        "0.20",
    ):
        assert words in text


def test_same_rows_give_the_same_bytes_in_any_order(job: Job):
    gallery(job)
    first = dict(job.files)
    for _, _, rows in job.people:
        rows.reverse()
    job.people.reverse()
    gallery(job)
    assert job.files == first


def test_many_people_become_cards(job: Job):
    for i in range(INLINE_PEOPLE):
        job.add(f"customer-{i:03}", accepted=1)
    page = gallery(job)["gallery/index.html"]
    cards = [attributes for tag, attributes in page.tags if tag == "li" and "card" in (attributes.get("class") or "")]
    assert len(cards) == INLINE_PEOPLE + 3
    assert not [tag for tag, _ in page.tags if tag == "article"]


def test_pages_made_apart_equal_those_made_together(job: Job):
    gallery(job)
    together = dict(job.files)
    views = [write_person_page(*person, all_styles(), WANTED, job.access) for person in reversed(job.people)]
    write_index([card(view) for view in views], figures(job), job.access, views)
    assert job.files == together


def test_photo_that_cannot_be_read_any_more_has_no_thumbnail(job: Job):
    from studiolo.errors import StoreError
    from studiolo.portraits.thumbs import GalleryFiles

    def gone(album_id: str, uri: str) -> bytes:
        raise StoreError(f"{album_id}/{uri} is gone")

    files = GalleryFiles(job.access.read, job.access.write, gone)
    view = write_person_page(*job.people[0], all_styles(), WANTED, files)
    assert [item["thumb"] for item in view["unused"]] == [None, None]


@pytest.mark.parametrize("turn", [0, 90, 180, 270])
def test_thumbnails_are_turned_upright(turn: int):
    import io

    import numpy as np
    from PIL import Image

    from studiolo.portraits.thumbs import photo_thumb
    from tests.portraits.job_rows import png

    job = Job()
    upright = np.zeros((40, 60, 3), np.uint8)
    upright[:20] = 255
    job.photos["a", "p.jpg"] = png(np.rot90(upright, k=-turn // 90))
    thumb = photo_thumb(job.access, "a", "p.jpg", turn)
    assert thumb is not None
    shown = np.asarray(Image.open(io.BytesIO(job.files[f"gallery/{thumb.src}"])).convert("L"))
    assert shown.shape == (40, 60)
    assert shown[5].mean() > 240 > 15 > shown[-5].mean()
