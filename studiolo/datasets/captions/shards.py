"""Caption shards: what one captioner says of the rows of one annotation shard, in a file beside it."""

from dataclasses import fields

import pyarrow as pa

from studiolo.datasets.captions.captioner import Usage
from studiolo.keys import unit_key

UNIT = "captions"
"""Kind of unit in the ledger."""

FOLDER = "captions"
IN_PARTS = "captions-in-parts"
"""What is kept of shards that are not done, see `captions.parts`."""

CAPTION_INPUT = pa.schema([("shard", pa.string()), ("rows", pa.int32())])
"""One row an annotation shard, before its captions are written."""

CAPTIONED_SCHEMA = pa.schema(
    [
        ("shard", pa.string()),  # path of the annotation shard
        ("captions", pa.string()),  # path of the caption shard; null when it could not be made
        ("reason", pa.string()),  # "" unless it could not be made
        ("detail", pa.string()),
        ("rows", pa.int32()),  # annotated ones
        ("silent", pa.int32()),  # of these, rows of which the captioner says nothing
        *((field.name, pa.float64()) for field in fields(Usage)),  # what a server was asked and took
    ]
)
"""One row a caption shard, as the caption stage returns it."""


def caption_key(shard: str, captioner: str) -> str:
    """Key of the captions that the captioner of this id writes of the annotation shard at the path `shard`."""
    return unit_key(UNIT, [shard, captioner], {}, {})


def caption_path(shard: str, captioner: str) -> str:
    """Where these captions lie."""
    return f"{FOLDER}/{caption_key(shard, captioner)}.parquet"
