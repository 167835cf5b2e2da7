import shutil
from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from studiolo.datasets import erase as erasing
from studiolo.datasets.annotate import opted_out
from studiolo.datasets.captions.shards import UNIT as CAPTIONS_UNIT
from studiolo.datasets.captions.shards import caption_key, caption_path
from studiolo.datasets.compare import compare
from studiolo.datasets.measures import Shard, gather
from studiolo.datasets.optout import OptOut
from studiolo.datasets.records import ANNOTATION_SCHEMA
from studiolo.datasets.shards import UNIT
from studiolo.storage import store as module
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from tests.datasets.rows import CAPTIONER, Row
from tests.datasets.test_releases import SETTINGS, make_shards, release

SIGNS = (b"image of 08", b"image of 09", b"Picture 08", b"Picture 09", b"faces/p4", b"'p4'")
"""Of the identity faces/p4, in tables."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Shard]]:
    """An output of shards with their records, and two releases of them."""
    folder = tmp_path_factory.mktemp("made")
    store = Store(folder)
    shards = make_shards(store)
    for shard in shards:
        assert shard.path is not None
        Ledger(store).complete(UNIT, Path(shard.path).stem, {"shard": shard.path}, [shard.path])
    release(store, shards)
    release(store, shards, SETTINGS.model_copy(update={"unsafe_above": 1.0}))
    return folder, shards


@pytest.fixture
def store(made: tuple[Path, list[Shard]], tmp_path: Path) -> Store:
    return Store(shutil.copytree(made[0], tmp_path / "copy"))


@pytest.fixture
def shards(made: tuple[Path, list[Shard]]) -> list[Shard]:
    return made[1]


def contents(store: Store) -> dict[str, bytes]:
    return {path: store.read_bytes(path) for path in store.list()}


def holding(store: Store, *words: bytes) -> list[str]:
    """Files in which one of the words stands in any column, bytes and texts."""
    found = []
    for path in store.list():
        text = repr(pq.read_table(store.local_path(path)).to_pylist()) if path.endswith(".parquet") else ""
        if any(word.decode() in text for word in words):
            found.append(path)
    return found


def test_only_what_holds_the_person_is_rewritten(store: Store, shards: list[Shard]) -> None:
    before = contents(store)
    identity = "faces/p4"  # pictures 08 and 09, in the third shard
    rows = erasing.rows_of(store, identity)
    assert len(rows) == 2
    receipt = store.read_json(erasing.erase(store, rows, erasing.why(identity)))
    after = contents(store)
    changed = {path for path in before if after[path] != before[path]}
    assert changed == {path for path in receipt["files"] if not path.startswith("ledger")} | {
        f"ledger/done/{UNIT}/{Path(str(shards[2].path)).stem}.json",
        f"ledger/done/{CAPTIONS_UNIT}/{caption_key(str(shards[2].path), CAPTIONER)}.json",
    }
    assert {path for path in changed if path.startswith("shards/")} == {shards[2].path}
    captions = caption_path(str(shards[2].path), CAPTIONER)
    assert {path for path in changed if path.startswith("captions/")} == {captions}
    assert len(list(store.iter_rows(captions))) == 2
    assert len({path for path in changed if "/data/" in path}) == 2  # a file of each release
    assert not holding(store, *SIGNS)
    assert receipt["finished"]
    assert identity not in repr(receipt)
    assert erasing.rows_of(store, identity) == set()


def test_an_erased_shard_is_as_if_its_contents_had_been_on_the_list(store: Store, shards: list[Shard]) -> None:
    path = str(shards[2].path)
    before = store.read_table(path).to_pylist()
    rows = erasing.rows_of(store, "faces/p4")
    erasing.erase(store, rows, "asked to")
    wanted = [opted_out(row, row["content_sha256"]) if row["row_id"] in rows else row for row in before]
    assert store.read_table(path).to_pylist() == pa.Table.from_pylist(wanted, ANNOTATION_SCHEMA).to_pylist()
    done = Ledger(store).done(UNIT, Path(path).stem)
    assert done is not None
    assert (done["ok"], done["dropped"]) == (2, 2)
    assert OptOut.of_output(store).contents == {row["content_sha256"] for row in before if row["row_id"] in rows}


def test_records_of_releases_follow(store: Store, shards: list[Shard]) -> None:
    erasing.erase(store, erasing.rows_of(store, "faces/p4"), "asked to")
    for name in ("0001", "0002"):
        record = store.read_json(f"releases/{name}/release.json")
        assert record["counts"]["dropped"]["opted_out"] == 2
        assert record["counts"]["rows"] == 30
        assert sum(file["rows"] for file in record["files"][1:]) == record["counts"]["kept"]
    moves, _ = compare(store, "0001", "0002")
    assert moves["opted_out", "opted_out"] == 2
    assert moves["unsafe", next(after for before, after in moves if before == "unsafe")] == 1


def test_what_was_made_of_the_data_is_removed(store: Store, shards: list[Shard]) -> None:
    store.write_bytes("releases/0001/card/sheet.png", b"faces")
    store.write_bytes("captions-in-parts/aa/bb.json", b"[]")
    receipt = store.read_json(erasing.erase(store, erasing.rows_of(store, "faces/p4"), "asked to"))
    assert not store.exists("releases/0001/card/sheet.png")
    assert receipt["files"]["releases/0001/card"] == "removed"
    assert receipt["files"]["captions-in-parts/aa/bb.json"] == "removed"


@pytest.mark.parametrize("writes", range(15))
def test_interrupted_anywhere_it_is_finished_by_the_next(
    store: Store, shards: list[Shard], writes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    rows = erasing.rows_of(store, "faces/p4")
    left, write = [writes], module._replace_file

    def killing(place: Path, content: bytes | Path) -> None:
        if not left[0]:
            raise Killed
        left[0] -= 1
        write(place, content)

    with monkeypatch.context() as patch, suppress(Killed):
        patch.setattr(module, "_replace_file", killing)
        erasing.erase(store, rows, "asked to")
    finished = erasing.finish(store)
    if not finished and not store.list(erasing.FOLDER):  # killed before its first write
        erasing.erase(store, rows, "asked to")
    assert not holding(store, *SIGNS)
    assert erasing.finish(store) == []
    assert Ledger(store).done(UNIT, Path(str(shards[2].path)).stem) is not None
    done = Ledger(store).done(CAPTIONS_UNIT, caption_key(str(shards[2].path), CAPTIONER))
    assert done is not None
    assert done["rows"] == 2
    assert store.list("captions-in-parts") == []


def test_a_list_that_grows_finds_contents_and_faces(store: Store, shards: list[Shard]) -> None:
    measures = gather(store, shards)
    rows: list[Row] = store.read_table(str(shards[0].path)).to_pylist()
    opt_out = OptOut(frozenset([rows[0]["content_sha256"]]), np.asarray([measures.faces[9]], np.float32))
    found = erasing.opted_out_rows(measures, opt_out, within=0.3)
    wanted = {rows[0]["row_id"], *(bytes(measures.rows["row_id"][index]).hex() for index in (8, 9))}
    assert found == wanted
    assert erasing.opted_out_rows(measures, OptOut(), within=0.3) == set()
