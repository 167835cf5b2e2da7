"""Rows of a dataset: what is listed of a source, one annotated picture, its captions, and what a release decides.

Three tables lie beside each other, each row found by its `row_id`:

- an **annotation shard** says what was seen in each picture (`ANNOTATION_SCHEMA`); it is never decided upon again;
- a **caption shard** holds the captions of one annotation shard (`CAPTION_SCHEMA`), so that another captioner
  annotates nothing again;
- a **release** holds `decisions.parquet` (`DECISION_SCHEMA`): keep or not and why, identity, split. Other thresholds,
  or more sources, are another release over the same shards.

A picture is one row whatever comes of it. Coordinates are pixels, x right, y down; `image` and `mask` are the same
upright square, and all coordinates are in it unless a field says otherwise.
"""

import hashlib
import json
from enum import StrEnum

import pyarrow as pa

from studiolo.albums.records import ATTRIBUTES, POSE, QUALITY
from studiolo.perception.regions import Region

PARTS: dict[str, tuple[Region, ...]] = {
    "face": (Region.SKIN, Region.BROWS, Region.EYES, Region.NOSE, Region.LIPS),
    "brows": (Region.BROWS,),
    "eyes": (Region.EYES,),
    "nose": (Region.NOSE,),
    "mouth": (Region.LIPS,),
    "hair": (Region.HAIR,),
    "body": (Region.BODY,),
}
"""The parts a row may have a box of, and the class ids of the mask that make up each; the suite knows no ears yet."""

WHOLE = "whole"
"""In place of a part's name: the whole person."""

LISTED_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),  # see `row_id`
        ("source", pa.string()),  # the source's name
        ("uri", pa.string()),  # within the source; a member of a tar is TAR#MEMBER
        ("place", pa.string()),  # where its bytes are: an absolute uri
        ("version", pa.string()),  # what its storage says of its content: size and time, a tag, a hash; or a seed
        ("label", pa.string()),  # the identity that the source names; null when it names none
        ("licence", pa.string()),  # of this picture; null where the source's holds
        ("listed", pa.bool_()),  # false once the source lists it no more, or another version of it
    ]
)
"""One picture of a source: a row of `listing/NUMBER.parquet`, whose rows are one annotation shard.

Which rows a part of the listing has, and their versions, never changes; what is only said of them (place, label,
licence, listed) follows the source.
"""

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""An encoded picture, as `datasets.Image` stores it; `path` is a name, not a place."""

PART = pa.struct(
    [
        ("part", pa.string()),  # of PARTS
        ("bbox_xyxy_px", pa.list_(pa.int32())),  # [4], half open: columns x0 <= x < x1 hold it
        ("area_px", pa.int32()),
    ]
)

EXPRESSION = pa.struct(
    [
        ("eye_openness", pa.float32()),  # about 0.1 shut, 0.25-0.4 open; all three see perception/expression.py
        ("mouth_openness", pa.float32()),  # 0 shut, above 0.2 plainly open
        ("smile", pa.float32()),
    ]
)

ANNOTATION_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("source", pa.string()),
        ("uri", pa.string()),
        ("version", pa.string()),
        ("status", pa.string()),  # ok | dropped (seen, and nothing to annotate) | failed (not read)
        ("reason", pa.string()),  # of albums.records.Reason or `opted_out`; "" when ok
        ("detail", pa.string()),
        ("content_sha256", pa.string()),  # of the file; null when it was not read
        ("phash", pa.string()),  # perceptual hash of the whole picture, 16 hex digits
        ("width_px", pa.int32()),  # of the upright photo
        ("height_px", pa.int32()),
        ("rotation_deg", pa.int32()),  # anticlockwise turn that made it upright, after EXIF: 0, 90, 180, 270
        ("unsafe_score", pa.float32()),  # 0 (safe) .. 1
        ("faces", pa.int32()),  # found in the photo; the row describes the largest
        ("second_face_share", pa.float32()),  # side of the second face over that of the largest; 0 without one
        # From here on null without a face, of which `status` then tells.
        ("image", IMAGE),  # JPEG [side, side, 3]: the face turned upright, cut out with its surroundings
        ("mask", IMAGE),  # PNG [side, side] of class ids, see perception.regions.Region; 0 beyond the photo
        ("parts", pa.list_(PART)),  # those that are in the mask, in the order of PARTS
        ("crop_matrix", pa.list_(pa.float32())),  # [6], rows of the [2, 3] matrix from the upright photo to `image`
        ("photo_bbox_xyxy_px", pa.list_(pa.float32())),  # [4], the face in the upright photo
        ("bbox_xyxy_px", pa.list_(pa.float32())),  # [4]
        ("landmarks_px", pa.list_(pa.float32())),  # [10]: right eye, left eye, nose, right and left mouth corner
        ("mesh_px", pa.list_(pa.float32())),  # [936], 468 x (x, y), see perception/mesh.py
        ("detector_score", pa.float32()),
        ("mesh_score", pa.float32()),
        ("face_embedding", pa.list_(pa.float32())),  # [128], compared by Euclidean distance
        ("face_model", pa.string()),  # card id@first 16 hex digits of the weights' hash
        ("image_embedding", pa.list_(pa.float32())),  # [384] of `image`
        ("image_model", pa.string()),
        ("attributes", ATTRIBUTES),
        ("pose", POSE),
        ("quality", QUALITY),
        ("expression", EXPRESSION),
        ("tags", pa.list_(pa.string())),  # of perception.tag.VOCABULARY
    ]
)
"""One picture as it was seen: a row of an annotation shard."""

EVIDENCE = pa.struct(
    [
        ("phrase", pa.string()),  # words of the caption, as they stand there
        ("measure", pa.string()),  # what was measured: a field of the annotation, such as attributes.age_years
        ("value", pa.string()),
        ("confidence", pa.float32()),  # 0..1
    ]
)

CAPTION = pa.struct(
    [
        ("part", pa.string()),  # WHOLE or one of the parts
        ("text", pa.string()),  # as said; the `<facial>` marker is put in when it is exported
        ("evidence", pa.list_(EVIDENCE)),  # empty where the captioner measures nothing
    ]
)

CAPTION_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("captioner", pa.string()),  # name@version or model@revision
        ("captions", pa.list_(CAPTION)),  # WHOLE first
    ]
)
"""The captions of one row whose status is ok: a row of a caption shard."""


class Split(StrEnum):
    """What a kept row is for."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Drop(StrEnum):
    """Why a release leaves a row out. `sentence()` says it in words."""

    NONE = ""
    NOT_ANNOTATED = "not_annotated"
    NOT_LISTED = "not_listed"
    OPTED_OUT = "opted_out"
    UNSAFE = "unsafe"
    TOO_SMALL = "too_small"
    SEVERAL_FACES = "several_faces"
    POSE = "pose"
    LOW_QUALITY = "low_quality"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    WRONG_LABEL = "wrong_label"

    def sentence(self) -> str:
        """The reason in one plain sentence, empty for `NONE`."""
        return _SENTENCES[self]


_SENTENCES = {
    Drop.NONE: "",
    Drop.NOT_ANNOTATED: "The picture could not be read, or shows no face; `detail` says which.",
    Drop.NOT_LISTED: "Its source no longer lists the picture, or has another in its place.",
    Drop.OPTED_OUT: "The picture, or the person in it, is on the opt-out list.",
    Drop.UNSAFE: "The picture did not pass the safety check.",
    Drop.TOO_SMALL: "The face has too few pixels in the photo.",
    Drop.SEVERAL_FACES: "There are several people and none stands out.",
    Drop.POSE: "The head is turned too far away.",
    Drop.LOW_QUALITY: "The face is not clear enough.",
    Drop.EXACT_DUPLICATE: "Another row holds the same file.",
    Drop.NEAR_DUPLICATE: "Another row holds nearly the same picture.",
    Drop.WRONG_LABEL: "The face does not look like the others that the source gives the same name.",
}

DECISION_SCHEMA = pa.schema(
    [
        ("row_id", pa.string()),
        ("source", pa.string()),
        ("shard", pa.string()),  # path of its annotation shard in the output
        ("index", pa.int32()),  # of the row in its shard
        ("keep", pa.bool_()),
        ("reason", pa.string()),  # of Drop
        ("detail", pa.string()),  # what was measured and what was wanted
        ("duplicate_of", pa.string()),  # row_id of the row kept in its place; null when it is no duplicate
        ("identity", pa.string()),  # null without a face; see `known`
        ("known", pa.bool_()),  # the source names it: SOURCE/LABEL; else unknown/ROW_ID, the first seen of its cluster
        ("split", pa.string()),  # of Split; null when not kept
        ("label", pa.string()),  # as listed
        ("licence", pa.string()),  # of the picture, else of its source
        ("weight", pa.float32()),  # of its source, for sampling
    ]
)
"""`releases/NAME/decisions.parquet`: one row for every row of the release's shards, in their order."""

DATA_SCHEMA = pa.schema(
    [
        *(field for field in ANNOTATION_SCHEMA if field.name not in ("version", "status", "reason", "detail")),
        *(field for field in CAPTION_SCHEMA if field.name != "row_id"),
        *(
            field
            for field in DECISION_SCHEMA
            if field.name in ("identity", "known", "split", "label", "licence", "weight")
        ),
    ],
    metadata={
        "huggingface": json.dumps({"info": {"features": {name: {"_type": "Image"} for name in ("image", "mask")}}})
    },
)
"""`releases/NAME/data/SPLIT-*.parquet`: a kept row with all that is known of it, as a training reads it.

The metadata tells `datasets` to decode pictures and masks.
"""


def row_id(source: str, uri: str) -> str:
    """sha256 over source and place within it (64 hex digits): the same picture in two places is two rows."""
    return hashlib.sha256(f"{source}\0{uri}".encode()).hexdigest()
