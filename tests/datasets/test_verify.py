import io
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from studiolo.datasets.annotate import parts_in
from studiolo.datasets.describe import describe
from studiolo.datasets.records import CAPTION_SCHEMA, DATA_SCHEMA, DECISION_SCHEMA
from studiolo.datasets.shards import UNIT
from studiolo.datasets.verify import verify
from studiolo.perception.regions import Region
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from tests.datasets.rows import Row, caption, listed, make_output
from tests.datasets.test_releases import release


def png(pixels: Any) -> dict[str, Any]:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def whole(person: int) -> Row:
    """What a row needs besides `rows.annotated` to be whole."""
    mask = np.zeros((16, 16), np.uint8)
    mask[4:8, 5:9] = Region.NOSE
    sizes = {"landmarks_px": 10, "mesh_px": 936, "crop_matrix": 6, "bbox_xyxy_px": 4}
    return {
        "person": person,
        "image": png(np.zeros((16, 16, 3), np.uint8)),
        "mask": png(mask),
        "parts": parts_in(mask),
        "attributes": {"p_female": 0.5, "age_years": 30.0, "glasses": "unknown", "headwear": "unknown"},
        "tags": [],
        **{name: [1.0] * size for name, size in sizes.items()},
    }


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release of forty pictures, in which nothing is wrong."""
    folder = tmp_path_factory.mktemp("sound")
    store = Store(folder)
    rows = [
        (listed(f"{number:02d}", f"p{number // 2}" if number < 20 else None), whole(number // 2))
        for number in range(40)
    ]
    shards = make_output(store, "faces", rows, 8)
    for shard in shards:
        Ledger(store).complete(UNIT, Path(str(shard.path)).stem, {}, [str(shard.path)])
    assert list(describe(store, "0001", release(store, shards))) == ["card"]
    return folder


@pytest.fixture
def store(sound: Path, tmp_path: Path) -> Store:
    """A copy of it."""
    return Store(shutil.copytree(sound, tmp_path / "copy"))


def problems(store: Store) -> list[str]:
    return list(verify(store, "0001", store.read_json("releases/0001/release.json")))


def change(store: Store, path: str, schema: pa.Schema, **values: Any) -> None:
    """Write the first row of a table anew, and the rest as it is."""
    first, *others = store.read_table(path).to_pylist()
    store.write_table(path, pa.Table.from_pylist([{**first, **values}, *others], schema))


DECISIONS = "releases/0001/decisions.parquet"


def data(store: Store) -> str:
    return next(path for path in store.list("releases/0001/data") if "train" in path)


def test_a_sound_release_has_no_problem(store: Store) -> None:
    assert problems(store) == []


def test_files_that_are_gone_or_changed_are_named(store: Store) -> None:
    store.write_bytes(data(store), store.read_bytes(data(store))[:-1])
    found = problems(store)
    assert found[0] == f"{data(store)}: its bytes are not those that were written"
    assert any("cannot be read" in problem for problem in found)
    store.remove(data(store))
    assert problems(store)[0].endswith("it is not there")


def test_a_shard_that_is_not_what_was_completed_is_named(store: Store) -> None:
    path = store.list("shards")[1]
    change(store, path, store.read_schema(path), tags=["smile"])
    assert f"{path}: its bytes are not those that it was completed with" in problems(store)


def test_captions_that_are_not_what_was_completed_are_named(store: Store) -> None:
    path = store.list("captions")[0]
    change(store, path, CAPTION_SCHEMA, captions=[caption("Another picture.")])
    found = problems(store)
    assert f"{path}: its bytes are not those that it was completed with" in found
    assert any("its captions are not those of its caption shard" in problem for problem in found)


def test_a_card_that_is_missing_or_says_other_numbers_is_named(store: Store) -> None:
    text = store.read_bytes("releases/0001/README.md")
    store.write_bytes("releases/0001/README.md", text.replace(b" faces of ", b"1 faces of "))
    assert any("card is missing, or not as it was made" in problem for problem in problems(store))
    store.remove("releases/0001/README.md")
    assert any("card is missing, or not as it was made" in problem for problem in problems(store))


def test_somebody_in_two_splits_is_named(store: Store) -> None:
    first = store.read_table(DECISIONS).to_pylist()[0]
    other = "test" if first["split"] == "train" else "train"
    change(store, DECISIONS, DECISION_SCHEMA, split=other)
    found = problems(store)
    both = " and ".join(sorted([first["split"], other]))
    assert any(f"{first['identity']} is in {both}" in problem for problem in found)
    assert any("splits: got" in problem for problem in found)
    assert any("decided once more, 1 rows differ" in problem for problem in found)


EVIDENCE = {"phrase": "a woman", "measure": "attributes.p_female", "value": "0.97", "confidence": 0.97}


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"identity": "faces/other"}, "identity is 'faces/other', decided was"),
        ({"face_embedding": [0.0] * 128}, "face_embedding has the length 0.00"),
        ({"face_embedding": [float("nan")] * 128}, "face_embedding: wanted 128 finite numbers"),
        ({"mesh_px": [1.0]}, "mesh_px: wanted 936 finite numbers"),
        ({"image": {"bytes": b"no picture", "path": None}}, "picture or mask cannot be decoded"),
        ({"mask": png(np.zeros((8, 8), np.uint8))}, "are not one square"),
        ({"mask": png(np.full((16, 16), 99, np.uint8))}, "holds [99], which are no class ids"),
        ({"parts": []}, "boxes and areas of the parts"),
        ({"captions": []}, "its captions are not those of its caption shard"),
        ({"captioner": "other@1"}, "its captions are not those of its caption shard"),
        ({"captions": [{**caption("A man."), "evidence": [EVIDENCE]}]}, "'a woman' has a measurement and does not"),
        ({"row_id": "ab" * 32}, "is not the one that was decided next"),
    ],
)
def test_a_row_that_is_not_whole_is_named(store: Store, values: Row, problem: str) -> None:
    change(store, data(store), DATA_SCHEMA, **values)
    assert problem in "\n".join(problems(store))


def test_a_content_that_is_kept_twice_is_named(store: Store) -> None:
    second = store.read_table(data(store)).to_pylist()[1]
    change(store, data(store), DATA_SCHEMA, content_sha256=second["content_sha256"])
    assert any("holds the same content as" in problem for problem in problems(store))
