"""The dataset job's graphs: parts of the listing -> annotation shards -> caption shards; decisions -> data files."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from pipelines.graph import stream
from pipelines.plan import Stage
from studiolo.datasets.captions.shards import CAPTION_INPUT
from studiolo.datasets.releases import FILE_INPUT
from studiolo.datasets.shards import PART_INPUT
from studiolo.storage.spool import portions
from studiolo.storage.store import Store

if TYPE_CHECKING:
    from actors.annotator import Annotator
    from actors.caption_writer import CaptionWriter
    from actors.exporter import Exporter

Row = dict[str, Any]

FILES_AT_A_TIME = 64
"""Data files that are planned together: what is said of each of their rows is in memory."""


def annotate(parts: Iterable[Row], actor: "Annotator", stage: Stage, store: Store) -> Iterator[Row]:
    """A row of `SHARD_SCHEMA` for every part of the listing (`PART_INPUT`), as they are done."""
    return stream(portions(parts, PART_INPUT), actor, stage, store)


def caption(shards: Iterable[Row], actor: "CaptionWriter", stage: Stage, store: Store) -> Iterator[Row]:
    """A row of `CAPTIONED_SCHEMA` for every annotation shard (`CAPTION_INPUT`), as they are done."""
    return stream(portions(shards, CAPTION_INPUT), actor, stage, store)


def export(files: Iterable[Row], actor: "Exporter", stage: Stage, store: Store) -> Iterator[Row]:
    """A row of `FILE_SCHEMA` for every data file (`FILE_INPUT`), as they are written."""
    return stream(portions(files, FILE_INPUT, FILES_AT_A_TIME), actor, stage, store)
