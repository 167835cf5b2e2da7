"""The gallery: static pages that open from disk, one for each person and an index over all.

    gallery/index.html            the job's figures and everyone; with few people their whole sections as well
    gallery/people/NAME.html      one person: references, ranked portraits, what was rejected and why
    gallery/assets, gallery/thumbs

Each page is written by itself, so people may be spread over workers. Nothing here depends on the time or on a
run, so the same rows give the same bytes.
"""

from collections.abc import Iterable, Mapping, Sequence
from importlib import resources
from typing import Any

import studiolo
from studiolo.identities.artifacts import identity_order
from studiolo.portraits.styles import Style
from studiolo.portraits.templating import templates
from studiolo.portraits.thumbs import GALLERY, GalleryFiles
from studiolo.portraits.views import Row, View, card, person_view, reason_counts

INLINE_PEOPLE = 12
"""Up to this many people the index shows their whole sections; beyond, cards that lead to their pages."""

_ASSETS = ("gallery.css", "gallery.js")


def write_gallery(
    people: Iterable[tuple[Row, Row, Sequence[Row]]],
    figures: Mapping[str, Any],
    styles: Mapping[str, Style],
    wanted: Mapping[str, Mapping[str, int]],
    files: GalleryFiles,
    title: str = "Portraits",
) -> str:
    """All pages for `people`: (identity row, its row of photos, its portrait rows). Returns the index's path in the
    output.

    `wanted` are the portraits ordered of each person, by album and style. `people` may be a generator: only small cards
    of them are kept. For pages made elsewhere use `write_person_page` and `write_index`.
    """
    cards: list[View] = []
    sections: list[View] = []
    for identity, album, portraits in people:
        view = write_person_page(identity, album, portraits, styles, wanted[identity["album_id"]], files)
        cards.append(card(view))
        if len(cards) <= INLINE_PEOPLE:
            sections.append(view)
    return write_index(cards, figures, files, sections if len(cards) <= INLINE_PEOPLE else (), title)


def write_person_page(
    identity: Row,
    album: Row,
    portraits: Sequence[Row],
    styles: Mapping[str, Style],
    wanted: Mapping[str, int],
    files: GalleryFiles,
) -> View:
    """One person's page and thumbnails; returns the view, of which the index needs `card(view)`."""
    view = person_view(identity, album, portraits, styles, wanted, files)
    page = templates().get_template("person.html.j2")
    html = page.render(person=view, root="../", version=studiolo.__version__)
    files.write(f"{GALLERY}/{view['page']}", html.encode(errors="replace"))
    return view


def write_index(
    cards: Sequence[View],
    figures: Mapping[str, Any],
    files: GalleryFiles,
    sections: Sequence[View] = (),
    title: str = "Portraits",
) -> str:
    """The index over `cards` with the job's `figures` (`studiolo.portraits.summary`), and the shared assets.

    With `sections` (whole views) people are shown in place; without, as cards. Returns the path in the
    output.
    """
    reasons = figures["reasons"]
    html = (
        templates()
        .get_template("gallery.html.j2")
        .render(
            cards=sorted(cards, key=_by_name),
            sections=sorted(sections, key=_by_name),
            figures=figures,
            photo_reasons=reason_counts(reasons["photos"]),
            portrait_reasons=reason_counts(reasons["portraits"]),
            title=title,
            root="",
            version=studiolo.__version__,
        )
    )
    for name in _ASSETS:
        content = (resources.files("studiolo.portraits") / "templates" / name).read_bytes()
        files.write(f"{GALLERY}/assets/{name}", content)
    path = f"{GALLERY}/index.html"
    files.write(path, html.encode(errors="replace"))
    return path


def _by_name(view: View) -> tuple[bool, str, tuple[str, int]]:
    """Those who could not be finished come last; within both, by album, capitals or not, and person."""
    album, person = identity_order(str(view["id"]))
    return bool(view["failed"]), album.casefold(), (album, person)
