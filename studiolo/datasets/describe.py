"""What is made of a finished release for those who use it: card, metadata and page, and the other forms asked for.

All of it follows from the release, and the ledger knows what is there: what is missing, because somebody asks for
another form or an erasure has changed the release, is made, and nothing twice.
"""

from collections.abc import Iterator
from typing import Any

from studiolo.datasets import releases
from studiolo.datasets.browser import INDEX, write_browser
from studiolo.datasets.card import CARD, FIGURES, check_card, write_card
from studiolo.datasets.croissant import CROISSANT, write_croissant
from studiolo.datasets.formats import CONSISTENTID, LISTING, WEBDATASET, write_consistentid, write_webdataset
from studiolo.errors import StoreError
from studiolo.keys import unit_key
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

Row = dict[str, Any]

UNIT = "described"
"""Kind of unit in the ledger."""

_CARD = "card"


def describe(store: Store, name: str, record: Row) -> Iterator[str]:
    """Make what is missing of the release called `name`; what it was, as it is made."""
    ledger = Ledger(store)
    for what in _wanted(record):
        if ledger.done(UNIT, _key(record, what)) is None:
            ledger.complete(UNIT, _key(record, what), {"release": name, "what": what}, _make(store, name, what))
            yield what


def undescribed(store: Store, name: str, record: Row) -> Iterator[str]:
    """What is wrong with what `describe` has made of the release, every number on its card counted anew."""
    ledger = Ledger(store)
    for what in _wanted(record):
        if ledger.done(UNIT, _key(record, what)) is None:
            yield f"{releases.place(name, '')}: {what} is missing, or not as it was made; run the job again"
        elif what == _CARD:
            try:
                yield from (f"{releases.place(name, '')}{problem}" for problem in check_card(store, name))
            except StoreError as error:
                yield f"{releases.place(name, CARD)}: its numbers cannot be counted: {error}"


def _wanted(record: Row) -> list[str]:
    return [_CARD, *record["formats"]]


def _key(record: Row, what: str) -> str:
    """Of the release as it is now: another form beside it makes the card no other."""
    return unit_key(UNIT, [what, {name: value for name, value in record.items() if name != "formats"}], {}, {})


def _make(store: Store, name: str, what: str) -> list[str]:
    """Paths of the files that stand for all that was made."""
    if what == WEBDATASET:
        return write_webdataset(store, name)
    if what == CONSISTENTID:
        write_consistentid(store, name)
        return [releases.place(name, LISTING)]
    figures = write_card(store, name)
    write_croissant(store, name, figures)
    write_browser(store, name, figures)
    return [releases.place(name, path) for path in (CARD, FIGURES, CROISSANT, INDEX)]
