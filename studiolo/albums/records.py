"""Rows of the bulk job: photos, faces, albums, references, portraits, and the reasons a customer reads.

A photo ends with a status (`ok`, `dropped`, `failed`), the stage that said so and a reason. Rows carry no pixels:
bytes are read inside the actor that needs them.
"""

import hashlib
from enum import StrEnum

import pyarrow as pa


class Status(StrEnum):
    """How a photo, identity or portrait ended."""

    OK = "ok"
    DROPPED = "dropped"
    FAILED = "failed"


class Verdict(StrEnum):
    """Outcome of comparing two faces, see `studiolo.perception.similarity`."""

    SAME = "same"
    DIFFERENT = "different"
    UNSURE = "unsure"


class Reason(StrEnum):
    """Why a photo, identity or portrait was not used. `sentence()` is what the customer reads."""

    NONE = ""
    EMPTY_FILE = "empty_file"
    NOT_AN_IMAGE = "not_an_image"
    DAMAGED = "damaged"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_SMALL = "too_small"
    UNREADABLE = "unreadable"
    TOO_SLOW = "too_slow"
    TOO_MUCH_MEMORY = "too_much_memory"
    DECODER_DIED = "decoder_died"
    DUPLICATE = "duplicate"
    NO_FACE = "no_face"
    FACE_TOO_SMALL = "face_too_small"
    SEVERAL_FACES = "several_faces"
    LOW_QUALITY = "low_quality"
    OTHER_PERSON = "other_person"
    UNSAFE = "unsafe"
    SURPLUS = "surplus"
    EMPTY_ALBUM = "empty_album"
    NOTHING_USABLE = "nothing_usable"
    FEWER_PEOPLE = "fewer_people"
    CRASHED_WORKER = "crashed_worker"
    APPARENT_MINOR = "apparent_minor"
    TRAINING_FAILED = "training_failed"
    NONE_ACCEPTED = "none_accepted"
    LOW_SIMILARITY = "low_similarity"
    NOT_ONE_FACE = "not_one_face"
    FACE_SIZE = "face_size"
    CROP_CUTS_FACE = "crop_cuts_face"
    TURNED_AWAY = "turned_away"
    NO_FACE_THERE = "no_face_there"

    def sentence(self) -> str:
        """The reason in one plain sentence, empty for `NONE`."""
        return _SENTENCES[self]


_SENTENCES: dict[Reason, str] = {
    Reason.NONE: "",
    Reason.EMPTY_FILE: "The file is empty; please send it again.",
    Reason.NOT_AN_IMAGE: "This file is not a picture, whatever its name says.",
    Reason.DAMAGED: "The picture is damaged or incomplete; please send it again.",
    Reason.TOO_MANY_PIXELS: "The picture is larger than we can open safely; please send a smaller copy.",
    Reason.TOO_SMALL: "The picture is too small to work with.",
    Reason.UNREADABLE: "We could not read this file from where it is stored.",
    Reason.TOO_SLOW: "Opening the picture takes too long; please send it again as an ordinary JPEG.",
    Reason.TOO_MUCH_MEMORY: "Opening the picture takes too much memory; please send a smaller copy.",
    Reason.DECODER_DIED: "The picture cannot be opened without harm; please send it again as an ordinary JPEG.",
    Reason.DUPLICATE: "The same picture is already in the album.",
    Reason.NO_FACE: "We found no face in this picture.",
    Reason.FACE_TOO_SMALL: "The face is too small; come closer or send the original file.",
    Reason.SEVERAL_FACES: "There are several people and none stands out as the subject.",
    Reason.LOW_QUALITY: "The face is not clear enough: sharpness, light, size, direction and open eyes count together.",
    Reason.OTHER_PERSON: "This looks like a different person from the rest of the album.",
    Reason.UNSAFE: "The picture did not pass the safety check.",
    Reason.SURPLUS: "A good picture, but there were enough better ones.",
    Reason.EMPTY_ALBUM: "The album holds no files.",
    Reason.NOTHING_USABLE: "No picture of this album could be used; see each picture's reason.",
    Reason.FEWER_PEOPLE: "The album shows fewer people clearly enough than portraits were ordered of.",
    Reason.CRASHED_WORKER: "Our program broke off each time it came to this, so it was left out.",
    Reason.APPARENT_MINOR: "This person appears to be a minor, of whom no portraits are made here.",
    Reason.TRAINING_FAILED: "Learning this person's face did not succeed.",
    Reason.NONE_ACCEPTED: "No portrait reached the likeness we require.",
    Reason.LOW_SIMILARITY: "The portrait does not look enough like the person.",
    Reason.NOT_ONE_FACE: "The portrait does not show exactly one clear face.",
    Reason.FACE_SIZE: "The face is too small or too large in the portrait.",
    Reason.CROP_CUTS_FACE: "The face fills too much of the portrait for a print of this shape.",
    Reason.TURNED_AWAY: "The face is turned too far to the side, up or down for another to be drawn in its place.",
    Reason.NO_FACE_THERE: "We found no face at this point of the picture.",
}


class Fusion(StrEnum):
    """What came of setting a photo's face into a portrait. `sentence()` is what the customer reads."""

    OFF = "off"
    DONE = "done"
    NO_FACE = "no_face"
    NO_TEMPLATE = "no_template"

    def sentence(self) -> str:
        """Why the portrait has no photo's face in plain words; empty when it has, or was not to have."""
        return _FUSION_SENTENCES.get(self, "")


_FUSION_SENTENCES = {
    Fusion.NO_FACE: "No photo was worked in: the portrait's face is not clear enough.",
    Fusion.NO_TEMPLATE: "No photo was worked in: none shows the face from this side.",
}

UNKNOWN = "unknown"
"""Value of an attribute that the suite in use cannot know; never a guess."""

POSE = pa.struct([("yaw_deg", pa.float32()), ("pitch_deg", pa.float32()), ("roll_deg", pa.float32())])

QUALITY = pa.struct(
    [
        ("score", pa.float32()),  # 0..1, the weighted product documented in perception/quality.py
        ("size", pa.float32()),
        ("sharpness", pa.float32()),
        ("exposure", pa.float32()),
        ("pose", pa.float32()),
        ("eyes", pa.float32()),
    ]
)

ATTRIBUTES = pa.struct(
    [
        ("p_female", pa.float32()),  # 0..1
        ("age_years", pa.float32()),
        ("glasses", pa.string()),  # yes | no | unknown
        ("headwear", pa.string()),
        ("ears", pa.string()),
    ]
)

FACE = pa.struct(
    [
        ("face_id", pa.int32()),  # index within the photo, largest first
        ("bbox_xyxy_px", pa.list_(pa.float32(), 4)),  # in the upright photo
        (
            "landmarks_px",
            pa.list_(pa.float32(), 10),
        ),  # 5 points x,y: right eye, left eye, nose, mouth right, mouth left
        ("detector_score", pa.float32()),
        ("mesh_score", pa.float32()),
        ("embedding", pa.list_(pa.float32(), 128)),
        ("attributes", ATTRIBUTES),
        ("pose", POSE),
        ("quality", QUALITY),
        ("expression", pa.list_(pa.float32())),  # brows, eyes, lips from the front, see perception/expression.py
        ("tags", pa.list_(pa.string())),
    ]
)

PHOTO = pa.struct(
    [
        ("photo_id", pa.string()),
        ("uri", pa.string()),  # relative to the album
        ("content_sha256", pa.string()),
        ("width_px", pa.int32()),
        ("height_px", pa.int32()),
        (
            "rotation_deg",
            pa.int32(),
        ),  # 0, 90, 180, 270: anticlockwise turn that made the photo upright, after EXIF
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("person", pa.int32()),  # group within the album, 0 = the album's owner, -1 = no usable face
        ("face_id", pa.int32()),  # the face of the owner, or of another wanted person, in this photo; -1 = none
        ("verdict", pa.string()),  # same | unsure, against that person; different: nobody wanted
        ("apparent_minor", pa.bool_()),  # of a selected photo: the person appears to be a minor, and detail says why
        ("faces", pa.list_(FACE)),
    ]
)

ALBUM_SCHEMA = pa.schema(
    [
        ("album_id", pa.string()),
        ("album_uri", pa.string()),
        ("photos", pa.list_(PHOTO)),
    ]
)
"""One row an album between Ray stages."""

REFERENCE = pa.struct(
    [
        ("identity_id", pa.string()),
        ("album_id", pa.string()),
        ("photo_id", pa.string()),
        ("crop_path", pa.string()),  # PNG, face 0.35-0.45 of the side, relative to the output
        ("mask_path", pa.string()),  # PNG of class ids, see perception/regions.py
        ("caption", pa.string()),
        ("trigger", pa.string()),
        ("quality_score", pa.float32()),
        ("expression_l2", pa.float32()),  # from the person's usual expression, see perception/expression.py
        ("verdict", pa.string()),
        ("embedding", pa.list_(pa.float32(), 128)),
    ]
)

REFERENCE_SCHEMA = pa.schema(list(REFERENCE))
"""`references.parquet`: one row a reference."""

IDENTITY_SCHEMA = pa.schema(
    [
        ("identity_id", pa.string()),
        ("album_id", pa.string()),
        ("status", pa.string()),
        ("stage", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("trigger", pa.string()),
        (
            "common_tags",
            pa.list_(pa.string()),
        ),  # in more than half the references, see identities/captions.py
        ("references", pa.list_(REFERENCE)),
    ]
)
"""One row an identity: what training and generation need to know, or why it failed."""

PERCEIVED_SCHEMA = pa.schema([*ALBUM_SCHEMA, *[field for field in IDENTITY_SCHEMA if field.name != "album_id"]])
"""One row an identity, as the perception stage returns it, with the photos of its album that count to it.

Each photo of an album is in one row: those that count to nobody wanted are in the owner's.
"""

FACE_LORA_SCHEMA = pa.schema(
    [
        ("identity_id", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("path", pa.string()),  # diffusers safetensors, relative to the output
        ("sha256", pa.string()),
        ("steps", pa.int32()),
        ("final_loss", pa.float32()),
        ("seconds", pa.float32()),
        ("resumed", pa.bool_()),  # True when an earlier run had finished it
    ]
)
"""One row a face-LoRA."""

PORTRAIT_SCHEMA = pa.schema(
    [
        ("portrait_id", pa.string()),
        ("identity_id", pa.string()),
        ("style", pa.string()),
        ("index", pa.int32()),
        ("seed", pa.int64()),
        ("prompt", pa.string()),
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),  # of an order that failed as a whole, which is one row without a picture; else null
        ("rank", pa.int32()),  # 1 = best of its identity and style; 0 = rejected
        ("similarity", pa.float32()),  # calibrated, 0..1, to the identity's references; of the finished portrait
        ("similarity_unfused", pa.float32()),  # the same before fusion and retouching
        ("fusion", pa.string()),  # off | done | no_face | no_template
        ("verdict", pa.string()),
        ("faces", pa.int32()),
        ("face_share", pa.float32()),  # of the portrait's height, 0 without a face
        ("quality_score", pa.float32()),
        ("embedding", pa.list_(pa.float32())),  # [128] of its face, or null; Parquet cannot hold a null of a fixed size
        ("path", pa.string()),
        ("image_sha256", pa.string()),
        ("face_xy", pa.list_(pa.float64())),  # the face's middle in shares of width and height, in a template; or null
    ]
)


def photo_id(album_id: str, relative_uri: str) -> str:
    """sha256 over album and place, so that duplicates and unreadable objects have an id as well."""
    return hashlib.sha256(f"{album_id}\0{relative_uri}".encode()).hexdigest()
