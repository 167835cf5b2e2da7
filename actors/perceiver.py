"""The one fused perception actor: an album in, its photos annotated and its references cut out."""

import io
from collections.abc import Callable, Sequence
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
from studiolo.albums.selection import by_person, require_references, select, selected_face
from studiolo.albums.sources import AlbumSource, read_bytes
from studiolo.errors import IdentityError, PhotoError
from studiolo.identities.artifacts import identity_name
from studiolo.identities.captions import common_tags, trigger_phrase
from studiolo.identities.references import Reference, prepare_reference
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
    """Rows of `INPUT_SCHEMA` in, for each person wanted a row of `PERCEIVED_SCHEMA` out, the owner's first; crops and
    masks of references go to the store.

    An album that the ledger calls done is not perceived again. A person that nothing can be made of is a row with the
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
        return pa.Table.from_pylist([out for row in batch.to_pylist() for out in self._album(row)], PERCEIVED_SCHEMA)

    def unit(self, row: Row) -> str:
        """Key of the album as it is listed, whatever its files hold."""
        listed = {name: value for name, value in row.items() if (name, value) != ("people", 1)}
        return unit_key("album", [listed], {"perception": self.perception, "selection": self.selection}, {})

    def fetch(self, place: str) -> bytes:
        """The file at an absolute uri; raises `PhotoError` for a photo that cannot be read."""
        return read_bytes(place)

    def forget(self) -> None:
        """Keep nothing of the last album: neither its files nor the decoder that had them in its hands."""
        self._kept = {}
        self.decode.close()

    def crashed(self, row: Row, detail: str) -> pa.Table:
        """An album that ended its workers: nothing of it can be used."""
        failure = {"status": Status.FAILED.value, "stage": "perceive", "reason": Reason.CRASHED_WORKER.value}
        failure["detail"] = detail
        unseen = {**_UNSEEN, "person": -1, "face_id": -1, "verdict": ""}
        names = (photo["uri"] for photo in row["photos"])
        photos = [{"photo_id": photo_id(row["album_id"], uri), "uri": uri, **failure, **unseen} for uri in names]
        album = {"album_id": row["album_id"], "album_uri": row["album_uri"], "photos": photos}
        rows = [
            {**own, **_nobody(own, person), **failure} for person, own in enumerate(by_person(album, row["people"]))
        ]
        return pa.Table.from_pylist(rows, PERCEIVED_SCHEMA)

    def _album(self, row: Row) -> list[Row]:
        self._kept = {}
        places = {photo["uri"]: photo["absolute_uri"] for photo in row["photos"]}
        contents = {uri: self._fingerprint(place) for uri, place in places.items()}
        source = AlbumSource(row["album_id"], row["album_uri"], tuple(places.items()), row["people"])
        key = source.key(
            contents,
            {"perception": self.perception, "selection": self.selection},
            weights_sha256(PERCEPTION_CARDS[self.suite_name]) | {"similarity": self.similarity.sha256},
        )
        record = self.ledger.done("album", key)
        if record is not None:
            rows = [record, *record.get("others", ())]
        else:
            rows = self._perceive(source, places)
            photos = [photo for own in rows for photo in own["photos"]]
            if all(contents[photo["uri"]] == _content(photo) for photo in photos):  # else the key is another's
                items = [item for own in rows for item in own["references"]]
                files = [item[path] for item in items for path in ("crop_path", "mask_path")]
                others = {"others": rows[1:]} if rows[1:] else {}
                self.ledger.complete("album", key, {**rows[0], **others}, files)
        return [{**own, "album_uri": source.album_uri} for own in rows]  # the same album may have moved

    def _perceive(self, source: AlbumSource, places: dict[str, str]) -> list[Row]:
        """Photos are seen one by one, and the chosen ones once more: an album may be larger than memory.

        A chosen photo that cannot be read a second time fails, and the others are chosen from anew.
        """
        photos = [self._photo(source.album_id, uri, place) for uri, place in places.items()]
        while True:
            album = {"album_id": source.album_id, "album_uri": source.album_uri, "photos": photos}
            album = select(album, self.selection, self.similarity, source.people)
            rows = by_person(album, source.people)
            lost: dict[str, PhotoError] = {}
            identities = [self._identity(rows, person, places, lost) for person in range(source.people)]
            if not lost:
                return [{**own, **identity} for own, identity in zip(rows, identities, strict=True)]
            for photo in photos:
                if photo["photo_id"] in lost:
                    photo.update(refusal(lost[photo["photo_id"]]))
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
                content = self.fetch(place)
                if len(content) + sum(map(len, self._kept.values())) <= KEPT_BYTES:
                    self._kept[place] = content
            return content

    def _photo(self, album_id: str, uri: str, place: str) -> Row:
        """One row of `records.PHOTO`; what the photo's content does wrong ends in it."""
        row = photo_row(album_id, uri)
        try:
            content = self._read(place)
            row["content_sha256"] = content_sha256(content)
            with self.part(row["content_sha256"]):
                rgb_u8 = self.decode(content)
                row.update(height_px=rgb_u8.shape[0], width_px=rgb_u8.shape[1])
                self._see(row, rgb_u8)
        except PhotoError as error:
            row.update(refusal(error))
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

    def _identity(self, rows: Sequence[Row], person: int, places: dict[str, str], lost: dict[str, PhotoError]) -> Row:
        """A person of the album with its references; `rows` are those of `by_person`.

        Chosen photos that could not be read again go to `lost`, by id.
        """
        identity = _nobody(rows[person], person)
        try:
            chosen = require_references(rows, person, self.selection)
        except IdentityError as error:
            identity.update(status=Status.FAILED.value, reason=str(error.reason), detail=error.detail)
            photos = [photo for row in rows for photo in row["photos"]]
            if photos and all(photo["reason"] == Reason.CRASHED_WORKER for photo in photos):
                identity.update(reason=Reason.CRASHED_WORKER.value)
            return identity
        faces = [selected_face(photo) for photo in chosen]
        trigger = trigger_phrase(face["attributes"] for face in faces)
        unusual = unusual_expressions([face["expression"] for face in faces])
        for photo, face, expression_l2 in zip(chosen, faces, unusual.tolist(), strict=True):
            try:
                place = places[photo["uri"]]
                reference = self._reference(photo, face, trigger, place, expression_l2)
                row = reference.row(identity["identity_id"], rows[person]["album_id"])
                self.store.write_bytes(row["crop_path"], png_bytes(reference.crop_rgb_u8))
                self.store.write_bytes(row["mask_path"], png_bytes(reference.regions_u8))
                identity["references"].append(row)
            except PhotoError as error:
                lost[photo["photo_id"]] = error
        identity.update(status=Status.OK.value, reason="", detail="")
        identity.update(trigger=trigger, common_tags=common_tags([face["tags"] for face in faces]))
        return identity

    def _reference(self, photo: Row, face: Row, trigger: str, place: str, expression_l2: float) -> Reference:
        """Raises `PhotoError` when the photo is not what it was at the first look."""
        content = self._read(place)
        if content_sha256(content) != photo["content_sha256"]:
            raise PhotoError(Reason.UNREADABLE, "the file changed while the album was read")
        with self.part(photo["content_sha256"]):
            upright_rgb_u8 = turn(self.decode(content), photo["rotation_deg"])
            return prepare_reference(upright_rgb_u8, photo, face, trigger, self.suite.regions, expression_l2)


def png_bytes(pixels_u8: NDArray[np.uint8]) -> bytes:
    """PNG of [H, W, 3] RGB or [H, W] class ids."""
    buffer = io.BytesIO()
    Image.fromarray(pixels_u8).save(buffer, "PNG")
    return buffer.getvalue()


def _nobody(row: Row, person: int) -> Row:
    """What is said of a person of the album of whom nothing is known; `row` is one of the album's."""
    name = identity_name(row["album_id"], person)
    return {"identity_id": name, "stage": "select", "trigger": "", "common_tags": [], "references": []}


def _alignable(face: Row) -> bool:
    """Whether the face's five points have an angle; a detector's points on one line are no face to work with."""
    try:
        alignment_deg(face["landmarks_px"])
    except ValueError:
        return False
    return True


def photo_row(album_id: str, uri: str) -> Row:
    """A row of `records.PHOTO` of which nothing is known yet."""
    row: Row = {"photo_id": photo_id(album_id, uri), "uri": uri, "status": Status.OK.value, "stage": "perceive"}
    return {**row, **_UNSEEN, "reason": "", "detail": ""}


def refusal(error: PhotoError) -> Row:
    """What a photo's row says of why it cannot be used."""
    status = Status.DROPPED if error.reason in _SEEN else Status.FAILED
    stage = "perceive" if error.reason in (*_SEEN, Reason.CRASHED_WORKER) else "read"
    return {"status": status.value, "stage": stage, "reason": str(error.reason), "detail": error.detail}


def _content(photo: Row) -> str:
    """The fingerprint of the photo as it was read; one that the next run shall read again has none."""
    return "" if photo["reason"] in _PASSING else str(photo["content_sha256"] or photo["reason"])
