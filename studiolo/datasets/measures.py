"""What a release decides by: of each row some two hundred bytes in memory, its vectors on this machine's disk."""

import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from studiolo.albums.records import Status
from studiolo.datasets.listing import Part
from studiolo.storage.store import Store

FACE_SIZE, IMAGE_SIZE = 128, 384
"""Numbers of a face's and of a picture's embedding."""

COLUMNS = (
    *(
        "row_id",
        "version",
        "status",
        "reason",
        "detail",
        "content_sha256",
        "phash",
        "unsafe_score",
        "second_face_share",
    ),
    *("photo_bbox_xyxy_px", "face_embedding", "image_embedding", "pose", "quality"),
)
"""What is read of a shard."""

ROW = np.dtype(
    [
        ("row_id", "u1", 32),
        ("part", "i4"),  # number of the part of the listing, and index of the row in it
        ("index", "i4"),
        ("source", "i4"),  # index in `Measures.sources`
        ("label", "i4"),  # index in `Measures.labels`, -1 without one
        ("licence", "i4"),  # index in `Measures.licences`, -1 for the source's
        ("listed", "?"),
        ("annotated", "?"),
        ("content", "u1", 32),
        ("read", "?"),  # whether `content` is known
        ("phash", "u8"),
        ("face_px", "f4"),
        ("second_face_share", "f4"),
        ("yaw_deg", "f4"),
        ("pitch_deg", "f4"),
        ("quality", "f4"),
        ("unsafe", "f4"),
    ]
)


@dataclass(frozen=True)
class Shard:
    """A part of the listing and its annotation shard."""

    part: Part
    path: str | None
    """None when it could not be made."""
    detail: str = ""
    """Why not."""


@dataclass(eq=False)
class Measures:
    """All rows of some shards, in the order in which they were first seen."""

    rows: NDArray[Any]
    """[N] of `ROW`."""
    faces: NDArray[np.float32]
    """[N, 128], on the disk; rows that are not annotated are zero."""
    images: NDArray[np.float16]
    """[N, 384], on the disk; not normalised."""
    shards: list[Shard]
    sources: list[str]
    labels: list[str]
    """`SOURCE/LABEL` of each identity that a source names."""
    licences: list[str]
    refused: dict[int, tuple[str, str]] = field(default_factory=dict)
    """Reason and detail of the rows that are not annotated, by index."""

    def __len__(self) -> int:
        return len(self.rows)


def gather(store: Store, shards: Iterable[Shard]) -> Measures:
    """Read what a release decides by. The vectors' files have no name and are gone with the process."""
    return _Gathering(store).all_of(sorted(shards, key=lambda shard: shard.part.number))


class _Gathering:
    """Tables of names, and the files that vectors go to."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.sources, self.labels, self.licences = dict[str, int](), dict[str, int](), dict[str, int]()
        self.refused: dict[int, tuple[str, str]] = {}
        self.count = 0

    def all_of(self, shards: list[Shard]) -> Measures:
        with tempfile.TemporaryFile() as faces, tempfile.TemporaryFile() as images:
            blocks = [self._shard(shard, faces, images) for shard in shards]
            return Measures(
                rows=np.concatenate(blocks) if blocks else np.zeros(0, ROW),
                faces=_mapped(faces, np.float32, FACE_SIZE),
                images=_mapped(images, np.float16, IMAGE_SIZE),
                shards=shards,
                sources=list(self.sources),
                labels=list(self.labels),
                licences=list(self.licences),
                refused=self.refused,
            )

    def _shard(self, shard: Shard, faces: IO[bytes], images: IO[bytes]) -> NDArray[Any]:
        listed = self.store.read_table(shard.part.path)
        block = np.zeros(listed.num_rows, ROW)
        self._listed(block, shard, listed)
        if shard.path is None:
            self._refuse(range(len(block)), ["crashed_worker"] * len(block), [shard.detail] * len(block))
            seen = {"face_embedding": None, "image_embedding": None}
        else:
            table = self.store.read_table(shard.path, COLUMNS)
            self._seen(block, table)
            seen = {name: table.column(name).combine_chunks() for name in ("face_embedding", "image_embedding")}
        faces.write(_vectors(seen["face_embedding"], len(block), FACE_SIZE, np.float32).tobytes())
        images.write(_vectors(seen["image_embedding"], len(block), IMAGE_SIZE, np.float16).tobytes())
        self.count += len(block)
        return block

    def _listed(self, block: NDArray[Any], shard: Shard, listed: pa.Table) -> None:
        for index, row in enumerate(listed.to_pylist()):
            one = block[index]
            one["row_id"] = np.frombuffer(bytes.fromhex(row["row_id"]), np.uint8)
            one["source"] = self.sources.setdefault(row["source"], len(self.sources))
            label, licence = row["label"], row["licence"]
            named = f"{row['source']}/{label}"
            one["label"] = -1 if label is None else self.labels.setdefault(named, len(self.labels))
            one["licence"] = -1 if licence is None else self.licences.setdefault(licence, len(self.licences))
            one["listed"] = row["listed"]
        block["part"], block["index"] = shard.part.number, np.arange(len(block))

    def _seen(self, block: NDArray[Any], table: pa.Table) -> None:
        statuses = table.column("status").to_pylist()
        block["annotated"] = [status == Status.OK for status in statuses]
        refused = np.flatnonzero(~block["annotated"])
        reasons, details = (table.column(name).to_pylist() for name in ("reason", "detail"))
        self._refuse(refused, [reasons[index] for index in refused], [details[index] for index in refused])
        for index, sha256 in enumerate(table.column("content_sha256").to_pylist()):
            if sha256 is not None:
                block["content"][index] = np.frombuffer(bytes.fromhex(sha256), np.uint8)
                block["read"][index] = True
        block["phash"] = [int(value or "0", 16) for value in table.column("phash").to_pylist()]
        boxes = _vectors(table.column("photo_bbox_xyxy_px").combine_chunks(), len(block), 4, np.float32)
        block["face_px"] = np.minimum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
        for name, values in {
            "second_face_share": table.column("second_face_share"),
            "unsafe": table.column("unsafe_score"),
            "yaw_deg": pc.struct_field(table.column("pose"), "yaw_deg"),
            "pitch_deg": pc.struct_field(table.column("pose"), "pitch_deg"),
            "quality": pc.struct_field(table.column("quality"), "score"),
        }.items():
            block[name] = pc.fill_null(values, 0.0).to_numpy()

    def _refuse(self, indices: Iterable[int], reasons: Sequence[str], details: Sequence[str]) -> None:
        for index, reason, detail in zip(indices, reasons, details, strict=True):
            self.refused[self.count + int(index)] = (reason, detail)


def _vectors(column: pa.ListArray | None, rows: int, size: int, dtype: type) -> NDArray[Any]:
    """[rows, size] of a column of lists, zero where it is null."""
    vectors: NDArray[Any] = np.zeros((rows, size), dtype)
    if column is not None:
        vectors[pc.is_valid(column).to_numpy(zero_copy_only=False)] = (
            column.flatten().to_numpy(zero_copy_only=False).reshape(-1, size)
        )
    return vectors


def _mapped(file: IO[bytes], dtype: type, size: int) -> NDArray[Any]:
    file.flush()
    length = file.tell() // (size * np.dtype(dtype).itemsize)
    if not length:
        return np.zeros((0, size), dtype)
    return np.memmap(file, dtype, "r", shape=(length, size))
