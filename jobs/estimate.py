"""`python -m jobs studio --dry-run`: what the job would take, from one album tried out; the output is not touched."""

import math
import os
import statistics
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.perceiver import Perceiver
from actors.portraitist import ORDER_INPUT, Portraitist, order_row
from actors.probe import Probed, probe
from actors.trainer import Trainer
from jobs.machine import with_slots
from jobs.studio_check import Request, check_request
from pipelines.plan import Stage, fit
from pipelines.train import fit_group
from studiolo.albums.records import IDENTITY_SCHEMA, Status
from studiolo.albums.sources import INPUT_SCHEMA, AlbumSource, read_bytes
from studiolo.errors import StudioloError
from studiolo.portraits.estimate import Costs, Estimate, Work, estimate
from studiolo.portraits.files import decode_portrait
from studiolo.portraits.gallery import write_person_page
from studiolo.portraits.prints import PrintSize, encode_print
from studiolo.portraits.thumbs import GalleryFiles
from studiolo.settings import FaceLoraSettings, StudioSettings
from studiolo.storage.store import Store
from studiolo.weights.cards import SUITE_BASE

TRIES = 3
"""So many albums are tried until one gives a person."""
STEPS = (4, 16)
"""Training steps of the two tries; their difference is the cost of a step."""

PLAIN = "plain"
"""Tried where pictures in templates are all that is ordered: a style that adds nothing."""

_SECTIONS = {"perceive": "perception", "portraits": "generation"}
Row = dict[str, Any]


def dry_run(settings: StudioSettings) -> int:
    """Check the request, try one album and print the estimate; the exit code 0. Raises as `studio_job.run`."""
    request = check_request(settings)
    work = _work(settings, request)
    workers = _workers(settings, work)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        source, costs = _measure(settings, request, Path(folder))
    result = estimate(work, costs, workers)
    for name, value in _lines(work, result).items():
        print(f"{name:<12}{value}")
    print(
        f"\nmeasured on album {source.album_id!r} ({len(source.photos)} photos) in {time.monotonic() - started:.0f} s;"
        " what earlier runs finished is not counted off"
    )
    print(
        f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores: measured beside other work, all of it looks slower"
    )
    return 0


def _work(settings: StudioSettings, request: Request) -> Work:
    orders = request.orders.values()
    return Work(
        albums=len(request.sources),
        people=sum(order.people for order in orders),
        photos=sum(len(source.photos) for source in request.sources),
        orders=[count for order in orders for _ in range(order.people) for count in order.styles.values()],
        edits=sum(order.people * (name in request.templates) for order in orders for name in order.styles),
        prints=sum(order.people * len(order.prints) * sum(order.styles.values()) for order in orders),
        steps=settings.face_lora.steps,
        slots=_face_lora(settings).slots or 1,
        generation=settings.generation,
    )


def _workers(settings: StudioSettings, work: Work) -> dict[str, int]:
    """Workers of each stage that run at a time; `PlanError` for a plan that does not fit, as in the job itself."""
    cores = settings.cpus or os.cpu_count() or 1
    units = {"perceive": work.albums, "portraits": len(work.orders)}
    workers = {"train": fit_group(_face_lora(settings), cores, work.people).most}
    for stage, section in _SECTIONS.items():
        pool = getattr(settings, section)
        workers[stage] = min(fit(Stage(section, pool.actors, pool.cpus_per_actor), cores, units[stage]).actors, cores)
    return workers


def _face_lora(settings: StudioSettings) -> FaceLoraSettings:
    return with_slots(settings.face_lora, SUITE_BASE[settings.suite])


def _measure(settings: StudioSettings, request: Request, folder: Path) -> tuple[AlbumSource, Costs]:
    """One album's owner through every stage, into a folder of its own."""
    store = Store(folder)
    source, seen = _perceive(settings, request, store)
    (album,) = seen.rows
    base = SUITE_BASE[settings.suite]
    face_lora = _face_lora(settings)
    trainer = Trainer(store, base, face_lora, settings.seed, _Untracked(), "", settings.suite)
    identity = {name: album[name] for name in IDENTITY_SCHEMA.names}
    before = _size(folder)
    trained = probe(
        trainer,
        pa.Table.from_pylist([identity], IDENTITY_SCHEMA),
        [face_lora.model_copy(update={"steps": steps}) for steps in STEPS],
    )
    (lora,) = trained.rows
    if lora["status"] != Status.OK:
        raise StudioloError(f"dry run: training on album {source.album_id!r} failed: {lora['detail']}")
    step_s = max(trained.call_s[1] - trained.call_s[0], 0.0) / (STEPS[1] - STEPS[0])
    made = _portray(settings, request, store, album, lora)
    page_s, page_bytes = _page(source, album, made.rows, request, store, folder)
    pictures = [decode_portrait(store.read_bytes(row["path"]))[0] for row in made.rows]
    print_s, print_bytes = _print(pictures[0], {size for order in request.orders.values() for size in order.prints})
    return source, Costs(
        open_s={"perceive": seen.open_s, "train": trained.open_s, "portraits": made.open_s},
        peak_bytes={"perceive": seen.peak_bytes, "train": trained.peak_bytes, "portraits": made.peak_bytes},
        photo_s=seen.call_s[0] / len(source.photos),
        person_s=max(trained.call_s[0] - STEPS[0] * step_s, 0.0),
        step_s=step_s,
        batch_s=made.call_s[0],
        page_s=page_s,
        album_bytes=before + page_bytes,
        lora_bytes=len(store.read_bytes(lora["path"])),
        candidate_bytes=sum(len(store.read_bytes(row["path"])) for row in made.rows) // len(made.rows),
        print_s=print_s,
        print_bytes=print_bytes,
    )


def _perceive(settings: StudioSettings, request: Request, store: Store) -> tuple[AlbumSource, Probed]:
    """The album nearest to the usual size that gives a person, perceived."""
    usual = statistics.median(len(source.photos) for source in request.sources)
    tried = sorted(request.sources, key=lambda source: (abs(len(source.photos) - usual), source.album_id))[:TRIES]
    actor = Perceiver(store, settings.suite, settings.perception, settings.selection)
    for source in tried:
        seen = probe(actor, pa.Table.from_pylist([replace(source, people=1).row()], INPUT_SCHEMA))
        if seen.rows[0]["status"] == Status.OK:
            return source, seen
    names = ", ".join(repr(source.album_id) for source in tried)
    raise StudioloError(f"dry run: none of the albums {names} gave a person; wanted one to measure with")


def _portray(settings: StudioSettings, request: Request, store: Store, album: Row, lora: Row) -> Probed:
    """One full batch of candidates, in the first style ordered."""
    once = settings.generation.model_copy(update={"retries": 0, "candidates_per_portrait": 1})
    style = next((style.name for style in request.styles if style.name not in request.templates), PLAIN)
    row = order_row(album, lora, style, once.slots, settings.seed)
    actor = Portraitist(
        store,
        settings.suite,
        SUITE_BASE[settings.suite],
        once,
        settings.selection.unsafe_above,
        settings.style_folder,
    )
    return probe(actor, pa.Table.from_pylist([row], ORDER_INPUT))


def _page(
    source: AlbumSource, album: Row, portraits: list[Row], request: Request, store: Store, folder: Path
) -> tuple[float, int]:
    """Seconds and bytes of the album's page."""
    places = dict(source.photos)
    files = GalleryFiles(store.read_bytes, store.write_bytes, lambda _, uri: read_bytes(places[uri]))
    before, started = _size(folder), time.monotonic()
    styles = {style.name: style for style in request.styles}
    write_person_page(album, album, portraits, styles, request.orders[source.album_id].styles, files)
    return time.monotonic() - started, _size(folder) - before


def _print(rgb_u8: Any, sizes: set[PrintSize]) -> tuple[float, int]:
    """Seconds and bytes of a print, over the sizes ordered; 0 without one."""
    if not sizes:
        return 0.0, 0
    height_px, width_px = rgb_u8.shape[:2]
    started = time.monotonic()
    contents = [encode_print(rgb_u8, (0.0, 0.0, float(width_px), float(height_px)), size) for size in sizes]
    return (time.monotonic() - started) / len(sizes), sum(map(len, contents)) // len(sizes)


def _lines(work: Work, result: Estimate) -> dict[str, str]:
    """The printed figures, by name."""
    stages = {name: _between(*map(_hms, span)) for name, span in result.seconds.items() if name != "total"}
    return {
        "albums": str(work.albums),
        "people": str(work.people),
        "photos": str(work.photos),
        "portraits": f"{sum(work.orders)} ordered, {_between(*map(str, result.candidates))} candidates",
        "prints": str(work.prints),
        **{f"  {name}": span for name, span in stages.items()},
        "time": _between(*map(_hms, result.seconds["total"])),
        "memory": f"{result.memory_bytes / 2**30:.1f} GiB",
        "disk": _between(*(f"{size / 2**20:.0f} MiB" for size in result.disk_bytes)),
    }


def _between(least: str, most: str) -> str:
    return least if least == most else f"{least} to {most}"


def _hms(seconds: float) -> str:
    minutes, second = divmod(math.ceil(seconds), 60)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{second:02d}"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


class _Untracked:
    """A tracker that keeps nothing: a dry run is no run."""

    def start(self, key: str, name: str, params: Mapping[str, object], parent: str | None = None) -> str:
        """See `Tracker`."""
        return ""

    def log_metrics(self, run: str, metrics: Mapping[str, Any]) -> None:
        """See `Tracker`."""

    def log_artifact(self, run: str, path: str, content: bytes) -> None:
        """See `Tracker`."""

    def finish(self, run: str, ok: bool) -> None:
        """See `Tracker`."""
