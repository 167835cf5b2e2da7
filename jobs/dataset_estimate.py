"""`python -m jobs dataset --dry-run`: what the job would take, from a few pictures tried; the output is not touched."""

import os
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.annotator import Annotator
from actors.caption_writer import CaptionWriter
from actors.probe import Probed, probe
from jobs.dataset_check import check_request
from pipelines.plan import Stage, fit
from studiolo.datasets.captions.shards import CAPTION_INPUT
from studiolo.datasets.listing import bring_up_to_date, parts_of
from studiolo.datasets.optout import OptOut
from studiolo.datasets.settings import DatasetSettings, SourceSettings
from studiolo.datasets.shards import PART_INPUT
from studiolo.datasets.sources import list_pictures
from studiolo.storage.store import Store

PROBED = 12
"""Pictures that are tried, of the source that has most."""

DRIVER_BYTES = int(2.2 * 2**30)
"""The driver and Ray, as for the studio job."""

ROW_BYTES = 3 * 2**10
"""What a release has of a row in memory or, vectors, in the folder for temporary files."""


def dry_run(settings: DatasetSettings) -> int:
    """List the sources, try a few pictures and print the estimate; the exit code 0. Raises as `dataset_job.run`."""
    check_request(settings)
    annotation = settings.annotation
    cores = settings.cpus or os.cpu_count() or 1
    rows = {source.name: sum(1 for _ in list_pictures(source)) for source in settings.sources}
    total = sum(rows.values())
    shards = sum(-(-count // annotation.rows_per_shard) for count in rows.values())
    stage = fit(Stage("annotation", annotation.actors, annotation.cpus_per_actor), cores, shards)
    captions = fit(Stage("captions", settings.captions.actors, settings.captions.cpus_per_actor), cores, shards)
    largest = max(settings.sources, key=lambda source: rows[source.name])
    started = time.monotonic()
    count, tried, shard_bytes, said_s = _try(settings, largest)
    workers = min(stage.actors, cores)
    seconds = tried.open_s + tried.call_s[0] / count * total / workers
    saying = f"{said_s / count * total / min(captions.actors, cores) / 3600:.2f} h" if said_s else "not tried"
    disk = shard_bytes / count * total
    lines: dict[str, str] = {
        **{f"  {name}": f"{number} pictures" for name, number in rows.items()},
        "pictures": str(total),
        "shards": str(shards),
        "slots": f"{stage.actors} actors x {stage.cpus_per_actor:g} CPUs = {stage.cpus:g} of {cores}",
        "a picture": f"{tried.call_s[0] / count:.2f} s, {shard_bytes / count / 2**10:.0f} KiB",
        "annotate": f"{seconds / 3600:.2f} h",
        "caption": f"{saying}, by {settings.captioner}",
        "memory": f"{(DRIVER_BYTES + workers * tried.peak_bytes + total * ROW_BYTES) / 2**30:.1f} GiB",
        "disk": f"{2 * disk / 2**30:.2f} GiB, half of it shards, half a release that keeps all",
    }
    for name, value in lines.items():
        print(f"{name:<16}{value}")
    print(
        f"\nmeasured on {count} pictures of {largest.name} in {time.monotonic() - started:.0f} s; what earlier runs"
        " finished is not counted off"
    )
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: measured beside other work, all of it looks slower"
    )
    return 0


def _try(settings: DatasetSettings, source: SourceSettings) -> tuple[int, Probed, int, float]:
    """How many pictures were annotated in a process of their own, what that took, the bytes of their shard, and the
    seconds of their captions; 0 where a model or a server would have to be asked for these.
    """
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        some = list(islice(list_pictures(source), PROBED))
        bring_up_to_date(store, source.name, some, PROBED)
        actor = Annotator(store, settings.suite, settings.perception, settings.annotation, OptOut())
        row: dict[str, Any] = {"part": parts_of(store)[0].path, "rows": len(some)}
        tried = probe(actor, pa.Table.from_pylist([row], PART_INPUT))
        return len(some), tried, len(store.read_bytes(tried.rows[0]["shard"])), _caption(settings, store, tried.rows[0])


def _caption(settings: DatasetSettings, store: Store, shard: dict[str, Any]) -> float:
    writer = CaptionWriter(store, settings.captioner, settings.captions)
    if writer.captioner.rows_per_part:
        return 0.0
    row = {"shard": shard["shard"], "rows": shard["rows"]}
    return probe(writer, pa.Table.from_pylist([row], CAPTION_INPUT)).call_s[0]
