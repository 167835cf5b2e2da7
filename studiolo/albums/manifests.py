"""Manifests: a Parquet, CSV or JSONL table with exactly the columns `album_id` and `uri`.

A `uri` is relative to the manifest's folder, or an absolute path or URL. Rows of one album need not stand
together. A row without a `uri` declares an album that may have no photos.
"""

import io
from collections.abc import Callable, Sequence

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq

from studiolo.errors import SettingsError, nearest
from studiolo.identities.artifacts import album_of

COLUMNS = ("album_id", "uri")
FORMATS = (".parquet", ".csv", ".jsonl", ".ndjson")


def read_manifest(url: str, read: Callable[[], bytes]) -> dict[str, list[str]]:
    """Album id -> uris in the order of the rows. `read` gives the manifest's bytes; `url` decides the format.

    Raises `SettingsError`: unknown format, unknown or missing columns, a row without album id or with one
    that a person of another album may have, one uri twice.
    """
    if not is_manifest(url):
        raise SettingsError(f"albums {url!r} is a file; wanted a folder of album folders, or .parquet, .csv or .jsonl")
    table = _text_columns(url, parse_table(url, read(), COLUMNS))
    albums: dict[str, list[str]] = {}
    seen: set[tuple[str, str]] = set()
    for number, row in enumerate(table.to_pylist(), start=1):
        album_id, uri = row["album_id"], row["uri"]
        if not album_id:
            raise SettingsError(f"manifest {url!r}: row {number} has no album_id")
        if (owner := album_of(album_id)) != album_id:
            raise SettingsError(
                f"manifest {url!r}: row {number} names the album {album_id!r}, as a person of the album {owner!r} is"
                " called; wanted a name that does not end so"
            )
        uris = albums.setdefault(album_id, [])
        if not uri:
            continue
        if (album_id, uri) in seen:
            raise SettingsError(f"manifest {url!r}: row {number} lists {uri!r} of album {album_id!r} again")
        seen.add((album_id, uri))
        uris.append(uri)
    return albums


def is_manifest(url: str) -> bool:
    """Whether `url` is called as a manifest is."""
    return url.partition("::")[0].lower().endswith(FORMATS)


def parse_table(url: str, data: bytes, texts: Sequence[str]) -> pa.Table:
    """The table in `data`, whose format the end of `url` says; of CSV the columns `texts` are texts.

    Raises `SettingsError`: unknown format, damaged.
    """
    name = url.partition("::")[0].lower()
    try:
        if name.endswith(".parquet"):
            return pq.read_table(io.BytesIO(data))
        if name.endswith(".csv"):
            # Without types an id such as 007 would be read as the number 7.
            types = {name: pa.string() for name in texts}
            convert = pa_csv.ConvertOptions(column_types=types, strings_can_be_null=True, null_values=[""])
            parse = pa_csv.ParseOptions(newlines_in_values=True)
            return pa_csv.read_csv(io.BytesIO(data), convert_options=convert, parse_options=parse)
        if name.endswith((".jsonl", ".ndjson")):
            return pa_json.read_json(io.BytesIO(data))
    except pa.ArrowException as error:
        raise SettingsError(f"manifest {url!r} cannot be read: {error}") from None
    raise SettingsError(f"manifest {url!r}: wanted .parquet, .csv or .jsonl")


def _text_columns(url: str, table: pa.Table) -> pa.Table:
    for name in table.column_names:
        if name not in COLUMNS:
            raise SettingsError(f"manifest {url!r}: no column is called {name!r}; {nearest(name, COLUMNS)}")
    for name in COLUMNS:
        if table.column_names.count(name) != 1:
            raise SettingsError(f"manifest {url!r}: wanted one column {name!r}, got {table.column_names}")
        kind = table.schema.field(name).type
        if not (pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_null(kind)):
            raise SettingsError(f"manifest {url!r}: column {name!r} holds {kind}, wanted text")
    return pa.table({name: pc.cast(table.column(name), pa.string()) for name in COLUMNS})
