"""Annotation shards: a file of a few hundred rows, named by the key of all that decides its bytes."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from studiolo.albums.records import Status
from studiolo.datasets.settings import AnnotationSettings
from studiolo.keys import unit_key
from studiolo.settings import PerceptionSettings

UNIT = "shard"
"""Kind of unit in the ledger."""

FOLDER = "shards"

PART_INPUT = pa.schema([("part", pa.string()), ("rows", pa.int32())])
"""One row a part of the listing, before annotation."""

SHARD_SCHEMA = pa.schema(
    [
        ("part", pa.string()),  # path of the part of the listing
        ("shard", pa.string()),  # path of the shard; null when it could not be made
        ("status", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("rows", pa.int32()),
        ("ok", pa.int32()),  # of its rows, by status
        ("dropped", pa.int32()),
        ("failed", pa.int32()),
    ]
)
"""One row a shard, as the annotation stage returns it."""


def shard_key(
    listed: Sequence[Mapping[str, Any]],
    perception: PerceptionSettings,
    annotation: AnnotationSettings,
    weights: Mapping[str, str],
) -> str:
    """Key of the shard of these rows of the listing: of what they are, not of what is said of them."""
    rows = [[row["row_id"], row["version"]] for row in listed]
    return unit_key(UNIT, rows, {"perception": perception, "annotation": annotation}, weights)


def counts_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """How many of a shard's rows there are of each status."""
    counts = Counter(row["status"] for row in rows)
    return {"rows": len(rows), **{status.value: counts[status.value] for status in Status}}


def shard_path(key: str) -> str:
    """Where the shard of this key lies."""
    return f"{FOLDER}/{key}.parquet"
