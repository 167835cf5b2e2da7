"""Pictures that a table names: Parquet, CSV or JSONL.

Columns: `uri` (absolute, or relative to the table's folder), and where wanted `label` (the identity), `licence` and
`sha256` (of the content; saves a look at each file). Other columns are not read.
"""

import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from studiolo.albums.manifests import parse_table
from studiolo.albums.sources import absolute, is_local, local_path, read_bytes
from studiolo.datasets.settings import SourceSettings
from studiolo.datasets.sources.listed import ABSENT, Listed, version_of_entry, version_of_file
from studiolo.errors import PhotoError, SettingsError

COLUMNS = ("uri", "label", "licence", "sha256")
MAX_BYTES = 2**31
"""A table may be so long."""

_LOOKING = 32  # threads; each asks a storage about one file
_AT_A_TIME = 4096


def list_manifest(source: SourceSettings) -> Iterator[Listed]:
    """The rows in their order; see `sources.list_pictures`. A file that is not there is listed, and fails when read."""
    try:
        table = parse_table(source.place, read_bytes(source.place, MAX_BYTES), COLUMNS)
    except PhotoError as error:
        raise SettingsError(f"source {source.name!r}: manifest {source.place!r} cannot be read: {error}") from None
    if "uri" not in table.column_names:
        raise SettingsError(
            f"source {source.name!r}: manifest {source.place!r}: got the columns {table.column_names}, wanted 'uri'"
        )
    try:
        texts = _texts(table)
    except pa.ArrowException as error:
        raise SettingsError(f"source {source.name!r}: manifest {source.place!r}: {error}, wanted text") from None
    rows = (row for batch in texts.to_batches(_AT_A_TIME) for row in batch.to_pylist())
    for number, (row, place, version) in enumerate(_looked_up(source.place, rows), start=1):
        if not row["uri"]:
            raise SettingsError(f"source {source.name!r}: manifest {source.place!r}: row {number} has no uri")
        yield Listed(row["uri"], place, version, row.get("label") or None, row.get("licence") or None)


def _texts(table: pa.Table) -> pa.Table:
    """The columns we know, as text: a label may be a number."""
    names = [name for name in COLUMNS if name in table.column_names]
    return pa.table({name: pc.cast(table.column(name), pa.string()) for name in names})


def _looked_up(manifest: str, rows: Iterable[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], str, str]]:
    rows = iter(rows)
    with ThreadPoolExecutor(_LOOKING) as pool:
        while some := list(islice(rows, _AT_A_TIME)):
            places = [absolute(manifest, row["uri"] or "") for row in some]
            versions = pool.map(_version, some, places)
            yield from zip(some, places, versions, strict=True)


def _version(row: dict[str, Any], place: str) -> str:
    if row.get("sha256"):
        return f"sha256-{row['sha256']}"
    try:
        if is_local(place):
            return version_of_file(os.path.realpath(local_path(place)))
        fs, path = fsspec.core.url_to_fs(place, use_listings_cache=False)
        return version_of_entry(fs.info(path))
    except OSError:
        return ABSENT
