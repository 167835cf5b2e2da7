"""What is found done and what is made again; pictures are stood in for, the ledger and the files are real."""

import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from actors.perceiver import png_bytes
from actors.portraitist import ORDER_INPUT, Portraitist
from benchmarks.workloads import write_loras
from studiolo.albums.records import PORTRAIT_SCHEMA
from studiolo.generation.base import load_base
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import open_suite
from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.portraits.orders import order_seed, portrait_id, portrait_path
from studiolo.settings import GenerationSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull, sha256_of
from tests.portraits.test_fusion import crop_of

CROP = "anna.png"


class Painter(Portraitist):
    """Paints two flat pictures by the order's seed where the real one denoises, and counts the orders."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, "embedded", "embedded-base", GenerationSettings(), unsafe_above=0.8)
        self.ledger = Ledger(store)
        self.similarity = Similarity.load("embedded")
        self.made = 0
        store.write_bytes(CROP, b"a face")

    def _make(self, order: Any, style: Any, row: Any, crops: Any, edit: Any) -> list[dict[str, Any]]:
        self.made += 1
        rows = []
        for index in range(2):
            rgb_u8 = np.full((8, 8, 3), (order.seed + index) % 251, np.uint8)
            path = portrait_path("anna", order.style, index)
            self.store.write_bytes(path, encode_portrait(rgb_u8, {"seed": order.seed}))
            row: dict[str, Any] = dict.fromkeys(PORTRAIT_SCHEMA.names)
            row.update(portrait_id=portrait_id("anna", order.style, index), identity_id="anna", index=index)
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


class Counted(Portraitist):
    """Begins the rounds of `together` orders at the same time, all inside before the first step, and counts the steps
    of the engine's lanes.
    """

    def __init__(self, store: Store, together: int) -> None:
        settings = GenerationSettings(steps=3, slots=4, candidates_per_portrait=1, retries=1, accept_similarity=1.0)
        super().__init__(store, "embedded", "embedded-base", settings, unsafe_above=0.8)
        self.all_inside = threading.Event()
        self.together = threading.Barrier(together, action=self.all_inside.clear, timeout=120)
        self.inside = threading.Barrier(together, action=self.all_inside.set, timeout=120)
        self.steps = 0
        self.open()
        turn = self.sampler.engine._batcher.turn

        def counted(requests: Any) -> None:
            self.all_inside.wait(120)
            self.steps += 1
            turn(requests)

        self.sampler.engine._batcher.turn = counted

    def _draw(self, draft: Any) -> Any:
        self.together.wait()
        drawing = super()._draw(draft)
        self.inside.wait()
        return drawing


def put_people(store: Store, people: Path) -> list[pa.Table]:
    """Three orders of two people with photos and face-LoRAs of their own, everything they need in `store`."""
    suite, rows, sha256s = open_suite("embedded"), [], {}
    with tempfile.TemporaryDirectory() as folder:
        loras = write_loras(load_base(pull("embedded-base")), Path(folder), 2)
        for name, lora in zip(("P001", "P002"), loras, strict=True):
            store.write_bytes(f"{name}.safetensors", lora.read_bytes())
            sha256s[name] = sha256_of(lora)
    for name, style in (("P001", "studio"), ("P001", "black-and-white"), ("P002", "warm-film")):
        crop = crop_of(people / name / "portrait.jpg", suite, 0.35, 512)[0]
        store.write_bytes(f"{name}.png", png_bytes(crop))
        (row,) = order(0).to_pylist()
        row |= {"identity_id": name, "style": style, "seed": order_seed(0, style), "lora_path": f"{name}.safetensors"}
        row["lora_sha256"] = sha256s[name]
        row["references"][0]["crop_path"] = f"{name}.png"
        rows.append(pa.Table.from_pylist([row], ORDER_INPUT))
    return rows


@pytest.mark.usefixtures("weights")
def test_orders_in_flight_give_the_same_bytes_in_fewer_steps(tmp_path: Path, people: Path):
    stores = [Store(tmp_path / name) for name in ("alone", "together")]
    orders, _ = (put_people(store, people) for store in stores)
    alone, together = (Counted(store, count) for store, count in zip(stores, (1, 3), strict=True))
    one_at_a_time = [alone(table).to_pylist() for table in orders]
    with ThreadPoolExecutor(3) as pool:
        at_once = [table.to_pylist() for table in pool.map(together, orders)]
    assert at_once == one_at_a_time
    assert {row["fusion"] for rows in at_once for row in rows} == {"done"}
    assert len({row["image_sha256"] for rows in at_once for row in rows}) == 6
    first, second = ({path: store.read_bytes(path) for path in store.list()} for store in stores)
    assert first == second
    assert (alone.steps, alone.steps > 2 * together.steps) == (18, True)
