"""The studio job, stage by stage: perceive, train, portraits, publish."""

import datetime
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import chain, groupby
from typing import Any

import pyarrow as pa

from actors.perceiver import Perceiver
from actors.portraitist import ORDER_INPUT, Portraitist, order_row
from actors.printer import PRINT_INPUT, Printer
from actors.trainer import Trainer
from jobs.machine import PeakMemory, versions, with_slots
from jobs.progress import Progress
from jobs.publish import publish
from jobs.studio_check import Request, check_request, read_approvals
from pipelines.graph import gpus, start, stop, stream
from pipelines.guard import Actor
from pipelines.plan import Stage, fit
from pipelines.train import Group, fit_group, train
from studiolo.albums.records import (
    FACE_LORA_SCHEMA,
    IDENTITY_SCHEMA,
    PERCEIVED_SCHEMA,
    PORTRAIT_SCHEMA,
    Reason,
    Status,
)
from studiolo.albums.sources import INPUT_SCHEMA
from studiolo.errors import StudioloError
from studiolo.identities.artifacts import album_of
from studiolo.keys import unit_key
from studiolo.portraits.approvals import BATCH, chosen_for_more, more_first_index, rank_alike
from studiolo.portraits.order_file import ORDERED_SCHEMA
from studiolo.portraits.orders import order_seed
from studiolo.portraits.prints import PRINT_SCHEMA
from studiolo.settings import StudioSettings
from studiolo.storage import retention
from studiolo.storage.lock import Lock
from studiolo.storage.spool import Spool, portions
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker, flat
from studiolo.weights.cards import SUITE_BASE

Row = dict[str, Any]

GALLERY_INDEX = "gallery/index.html"

STAGES = ("perceive", "train", "portraits", "prints", "publish")
"""`prints` is entered when prints are ordered."""

NAMED = 10
"""The report names so many of the identities that failed."""


def run(settings: StudioSettings) -> int:
    """Carry out the job; returns the exit code 0 or 3. Raises `UsageError` before any work, `StudioloError` after."""
    request = check_request(settings)
    store = Store(settings.out)
    with store.lock("studio") as lock, PeakMemory() as memory, Progress(STAGES) as progress:
        job = StudioJob(settings, request, store, lock, progress)
        try:
            job.plan()
            with job.tracked():
                job.perceive()
                require_photos(job.albums, settings.max_failed_share)
                job.train()
                job.portray()
                job.make_prints()
                summary = job.publish(memory)
        finally:
            stop()
    failed = [
        {name: row[name] for name in ("identity_id", "stage", "reason")}
        for row in job.identities
        if row["status"] != Status.OK
    ]
    _report(summary, failed, str(store.local_path(GALLERY_INDEX) or f"{store.url}/{GALLERY_INDEX}"))
    return 3 if summary["identities_failed"] else 0


def require_photos(albums: Iterable[Row], max_failed_share: float) -> None:
    """Raises `StudioloError`, with the counts by reason, when a larger share of all photos failed."""
    photos, failed = 0, Counter[str]()
    for album in albums:
        photos += len(album["photos"])
        failed.update(str(photo["reason"]) for photo in album["photos"] if photo["status"] == Status.FAILED)
    if failed.total() > max_failed_share * photos:
        counts = ", ".join(f"{count} {reason}" for reason, count in failed.most_common())
        raise StudioloError(
            f"{failed.total()} of {photos} photos could not be read or decoded ({counts}), wanted at most "
            f"{max_failed_share:.0%}; see albums.parquet, mend the albums or raise max_failed_share, run again"
        )


def _report(summary: Row, failed: list[Row], gallery: str) -> None:
    """The result and who failed for people, and the gallery's place alone on the last line for scripts."""
    print(
        f"{summary['photos_in']} photos: {summary['photos_ok']} used, {summary['photos_dropped']} left out, "
        f"{summary['photos_failed']} could not be used; {summary['identities']} people, "
        f"{summary['identities_failed']} failed; "
        f"{summary['portraits_accepted']} portraits accepted, {summary['portraits_rejected']} rejected; "
        f"{summary['orders_short']} of {summary['orders']} orders are short of portraits",
        file=sys.stderr,
    )
    for row in failed[:NAMED]:
        print(f"failed: {row['identity_id']} ({row['stage']}: {row['reason']})", file=sys.stderr)
    if len(failed) > NAMED:
        print(f"failed: {len(failed) - NAMED} more, see identities.parquet", file=sys.stderr)
    print(gallery)


class StudioJob:
    """The stages of one run and the rows they leave, which wait on the disk: of ten thousand albums none is kept here.

    Tables and pages come in the order of the people's names: an owner's is the album's, and the others' begin with it.
    """

    def __init__(
        self, settings: StudioSettings, request: Request, store: Store, lock: Lock, progress: Progress
    ) -> None:
        self.settings = settings
        self.sources, self.styles, self.orders, self.templates = request
        self.store = store
        self.lock = lock
        self.progress = progress
        self.base = SUITE_BASE[settings.suite]
        self.tracker = MlflowTracker.beside(store, settings.tracking_uri)
        self.run_id = ""
        self.stages: dict[str, Stage] = {}
        self.face_lora = with_slots(settings.face_lora, self.base)
        self.group: Group
        self.albums = Spool(PERCEIVED_SCHEMA, "identity_id")
        self.loras: dict[str, Row] = {}
        self.identities = Spool(IDENTITY_SCHEMA, "identity_id")
        self.portraits = Spool(PORTRAIT_SCHEMA, "identity_id", "style", "index")
        self.prints = Spool(PRINT_SCHEMA, "identity_id", "style", "index", "print")

    def plan(self) -> None:
        """Start Ray and fit the pools of all stages, so that one which cannot run is refused before the first."""
        cpus = start(self.settings.cpus, self.settings.object_store_mib)
        dates = {album: order.delete_after for album, order in self.orders.items()}
        retention.remember(self.store, dates, self.settings.retention_days, datetime.date.today())
        people = sum(order.people for order in self.orders.values())
        orders = sum(len(order.styles) * order.people for order in self.orders.values())
        work = {"perception": len(self.sources), "generation": orders}
        self.group = fit_group(self.face_lora, cpus, people, gpus())
        for name, units in work.items():
            settings = getattr(self.settings, name)
            stage = Stage(
                name,
                settings.actors,
                settings.cpus_per_actor,
                together=self.settings.generation.orders_in_flight if name == "generation" else 1,
                queued=int(name == "perception"),  # albums take seconds, orders minutes
                limit_s=settings.time_limit_s,
                memory_mib=settings.memory_limit_mib,
            )
            self.stages[name] = fit(stage, cpus, units)
        self.stages["prints"] = replace(self.stages["generation"], together=1)

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """The job's parent run, which fails with whatever is raised inside."""
        content = self.settings.model_dump(mode="json", exclude={"tracking_uri"})
        with self.tracker.run(unit_key("job", [content], {}, {}), "studio", flat(content)) as self.run_id:
            yield

    def stream(self, rows: Iterable[pa.Table], actor: Actor, stage: str) -> Iterator[Row]:
        """Rows through the pool of `stage`, for as long as the output is ours alone."""
        for row in stream(rows, actor, self.stages[stage], self.store):
            self.lock.check()
            yield row

    def pack(self, people: Iterable[Row], actor: Trainer) -> Iterator[Row]:
        """Identities through the training group, for as long as the output is ours alone."""
        for row in train(people, actor, self.group, self.progress.under_way):
            self.lock.check()
            yield row

    def perceive(self) -> None:
        """Albums -> annotated photos, people, references."""
        settings = self.settings.perception
        self.progress.stage("perceive", total=sum(len(source.photos) for source in self.sources))
        actor = Perceiver(self.store, self.settings.suite, settings, self.settings.selection)
        rows = portions((source.row() for source in self.sources), INPUT_SCHEMA)
        for row in self.stream(rows, actor, "perception"):
            self.albums.append(row)
            statuses = [photo["status"] for photo in row["photos"]]
            self.progress.advance(
                len(statuses),
                accepted=statuses.count(Status.OK),
                rejected=statuses.count(Status.DROPPED),
                failed=statuses.count(Status.FAILED),
            )
        self.store.write_rows("albums.parquet", self.albums, PERCEIVED_SCHEMA)

    def train(self) -> None:
        """References -> a face-LoRA an identity."""
        self.progress.stage("train", total=sum(row["status"] == Status.OK for row in self.albums))
        actor = Trainer(
            self.store, self.base, self.face_lora, self.settings.seed, self.tracker, self.run_id, self.settings.suite
        )
        for row in self.pack((row for row in self.albums if row["status"] == Status.OK), actor):
            self.loras[row["identity_id"]] = row
            trained = row["status"] == Status.OK
            self.progress.advance(accepted=int(trained), failed=int(not trained))
        self.loras = dict(sorted(self.loras.items()))
        self.store.write_table("face_loras.parquet", pa.Table.from_pylist(list(self.loras.values()), FACE_LORA_SCHEMA))

    def portray(self) -> None:
        """Face-LoRAs and styles -> ranked portraits, and more of those that the studio asked more of."""
        settings = self.settings.generation
        more = self._more()
        total = sum(1 for _ in self._orders()) + len(more)
        self.progress.stage("portraits", total=total)  # candidates are counted as accepted or rejected
        actor = Portraitist(
            self.store,
            self.settings.suite,
            self.base,
            settings,
            self.settings.selection.unsafe_above,
            self.settings.style_folder,
            self.settings.controlnets if self.templates else None,
            self.settings.perception.of_templates(self.settings.template_side_px),
        )
        rows = portions(chain(self._orders(), more), ORDER_INPUT)
        made = Spool(PORTRAIT_SCHEMA, "identity_id", "style", "index")
        finished: set[tuple[str, str, int]] = set()
        for row in self.stream(rows, actor, "generation"):
            made.append(row)
            order = (row["identity_id"], row["style"], row["index"] // BATCH)  # its candidates come out together
            self.progress.advance(
                int(order not in finished),
                accepted=int(row["status"] == Status.OK),
                rejected=int(row["status"] == Status.DROPPED),
                failed=int(row["status"] == Status.FAILED),
            )
            finished.add(order)
        for name, candidates in groupby(made, lambda row: str(row["identity_id"])):
            self.portraits.filled(rank_alike(list(candidates), {name: self.orders[album_of(name)].styles}))

    def make_prints(self) -> None:
        """Accepted portraits -> print files, where prints are ordered."""
        ordered = {album: [size.name for size in order.prints] for album, order in self.orders.items()}

        def printed() -> Iterator[Row]:
            for row in self.portraits:
                if row["status"] == Status.OK and ordered[album_of(row["identity_id"])]:
                    yield _pick({**row, "prints": ordered[album_of(row["identity_id"])]}, PRINT_INPUT)

        total = sum(1 for _ in printed())
        if not total:
            return
        self.progress.stage("prints", total=total)
        for row in self.stream(portions(printed(), PRINT_INPUT), Printer(self.store, self.settings.suite), "prints"):
            self.prints.append(row)
            made = row["status"] == Status.OK
            self.progress.advance(0, accepted=int(made), rejected=int(not made))
        self.progress.advance(total)

    def publish(self, memory: PeakMemory) -> Row:
        """Tables, gallery, contact sheet and summary."""
        self.progress.stage("publish", total=1)
        self.identities.filled(self._people())
        styles = {style.name: style for style in self.styles}
        ordered = Spool(ORDERED_SCHEMA, "album_id").filled(
            order.row(styles, self.templates) for order in self.orders.values()
        )
        summary = publish(
            self.store,
            self.sources,
            self.albums,
            self.identities,
            self.portraits,
            self.prints,
            ordered,
            lambda: {
                "seconds_by_stage": self.progress.seconds_by_stage,
                "peak_rss_gib": memory.peak_gib,
                "versions": versions(),
            },
        )
        figures = {name: value for name, value in summary.items() if isinstance(value, int | float)}
        self.tracker.log_metrics(self.run_id, figures)
        self.progress.advance()
        return summary

    def _people(self) -> Iterator[Row]:
        """Every identity with its final status: failed in selection, in training, or without an accepted portrait."""
        accepted = {row["identity_id"] for row in self.portraits if row["status"] == Status.OK}
        failed = {row["identity_id"]: row for row in self.portraits if row["status"] == Status.FAILED}
        for album in self.albums:
            row = _pick(album, IDENTITY_SCHEMA)
            lora = self.loras.get(row["identity_id"])
            if lora is not None and lora["status"] != Status.OK:
                row.update(status=Status.FAILED.value, stage="train", reason=lora["reason"], detail=lora["detail"])
            elif row["status"] == Status.OK and row["identity_id"] not in accepted:
                row.update(status=Status.FAILED.value, stage="portraits", reason=Reason.NONE_ACCEPTED.value)
                if row["identity_id"] in failed:
                    row.update({name: failed[row["identity_id"]][name] for name in ("reason", "detail")})
            yield row

    def _more(self) -> list[Row]:
        """Rows of `ORDER_INPUT` for more portraits like those of the last job that were chosen."""
        if not self.store.exists("portraits.parquet"):
            return []
        made = Spool(PORTRAIT_SCHEMA, "identity_id", "style", "index").filled(self.store.iter_rows("portraits.parquet"))
        chosen = chosen_for_more(made, read_approvals(self.store))
        of = {(row["identity_id"], row["style"]) for row in chosen}
        orders = {key: row for row in self._orders() if (key := (row["identity_id"], row["style"])) in of}
        return [
            {
                **orders[row["identity_id"], row["style"]],
                "seed": order_seed(self.settings.seed, row["style"], row["portrait_id"]),
                "first_index": more_first_index(row["portrait_id"]),
            }
            for row in chosen
            if (row["identity_id"], row["style"]) in orders
        ]

    def _orders(self) -> Iterator[Row]:
        """Everybody's orders in styles, then those in templates: side by side they fill half of its slots."""
        for edits in (False, True) if self.templates else (False,):
            for album in self.albums:
                lora = self.loras.get(album["identity_id"])
                if lora is None or lora["status"] != Status.OK:
                    continue
                for style, count in self.orders[album["album_id"]].styles.items():
                    if (style in self.templates) == edits:
                        template = self.templates[style].row() if edits else None
                        yield order_row(album, lora, style, count, self.settings.seed, template)


def _pick(row: Row, schema: pa.Schema) -> Row:
    return {name: row[name] for name in schema.names}
