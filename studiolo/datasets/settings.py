"""Settings of the dataset job."""

import re
from typing import Any, Literal, Self

import pydantic

from studiolo.datasets.captions.settings import CaptionSettings
from studiolo.settings import PerceptionSettings, Section, Settings

KINDS = ("folder", "manifest", "tar", "ffhq", "celeba", "sfhq", "synthetic")
"""What a source may be, see `studiolo.datasets.sources`."""

UNKNOWN = "unknown"
"""What stands before the slash in the identity of somebody whom no source names."""

_OPTIONS = ("name", "licence", "weight", "limit", "labels")
_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]*"


class SourceSettings(Section):
    """One source of pictures. On one line it is `KIND:PLACE;option=value;...`, where the place may say the kind."""

    kind: Literal["folder", "manifest", "tar", "ffhq", "celeba", "sfhq", "synthetic"]
    """`folder`: pictures below a folder or matching a glob; `manifest`: a Parquet, CSV or JSONL table; `tar`: tars as
    WebDataset has them; `ffhq`, `celeba`, `sfhq`: these data sets' folders as published; `synthetic`: random faces, of
    which the place says `count=N,seed=S`, and `side=512` for another size in px."""
    place: str = pydantic.Field(min_length=1, pattern="^[^;]*$")
    """Path or any URL fsspec knows, of a folder, a glob, a table or tars."""
    name: str = pydantic.Field(min_length=1, max_length=64, pattern=f"^{_NAME}$")
    """Name of the source in all tables; the end of its place when absent on one line."""
    licence: str | None = None
    """Of its pictures, where a picture brings none of its own; absent: what is known of the kind, else `unknown`."""
    weight: float = pydantic.Field(1.0, gt=0)
    """How often its rows are to be drawn, against those of other sources; it is written beside each row."""
    limit: int | None = pydantic.Field(None, ge=1)
    """Take so many of its pictures, the same ones each time; a larger limit takes those and more."""
    labels: Literal["none", "folders"] = "none"
    """Of a folder or tar: `folders` takes the name of the folder in which a picture lies for its identity."""

    @pydantic.field_validator("name")
    @classmethod
    def _not_ours(cls, value: str) -> str:
        if value == UNKNOWN:
            raise ValueError(f"people without a name are called {UNKNOWN!r}; wanted another name")
        return value

    @property
    def line(self) -> str:
        """The source on one line."""
        said = {name: getattr(self, name) for name in _OPTIONS}
        usual = {"licence": None, "weight": 1.0, "limit": None, "labels": "none"}
        return ";".join(
            [
                f"{self.kind}:{self.place}",
                *(f"{name}={value}" for name, value in said.items() if usual.get(name) != value),
            ]
        )

    @classmethod
    def parse(cls, line: str) -> Self:
        """The source that one line describes. Raises `ValueError` for a line that does not fit."""
        place, *options = line.strip().split(";")
        kind, colon, rest = place.partition(":")
        if colon and kind in KINDS and not rest.startswith("//"):
            place = rest
        else:
            kind = _kind_of(place)
        values: dict[str, Any] = {"kind": kind, "place": place, "name": _name_of(kind, place)}
        for option in filter(None, map(str.strip, options)):
            name, equals, value = option.partition("=")
            if not equals or name not in _OPTIONS:
                raise ValueError(f"got the option {option!r}, wanted NAME=VALUE with one of {', '.join(_OPTIONS)}")
            values[name] = value
        return cls.model_validate(values)


def _kind_of(place: str) -> str:
    name = place.partition("::")[0].lower()
    if name.endswith((".parquet", ".csv", ".jsonl", ".ndjson")):
        return "manifest"
    return "tar" if name.endswith(".tar") else "folder"


def _name_of(kind: str, place: str) -> str:
    """A name for the tables: the kind of a published data set, else the end of the place without its pattern."""
    if kind in ("ffhq", "celeba", "sfhq"):
        return kind
    if kind == "synthetic":
        seed = re.search(r"seed=(\d+)", place)
        return f"synthetic-{seed[1] if seed else 0}"
    plain = [part for part in re.split("[/:]+", place) if part and not set(part) & set("*?[")]
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain[-1] if plain else "").strip("-._")
    return name[:64] or "source"


class AnnotationSettings(Section):
    """What is seen in a picture, and how the work is spread."""

    image_side_px: int = pydantic.Field(512, ge=64, le=2048)
    """Side of a row's square picture and mask."""
    face_ratio: float = pydantic.Field(0.4, gt=0, le=1)
    """Share of the square's side that the face's longer side takes, where the photo reaches so far; a photo that ends
    before gives the largest square it holds."""
    jpeg_quality: int = pydantic.Field(95, ge=50, le=100)
    """Of a row's picture; its colours are not subsampled."""
    rows_per_shard: int = pydantic.Field(64, ge=1, le=4096)
    """Pictures of one annotation shard: what is done again when a worker is lost, and what one worker does alone. For
    sources that are listed from now on; shards that are listed stay as they are."""
    actors: int = pydantic.Field(2, ge=1)
    """Annotation actors."""
    cpus_per_actor: float = pydantic.Field(1.0, gt=0)
    """CPU slots an actor takes in the plan."""
    time_limit_s: float = pydantic.Field(300.0, gt=0)
    """Seconds an actor may take over one picture; then it is ended and begins anew, twice, before the picture is given
    up."""
    memory_limit_mib: int | None = pydantic.Field(None, ge=256)
    """An actor that takes more memory than this is ended in the same way; null leaves it to Ray."""


class ReleaseSettings(Section):
    """What becomes of the rows. Another value makes another release, and annotates nothing anew."""

    min_face_px: int = pydantic.Field(64, ge=1)
    """Least shorter side, in the photo, of the face's box."""
    max_second_face_share: float = pydantic.Field(0.5, ge=0, le=1)
    """With several faces, the second may have this share of the side of the largest (FaceChain's rule, a quarter of its
    area); 0 wants one face only."""
    max_yaw_deg: float = pydantic.Field(60.0, ge=0, le=180)
    """Most that a head may be turned to a side."""
    max_pitch_deg: float = pydantic.Field(45.0, ge=0, le=180)
    """Most that a head may look up or down."""
    min_quality: float = pydantic.Field(0.3, ge=0, le=1)
    """Least quality score of the face."""
    unsafe_above: float = pydantic.Field(0.8, ge=0, le=1)
    """A picture scored above this by the safety model is dropped."""
    duplicate_bits: int = pydantic.Field(6, ge=0, le=7)
    """Most bits of 64 in which the perceptual hashes of near duplicates differ."""
    duplicate_cosine: float = pydantic.Field(0.9, ge=-1, le=1)
    """Least cosine of the image embeddings of near duplicates, around the mean of all."""
    cluster_distance: float = pydantic.Field(0.28, gt=0, lt=2)
    """Faces without a name that are nearer than this are one person. Far stricter than the 0.46 of an album, because
    thousands of people make millions of pairs, and some look alike; see docs/LOG.md."""
    wrong_label_distance: float = pydantic.Field(0.62, gt=0, lt=2)
    """A face that is further than this from the middle one of those with its label (three at least) is not theirs."""
    validation_share: float = pydantic.Field(0.02, ge=0, lt=1)
    """Share of the identities that validation gets."""
    test_share: float = pydantic.Field(0.02, ge=0, lt=1)
    """Share of the identities that the test gets."""
    rows_per_file: int = pydantic.Field(1024, ge=1)
    """Rows of one Parquet file of a release, about a tenth of a MB each at 512 px. A worker has one file in memory,
    four times over while it is written; so has, nearly, who reads it with `datasets` as a stream."""
    rows_per_group: int = pydantic.Field(64, ge=1)
    """Rows of a row group: the least that a reader takes at a time."""


class DatasetSettings(Settings):
    """Everything the dataset job can be told."""

    sources: tuple[SourceSettings, ...] = pydantic.Field(min_length=1)
    """Where pictures come from: lines, or the fields below by name."""
    out: str = pydantic.Field(min_length=1)
    """URL of the output; apart from the sources. One output holds any number of sources and releases."""
    opt_out: str | None = None
    """URL of a table (Parquet or JSONL) of what may not be used, with the columns `content_sha256` (64 hex digits of a
    file), `embedding` (128 numbers of a face), or both."""
    suite: str = "embedded"
    """Model suite."""
    captioner: str = "grammar"
    """Who writes the captions: `grammar` says in sentences what was measured, `llava` is a LLaVA model on the workers,
    `openai` any server that speaks OpenAI's protocol and sees pictures."""
    formats: tuple[Literal["consistentid", "webdataset"], ...] = ()
    """What a release is written as besides Parquet: ConsistentID's JSON with its folders, WebDataset's tars."""
    cpus: int | None = pydantic.Field(None, gt=0)
    """CPU slots of the local cluster; all cores when absent. Of a cluster that is joined, those it may grow to."""
    object_store_mib: int = pydantic.Field(256, ge=80)
    """Size of Ray's object store on a local cluster."""
    tracking_uri: str | None = None
    """MLflow tracking URI; a database beside the output when absent, which needs an output on this disk."""
    perception: PerceptionSettings = PerceptionSettings()
    """Reading pictures and seeing faces; its `actors`, `cpus_per_actor` and limits of a worker are not used here."""
    annotation: AnnotationSettings = AnnotationSettings()
    """What is seen in a picture."""
    captions: CaptionSettings = CaptionSettings()
    """How captions are written."""
    release: ReleaseSettings = ReleaseSettings()
    """What is kept, and for what."""
    max_failed_share: float = pydantic.Field(0.9, ge=0, le=1)
    """With a larger share of the pictures failed (not read or not decoded; dropped ones do not count), no release is
    made and the job ends with exit code 1: something is wrong with the sources or their storage. 1 never stops."""

    @pydantic.field_validator("sources", mode="before")
    @classmethod
    def _lines(cls, value: Any) -> Any:
        return [SourceSettings.parse(one) if isinstance(one, str) else one for one in value]

    @pydantic.model_validator(mode="after")
    def _each_once(self) -> Self:
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"two sources are called {twice[0]!r}; give one another name, as in PLACE;name=other")
        return self
