"""Albums whose files change under the job's hands, on the real models."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from actors import perceiver as module
from actors.perceiver import Perceiver
from studiolo.albums.records import Reason
from studiolo.albums.samples import PEOPLE
from studiolo.albums.sources import INPUT_SCHEMA, list_albums, read_bytes
from studiolo.settings import PerceptionSettings, SelectionSettings
from studiolo.storage.store import Store

NAMES = ("portrait.jpg", "selfie.jpg", "expression-02-happy.jpg")


@pytest.fixture
def albums(people: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "albums" / "anna"
    folder.mkdir(parents=True)
    for name in NAMES:
        shutil.copy(people / "P001" / name, folder / name)
    return folder.parent


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "out")


@pytest.fixture(scope="module")
def opened() -> Perceiver:
    """The models, opened once."""
    actor = Perceiver(Store("memory://unused"), "embedded", PerceptionSettings(), SelectionSettings())
    actor.open()
    return actor


def perceive(
    opened: Perceiver, store: Store, albums: Path, part: Any = nullcontext, **selection: Any
) -> dict[str, Any]:
    """The owner's row, nobody else being wanted."""
    (row,) = perceive_people(opened, store, albums, 1, part, **selection)
    return row


def perceive_people(
    opened: Perceiver, store: Store, albums: Path, people: int, part: Any = nullcontext, **selection: Any
) -> list[dict[str, Any]]:
    actor = Perceiver(store, "embedded", PerceptionSettings(), SelectionSettings(**selection))
    actor.suite, actor.similarity, actor.ledger = opened.suite, opened.similarity, module.Ledger(store)
    actor.part = part
    sources = [replace(source, people=people) for source in list_albums(str(albums))]
    result: list[dict[str, Any]] = actor(pa.Table.from_pylist([it.row() for it in sources], INPUT_SCHEMA)).to_pylist()
    return result


def outcomes(row: dict[str, Any]) -> dict[str, tuple[str, str]]:
    return {photo["uri"]: (photo["status"], photo["reason"]) for photo in row["photos"]}


@pytest.mark.parametrize("fault", ["deleted", "changed"])
def test_a_photo_lost_between_two_looks_is_one_failed_row(
    opened: Perceiver, store: Store, albums: Path, monkeypatch: pytest.MonkeyPatch, fault: str
):
    whole = perceive(opened, Store(albums.parent / "whole"), albums, max_references=2)
    lost = next(p for p in whole["photos"] if p["photo_id"] == whole["references"][0]["photo_id"])["uri"]
    assert ("dropped", Reason.SURPLUS) in outcomes(whole).values()

    def select_then_lose(*arguments: Any) -> Any:
        if fault == "deleted":
            (albums / "anna" / lost).unlink(missing_ok=True)
        else:
            Image.new("RGB", (200, 200), "red").save(albums / "anna" / lost)
        return selected(*arguments)

    selected = module.select
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    monkeypatch.setattr(module, "select", select_then_lose)
    row = perceive(opened, store, albums, max_references=2)
    assert row["status"] == "ok"
    assert outcomes(row) == {name: ("ok", "") for name in NAMES} | {lost: ("failed", Reason.UNREADABLE)}
    assert len(row["references"]) == 2
    assert all(store.exists(reference["crop_path"]) for reference in row["references"])


def test_an_album_that_changed_while_it_was_read_is_read_again_by_the_next_run(
    opened: Perceiver, store: Store, albums: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[str] = []

    def fail_once(place: str) -> bytes:
        calls.append(place)
        if len(calls) == len(NAMES) + 1:  # the first look after the fingerprints
            raise module.PhotoError(Reason.UNREADABLE, "the network")
        return read_bytes(place)

    monkeypatch.setattr(module, "read_bytes", fail_once)
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    row = perceive(opened, store, albums)
    assert list(outcomes(row).values()).count(("failed", Reason.UNREADABLE)) == 1
    assert set(outcomes(perceive(opened, store, albums)).values()) == {("ok", "")}


def test_an_album_is_read_once_as_far_as_it_may_be_kept(
    opened: Perceiver, store: Store, albums: Path, monkeypatch: pytest.MonkeyPatch
):
    calls: list[str] = []

    def counted(place: str) -> bytes:
        calls.append(Path(place).name)
        return read_bytes(place)

    monkeypatch.setattr(module, "read_bytes", counted)
    row = perceive(opened, store, albums)
    assert sorted(calls) == sorted(NAMES)
    chosen = len(row["references"])
    calls.clear()
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    assert perceive(opened, Store("memory://nothing-kept"), albums) == row
    assert len(calls) == 2 * len(NAMES) + chosen


def test_photos_that_took_too_long_are_tried_again_by_the_next_run(opened: Perceiver, store: Store, albums: Path):
    hurried = Perceiver(store, "embedded", PerceptionSettings(decode_seconds=1e-4), SelectionSettings())
    hurried.suite, hurried.similarity, hurried.ledger = opened.suite, opened.similarity, module.Ledger(store)
    rows = pa.Table.from_pylist([source.row() for source in list_albums(str(albums))], INPUT_SCHEMA)
    for _ in range(2):
        (row,) = hurried(rows).to_pylist()
        assert outcomes(row) == dict.fromkeys(NAMES, ("failed", Reason.TOO_SLOW))
        assert row["reason"] == Reason.NOTHING_USABLE
        assert not store.list("ledger")
    perceive(opened, store, albums)
    assert store.list("ledger")


def test_crops_that_are_gone_are_cut_again(opened: Perceiver, store: Store, albums: Path):
    row = perceive(opened, store, albums)
    path = row["references"][0]["mask_path"]
    content = store.read_bytes(path)
    store.remove(path)
    assert perceive(opened, store, albums) == row
    assert store.read_bytes(path) == content


def test_a_face_that_is_too_small_is_called_so(opened: Perceiver, store: Store, albums: Path):
    place = albums / "anna" / "portrait.jpg"
    with Image.open(place) as picture:
        width, height = picture.size
        face = picture.resize((60, round(60 * height / width)))
    wide = Image.new("RGB", (640, 480), (128, 128, 128))
    wide.paste(face, (290, 200))
    wide.save(place, quality=95)
    photos = {photo["uri"]: photo for photo in perceive(opened, store, albums)["photos"]}
    photo = photos["portrait.jpg"]
    assert (photo["status"], photo["stage"], photo["reason"]) == ("dropped", "perceive", Reason.FACE_TOO_SMALL)
    assert "wanted 48" in photo["detail"]


def test_a_photo_that_was_given_up_fails_alone_and_the_album_is_done(opened: Perceiver, store: Store, albums: Path):
    whole = perceive(opened, store, albums)
    poison = next(photo for photo in whole["photos"] if photo["uri"] == "selfie.jpg")
    entered: list[str] = []

    @contextmanager
    def part(name: str) -> Iterator[None]:
        entered.append(name)
        if name == poison["content_sha256"]:
            raise module.PhotoError(Reason.CRASHED_WORKER, "2 attempts")
        yield

    opened_again = Store(albums.parent / "again")
    row = perceive(opened, opened_again, albums, part=part)
    assert outcomes(row) == {name: ("ok", "") for name in NAMES} | {"selfie.jpg": ("failed", Reason.CRASHED_WORKER)}
    assert row["status"] == "ok"
    assert {photo["content_sha256"] for photo in whole["photos"]} < set(entered)
    del entered[:]
    assert perceive(opened, opened_again, albums, part=part) == row
    assert not {photo["content_sha256"] for photo in whole["photos"]} & set(entered)  # the next run finds it done


@pytest.fixture
def family(people: Path, albums: Path) -> Path:
    """Three photos of one person, two of another, and one of both side by side."""
    for name in ("portrait.jpg", "selfie.jpg"):
        shutil.copy(people / "P002" / name, albums / "anna" / f"second-{name}")
    pictures = [Image.open(people / person / "portrait.jpg").convert("RGB").resize((512, 512)) for person in PEOPLE[:2]]
    together = Image.new("RGB", (1024, 512))
    for place, picture in enumerate(pictures):
        together.paste(picture, (512 * place, 0))
    together.save(albums / "anna" / "together.jpg", quality=95)
    return albums


def test_each_person_wanted_has_a_row_and_the_others_stay_as_they_were(opened: Perceiver, store: Store, family: Path):
    one, two, three = (perceive_people(opened, store, family, people) for people in (1, 2, 3))
    of_owner = dict.fromkeys(NAMES, ("ok", ""))
    of_second = dict.fromkeys(["second-portrait.jpg", "second-selfie.jpg"], ("ok", ""))
    refused = dict.fromkeys(of_second, ("dropped", Reason.OTHER_PERSON))
    both = {"together.jpg": ("dropped", Reason.SEVERAL_FACES)}
    assert [outcomes(row) for row in one] == [{**of_owner, **refused, **both}]
    for rows in (two, three):
        assert [row["identity_id"] for row in rows] == ["anna", "anna/other-1", "anna/other-2"][: len(rows)]
        owner, second = map(outcomes, rows[:2])
        assert owner.items() >= of_owner.items()
        assert second.items() >= of_second.items()
        assert owner | second == {**of_owner, **of_second, **both}
        assert len(owner) + len(second) == 6
        assert rows[0]["references"] == one[0]["references"]
        assert rows[1]["references"] == two[1]["references"]
    assert (three[2]["status"], three[2]["reason"], three[2]["photos"]) == ("failed", Reason.FEWER_PEOPLE, [])
    assert "2, wanted 3" in three[2]["detail"]
    second = two[1]
    assert {item["identity_id"] for item in second["references"]} == {"anna/other-1"}
    assert {item["album_id"] for item in second["references"]} == {"anna"}
    assert all(item["crop_path"].startswith("identities/anna/other-1/references/") for item in second["references"])
    assert {path.split("/")[1] for path in store.list("identities")} == {"anna"}


def test_all_people_of_an_album_that_is_done_are_found_again(
    opened: Perceiver, store: Store, family: Path, monkeypatch: pytest.MonkeyPatch
):
    for name in ("selfie.jpg", "expression-02-happy.jpg", "second-selfie.jpg", "together.jpg"):
        (family / "anna" / name).unlink()
    rows = perceive_people(opened, store, family, 3)
    (record,) = store.list("ledger/done/album")
    references = [item for row in rows for item in row["references"]]
    assert len(references) == 2
    assert set(store.read_json(record)["files"]) == {
        item[path] for item in references for path in ("crop_path", "mask_path")
    }
    monkeypatch.setattr(Perceiver, "_perceive", None)
    assert perceive_people(opened, store, family, 3) == rows


def test_people_of_an_album_that_crashed_are_accounted_for(store: Store, family: Path):
    (source,) = list_albums(str(family))
    actor = Perceiver(store, "embedded", PerceptionSettings(), SelectionSettings())
    rows = actor.crashed(replace(source, people=3).row(), "4 attempts").to_pylist()
    assert [(row["identity_id"], row["reason"], len(row["photos"])) for row in rows] == [
        ("anna", Reason.CRASHED_WORKER, 6),
        ("anna/other-1", Reason.CRASHED_WORKER, 0),
        ("anna/other-2", Reason.CRASHED_WORKER, 0),
    ]
    without = {name: value for name, value in source.row().items() if name != "people"}
    assert actor.unit(source.row()) == actor.unit(without)  # as before others could be wanted
    assert actor.unit(replace(source, people=2).row()) != actor.unit(source.row())


def test_an_album_of_which_nothing_but_crashes_is_known_has_its_row(store: Store, albums: Path):
    (source,) = list_albums(str(albums))
    actor = Perceiver(store, "embedded", PerceptionSettings(), SelectionSettings())
    (row,) = actor.crashed(source.row(), "4 attempts, the last: took longer than 300 s").to_pylist()
    assert (row["status"], row["reason"], row["references"]) == ("failed", Reason.CRASHED_WORKER, [])
    assert outcomes(row) == dict.fromkeys(NAMES, ("failed", Reason.CRASHED_WORKER))
    assert actor.unit(source.row()) == actor.unit(dict(reversed(source.row().items())))
    other = Perceiver(store, "embedded", PerceptionSettings(), SelectionSettings(max_references=3))
    assert actor.unit(source.row()) != other.unit(source.row())
