"""The portrait actor: one person's order in one style in, candidates made, finished, judged, ranked and
stored.
"""

import hashlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.finisher import SEEING
from actors.sampler import Sampler
from studiolo.albums.records import PORTRAIT_SCHEMA, Reason, Status
from studiolo.errors import PhotoError
from studiolo.keys import unit_key
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import PERCEPTION_CARDS, open_suite
from studiolo.portraits.edit_rounds import outlined, set_in, work_off_edit
from studiolo.portraits.edit_templates import EditTemplate, see_template
from studiolo.portraits.edits import EDITED, EditOrder, EditPass
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
    Outcome,
    Subject,
    acceptance_of,
    settings_inside,
    work_off,
)
from studiolo.portraits.styles import Style, load_style, style_lora_path
from studiolo.portraits.template_files import read_template
from studiolo.portraits.upscaling import CARDS as UPSCALER_CARDS
from studiolo.settings import GenerationSettings, PerceptionSettings
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
        controlnets: str | None = None,
        perception: PerceptionSettings | None = None,
    ) -> None:
        """`controlnets` is the card of those that edits are made with; `perception` says how templates are opened and
        seen.
        """
        self.store = store
        self.suite_name = suite
        self.base = base
        self.settings = settings
        self.unsafe_above = unsafe_above
        self.style_folder = style_folder
        self.controlnets = controlnets
        self.perception = perception or PerceptionSettings()

    def open(self, device: str = "cpu") -> None:
        """Load the base, the perception suite, the upscaler and, for edits, the ControlNets."""
        self.sampler = Sampler(self.store, self.base, self.settings, controlnets=self.controlnets)
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
        return pa.Table.from_pylist([_failed(row, Reason.CRASHED_WORKER, detail)], PORTRAIT_SCHEMA)

    def _order(self, row: Row) -> list[Row]:
        edit = self._edit(row) if row["template"] is not None else None
        style = load_style(row["style"], self.style_folder) if edit is None else edit.style
        order = Order(
            identity_id=row["identity_id"],
            style=row["style"],
            count=row["count"],
            seed=row["seed"],
            generation=self.settings,
            unsafe_above=self.unsafe_above,
        )
        crops = [self.store.read_bytes(item["crop_path"]) for item in row["references"]] if self.settings.fusion else []
        person = _references_key(row, crops), row["lora_sha256"]
        weights = self._weights(style, edit)
        key = order.key(style, *person, weights) if edit is None else edit.key(*person, weights)
        record = self.ledger.done("order", key)
        if record is not None:
            found: list[Row] = record["portraits"]
            return found
        try:
            portraits = self._make(order, style, row, crops, edit)
        except PhotoError as error:  # of a template that is not what it was when the job began
            return [_failed(row, Reason(error.reason), error.detail)]
        self.ledger.complete("order", key, {"portraits": portraits}, [portrait["path"] for portrait in portraits])
        return portraits

    def _edit(self, row: Row) -> EditOrder:
        template, face_xy = row["template"], row["template"]["face_xy"]
        return EditOrder(
            identity_id=row["identity_id"],
            template_sha256=unit_key("template", [template["sha256"]], {"perception": self.perception}, {}),
            face_xy=None if face_xy is None else tuple(face_xy),
            count=row["count"],
            seed=row["seed"],
            generation=self.settings,
            unsafe_above=self.unsafe_above,
        )

    def _weights(self, style: Style, edit: EditOrder | None) -> dict[str, str]:
        further = UPSCALER_CARDS.get(self.settings.upscale), None if edit is None else self.controlnets
        cards = [self.base, *PERCEPTION_CARDS[self.suite_name], *filter(None, further)]
        file = style_lora_path(style)
        own = {"similarity": self.similarity.sha256} | ({"style-lora": sha256_of(file)} if file else {})
        return weights_sha256(cards) | own

    def _make(self, order: Order, style: Style, row: Row, crops: list[bytes], edit: EditOrder | None) -> list[Row]:
        """`crops` are PNGs of the references; none without fusion. Raises `PhotoError` for a template that is none."""
        references_ND, scores = _embeddings(row), [float(item["quality_score"]) for item in row["references"]]
        known = self.finish.templates(
            order.identity_id, _references_key(row, crops), lambda: [*zip(crops, scores, strict=False)]
        )
        templates = in_look(known, style.words)

        def finish(rgb_u8: NDArray[np.uint8], shown: EditTemplate | None = None) -> Finished:
            grey, within = (style.greyscale, None) if shown is None else (shown.grey, shown.face.mask)
            return self.finish(rgb_u8, templates, references_ND, grey=grey, within=within)

        tags = tuple(row["common_tags"] or ())
        subject = Subject(row["trigger"], tags, row["lora_path"], row["lora_sha256"])

        def draw(count: int, first_index: int) -> Iterator[Drawing | Drawn]:
            return self._draw(Draft(order, style, subject, count, first_index))

        if edit is None:
            outcome = work_off(order, acceptance_of(order), draw, finish, first_index=row["first_index"])
        else:
            outcome = self._edited(edit, row, subject, finish)
        rows = [(item, outcome.made[item.candidate.index]) for item in outcome.ranked]
        return [self._deliver(order, style, row, item, made, edit) for item, made in rows]

    def _edited(self, edit: EditOrder, row: Row, subject: Subject, finish: Callable[..., Finished]) -> Outcome:
        """The pictures of an order in a template."""
        rgb_u8 = read_template(row["template"]["uri"], row["template"]["sha256"], self.perception)
        with self.finish.models() as suite:
            about = self.sampler.engine.side_px, edit.face_ratio, self.perception, edit.unsafe_above, edit.face_xy
            template = see_template(rgb_u8, suite, *about)
        references_ND = _embeddings(row)

        def draw(shown: EditPass, count: int, first_index: int) -> Iterator[Drawing | Drawn]:
            return self._draw(Draft(edit.portraits, edit.style, subject, count, first_index, edit=shown))

        return work_off_edit(
            edit,
            template.face,
            draw,
            lambda drawn_rgb_u8: outlined(self.finish, finish(drawn_rgb_u8)),
            lambda drawn_rgb_u8: set_in(self.finish, finish(drawn_rgb_u8, template), template, references_ND),
            first_index=row["first_index"],
        )

    def _draw(self, draft: Draft) -> Iterator[Drawing | Drawn]:
        return self.sampler.sample(draft)

    def _deliver(self, order: Order, style: Style, row: Row, item: Ranked, made: Made, edit: EditOrder | None) -> Row:
        """Store one candidate and return its row of `PORTRAIT_SCHEMA`."""
        index, portrait, score = item.candidate.index, made.portrait, made.portrait.score
        settings = settings_inside(order, style, made, index, self.base, row["lora_sha256"])
        if edit is not None:
            settings |= {"controlnets": self.controlnets, **edit.model_dump(include=EDITED)}
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
            "face_xy": portrait.face_xy and list(portrait.face_xy),
        }


REFERENCE_INPUT = pa.struct(
    [("crop_path", pa.string()), ("quality_score", pa.float32()), ("embedding", pa.list_(pa.float32(), 128))]
)
"""What an order needs of each of the identity's references, named as in `REFERENCE_SCHEMA`."""

TEMPLATE_INPUT = pa.struct([("uri", pa.string()), ("sha256", pa.string()), ("face_xy", pa.list_(pa.float64()))])
"""What an order needs of the picture that it is drawn in, named as in `OrderedTemplate`."""

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
        ("template", TEMPLATE_INPUT),  # null: there is none, and `style` names a style
    ]
)
"""One row an order: what is wanted, and the identity it is wanted of."""


def order_row(identity: Row, lora: Row, style: str, count: int, job_seed: int, template: Row | None = None) -> Row:
    """The row of `ORDER_INPUT` for `count` portraits of an identity in one style, or in the template of that name.

    `identity` is a row of `IDENTITY_SCHEMA`, `lora` its row of `FACE_LORA_SCHEMA`, `template` one of `TEMPLATE_INPUT`.
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
        "template": template,
    }


def _failed(row: Row, reason: Reason, detail: str) -> Row:
    """A row of `PORTRAIT_SCHEMA` for an order of which there is no picture."""
    index = -1 - row["first_index"]  # no candidate's
    return {
        **{name: row[name] for name in ("identity_id", "style", "seed")},
        "portrait_id": portrait_id(row["identity_id"], row["style"], index),
        "index": index,
        "rank": 0,
        "path": "",
        "status": Status.FAILED.value,
        "reason": reason.value,
        "detail": detail,
    }


def _embeddings(row: Row) -> NDArray[np.float32]:
    return np.asarray([item["embedding"] for item in row["references"]], np.float32).reshape(-1, 128)


def _references_key(row: Row, crops: list[bytes]) -> str:
    """Stands for what portraits are judged against and, with `crops`, for the faces set into them."""
    digest = hashlib.sha256(_embeddings(row).tobytes() + str(row["trigger"]).encode())
    for item, crop in zip(row["references"], crops, strict=False):
        digest.update(f"\0{item['quality_score']}\0{hashlib.sha256(crop).hexdigest()}".encode())
    return digest.hexdigest()
