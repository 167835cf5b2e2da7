"""What may not be used: files by their hash, people by the embedding of a face."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
from numpy.typing import ArrayLike, NDArray

from studiolo.albums.manifests import parse_table
from studiolo.albums.sources import read_bytes
from studiolo.errors import PhotoError, SettingsError
from studiolo.storage.store import Store

PATH = "opt-out.parquet"
"""In an output: the contents that were erased from it, which never come back."""

SCHEMA = pa.schema([("content_sha256", pa.string()), ("embedding", pa.list_(pa.float32()))])

_DIMENSIONS = 128
_HASH = frozenset("0123456789abcdef")
_MAX_BYTES = 2**30


@dataclass(frozen=True, eq=False)
class OptOut:
    """A list of contents and people; can be pickled."""

    contents: frozenset[str] = frozenset()
    """sha256 of files, 64 hex digits."""
    faces: NDArray[np.float32] | None = None
    """[N, 128], or None."""

    @classmethod
    def read(cls, url: str) -> Self:
        """The table at `url`. Raises `SettingsError` when it cannot be read or a row does not fit."""
        try:
            table = parse_table(url, read_bytes(url, _MAX_BYTES), ["content_sha256"])
        except PhotoError as error:
            raise SettingsError(f"opt-out list {url!r} cannot be read: {error.detail}") from None
        known = [name for name in SCHEMA.names if name in table.column_names]
        if not known:
            raise SettingsError(f"opt-out list {url!r}: got {table.column_names}, wanted {' or '.join(SCHEMA.names)}")
        return cls._of(url, table.select(known).to_pylist())

    @classmethod
    def of_output(cls, store: Store) -> Self:
        """What was erased from an output."""
        return cls._of(PATH, store.iter_rows(PATH) if store.exists(PATH) else [])

    @classmethod
    def _of(cls, where: str, rows: Iterable[dict[str, Any]]) -> Self:
        contents, faces = set[str](), []
        for number, row in enumerate(rows, start=1):
            content, face = row.get("content_sha256"), row.get("embedding")
            if not content and not face:
                raise SettingsError(f"opt-out list {where!r}: row {number} names nothing")
            if content:
                if len(content) != 64 or not set(content.lower()) <= _HASH:
                    raise SettingsError(
                        f"opt-out list {where!r}: row {number}: got {content!r}, wanted 64 hexadecimal digits"
                    )
                contents.add(content.lower())
            if face:
                vector = np.asarray(face, np.float32)
                if vector.shape != (_DIMENSIONS,) or not np.isfinite(vector).all():
                    raise SettingsError(f"opt-out list {where!r}: row {number}: wanted {_DIMENSIONS} numbers")
                faces.append(vector)
        return cls(frozenset(contents), np.stack(faces) if faces else None)

    def __or__(self, other: "OptOut") -> "OptOut":
        """Both lists as one."""
        faces = [faces for faces in (self.faces, other.faces) if faces is not None]
        return OptOut(self.contents | other.contents, np.concatenate(faces) if faces else None)

    def __bool__(self) -> bool:
        """Whether anything is on the list."""
        return bool(self.contents) or self.faces is not None

    def has_content(self, sha256: str) -> bool:
        """Whether a file of this hash is on the list."""
        return sha256 in self.contents

    def has_face(self, embedding: ArrayLike, within: float) -> bool:
        """Whether a face [128] is nearer than `within` to one on the list."""
        return bool(self.has_faces(np.asarray(embedding, np.float32)[None], within)[0])

    def has_faces(self, embeddings: NDArray[np.float32], within: float) -> NDArray[np.bool_]:
        """The same for each of [M, 128] faces."""
        found = np.zeros(len(embeddings), np.bool_)
        for face in () if self.faces is None else self.faces:
            found |= np.linalg.norm(embeddings - face, axis=1) < within
        return found


def add(store: Store, contents: Iterable[str]) -> None:
    """Contents, by their hashes, that never come back into the output of `store`."""
    known = OptOut.of_output(store).contents
    rows = [{"content_sha256": sha256, "embedding": None} for sha256 in sorted(known | set(contents))]
    store.write_rows(PATH, rows, SCHEMA)
