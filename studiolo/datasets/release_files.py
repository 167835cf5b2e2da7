"""The files of a release as whoever describes, browses or exports it reads them: row by row, little in memory."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from studiolo.datasets import releases
from studiolo.datasets.records import DATA_SCHEMA
from studiolo.storage.store import Store

Row = dict[str, Any]

LIGHT = tuple(
    field.name
    for field in DATA_SCHEMA
    if field.name not in ("image", "mask", "mesh_px", "face_embedding", "image_embedding")
)
"""The columns that weigh little: all but pictures, mesh and embeddings."""


@dataclass(frozen=True)
class Place:
    """Where a row of a release lies."""

    path: str
    """Of its data file, in the output."""
    index: int
    """In that file."""


class ReleaseFiles:
    """The release called `name` in the output `store`."""

    def __init__(self, store: Store, name: str) -> None:
        self.store, self.name = store, name
        self.record: Row = store.read_json(self.place(releases.RECORD))
        """What `release.json` says."""

    def place(self, path: str) -> str:
        """Path in the output of a file of the release."""
        return releases.place(self.name, path)

    def decisions(self, columns: Sequence[str] | None = None) -> Iterator[Row]:
        """Rows of `DECISION_SCHEMA`, in their order; of `columns` when given."""
        return self.store.iter_rows(self.place(releases.DECISIONS), columns)

    def data_paths(self, split: str | None = None) -> list[str]:
        """Paths in the output of the data files, in order; of one split when given."""
        return [self.place(file["path"]) for file in self.data_files(split)]

    def data_files(self, split: str | None = None) -> list[Row]:
        """What the record says of the data files, in order; of one split when given."""
        return [file for file in self.record["files"] if "split" in file and split in (None, file["split"])]

    def rows(self, columns: Sequence[str] | None = LIGHT, split: str | None = None) -> Iterator[tuple[Place, Row]]:
        """Kept rows (`DATA_SCHEMA`) with their places, file by file; all columns when None, of one split when given."""
        for path in self.data_paths(split):
            for index, row in enumerate(self.store.iter_rows(path, columns)):
                yield Place(path, index), row

    def rows_at(self, places: Sequence[Place]) -> Iterator[Row]:
        """Whole rows at `places`, in the order of files and rows; only the row groups that hold them are read."""
        wanted: dict[str, set[int]] = {}
        for place in places:
            wanted.setdefault(place.path, set()).add(place.index)
        for path in sorted(wanted):
            with self.store.as_local_file(path) as file, pq.ParquetFile(file) as table:
                start = 0
                for group in range(table.num_row_groups):
                    count = table.metadata.row_group(group).num_rows
                    here = sorted(index - start for index in wanted[path] if start <= index < start + count)
                    if here:
                        yield from table.read_row_group(group).take(here).to_pylist()
                    start += count

    def pick(self, count: int) -> list[Place]:
        """Places of `count` rows, the same ones each time, spread over all that are kept: those with the lowest ids,
        which are hashes.
        """
        ids = [(row["row_id"], place) for place, row in self.rows(("row_id",))]
        chosen = sorted(ids, key=lambda item: item[0])[:count]
        return sorted((place for _, place in chosen), key=lambda place: (place.path, place.index))


def caption_of(row: Mapping[str, Any], part: str) -> str:
    """The text of a row's caption of `part`; "" without one."""
    return next((caption["text"] for caption in row["captions"] or () if caption["part"] == part), "")
