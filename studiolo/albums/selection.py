"""Which photos of an album become references, and why the others do not. Pure: rows in, rows out.

Rules, in this order; the first that fits decides, and every photo ends with a status, a stage and a reason:

1. a photo that an earlier stage dropped or failed keeps that reason;
2. the same bytes as another photo of the album: `duplicate` (the first by uri stays);
3. no face: `no_face`;
4. several faces, and the largest has less than `dominant_face_ratio` times the area of the second:
   `several_faces` (FaceChain's rule, also when a wanted person is among them);
5. the one face, or the dominant one, below `min_quality`: `low_quality`;
6. that face is nobody's who is wanted, the owner or one of the next people: `other_person` (`unsure` stays, and keeps
   its flag);
7. more than `max_references` of a person are left: the worst are `surplus` (`unsure` before `same`, then by quality).

Who the people are, `studiolo.albums.people` decides from the faces of all photos that rules 1 to 3 leave. A person
whose median age over the selected photos is below `adult_age` appears to be a minor: unless `minors` is `keep`, these
photos say so, and `refuse` makes it the end of the identity.
"""

import math
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from studiolo.albums.people import OWNER, FaceRef, Member, Similarity, group_faces
from studiolo.albums.records import Reason, Status, Verdict
from studiolo.errors import IdentityError
from studiolo.perception.quality import weakest_part
from studiolo.settings import SelectionSettings

STAGE = "select"

_FAULTS = {
    "size": "mostly because the face is small",
    "sharpness": "mostly because the face is blurred",
    "exposure": "mostly because the face is too dark or too bright",
    "pose": "mostly because the face is turned away",
    "eyes": "mostly because the eyes are closed",
}
"""What a customer reads of the weakest part of a face's quality."""

Row = dict[str, Any]


def select(album: Mapping[str, Any], settings: SelectionSettings, similarity: Similarity, people: int = 1) -> Row:
    """A copy of `album`, one row of `ALBUM_SCHEMA`, with every photo decided by the rules above for `people` wanted.

    Fills `person`, `face_id`, `verdict`, `apparent_minor`, `status`, `stage`, `reason` and `detail`. The result
    for a photo depends on the set of photos, not on their order.
    """
    photos = [_undecided(photo) for photo in album["photos"]]
    open_photos = [photo for photo in photos if not _settled(photo)]
    _drop_duplicates(open_photos)
    for photo in open_photos:
        if not _settled(photo) and not photo["faces"]:
            _drop(photo, Reason.NO_FACE)
    open_photos = [photo for photo in open_photos if not _settled(photo)]
    members = group_faces(_face_refs(open_photos, settings), similarity, people, settings.min_references)
    for photo in open_photos:
        _judge(photo, members, settings, people)
    for person in range(people):
        own = [photo for photo in open_photos if photo["person"] == person]
        _drop_surplus([photo for photo in own if not _settled(photo)], settings)
        kept = [photo for photo in own if not _settled(photo)]
        doubt = _apparent_minor(kept, settings)
        for photo in kept:
            photo.update(status=Status.OK.value, stage=STAGE, reason=Reason.NONE.value, detail=doubt)
            photo.update(apparent_minor=bool(doubt))
    return {**album, "photos": photos}


def by_person(album: Mapping[str, Any], people: int) -> list[Row]:
    """The album, decided by `select`, as a row for each of `people` wanted, with the photos that count to that person.

    Each photo is in one row: what counts to nobody wanted is in the owner's, the first. Somebody who was not found has
    an empty row.
    """
    photos: list[list[Row]] = [[] for _ in range(people)]
    for photo in album["photos"]:
        photos[photo["person"] if OWNER < photo["person"] < people else OWNER].append(photo)
    return [{**album, "photos": own} for own in photos]


def selected_photos(row: Mapping[str, Any]) -> list[Row]:
    """The selected photos of a row of `by_person`, the best first."""
    return sorted((photo for photo in row["photos"] if photo["status"] == Status.OK), key=_worth)


def selected_face(photo: Mapping[str, Any]) -> Row:
    """The face for which a photo was selected. Raises `KeyError` when the photo has none."""
    for face in photo["faces"]:
        if face["face_id"] == photo["face_id"]:
            return dict(face)
    raise KeyError(f"photo {photo['uri']!r} has no face {photo['face_id']}")


def require_references(rows: Sequence[Row], person: int, settings: SelectionSettings) -> list[Row]:
    """`selected_photos` of a person; `rows` are those of `by_person`.

    Raises `IdentityError`: `EMPTY_ALBUM`; `NOTHING_USABLE` when the owner's are too few to learn from, `FEWER_PEOPLE`
    when another person was not found; `APPARENT_MINOR` where `minors` is `refuse`.
    """
    if not any(row["photos"] for row in rows):
        raise IdentityError(Reason.EMPTY_ALBUM, f"album {rows[OWNER]['album_id']!r} lists no file")
    photos, least = rows[person]["photos"], settings.min_references
    kept = selected_photos(rows[person])
    if len(kept) < least and person == OWNER:
        reasons = Counter(str(photo["reason"]) for photo in photos if photo["status"] != Status.OK)
        listed = ", ".join(f"{count} {reason}" for reason, count in sorted(reasons.items()))
        raise IdentityError(Reason.NOTHING_USABLE, f"{len(kept)} of {len(photos)} usable, wanted {least}: {listed}")
    if len(kept) < least:
        found = sum(len(selected_photos(row)) >= least for row in rows)
        raise IdentityError(
            Reason.FEWER_PEOPLE, f"people with usable photos (at least {least}): {found}, wanted {len(rows)}"
        )
    doubt = _apparent_minor(kept, settings)
    if doubt and settings.minors == "refuse":
        raise IdentityError(Reason.APPARENT_MINOR, doubt)
    return kept


def _undecided(photo: Mapping[str, Any]) -> Row:
    unknown = {"person": -1, "face_id": -1, "verdict": "", "apparent_minor": False}
    return {**photo, "faces": list(photo["faces"] or []), **unknown}


def _settled(photo: Mapping[str, Any]) -> bool:
    return photo["status"] in (Status.DROPPED, Status.FAILED)


def _drop(photo: Row, reason: Reason, detail: str = "") -> None:
    photo.update(status=Status.DROPPED.value, stage=STAGE, reason=reason.value, detail=detail)


def _drop_duplicates(photos: Sequence[Row]) -> None:
    first: dict[str, str] = {}
    for photo in sorted(photos, key=lambda photo: (photo["uri"], photo["photo_id"])):
        content = photo["content_sha256"]
        if not content:
            continue
        if content in first:
            _drop(photo, Reason.DUPLICATE, f"same bytes as {first[content]!r}")
        else:
            first[content] = photo["uri"]


def _face_refs(photos: Sequence[Row], settings: SelectionSettings) -> list[FaceRef]:
    refs = []
    for photo in photos:
        faces = _by_size(photo)
        for face in faces:
            good = _quality(face) >= settings.min_quality
            refs.append(
                FaceRef(
                    photo_id=photo["photo_id"],
                    face_id=face["face_id"],
                    embedding=tuple(map(float, face["embedding"])),
                    area_px2=_area_px2(face),
                    good=good,
                    usable=good and face is faces[0] and _dominates(faces, settings),
                )
            )
    return refs


def _by_size(photo: Row) -> list[Row]:
    """The photo's faces; the first is what it shows, if it dominates."""
    return sorted(photo["faces"], key=lambda face: (-_area_px2(face), face["face_id"]))


def _dominates(faces: Sequence[Row], settings: SelectionSettings) -> bool:
    """Whether the first of faces `_by_size` is the only one, or large enough beside the second."""
    return len(faces) < 2 or _area_px2(faces[0]) >= settings.dominant_face_ratio * _area_px2(faces[1])


def _judge(photo: Row, members: Mapping[tuple[str, int], Member], settings: SelectionSettings, people: int) -> None:
    """Rules 4 to 6, and who is in the photo: the largest face of those wanted, else the largest."""
    faces = _by_size(photo)
    subject = faces[0]
    own = next((face for face in faces if members[photo["photo_id"], face["face_id"]].person < people), None)
    shown = members[photo["photo_id"], (own or subject)["face_id"]]
    photo.update(person=shown.person, face_id=own["face_id"] if own else -1, verdict=shown.verdict.value)
    if not _dominates(faces, settings):
        areas = [_area_px2(face) for face in faces]
        ratio = f"{areas[0] / areas[1]:.2f}" if areas[1] else "0"
        wanted = f"{settings.dominant_face_ratio:g}"
        detail = f"{len(faces)} faces, the largest {ratio} times the second, wanted {wanted}"
        _drop(photo, Reason.SEVERAL_FACES, detail)
    elif _quality(subject) < settings.min_quality:
        _drop(photo, Reason.LOW_QUALITY, _why_low(subject, settings.min_quality))
    elif own is not subject:
        other = members[photo["photo_id"], subject["face_id"]]
        photo.update(person=other.person, verdict=other.verdict.value)
        _drop(photo, Reason.OTHER_PERSON, f"person {other.person} of the album")


def _drop_surplus(photos: Sequence[Row], settings: SelectionSettings) -> None:
    for place, photo in enumerate(sorted(photos, key=_worth), start=1):
        if place > settings.max_references:
            quality = _quality(selected_face(photo))
            _drop(photo, Reason.SURPLUS, f"place {place} of {len(photos)}, quality {quality:.3f}")


def _apparent_minor(photos: Sequence[Row], settings: SelectionSettings) -> str:
    """Why the person of selected photos appears to be a minor; empty when not, unknown, or not looked at."""
    attributes = [selected_face(photo).get("attributes") or {} for photo in photos]
    ages = [float(each["age_years"]) for each in attributes if each.get("age_years") is not None]
    known = [age for age in ages if not math.isnan(age)]
    if settings.minors == "keep" or not known or statistics.median(known) >= settings.adult_age:
        return ""
    age = f"{statistics.median(known):.1f} years, the median of {len(known)}"
    return f"appears to be a minor: estimated age {age}; adults from {settings.adult_age:g}"


def _worth(photo: Mapping[str, Any]) -> tuple[bool, float, str]:
    return photo["verdict"] != Verdict.SAME, -_quality(selected_face(photo)), photo["photo_id"]


def _quality(face: Mapping[str, Any]) -> float:
    """Quality score 0..1; a face nobody scored counts as 0."""
    quality = face.get("quality")
    score = quality.get("score") if quality else None
    return float(score) if score is not None and score == score else 0.0


def _why_low(face: Mapping[str, Any], wanted: float) -> str:
    """What takes most from the face's quality, in plain words, and the numbers."""
    numbers = f"quality {_quality(face):.2f}, wanted {wanted:g}"
    parts = face.get("quality")
    if not parts or any(parts[name] is None or parts[name] != parts[name] for name in _FAULTS):
        return numbers
    part = weakest_part(parts)
    return f"{_FAULTS[part]} ({part} {parts[part]:.2f}; {numbers})"


def _area_px2(face: Mapping[str, Any]) -> float:
    x0, y0, x1, y1 = map(float, face["bbox_xyxy_px"])
    return max(0.0, x1 - x0) * max(0.0, y1 - y0)
