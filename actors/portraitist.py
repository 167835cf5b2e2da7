"""The portrait actor: one person's order in one style in, candidates made, finished, judged, ranked and
stored.
"""

import hashlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.finisher import SEEING
from actors.sampler import Sampler
from studiolo.albums.records import PORTRAIT_SCHEMA, Reason, Status
from studiolo.keys import unit_key
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import PERCEPTION_CARDS, open_suite
from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.portraits.finishing import Finished, Finisher
from studiolo.portraits.fusion import in_look
from studiolo.portraits.orders import Order, order_seed, portrait_id, portrait_path
from studiolo.portraits.ranking import Ranked
from studiolo.portraits.rounds import (
    Draft,
    Drawing,
    Drawn,
    Made,
    Subject,
    acceptance_of,
    settings_inside,
    work_off,
)
from studiolo.portraits.styles import Style, load_style, style_lora_path
from studiolo.portraits.upscaling import CARDS as UPSCALER_CARDS
from studiolo.settings import GenerationSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.weights.cards import weights_sha256
from studiolo.weights.fetch import sha256_of

Row = dict[str, Any]


class Portraitist:
    """Rows of orders in (`ORDER_INPUT`), rows of `PORTRAIT_SCHEMA` out; pictures go to the store.

    A round makes candidates for the portraits still missing, all are scored, and while too few are accepted another
    round follows within the budget. An order that the ledger calls done is not made again.

    Once opened it may be called from several threads: the candidates of their orders share the engine's slots, and one
    order's are judged while another's are denoised. What comes of an order depends on it alone.
    """

    def __init__(
        self,
        store: Store,
        suite: str,
        base: str,
        settings: GenerationSettings,
        unsafe_above: float,
        style_folder: str | None = None,
    ) -> None:
        self.store = store
        self.suite_name = suite
        self.base = base
        self.settings = settings
        self.unsafe_above = unsafe_above
        self.style_folder = style_folder

    def open(self, device: str = "cpu") -> None:
        """Load the base, the perception suite and the upscaler."""
        self.sampler = Sampler(self.store, self.base, self.settings)
        self.sampler.open(device)
        self.similarity = Similarity.load(self.suite_name)
        self.finish = Finisher(
            open_suite(self.suite_name),
            self.similarity,
            self.settings,
            SEEING,
            people=self.settings.orders_in_flight,
        )
        self.ledger = Ledger(self.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Make every order of `batch`."""
        portraits = [portrait for row in batch.to_pylist() for portrait in self._order(row)]
        return pa.Table.from_pylist(portraits, PORTRAIT_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the order as its row describes it."""
        return unit_key("order", [row], {"generation": self.settings}, {})

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """An order that ended its workers: one row without a picture."""
        failure = {"status": Status.FAILED.value, "reason": Reason.CRASHED_WORKER.value, "detail": detail}
        order = {"identity_id": row["identity_id"], "style": row["style"], "seed": row["seed"]}
        index = -1 - row["first_index"]  # no candidate's
        name = portrait_id(row["identity_id"], row["style"], index)
        nothing = {"portrait_id": name, "index": index, "rank": 0, "path": ""}
        return pa.Table.from_pylist([{**order, **nothing, **failure}], PORTRAIT_SCHEMA)

    def _order(self, row: Row) -> list[Row]:
        style = load_style(row["style"], self.style_folder)
        order = Order(
            identity_id=row["identity_id"],
            style=style.name,
            count=row["count"],
            seed=row["seed"],
            generation=self.settings,
            unsafe_above=self.unsafe_above,
        )
        style_lora = style_lora_path(style)
        weights = self._weights() | ({"style-lora": sha256_of(style_lora)} if style_lora else {})
        crops = [self.store.read_bytes(item["crop_path"]) for item in row["references"]] if self.settings.fusion else []
        key = order.key(style, _references_key(row, crops), row["lora_sha256"], weights)
        record = self.ledger.done("order", key)
        if record is None:
            portraits = self._make(order, style, row, crops)
            files = [portrait["path"] for portrait in portraits]
            self.ledger.complete("order", key, {"portraits": portraits}, files)
            return portraits
        found: list[Row] = record["portraits"]
        return found

    def _weights(self) -> dict[str, str]:
        upscaler = UPSCALER_CARDS.get(self.settings.upscale)
        cards = [self.base, *PERCEPTION_CARDS[self.suite_name], *([upscaler] if upscaler else [])]
        return weights_sha256(cards) | {"similarity": self.similarity.sha256}

    def _make(self, order: Order, style: Style, row: Row, crops: list[bytes]) -> list[Row]:
        """`crops` are PNGs of the references; none without fusion."""
        references_ND, scores = _embeddings(row), [float(item["quality_score"]) for item in row["references"]]
        known = self.finish.templates(
            order.identity_id, _references_key(row, crops), lambda: [*zip(crops, scores, strict=False)]
        )
        templates = in_look(known, style.words)

        def finish(rgb_u8: NDArray[np.uint8]) -> Finished:
            return self.finish(rgb_u8, templates, references_ND, grey=style.greyscale)

        def draw(count: int, first_index: int) -> Iterator[Drawing | Drawn]:
            tags = tuple(row["common_tags"] or ())
            subject = Subject(row["trigger"], tags, row["lora_path"], row["lora_sha256"])
            return self._draw(Draft(order, style, subject, count, first_index))

        outcome = work_off(order, acceptance_of(order), draw, finish, first_index=row["first_index"])
        return [self._deliver(order, style, row, item, outcome.made[item.candidate.index]) for item in outcome.ranked]

    def _draw(self, draft: Draft) -> Iterator[Drawing | Drawn]:
        return self.sampler.sample(draft)

    def _deliver(self, order: Order, style: Style, row: Row, item: Ranked, made: Made) -> Row:
        """Store one candidate and return its row of `PORTRAIT_SCHEMA`."""
        index, portrait, score = item.candidate.index, made.portrait, made.portrait.score
        settings = settings_inside(order, style, made, index, self.base, row["lora_sha256"])
        path = portrait_path(order.identity_id, order.style, index)
        self.store.write_bytes(path, encode_portrait(portrait.rgb_u8, settings))
        return {
            "portrait_id": portrait_id(order.identity_id, order.style, index),
            "identity_id": order.identity_id,
            "style": order.style,
            "index": index,
            "seed": made.seed,
            "prompt": made.prompt,
            "status": item.status.value,
            "reason": item.reason.value,
            "rank": item.rank,
            "similarity": score.similarity,
            "similarity_unfused": portrait.similarity_unfused,
            "fusion": portrait.fusion.value,
            "verdict": score.verdict.value,
            "faces": score.faces,
            "face_share": score.face_share,
            "quality_score": score.quality_score,
            "embedding": None if score.embedding is None else score.embedding.tolist(),
            "path": path,
            "image_sha256": image_sha256(portrait.rgb_u8),
        }


REFERENCE_INPUT = pa.struct(
    [("crop_path", pa.string()), ("quality_score", pa.float32()), ("embedding", pa.list_(pa.float32(), 128))]
)
"""What an order needs of each of the identity's references, named as in `REFERENCE_SCHEMA`."""

ORDER_INPUT = pa.schema(
    [
        ("identity_id", pa.string()),
        ("style", pa.string()),
        ("count", pa.int32()),
        ("seed", pa.int64()),
        ("first_index", pa.int32()),  # of the candidates; the seed tells apart orders that begin elsewhere
        ("trigger", pa.string()),
        ("common_tags", pa.list_(pa.string())),
        ("lora_path", pa.string()),
        ("lora_sha256", pa.string()),
        ("references", pa.list_(REFERENCE_INPUT)),
    ]
)
"""One row an order: what is wanted, and the identity it is wanted of."""


def order_row(identity: Row, lora: Row, style: str, count: int, job_seed: int) -> Row:
    """The row of `ORDER_INPUT` for `count` portraits of an identity in one style.

    `identity` is a row of `IDENTITY_SCHEMA`, `lora` its row of `FACE_LORA_SCHEMA`.
    """
    return {
        **{name: identity[name] for name in ("identity_id", "trigger", "common_tags")},
        "style": style,
        "count": count,
        "seed": order_seed(job_seed, style),
        "first_index": 0,
        "lora_path": lora["path"],
        "lora_sha256": lora["sha256"],
        "references": [{name: row[name] for name in REFERENCE_INPUT.names} for row in identity["references"]],
    }


def _embeddings(row: Row) -> NDArray[np.float32]:
    return np.asarray([item["embedding"] for item in row["references"]], np.float32).reshape(-1, 128)


def _references_key(row: Row, crops: list[bytes]) -> str:
    """Stands for what portraits are judged against and, with `crops`, for the faces set into them."""
    digest = hashlib.sha256(_embeddings(row).tobytes() + str(row["trigger"]).encode())
    for item, crop in zip(row["references"], crops, strict=False):
        digest.update(f"\0{item['quality_score']}\0{hashlib.sha256(crop).hexdigest()}".encode())
    return digest.hexdigest()
