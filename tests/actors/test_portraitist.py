"""What is found done and what is made again; pictures are stood in for, the ledger and the files are real."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors import portraitist as module
from actors.perceiver import png_bytes
from actors.portraitist import ORDER_INPUT, Portraitist
from studiolo.albums.records import PORTRAIT_SCHEMA
from studiolo.perception.similarity import Similarity
from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.portraits.orders import order_seed, portrait_id, portrait_path
from studiolo.settings import GenerationSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store

CROP = "anna.png"


class Painter(Portraitist):
    """Paints two flat pictures by the order's seed where the real one denoises, and counts the orders."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "embedded", "embedded-base", GenerationSettings(), unsafe_above=0.8)
        self.ledger = Ledger(store)
        self.similarity = Similarity.load("embedded")
        self.made = 0
        store.write_bytes(CROP, b"a face")

    def _make(self, work: Any, style_lora: Path | None) -> list[dict[str, Any]]:
        self.made += 1
        rows = []
        for index in range(2):
            rgb_u8 = np.full((8, 8, 3), (work.order.seed + index) % 251, np.uint8)
            path = portrait_path("anna", work.order.style, index)
            self.store.write_bytes(path, encode_portrait(rgb_u8, {"seed": work.order.seed}))
            row: dict[str, Any] = dict.fromkeys(PORTRAIT_SCHEMA.names)
            row.update(portrait_id=portrait_id("anna", work.order.style, index), identity_id="anna", index=index)
            rows.append({**row, "path": path, "image_sha256": image_sha256(rgb_u8)})
        return rows


def order(job_seed: int) -> pa.Table:
    row = {"identity_id": "anna", "style": "studio", "count": 1, "seed": order_seed(job_seed, "studio")}
    row |= {"trigger": "a woman", "common_tags": [], "lora_path": "a", "lora_sha256": "0" * 64, "first_index": 0}
    reference = {"crop_path": CROP, "quality_score": 0.9, "embedding": [0.0] * 128}
    return pa.Table.from_pylist([row | {"references": [reference]}], ORDER_INPUT)


def consistent(store: Store, rows: list[dict[str, Any]]) -> bool:
    from studiolo.portraits.files import decode_portrait

    return all(image_sha256(decode_portrait(store.read_bytes(row["path"]))[0]) == row["image_sha256"] for row in rows)


def test_rows_speak_of_the_pictures_that_lie_there_whatever_ran_between(tmp_path: Path):
    painter = Painter(Store(tmp_path))
    first = painter(order(0)).to_pylist()
    assert painter(order(0)).to_pylist() == first
    assert painter.made == 1
    assert painter(order(1)).to_pylist() != first
    assert painter(order(0)).to_pylist() == first
    assert consistent(painter.store, first)
    assert painter.made == 3


@pytest.mark.parametrize("damage", ["delete", "change"])
def test_a_picture_that_is_gone_or_another_is_made_again(tmp_path: Path, damage: str):
    painter = Painter(Store(tmp_path))
    rows = painter(order(0)).to_pylist()
    place = painter.store.local_path(rows[1]["path"])
    assert place is not None
    if damage == "delete":
        place.unlink()
    else:
        place.write_bytes(place.read_bytes()[:-1])
    assert painter(order(0)).to_pylist() == rows
    assert consistent(painter.store, rows)
    assert painter.made == 2


def test_an_order_that_ended_its_workers_is_one_row_without_a_picture(tmp_path: Path):
    painter = Painter(Store(tmp_path))
    (wanted,) = order(0).to_pylist()
    (row,) = painter.crashed(wanted, "2 attempts").to_pylist()
    assert (row["identity_id"], row["style"], row["status"], row["path"]) == ("anna", "studio", "failed", "")
    assert (row["reason"], row["detail"]) == ("crashed_worker", "2 attempts")
    assert row["portrait_id"] not in {made["portrait_id"] for made in painter(order(0)).to_pylist()}
    assert painter.unit(wanted) != painter.unit(order(1).to_pylist()[0])


def test_another_crop_makes_other_portraits_even_if_all_else_stays(tmp_path: Path):
    painter = Painter(Store(tmp_path))
    painter(order(0))
    painter.store.write_bytes(CROP, b"another face")
    painter(order(0))
    assert painter.made == 2


def test_the_templates_of_a_person_are_opened_once_for_all_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    opened: list[int] = []

    def counted(crops: Any, *arguments: Any) -> list[Any]:
        opened.append(len(crops))
        return [object() for _ in crops]

    monkeypatch.setattr(module, "open_templates", counted)
    painter = Painter(Store(tmp_path))
    painter.suite = None  # type: ignore[assignment]  # nothing is looked for in these crops
    anna, ben = (png_bytes(np.full((8, 8, 3), grey, np.uint8)) for grey in (1, 2))
    row = {"references": [{"quality_score": 0.9}, {"quality_score": 0.8}]}
    first = painter._templates(row, [anna, ben])
    assert painter._templates(row, [anna, ben]) is first
    assert opened == [2]
    others = (painter._templates(row, [anna]), painter._templates(row, [ben]))
    assert [*map(len, others)] == [1, 1]
    painter._templates({"references": [{"quality_score": 0.5}]}, [ben])
    assert opened == [2, 1, 1, 1]
