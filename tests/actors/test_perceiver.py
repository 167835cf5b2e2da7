"""Albums whose files change under the job's hands, on the real models."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image

from actors import perceiver as module
from actors.perceiver import Perceiver
from studiolo.albums.records import Reason
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
    actor = Perceiver(store, "embedded", PerceptionSettings(), SelectionSettings(**selection))
    actor.suite, actor.similarity, actor.ledger = opened.suite, opened.similarity, module.Ledger(store)
    actor.part = part
    rows = pa.Table.from_pylist([source.row() for source in list_albums(str(albums))], INPUT_SCHEMA)
    result: dict[str, Any] = actor(rows).to_pylist()[0]
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


def test_an_album_of_which_nothing_but_crashes_is_known_has_its_row(store: Store, albums: Path):
    (source,) = list_albums(str(albums))
    actor = Perceiver(store, "embedded", PerceptionSettings(), SelectionSettings())
    (row,) = actor.crashed(source.row(), "4 attempts, the last: took longer than 300 s").to_pylist()
    assert (row["status"], row["reason"], row["references"]) == ("failed", Reason.CRASHED_WORKER, [])
    assert outcomes(row) == dict.fromkeys(NAMES, ("failed", Reason.CRASHED_WORKER))
    assert actor.unit(source.row()) == actor.unit(dict(reversed(source.row().items())))
    other = Perceiver(store, "embedded", PerceptionSettings(), SelectionSettings(max_references=3))
    assert actor.unit(source.row()) != other.unit(source.row())
