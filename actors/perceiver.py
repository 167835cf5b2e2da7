"""The one fused perception actor: an album in, its photos annotated and its references cut out."""

import io
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image

from studiolo.albums.decode import content_sha256
from studiolo.albums.geometry import alignment_deg
from studiolo.albums.isolation import IsolatedDecoder
from studiolo.albums.records import PERCEIVED_SCHEMA, Reason, Status, photo_id
from studiolo.albums.selection import owner_face, require_references, select
from studiolo.albums.sources import AlbumSource, read_bytes
from studiolo.errors import IdentityError, PhotoError
from studiolo.identities.captions import common_tags, trigger_phrase
from studiolo.identities.references import prepare_reference
from studiolo.keys import unit_key
from studiolo.perception.expression import unusual_expressions
from studiolo.perception.perceive import perceive_photo
from studiolo.perception.similarity import Similarity
from studiolo.perception.suite import PERCEPTION_CARDS, Suite, open_suite
from studiolo.perception.upright import turn
from studiolo.settings import PerceptionSettings, SelectionSettings
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from studiolo.weights.cards import weights_sha256

Row = dict[str, Any]

_SEEN = (Reason.UNSAFE, Reason.FACE_TOO_SMALL, Reason.NO_FACE)
"""Reasons of photos that were read and seen, and are not used: dropped rather than failed."""

_UNSEEN: Row = {"content_sha256": "", "rotation_deg": 0, "faces": []}
"""What a photo's row says of its content before it is read."""

KEPT_BYTES = 64 * 2**20
"""So much of an album is kept from its first reading on; photos beyond are read for the key, to be seen, and the chosen
ones a third time."""

_PASSING = (Reason.TOO_SLOW, Reason.DECODER_DIED)
"""Reasons that may be the machine's fault: the next run tries such a photo again."""


class Perceiver:
    """Rows of `INPUT_SCHEMA` in, rows of `PERCEIVED_SCHEMA` out; crops and masks of references go to the store.

    An album that the ledger calls done is not perceived again. An album that nothing can be made of is a row with the
    reasons; only a broken store or a broken model is an exception.
    """

    def __init__(self, store: Store, suite: str, perception: PerceptionSettings, selection: SelectionSettings) -> None:
        self.store = store
        self.suite_name = suite
        self.perception = perception
        self.selection = selection
        self.part: Callable[[str], AbstractContextManager[object]] = nullcontext
        """Entered around all work on one photo: who watches the worker sees where it is, and may refuse a photo."""
        self.decode = IsolatedDecoder(perception)
        self._kept: dict[str, bytes] = {}

    def open(self, device: str = "cpu") -> None:
        """Load the suite's models; the embedded ones run on the CPU wherever they are."""
        self.suite: Suite = open_suite(self.suite_name)
        self.similarity = Similarity.load(self.suite_name)
        self.ledger = Ledger(self.store)

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Perceive every album of `batch`."""
        return pa.Table.from_pylist([self._album(row) for row in batch.to_pylist()], PERCEIVED_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the album as it is listed, whatever its files hold."""
        return unit_key("album", [row], {"perception": self.perception, "selection": self.selection}, {})

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """An album that ended its workers: nothing of it can be used."""
        failure = {"status": Status.FAILED.value, "stage": "perceive", "reason": Reason.CRASHED_WORKER.value}
        failure["detail"] = detail
        unseen = {**_UNSEEN, "person": -1, "face_id": -1, "verdict": ""}
        names = (photo["uri"] for photo in row["photos"])
        photos = [{"photo_id": photo_id(row["album_id"], uri), "uri": uri, **failure, **unseen} for uri in names]
        album = {"album_id": row["album_id"], "album_uri": row["album_uri"], "photos": photos}
        nobody = {"identity_id": row["album_id"], "trigger": "", "common_tags": [], "references": []}
        return pa.Table.from_pylist([{**album, **nobody, **failure}], PERCEIVED_SCHEMA)

    def _album(self, row: Row) -> Row:
        self._kept = {}
        places = {photo["uri"]: photo["absolute_uri"] for photo in row["photos"]}
        contents = {uri: self._fingerprint(place) for uri, place in places.items()}
        source = AlbumSource(row["album_id"], row["album_uri"], tuple(places.items()))
        key = source.key(
            contents,
            {"perception": self.perception, "selection": self.selection},
            weights_sha256(PERCEPTION_CARDS[self.suite_name]) | {"similarity": self.similarity.sha256},
        )
        record = self.ledger.done("album", key)
        if record is None:
            record = self._perceive(source, places)
            if all(
                contents[photo["uri"]] == _content(photo) for photo in record["photos"]
            ):  # else the key is another's
                files = [item[path] for item in record["references"] for path in ("crop_path", "mask_path")]
                self.ledger.complete("album", key, record, files)
        return {**record, "album_uri": source.album_uri}  # the same album may have moved

    def _perceive(self, source: AlbumSource, places: dict[str, str]) -> Row:
        """Photos are seen one by one, and the chosen ones once more: an album may be larger than memory.

        A chosen photo that cannot be read a second time fails, and the others are chosen from anew.
        """
        photos = [self._photo(source.album_id, uri, place) for uri, place in places.items()]
        while True:
            album = {"album_id": source.album_id, "album_uri": source.album_uri, "photos": photos}
            album = select(album, self.selection, self.similarity)
            identity, lost = self._identity(album, places)
            if not lost:
                return {**album, **identity}
            for photo in photos:
                if photo["photo_id"] in lost:
                    photo.update(_refusal(lost[photo["photo_id"]]))
                    if photo["reason"] != Reason.CRASHED_WORKER:
                        photo["content_sha256"] = ""

    def _fingerprint(self, place: str) -> str:
        """What stands for a photo in the album's key: its content's hash, or the reason why there is none."""
        try:
            return content_sha256(self._read(place))
        except PhotoError as error:
            return str(error.reason)

    def _read(self, place: str) -> bytes:
        """The photo's bytes; a place that never answers is a part of its own."""
        with self.part(place):
            content = self._kept.get(place)
            if content is None:
                content = read_bytes(place)
                if len(content) + sum(map(len, self._kept.values())) <= KEPT_BYTES:
                    self._kept[place] = content
            return content

    def _photo(self, album_id: str, uri: str, place: str) -> Row:
        """One row of `records.PHOTO`; what the photo's content does wrong ends in it."""
        row: Row = {"photo_id": photo_id(album_id, uri), "uri": uri, "status": Status.OK.value, "stage": "perceive"}
        row.update(_UNSEEN, reason="", detail="")
        try:
            content = self._read(place)
            row["content_sha256"] = content_sha256(content)
            with self.part(row["content_sha256"]):
                rgb_u8 = self.decode(content)
                row.update(height_px=rgb_u8.shape[0], width_px=rgb_u8.shape[1])
                self._see(row, rgb_u8)
        except PhotoError as error:
            row.update(_refusal(error))
        return row

    def _see(self, row: Row, rgb_u8: NDArray[np.uint8]) -> None:
        """Fill in the faces of a decoded photo. Raises `PhotoError` for one whose faces cannot be used at all."""
        perceived = perceive_photo(self.suite, rgb_u8, self.perception)
        faces = [face for face in perceived.faces if _alignable(face)]
        row.update(rotation_deg=perceived.rotation_deg, faces=faces)
        unsafe_score = self.suite.safety.score(perceived.rgb_u8)
        if unsafe_score > self.selection.unsafe_above:
            raise PhotoError(Reason.UNSAFE, f"score {unsafe_score:.2f}, limit {self.selection.unsafe_above:g}")
        if not faces and perceived.too_small_px:
            detail = f"{perceived.too_small_px:.0f} px across, wanted {self.perception.min_face_px}"
            raise PhotoError(Reason.FACE_TOO_SMALL, detail)

    def _identity(self, album: Row, places: dict[str, str]) -> tuple[Row, dict[str, PhotoError]]:
        """The album's identity with its references, and the chosen photos that could not be read again, by id."""
        identity: Row = {"identity_id": album["album_id"], "stage": "select", "trigger": ""}
        identity.update(common_tags=[], references=[])
        try:
            chosen = require_references(album, self.selection)
        except IdentityError as error:
            identity.update(status=Status.FAILED.value, reason=str(error.reason), detail=error.detail)
            if album["photos"] and all(photo["reason"] == Reason.CRASHED_WORKER for photo in album["photos"]):
                identity.update(reason=Reason.CRASHED_WORKER.value)
            return identity, {}
        faces = [owner_face(photo) for photo in chosen]
        trigger = trigger_phrase(face["attributes"] for face in faces)
        lost: dict[str, PhotoError] = {}
        unusual = unusual_expressions([face["expression"] for face in faces])
        for photo, face, expression_l2 in zip(chosen, faces, unusual.tolist(), strict=True):
            try:
                place = places[photo["uri"]]
                reference = self._reference(album["album_id"], photo, face, trigger, place, expression_l2)
                identity["references"].append(reference)
            except PhotoError as error:
                lost[photo["photo_id"]] = error
        identity.update(status=Status.OK.value, reason="", detail="")
        identity.update(trigger=trigger, common_tags=common_tags([face["tags"] for face in faces]))
        return identity, lost

    def _reference(self, album_id: str, photo: Row, face: Row, trigger: str, place: str, expression_l2: float) -> Row:
        """One row of `records.REFERENCE`. Raises `PhotoError` when the photo is not what it was at the first look."""
        content = self._read(place)
        if content_sha256(content) != photo["content_sha256"]:
            raise PhotoError(Reason.UNREADABLE, "the file changed while the album was read")
        with self.part(photo["content_sha256"]):
            upright_rgb_u8 = turn(self.decode(content), photo["rotation_deg"])
            reference = prepare_reference(upright_rgb_u8, photo, face, trigger, self.suite.regions, expression_l2)
        row = reference.row(album_id, album_id)
        self.store.write_bytes(row["crop_path"], png_bytes(reference.crop_rgb_u8))
        self.store.write_bytes(row["mask_path"], png_bytes(reference.regions_u8))
        return row


def png_bytes(pixels_u8: NDArray[np.uint8]) -> bytes:
    """PNG of [H, W, 3] RGB or [H, W] class ids."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_u8).save(buffer, "PNG")
    return buffer.getvalue()


def _alignable(face: Row) -> bool:
    """Whether the face's five points have an angle; a detector's points on one line are no face to work with."""
    try:
        alignment_deg(face["landmarks_px"])
    except ValueError:
        return False
    return True


def _refusal(error: PhotoError) -> Row:
    """What a photo's row says of why it cannot be used."""
    status = Status.DROPPED if error.reason in _SEEN else Status.FAILED
    stage = "perceive" if error.reason in (*_SEEN, Reason.CRASHED_WORKER) else "read"
    return {"status": status.value, "stage": stage, "reason": str(error.reason), "detail": error.detail}


def _content(photo: Row) -> str:
    """The fingerprint of the photo as it was read; one that the next run shall read again has none."""
    return "" if photo["reason"] in _PASSING else str(photo["content_sha256"] or photo["reason"])
