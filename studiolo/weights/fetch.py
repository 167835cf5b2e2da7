"""The files of a model card, verified: fetched when absent, compared with their sha256, placed atomically.

    $STUDIOLO_HOME/weights/CARD/KEY/    a folder for each card and content, named by the start of `card.key()`
        <file.name> ...
        files.json                      what was placed: sha256, size, modification time; written last

A folder without `files.json` is unfinished. A file that looks as it did when it was placed (size,
modification time) is trusted, so a warm cache costs a few `stat` calls and no network; anything else is
hashed, and fetched again when it differs. Models that come with the package (`file:`) stay where they are and
are hashed at every pull.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import filelock

from studiolo.errors import ChecksumError, WeightsError
from studiolo.weights.cards import ModelCard, SourceKind, load_card
from studiolo.weights.sources import download

log = logging.getLogger(__name__)

PACKAGE = Path(__file__).parent.parent
"""`file:` sources are folders below this one."""

_RECORD = "files.json"


@dataclass(frozen=True)
class Problem:
    """One file that is not as its card or its record says."""

    card_id: str
    file: str
    problem: str

    def __str__(self) -> str:
        return f"{self.card_id}: {self.file}: {self.problem}"


@dataclass(frozen=True)
class _Placed:
    """A file as it was when it was placed."""

    sha256: str
    size_bytes: int
    mtime_ns: int


def home() -> Path:
    """Root of the cache: `STUDIOLO_HOME`, else `~/.cache/studiolo`."""
    return Path(os.environ.get("STUDIOLO_HOME") or "~/.cache/studiolo").expanduser()


def pull(card_id: str, *, thorough: bool = False) -> Path:
    """Folder with the verified files of the card, fetched when absent or damaged.

    A file that was touched since it was verified is noticed always, one that rotted in place only when
    `thorough`, which hashes everything. Raises `SettingsError` for an unknown card, `WeightsError` when a
    file cannot be had, `ChecksumError` when it is not the one the card names.
    """
    return pull_card(load_card(card_id), thorough=thorough)


def cached(card_id: str) -> Path | None:
    """Folder of the card's files if all are there as they were when verified, else None; needs no network."""
    card = load_card(card_id)
    if card.kind is SourceKind.FILE:
        return None if verify_card(card) else folder_of(card)
    return folder_of(card) if _untouched(card) else None


def verify(card_id: str) -> list[Problem]:
    """Every file of the card that is missing or differs, by hashing all of them; empty when all is well."""
    return verify_card(load_card(card_id))


def folder_of(card: ModelCard) -> Path:
    """Where the files of `card` are or will be."""
    if card.kind is SourceKind.FILE:
        return PACKAGE / card.locator
    return home() / "weights" / card.id / card.key()[:12]


def is_placed(card: ModelCard) -> bool:
    """Whether the card's files were placed here once; they may be damaged since."""
    return folder_of(card).is_dir() if card.kind is SourceKind.FILE else bool(_read_record(folder_of(card)))


def pull_card(card: ModelCard, *, thorough: bool = False) -> Path:
    """`pull` for a card at hand."""
    folder = folder_of(card)
    if card.kind is SourceKind.FILE:
        return _packaged(card, folder)
    if _untouched(card) and not thorough:
        return folder
    with _locked(folder):
        if _untouched(card) and not thorough:  # another process was faster
            return folder
        if verify_card(card):
            _fetch(card, folder)
        elif not _untouched(card):
            _write_record(folder, {name: _placed(folder / name) for name in _read_record(folder)})
    return folder


def verify_card(card: ModelCard) -> list[Problem]:
    """`verify` for a card at hand."""
    folder, record = folder_of(card), _read_record(folder_of(card))
    if card.kind is SourceKind.FILE and not folder.is_dir():
        return [Problem(card.id, card.locator, "not in this installation")]
    if card.kind is not SourceKind.FILE and not record:
        return [Problem(card.id, _RECORD, f"not fetched yet; `python -m jobs models pull {card.id}`")]
    wanted = _wanted_sha256(card, record)
    problems = []
    for name, sha256 in wanted.items():
        path = folder / name
        if not path.is_file():
            problems.append(Problem(card.id, name, f"missing from {folder}"))
        elif sha256 is not None and (got := sha256_of(path)) != sha256:
            problems.append(Problem(card.id, name, f"sha256 is {got}, wanted {sha256}"))
    return problems


def sha256_of(path: Path) -> str:
    """sha256 of a file's contents, in hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _wanted_sha256(card: ModelCard, record: dict[str, _Placed]) -> dict[str, str | None]:
    """sha256 by file name: the card's where it has one, else the one recorded at the first download."""
    wanted: dict[str, str | None] = {name: placed.sha256 for name, placed in record.items()}
    for file in card.files:
        wanted[file.name] = file.sha256 or wanted.get(file.name)
    return wanted


def _untouched(card: ModelCard) -> bool:
    folder, record = folder_of(card), _read_record(folder_of(card))
    if not record or not {file.name for file in card.files} <= record.keys():
        return False
    for name, placed in record.items():
        try:
            stat = (folder / name).stat()
        except OSError:
            return False
        if (stat.st_size, stat.st_mtime_ns) != (placed.size_bytes, placed.mtime_ns):
            return False
    return True


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Holds the card's lock, so that one process fetches and the others wait for its result."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder.with_suffix(".lock"))
        lock.acquire()
    except OSError as error:
        raise WeightsError(f"weights cache {folder}: {error}; set STUDIOLO_HOME to a folder you may write") from None
    try:
        yield
    finally:
        lock.release()


def _packaged(card: ModelCard, folder: Path) -> Path:
    problems = verify_card(card)
    if problems:
        raise ChecksumError("\n".join(map(str, problems)) + "\nInstall Studiolo again: this model comes with it")
    return folder


def _fetch(card: ModelCard, folder: Path) -> None:
    """Fetches all files into a folder beside `folder`, checks them, then places them with one rename each.

    After a broken download that folder stays, for the hubs' libraries resume in it; wrong bytes do not stay.
    """
    before = _read_record(folder)
    partial = folder.with_suffix(".partial")
    partial.mkdir(exist_ok=True)
    found = download(card, partial)
    wanted = _wanted_sha256(card, before)
    try:
        if lost := sorted(wanted.keys() - found.keys()):
            raise ChecksumError(
                f"model {card.id}: {card.source} no longer has {', '.join(lost)}. Pull again; "
                "if it stays so, the source has changed: do not use it"
            )
        for name, path in found.items():
            _check(card, name, path, wanted.get(name))
        for name, path in found.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            os.replace(path, target)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    _write_record(folder, {name: _placed(folder / name) for name in found})


def _check(card: ModelCard, name: str, path: Path, wanted: str | None) -> None:
    got = sha256_of(path)
    if wanted is None:
        log.warning(
            "model %s: %s has no sha256 on its card; trusting this first download and recording %s",
            card.id,
            name,
            got,
        )
    elif got != wanted:
        raise ChecksumError(
            f"model {card.id}: {name} from {card.source} has sha256 {got}, wanted {wanted}. Nothing "
            "was placed. Pull again; if it stays so, the source has changed: do not use it"
        )


def _placed(path: Path) -> _Placed:
    stat = path.stat()
    return _Placed(sha256_of(path), stat.st_size, stat.st_mtime_ns)


def _read_record(folder: Path) -> dict[str, _Placed]:
    try:
        values = json.loads((folder / _RECORD).read_text(encoding="utf-8"))
        return {name: _Placed(**placed) for name, placed in values.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return {}


def _write_record(folder: Path, record: dict[str, _Placed]) -> None:
    handle, scratch = tempfile.mkstemp(prefix="files-", dir=folder)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        json.dump({name: vars(placed) for name, placed in sorted(record.items())}, stream, indent=1)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(scratch, folder / _RECORD)
