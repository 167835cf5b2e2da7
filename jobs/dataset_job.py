"""The dataset job, stage by stage: list, annotate, caption, decide, write, describe."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from typing import Any

from actors.annotator import Annotator
from actors.caption_writer import CaptionWriter
from actors.exporter import Exporter
from jobs.dataset_check import check_request
from jobs.machine import PeakMemory
from jobs.progress import Progress
from pipelines.dataset import annotate, caption, export
from pipelines.graph import start, stop
from pipelines.plan import Stage, fit
from studiolo.datasets import releases
from studiolo.datasets.annotate import cards_of
from studiolo.datasets.captions.captioner import Usage
from studiolo.datasets.decide import decide
from studiolo.datasets.describe import describe
from studiolo.datasets.erase import erase, finish, opted_out_rows
from studiolo.datasets.listing import Part, bring_up_to_date, parts_of
from studiolo.datasets.measures import Measures, Shard, gather
from studiolo.datasets.optout import OptOut
from studiolo.datasets.settings import DatasetSettings
from studiolo.datasets.sources import list_pictures
from studiolo.errors import StudioloError
from studiolo.keys import unit_key
from studiolo.perception.similarity import Similarity
from studiolo.storage.lock import Lock
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker, flat

Row = dict[str, Any]

STAGES = ("list", "annotate", "caption", "decide", "write", "describe")


def run(settings: DatasetSettings) -> int:
    """Carry out the job; the exit code 0 or 3. Raises `UsageError` before any work, `StudioloError` after."""
    opt_out = check_request(settings)
    store = Store(settings.out)
    with store.lock("dataset") as lock, PeakMemory() as memory, Progress(STAGES) as progress:
        job = DatasetJob(settings, opt_out, store, lock, progress)
        try:
            job.plan()
            with job.tracked():
                job.list_sources()
                job.annotate()
                job.caption()
                record = job.release()
                job.describe(record)
                job.log(record, memory)
        finally:
            stop()
    _report(record, job.failed)
    print(store.local_path(releases.place(record["name"], "data")) or f"{store.url}/releases/{record['name']}/data")
    return 3 if job.failed else 0


def _report(record: Row, failed: int) -> None:
    counts = record["counts"]
    dropped = ", ".join(f"{count} {reason}" for reason, count in counts["dropped"].items() if count)
    splits = ", ".join(f"{count} {split}" for split, count in counts["splits"].items())
    print(
        f"release {record['name']}: {counts['kept']} of {counts['rows']} pictures kept ({splits}), of"
        f" {counts['identities']} people, {counts['identities_known']} of them named; left out: {dropped or 'none'}",
        file=sys.stderr,
    )
    if failed:
        print(f"{failed} pictures failed; decisions.parquet says of each why", file=sys.stderr)


class DatasetJob:
    """The stages of one run and what they leave: of each shard a row, of each picture what a release decides by."""

    def __init__(
        self, settings: DatasetSettings, opt_out: OptOut, store: Store, lock: Lock, progress: Progress
    ) -> None:
        self.settings = settings
        self.opt_out = opt_out
        self.store = store
        self.lock = lock
        self.progress = progress
        self.sources = {source.name: source for source in settings.sources}
        self.tracker = MlflowTracker.beside(store, settings.tracking_uri)
        self.run_id = ""
        self.failed = 0
        """Pictures that could not be read or decoded, or whose workers ended over them."""
        self.cpus = 0.0
        self.stage = Stage(
            "annotation",
            settings.annotation.actors,
            settings.annotation.cpus_per_actor,
            queued=1,
            limit_s=settings.annotation.time_limit_s,
            memory_mib=settings.annotation.memory_limit_mib,
        )
        self.caption_stage = Stage(
            "captions",
            settings.captions.actors,
            settings.captions.cpus_per_actor,
            limit_s=settings.captions.time_limit_s,
        )
        self.captions = CaptionWriter(store, settings.captioner, settings.captions)
        self.parts: list[Part] = []
        self.rows_of: dict[str, int] = {}
        self.shards: list[Shard] = []
        self.usage: dict[str, float] = {}

    def plan(self) -> None:
        """Start Ray; a pool that does not fit is refused before the first stage."""
        self.cpus = start(self.settings.cpus, self.settings.object_store_mib)
        for stage in (self.stage, self.caption_stage):
            fit(stage, self.cpus, stage.actors)

    @contextmanager
    def tracked(self) -> Iterator[None]:
        """The job's run, which fails with whatever is raised inside."""
        content = self.settings.model_dump(mode="json", exclude={"tracking_uri", "sources"})
        content["sources"] = [source.line for source in self.settings.sources]
        key = unit_key("dataset", [content], {}, {})
        with self.tracker.run(key, "dataset", flat(content)) as self.run_id:
            yield

    def list_sources(self) -> None:
        """Sources -> parts of the kept listing."""
        self.progress.stage("list")
        for receipt in finish(self.store):
            self.progress.say(f"an erasure that was interrupted is finished, see {receipt}")
        annotation = self.settings.annotation
        for source in self.settings.sources:
            pictures = self._counted(list_pictures(source))
            added = bring_up_to_date(self.store, source.name, pictures, annotation.rows_per_shard)
            self.lock.check()
            self.progress.say(f"source {source.name}: {added} new pictures")
        for part in parts_of(self.store, self.sources):
            listed = self.store.read_table(part.path, ["listed"]).column("listed").to_pylist()
            if any(listed):  # else its pictures are gone, or have become others
                self.parts.append(part)
                self.rows_of[part.path] = len(listed)

    def _counted(self, pictures: Iterator[Any]) -> Iterator[Any]:
        for picture in pictures:
            self.progress.advance()
            yield picture

    def annotate(self) -> None:
        """Parts of the listing -> annotation shards."""
        self.progress.stage("annotate", total=sum(self.rows_of.values()))
        actor = Annotator(
            self.store, self.settings.suite, self.settings.perception, self.settings.annotation, self.opt_out
        )
        stage = fit(self.stage, self.cpus, len(self.parts))
        by_path = {part.path: part for part in self.parts}
        rows = ({"part": part.path, "rows": self.rows_of[part.path]} for part in self.parts)
        for row in annotate(rows, actor, stage, self.store):
            self.lock.check()
            self.shards.append(Shard(by_path[row["part"]], row["shard"], row["detail"]))
            self.failed += row["failed"]
            self.progress.advance(row["rows"], accepted=row["ok"], rejected=row["dropped"], failed=row["failed"])
        self._require_pictures()

    def caption(self) -> None:
        """Annotation shards -> caption shards."""
        shards: list[Row] = [
            {"shard": one.path, "rows": self.rows_of[one.part.path]} for one in self.shards if one.path
        ]
        self.progress.stage("caption", total=sum(one["rows"] for one in shards))
        stage = fit(self.caption_stage, self.cpus, len(shards))
        usage = dict.fromkeys(("silent", *(field.name for field in fields(Usage))), 0.0)
        for row in caption(shards, self.captions, stage, self.store):
            self.lock.check()
            if row["reason"]:
                raise StudioloError(f"captions of {row['shard']}: {row['detail']}; run the same command again")
            usage = {name: value + row[name] for name, value in usage.items()}
            self.progress.advance(row["rows"])
        if usage["silent"]:
            self.progress.say(f"{usage['silent']:.0f} pictures have no captions")
        self.usage = {f"caption_{name}": value for name, value in usage.items()}

    def _require_pictures(self) -> None:
        total = sum(self.rows_of.values())
        if self.failed > self.settings.max_failed_share * total:
            raise StudioloError(
                f"{self.failed} of {total} pictures could not be read or decoded, wanted at most"
                f" {self.settings.max_failed_share:.0%}; look at the sources or raise max_failed_share, run again"
            )

    def release(self) -> Row:
        """Shards -> a release; the one that is there when it would be equal to one."""
        self.progress.stage("decide", total=sum(self.rows_of.values()))
        measures = self._measures()
        key = releases.release_key(measures, self.settings.release, self.sources, self.captions.captioner.id)
        name, record = releases.name_of(self.store, key)
        if record is None:
            return self._decided(measures, key, name)
        self.progress.advance(len(measures))
        return record

    def _measures(self) -> Measures:
        """What to decide by; what is on the opt-out list by now is erased first."""
        measures = gather(self.store, self.shards)
        within = Similarity.load(self.settings.suite).same_below
        gone = opted_out_rows(measures, self.opt_out, within)
        if not gone:
            return measures
        receipt = erase(self.store, gone, "opt-out list")
        self.progress.say(f"{len(gone)} pictures that are on the opt-out list by now were erased, see {receipt}")
        return gather(self.store, self.shards)

    def _decided(self, measures: Measures, key: str, name: str) -> Row:
        settings = self.settings.release
        decisions = decide(measures, settings)
        releases.write_decisions(self.store, name, measures, decisions, settings, self.sources)
        self.progress.advance(len(measures))
        self.lock.check()
        path = releases.place(name, releases.DECISIONS)
        counts = releases.counted(self.store.iter_rows(path, ["keep", "reason", "identity", "known", "split"]))
        said = {
            "key": key,
            "cards": cards_of(self.settings.suite),
            "captioner": self.captions.captioner.id,
            "settings": settings.model_dump(mode="json"),
            "sources": [releases.source_row(source) for source in self.settings.sources],
            "merged_across_splits": decisions.across_splits,
            "groups_merged": decisions.identities.merged,
            "counts": counts,
        }
        return releases.complete(self.store, name, said, self._written(name, counts))

    def _written(self, name: str, counts: Row) -> list[Row]:
        """The data files of the release, whose decisions are written."""
        self.progress.stage("write", total=counts["kept"])
        captioner = self.captions.captioner.id
        planned = releases.data_files(self.store, name, counts["splits"], self.settings.release, captioner)
        stage = fit(replace(self.stage, name="write"), self.cpus, counts["kept"])
        files = []
        for row in export(planned, Exporter(self.store), stage, self.store):
            self.lock.check()
            if row["reason"]:
                raise StudioloError(f"{row['path']} could not be written: {row['detail']}; run the same command again")
            files.append(row)
            self.progress.advance(row["rows"])
        return files

    def describe(self, record: Row) -> None:
        """What is made of this release, and of earlier ones that an erasure has changed."""
        releases.with_formats(self.store, record, self.settings.formats)
        finished = releases.finished(self.store)
        self.progress.stage("describe", total=len(finished))
        for name, one in finished.items():
            for _ in describe(self.store, name, one):
                self.lock.check()
            self.progress.advance()

    def log(self, record: Row, memory: PeakMemory) -> None:
        """The release's figures, the run's times and its memory."""
        seconds = {f"seconds_{stage}": value for stage, value in self.progress.seconds_by_stage.items()}
        counts = flat(record["counts"]) | {"merged_across_splits": record["merged_across_splits"]}
        figures = {name: float(value) for name, value in counts.items() if isinstance(value, int | float)}
        self.tracker.log_metrics(self.run_id, {**figures, **self.usage, **seconds, "peak_rss_gib": memory.peak_gib})
