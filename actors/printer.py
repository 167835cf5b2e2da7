"""The print actor: an accepted portrait in, its print files in the store."""

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from actors.finisher import SEEING
from studiolo.albums.records import Reason, Status
from studiolo.keys import unit_key
from studiolo.perception.detect import Detection
from studiolo.perception.suite import PERCEPTION_CARDS, open_suite
from studiolo.portraits.edit_templates import faces_at
from studiolo.portraits.files import decode_portrait
from studiolo.portraits.prints import PRINT_SCHEMA, PrintSize, crop_around, encode_print, print_path
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.weights.cards import weights_sha256

Row = dict[str, Any]

PRINT_INPUT = pa.schema(
    [
        ("portrait_id", pa.string()),
        ("identity_id", pa.string()),
        ("style", pa.string()),
        ("index", pa.int32()),
        ("path", pa.string()),
        ("image_sha256", pa.string()),
        ("face_xy", pa.list_(pa.float64())),  # as in `PORTRAIT_SCHEMA`
        ("prints", pa.list_(pa.string())),  # names of `PrintSize`
    ]
)
"""One row an accepted portrait of which prints are ordered."""


class Printer:
    """Rows of `PRINT_INPUT` in, rows of `PRINT_SCHEMA` out; JPEGs go to the store.

    The portrait's face is found anew, by the suite's detector; in a template it is the one at `face_xy`. A print that
    would cut it, or a portrait without a face, is a row with the reason. Prints that the ledger calls done are not made
    again.
    """

    def __init__(self, store: Store, suite: str) -> None:
        self.store = store
        self.suite_name = suite

    def open(self, device: str = "cpu") -> None:
        """Load the suite's models."""
        self.suite = open_suite(self.suite_name)
        self.ledger = Ledger(self.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Make all prints of every portrait of `batch`."""
        return pa.Table.from_pylist([made for row in batch.to_pylist() for made in self._portrait(row)], PRINT_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the portrait's prints as its row describes them."""
        return unit_key("print", [row], {"seeing": SEEING}, {})

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """A portrait that ended its workers: each of its prints is a row without a file."""
        failure = {"status": Status.FAILED.value, "reason": Reason.CRASHED_WORKER.value, "path": ""}
        prints = [{**_names(row), "print": name, **failure} for name in row["prints"]]
        return pa.Table.from_pylist(prints, PRINT_SCHEMA)

    def _portrait(self, row: Row) -> list[Row]:
        inputs = [row["path"], row["image_sha256"], row["prints"], *filter(None, [row["face_xy"]])]
        key = unit_key("print", inputs, {"seeing": SEEING}, weights_sha256(PERCEPTION_CARDS[self.suite_name]))
        record = self.ledger.done("print", key)
        if record is None:
            record = {"prints": self._make(row)}
            self.ledger.complete("print", key, record, filter(None, (made["path"] for made in record["prints"])))
        found: list[Row] = record["prints"]
        return found

    def _make(self, row: Row) -> list[Row]:
        rgb_u8, _ = decode_portrait(self.store.read_bytes(row["path"]))
        face = _face(self.suite.detector(rgb_u8, SEEING.detector_score), rgb_u8, row["face_xy"])
        made = []
        for size in map(PrintSize.parse, row["prints"]):
            done = _names(row)
            height_px, width_px = rgb_u8.shape[:2]
            crop = None if face is None else crop_around(face.bbox_xyxy_px.tolist(), width_px, height_px, size)
            if crop is None:
                reason = Reason.NOT_ONE_FACE if face is None else Reason.CROP_CUTS_FACE
                done.update(status=Status.DROPPED.value, reason=reason.value, path="")
            else:
                path = print_path(row["identity_id"], row["style"], row["index"], size)
                self.store.write_bytes(path, encode_print(rgb_u8, crop, size))
                done.update(status=Status.OK.value, reason="", path=path)
            made.append({**done, "print": size.name})
        return made


def _face(faces: list[Detection], rgb_u8: NDArray[np.uint8], face_xy: list[float] | None) -> Detection | None:
    """The largest, or the one at a point; None where there is none."""
    if face_xy is not None:
        faces = faces_at(faces, (rgb_u8.shape[0], rgb_u8.shape[1]), (face_xy[0], face_xy[1]))
    return faces[0] if faces else None


def _names(row: Row) -> Row:
    return {name: row[name] for name in ("portrait_id", "identity_id", "style", "index")}
