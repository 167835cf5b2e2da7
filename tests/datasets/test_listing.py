from collections.abc import Iterator
from pathlib import Path

import pytest

from studiolo.datasets.listing import bring_up_to_date, parts_of, read_part
from studiolo.datasets.sources.listed import Listed
from studiolo.errors import SettingsError
from studiolo.storage.store import Store


def pictures(*uris: str, version: str = "1", label: str | None = None) -> list[Listed]:
    return [Listed(uri, f"/data/{uri}", version, label) for uri in uris]


def listed(store: Store) -> list[tuple[str, str, bool]]:
    rows = [row for part in parts_of(store) for row in read_part(store, part.path)]
    return [(row["uri"], row["version"], row["listed"]) for row in rows]


def contents(store: Store) -> dict[str, bytes]:
    return {path: store.read_bytes(path) for path in store.list()}


def test_what_is_new_comes_after_what_is_there(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert bring_up_to_date(store, "a", pictures("2", "4", "6"), 2) == 3
    before = contents(store)
    assert bring_up_to_date(store, "a", pictures("1", "2", "3", "4", "6"), 2) == 2
    assert [part.source for part in parts_of(store)] == ["a", "a", "a"]
    assert [uri for uri, _, _ in listed(store)] == ["2", "4", "6", "1", "3"]
    assert contents(store).items() > before.items()


def test_sources_do_not_touch_each_other(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bring_up_to_date(store, "a", pictures("1", "2"), 8)
    before = contents(store)
    bring_up_to_date(store, "b-1", pictures("1"), 8)
    assert contents(store).items() > before.items()
    assert [(part.number, part.source) for part in parts_of(store)] == [(0, "a"), (1, "b-1")]
    assert len(parts_of(store, ["b-1"])) == 1


def test_the_same_listing_again_changes_nothing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bring_up_to_date(store, "a", pictures("1", "2", "3"), 2)
    before = contents(store)
    assert bring_up_to_date(store, "a", pictures("1", "2", "3"), 2) == 0
    assert contents(store) == before


def test_another_version_is_another_row_and_the_old_one_is_not_listed(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bring_up_to_date(store, "a", pictures("1", "2"), 8)
    bring_up_to_date(store, "a", [*pictures("1"), *pictures("2", version="2")], 8)
    assert listed(store) == [("1", "1", True), ("2", "1", False), ("2", "2", True)]
    bring_up_to_date(store, "a", pictures("1", "2"), 8)
    assert listed(store) == [("1", "1", True), ("2", "1", True), ("2", "2", False)]


def test_what_is_gone_is_marked_and_may_come_back(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bring_up_to_date(store, "a", pictures("1", "2"), 8)
    before = contents(store)
    bring_up_to_date(store, "a", pictures("1"), 8)
    assert listed(store) == [("1", "1", True), ("2", "1", False)]
    bring_up_to_date(store, "a", pictures("1", "2"), 8)
    assert contents(store) == before


def test_what_is_said_of_a_row_follows_its_source(tmp_path: Path) -> None:
    store = Store(tmp_path)
    bring_up_to_date(store, "a", pictures("1", "2"), 8)
    bring_up_to_date(store, "a", pictures("1", "2", label="Anna"), 8)
    assert [row["label"] for row in read_part(store, parts_of(store)[0].path)] == ["Anna", "Anna"]
    assert listed(store) == [("1", "1", True), ("2", "1", True)]


def test_a_picture_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="'1' is listed twice"):
        bring_up_to_date(Store(tmp_path), "a", pictures("1", "2", "1"), 8)


@pytest.mark.parametrize("after", range(8))
def test_interrupted_anywhere_it_ends_in_the_same_listing(tmp_path: Path, after: int) -> None:
    class Interrupted(Exception):
        pass

    def until(listing: list[Listed], count: int) -> Iterator[Listed]:
        yield from listing[:count]
        raise Interrupted

    listing = pictures(*"1234567")
    bring_up_to_date(Store(tmp_path / "whole"), "a", listing, 2)
    store = Store(tmp_path / "interrupted")
    with pytest.raises(Interrupted):
        bring_up_to_date(store, "a", until(listing, after), 2)
    bring_up_to_date(store, "a", listing, 2)
    assert contents(store) == contents(Store(tmp_path / "whole"))
