"""The studio job: albums in, ranked portraits and a gallery out."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import typer

from actors.perceiver import Perceiver
from actors.portraitist import ORDER_INPUT, Portraitist
from actors.trainer import Trainer
from jobs.machine import PeakMemory, versions
from jobs.progress import Progress
from jobs.publish import publish
from pipelines.graph import start, stop, stream
from pipelines.plan import Stage, fit
from studiolo.albums.records import FACE_LORA_SCHEMA, IDENTITY_SCHEMA, PERCEIVED_SCHEMA, Reason, Status
from studiolo.albums.sources import INPUT_SCHEMA, AlbumSource, list_albums
from studiolo.keys import unit_key
from studiolo.portraits.orders import order_seed
from studiolo.portraits.styles import Style, load_style
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
from studiolo.weights.cards import SUITE_BASE, load_card, require_commercial, suite
from studiolo.weights.fetch import pull

Row = dict[str, Any]

STAGES = ("perceive", "train", "portraits", "publish")


def studio(
    albums: Annotated[str | None, typer.Option(help="URL of a folder of album folders, or of a manifest (Parquet, CSV, JSONL).")] = None,
    out: Annotated[str | None, typer.Option(help="URL of the output.")] = None,
    styles: Annotated[str | None, typer.Option(help="Styles ordered for everyone, separated by commas.")] = None,
    per_style: Annotated[int | None, typer.Option(help="Portraits wanted in each style.")] = None,
    suite: Annotated[str | None, typer.Option(help="Model suite.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the whole job.")] = None,
    commercial: Annotated[bool | None, typer.Option(help="Refuse models whose licence forbids commercial use.")] = None,
    config: Annotated[Path | None, typer.Option(help="YAML file with any of the settings; the options above win.")] = None,
) -> None:
    """Turn albums into ranked portraits with a gallery.

    Ends with 0 when all is done, 3 when some identities failed (the gallery says why), 1 when the job failed, 2 when the
    request cannot be carried out. The same command again goes on where an interrupted one stopped.
    """
    wanted = None if styles is None else tuple(name.strip() for name in styles.split(",") if name.strip())
    options = {"albums": albums, "out": out, "styles": wanted, "per_style": per_style, "suite": suite, "seed": seed}
    settings = StudioSettings.load(config, {**options, "commercial": commercial})
    raise typer.Exit(run(settings))


def run(settings: StudioSettings) -> int:
    """Carry out the job; returns the exit code 0 or 3. Raises `UsageError` before any work, `StudioloError` after."""
    sources, styles = _check(settings)
    store = Store(settings.out)
    with store.lock("studio"), PeakMemory() as memory, Progress(STAGES) as progress:
        job = _Job(settings, styles, store, progress)
        try:
            job.perceive(sources)
            job.train()
            job.portray()
        finally:
            stop()
        progress.stage("publish", total=1)
        summary = publish(
            store,
            job.albums,
            job.identities(),
            list(job.loras.values()),
            job.portraits,
            styles=styles,
            seconds_by_stage=progress.seconds_by_stage,
            peak_rss_gib=memory.peak_gib,
            versions=versions(),
        )
        job.tracker.log_metrics(job.run_id, {name: value for name, value in summary.items() if isinstance(value, int | float)})
        job.tracker.finish(job.run_id, ok=True)
        progress.advance()
    gallery = store.local_path("gallery/index.html") or f"{store.url}/gallery/index.html"
    print(
        f"{summary['photos_in']} photos: {summary['photos_ok']} used, {summary['photos_dropped']} not used, "
        f"{summary['photos_failed']} unreadable; {summary['identities']} people, {summary['identities_failed']} failed; "
        f"{summary['portraits_accepted']} portraits accepted, {summary['portraits_rejected']} rejected",
        file=sys.stderr,
    )
    print(gallery)
    return 3 if summary["identities_failed"] else 0


def _check(settings: StudioSettings) -> tuple[list[AlbumSource], list[Style]]:
    """Everything that can be wrong with a request, before any work: styles, suite, licences, albums, weights."""
    styles = [load_style(name, settings.style_folder) for name in settings.styles]
    cards = [load_card(card_id) for card_id in suite(settings.suite)]
    if settings.commercial:
        require_commercial(cards)
    sources = list_albums(settings.albums)
    for card in cards:
        pull(card.id)
    return sources, styles


class _Job:
    """The three stages of one run and the rows they leave."""

    def __init__(self, settings: StudioSettings, styles: list[Style], store: Store, progress: Progress) -> None:
        self.settings = settings
        self.styles = styles
        self.store = store
        self.progress = progress
        self.base = SUITE_BASE[settings.suite]
        self.tracker = MlflowTracker.beside(store, settings.tracking_uri)
        content = settings.model_dump(mode="json", exclude={"tracking_uri"})
        self.run_id = self.tracker.start(unit_key("job", [content], {}, {}), "studio", _flat(content))
        self.cpus = 0.0
        self.albums: list[Row] = []
        self.loras: dict[str, Row] = {}
        self.portraits: list[Row] = []

    def perceive(self, sources: list[AlbumSource]) -> None:
        """Albums -> annotated photos, people, references."""
        settings = self.settings.perception
        self.progress.stage("perceive", total=sum(len(source.photos) for source in sources))
        self.cpus = start(self.settings.cpus, self.settings.object_store_mib)
        actor = Perceiver(self.store, self.settings.suite, settings, self.settings.selection)
        stage = Stage("perception", settings.actors, settings.cpus_per_actor)
        rows = pa.Table.from_pylist([source.row() for source in sources], INPUT_SCHEMA)
        for row in self._stream(rows, actor, stage):
            self.albums.append(row)
            statuses = [photo["status"] for photo in row["photos"]]
            self.progress.advance(
                len(statuses),
                accepted=statuses.count(Status.OK),
                rejected=statuses.count(Status.DROPPED),
                failed=statuses.count(Status.FAILED),
            )
        self.albums.sort(key=lambda row: str(row["album_id"]))
        self.store.write_table("albums.parquet", pa.Table.from_pylist(self.albums, PERCEIVED_SCHEMA))

    def train(self) -> None:
        """References -> a face-LoRA an identity."""
        settings = self.settings.face_lora
        ready = [row for row in self.albums if row["status"] == Status.OK]
        self.progress.stage("train", total=len(ready))
        actor = Trainer(self.store, self.base, settings, self.settings.seed, self.tracker, self.run_id)
        rows = pa.Table.from_pylist([_pick(row, IDENTITY_SCHEMA) for row in ready], IDENTITY_SCHEMA)
        for row in self._stream(rows, actor, Stage("face_lora", settings.actors, settings.cpus_per_actor)):
            self.loras[row["identity_id"]] = row
            trained = row["status"] == Status.OK
            self.progress.advance(accepted=int(trained), failed=int(not trained))
        self.loras = dict(sorted(self.loras.items()))
        self.store.write_table("face_loras.parquet", pa.Table.from_pylist(list(self.loras.values()), FACE_LORA_SCHEMA))

    def portray(self) -> None:
        """Face-LoRAs and styles -> ranked portraits."""
        settings = self.settings.generation
        orders = list(self._orders())
        self.progress.stage("portraits", total=len(orders) * self.settings.per_style)
        actor = Portraitist(
            self.store, self.settings.suite, self.base, settings, self.settings.selection.unsafe_above, self.settings.style_folder
        )
        rows = pa.Table.from_pylist(orders, ORDER_INPUT)
        for row in self._stream(rows, actor, Stage("generation", settings.actors, settings.cpus_per_actor)):
            self.portraits.append(row)
            accepted = row["status"] == Status.OK
            self.progress.advance(int(accepted), accepted=int(accepted), rejected=int(not accepted))
        self.portraits.sort(key=lambda row: (row["identity_id"], row["style"], row["index"]))

    def identities(self) -> list[Row]:
        """Every identity with its final status: failed in selection, in training, or without an accepted portrait."""
        accepted = {row["identity_id"] for row in self.portraits if row["status"] == Status.OK}
        rows = []
        for album in self.albums:
            row = _pick(album, IDENTITY_SCHEMA)
            lora = self.loras.get(row["identity_id"])
            if lora is not None and lora["status"] != Status.OK:
                row.update(status=Status.FAILED.value, stage="train", reason=lora["reason"], detail=lora["detail"])
            elif row["status"] == Status.OK and row["identity_id"] not in accepted:
                row.update(status=Status.FAILED.value, stage="portraits", reason=Reason.NONE_ACCEPTED.value)
            rows.append(row)
        return rows

    def _orders(self) -> Iterator[Row]:
        for album in self.albums:
            lora = self.loras.get(album["identity_id"])
            if lora is None or lora["status"] != Status.OK:
                continue
            for style in self.styles:
                yield {
                    "identity_id": album["identity_id"],
                    "style": style.name,
                    "count": self.settings.per_style,
                    "seed": order_seed(self.settings.seed, style.name),
                    "trigger": album["trigger"],
                    "common_tags": album["common_tags"],
                    "lora_path": lora["path"],
                    "lora_sha256": lora["sha256"],
                    "embeddings": [reference["embedding"] for reference in album["references"]],
                }

    def _stream(self, rows: pa.Table, actor: Any, stage: Stage) -> Iterator[Row]:
        return stream(rows, actor, fit(stage, self.cpus, rows.num_rows))


def _pick(row: Row, schema: pa.Schema) -> Row:
    return {name: row[name] for name in schema.names}


def _flat(values: Row, prefix: str = "") -> Row:
    """Nested settings as `section.name: value`."""
    flat: Row = {}
    for name, value in values.items():
        flat |= _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat
