"""One output location, on a disk or in an object store, addressed by relative paths.

A file is either absent, the old one or the new one, whatever is killed and whenever:

- on a local file system bytes go to a temporary file in the same folder, are flushed to the disk, and take
  the name by `os.replace`; then the folder is flushed;
- on an object store they are one put, which those stores make visible as a whole.
"""

import json
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from studiolo.errors import SettingsError, StoreError, nearest
from studiolo.storage.lock import LOCK_PATH, STALE_S, Lock
from studiolo.storage.spool import portions

_TEMPORARY = ".tmp"
_FOLDER_TRIES = 20
"""Times that a folder is made which others find empty and remove, before that is an error."""

_ROWS_A_GROUP = 128
"""Rows of a table in memory at a time; an album of twenty photos is some 100 kB."""

RETRY_PAUSES_S = (0.2, 1.0, 5.0)
"""Pauses before an object store is asked again; then its fault ends the job with a message."""


class Store:
    """Files below `url`: a local path or any URL fsspec knows (`s3://`, `gs://`, `memory://`, ...).

    Paths are relative and use `/`; absolute ones and those with `..` are refused. A store can be pickled and
    means the same place in every worker. Every failure is a `StoreError`; an unknown kind of URL is a
    `SettingsError`.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        protocol = fsspec.core.split_protocol(str(url))[0] or "file"
        if protocol.split("::")[0] not in fsspec.available_protocols():
            known = nearest(protocol, fsspec.available_protocols())
            raise SettingsError(f"store {url}: no storage is called {protocol!r}; {known}")
        try:
            # Listings may not be cached: other workers write to the same place.
            self._fs, root = fsspec.core.url_to_fs(str(url), use_listings_cache=False)
        except ImportError as error:
            raise SettingsError(f"store {url}: {error}; install the package that reads {protocol}://") from None
        except (OSError, ValueError) as error:
            raise StoreError(f"store {url}: {error}; check the URL and the credentials") from error
        self._root = str(root).rstrip("/") or "/"
        self._local = Path(self._root) if protocol in ("file", "local") else None
        self.url = str(self._local) if self._local else self._fs.unstrip_protocol(self._root)

    def __reduce__(self) -> tuple[type["Store"], tuple[str]]:
        return type(self), (self.url,)

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def read_bytes(self, path: str) -> bytes:
        """The whole content of `path`."""
        place = self._place(path)
        read = Path(place).read_bytes if self._local else partial(self._fs.cat_file, place)
        content: bytes = self._attempt("read", path, read)
        return content

    def write_bytes(self, path: str, content: bytes) -> None:
        """Make `path` hold exactly `content`; on any error the old content stays."""
        place = self._place(path)
        write = partial(_replace_file, Path(place)) if self._local else partial(self._fs.pipe_file, place)
        self._attempt("write", path, partial(write, content))

    def exists(self, path: str) -> bool:
        """Whether a file or folder is at `path`."""
        return bool(self._attempt("look at", path, partial(self._fs.exists, self._place(path))))

    def folders(self, folder: str) -> list[str]:
        """Names of the folders directly in `folder`, sorted; empty when there is no such folder."""
        place = self._place(folder)

        def look() -> list[dict[str, Any]]:
            with suppress(FileNotFoundError):
                return list(self._fs.ls(place, detail=True))
            return []

        found = self._attempt("list", folder, look)
        return sorted(str(one["name"]).rstrip("/").split("/")[-1] for one in found if one["type"] == "directory")

    def list(self, folder: str = "") -> list[str]:
        """Paths of all files below `folder`, at any depth, sorted; empty when there is no such folder."""
        place = self._place(folder) if folder else self._root
        found = self._attempt("list", folder or ".", partial(self._fs.find, place))
        prefix = self._root.rstrip("/") + "/"
        paths = sorted(str(name).removeprefix(prefix) for name in found)
        return [path for path in paths if path != LOCK_PATH and not path.endswith(_TEMPORARY)]

    def remove(self, path: str) -> None:
        """Delete the file at `path` and the folders that this leaves empty; no error when it is already gone."""
        place = self._place(path)

        def remove() -> None:
            with suppress(FileNotFoundError):
                self._fs.rm_file(place)

        self._attempt("remove", path, remove)
        if self._local:
            with suppress(OSError):  # the first folder that is not empty ends it
                for folder in Path(place).relative_to(self._local).parents[:-1]:
                    (self._local / folder).rmdir()

    def read_json(self, path: str) -> Any:
        """The JSON value in `path`."""
        content = self.read_bytes(path)
        try:
            return json.loads(content)
        except ValueError as error:
            message = f"got damaged content ({error}), wanted JSON; delete the file and run the job again"
            raise StoreError(f"store {self.url}: {path}: {message}") from None

    def write_json(self, path: str, value: Any) -> None:
        """Write `value` as indented UTF-8 JSON, keys in their order; the same value gives the same bytes."""
        text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
        self.write_bytes(path, (text + "\n").encode())

    def read_table(self, path: str, columns: Sequence[str] | None = None) -> pa.Table:
        """The Parquet table in `path`; of a file on this disk only the `columns` are read, when given."""
        with self._table(path) as table:
            return table.read(None if columns is None else list(columns))

    def read_schema(self, path: str) -> pa.Schema:
        """The columns of the Parquet table in `path`."""
        with self._table(path) as table:
            return table.schema_arrow

    def write_table(self, path: str, table: pa.Table, rows_a_group: int | None = None) -> None:
        """Write `table` as Parquet with zstd compression, in row groups of `rows_a_group` when given."""
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink, compression="zstd", row_group_size=rows_a_group)
        self.write_bytes(path, sink.getvalue().to_pybytes())

    def write_rows(self, path: str, rows: Iterable[Mapping[str, Any]], schema: pa.Schema) -> None:
        """Write `rows` as a table of `schema`, few of them in memory at a time; the same rows give the same bytes."""
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / "table.parquet"
            try:
                with pq.ParquetWriter(copy, schema, compression="zstd") as writer:
                    for table in portions(rows, schema, _ROWS_A_GROUP):
                        writer.write_table(table)
            except OSError as error:
                raise self._failure(f"prepare in {folder}", path, error) from error
            self.write_file(path, copy)

    def write_file(self, path: str, source: Path) -> None:
        """Make `path` hold what the local file `source` holds, little of it in memory at a time."""
        place = self._place(path)
        write = partial(_replace_file, Path(place)) if self._local else partial(_put_file, self._fs, place)
        self._attempt("write", path, partial(write, source))

    def iter_rows(self, path: str, columns: Sequence[str] | None = None) -> Iterator[dict[str, Any]]:
        """The rows of the Parquet table in `path`, few of them in memory at a time; of `columns` when given."""
        with self._table(path) as table:
            for batch in table.iter_batches(_ROWS_A_GROUP, columns=columns):
                yield from batch.to_pylist()

    def keep_rows(self, path: str, wanted: Callable[[Mapping[str, Any]], bool]) -> None:
        """Write the Parquet table in `path` anew with the `wanted` rows only, few of them in memory at a time."""
        with self._table(path) as table:
            rows = (row for batch in table.iter_batches(_ROWS_A_GROUP) for row in batch.to_pylist())
            self.write_rows(path, filter(wanted, rows), table.schema_arrow)

    def local_path(self, path: str) -> Path | None:
        """Where `path` lies on this machine's disk, existing or not; None on an object store."""
        place = self._place(path)
        return Path(place) if self._local else None

    @contextmanager
    def as_local_file(self, path: str) -> Iterator[Path]:
        """A file with the content of `path`, for libraries that need one; a copy only on an object store."""
        local = self.local_path(path)
        if local is not None:
            if not local.is_file():
                self.read_bytes(path)  # raises the error that names what is wrong
            yield local
            return
        with tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / PurePosixPath(path).name
            copy.write_bytes(self.read_bytes(path))
            yield copy

    @contextmanager
    def lock(self, owner: str) -> Iterator[Lock]:
        """Hold this location as its only driver; `LockedError` when another live job has it, see `Lock`.

        Temporary files that killed writers left behind are removed first.
        """
        lock = Lock(self, owner)
        lock.acquire()
        try:
            self.remove_temporary()
            yield lock
        finally:
            lock.release()

    def remove_temporary(self, folder: str = "", older_s: float = STALE_S) -> int:
        """Remove the temporary files below `folder` that killed writers left behind; how many.

        Younger ones than `older_s` may be in the making: 0 is for folders that nobody writes to any more. An object
        store has none.
        """
        if self._local is None:
            return 0
        oldest, removed = time.time() - older_s, 0
        for place, _, names in os.walk(self._local / folder):  # passes over folders that somebody removes meanwhile
            for path in (Path(place, name) for name in names if name.startswith(".") and name.endswith(_TEMPORARY)):
                with suppress(OSError):
                    if path.stat().st_mtime <= oldest:
                        path.unlink()
                        removed += 1
        return removed

    def _place(self, path: str) -> str:
        """Full path of `path` within the file system, after checking that it stays below the root."""
        parts = path.split("/")
        if not path or "\0" in path or "\\" in path or any(part in ("", ".", "..") for part in parts):
            raise StoreError(f"store {self.url}: got path {path!r}, wanted one like 'folder/name' below the store")
        if path.endswith(_TEMPORARY):
            raise StoreError(f"store {self.url}: got path {path!r}; names ending in {_TEMPORARY} are temporary files")
        return f"{self._root.rstrip('/')}/{path}"

    def _attempt(self, doing: str, path: str, work: Callable[[], Any]) -> Any:
        """What `work` returns; what a file system raises becomes a `StoreError`, object stores raise their own classes.

        An object store answers one request in many with a fault of the moment, so there all but a refusal or a missing
        file is tried again, after `RETRY_PAUSES_S`. All we ask of it may be asked twice.
        """
        expected: type[Exception] = OSError if self._local else Exception
        pauses_s = iter(() if self._local else RETRY_PAUSES_S)
        while True:
            try:
                return work()
            except expected as error:
                pause_s = None if isinstance(error, FileNotFoundError | PermissionError) else next(pauses_s, None)
                if pause_s is None:
                    raise self._failure(doing, path, error) from error
            time.sleep(pause_s)

    @contextmanager
    def _table(self, path: str) -> Iterator[pq.ParquetFile]:
        with self.as_local_file(path) as file:
            try:
                with pq.ParquetFile(file) as table:
                    yield table
            except pa.ArrowInvalid as error:
                raise self._no_table(path, error) from None

    def _no_table(self, path: str, error: Exception) -> StoreError:
        message = f"got {error}, wanted a Parquet file; delete the file and run the job again"
        return StoreError(f"store {self.url}: {path}: {message}")

    def _failure(self, doing: str, path: str, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        advice = "check free space and permissions, then run the same command again"
        if doing == "read" and isinstance(error, FileNotFoundError):
            reason, advice = "it is not there", "check the path, or run the stage that writes it"
        return StoreError(f"store {self.url}: cannot {doing} {path}: {reason}; {advice}")


def _put_file(fs: Any, place: str, source: Path) -> None:
    """One put, in parts when it is large, which an object store makes visible as a whole."""
    fs.put_file(str(source), place)


def _replace_file(place: Path, content: bytes | Path) -> None:
    """Write `content`, or that of the file there, to `place`; no moment shows less than the old or the new file."""
    temporary = place.parent / f".{uuid.uuid4().hex}{_TEMPORARY}"
    try:
        with _open_new(temporary) as file:
            if isinstance(content, Path):
                with content.open("rb") as source:
                    shutil.copyfileobj(source, file)
            else:
                file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, place)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    with suppress(FileNotFoundError):  # somebody has removed it since, and the folder with it
        _sync_folder(place.parent)


def _open_new(place: Path) -> BinaryIO:
    """`place`, opened to be written for the first time, in a folder that others may just now find empty and remove."""
    tries = 1
    while True:
        try:
            _make_folder(place.parent)
            return place.open("xb")
        except FileNotFoundError:
            if tries == _FOLDER_TRIES:
                raise
            tries += 1


def _make_folder(folder: Path) -> None:
    """Create `folder` with its parents, each one's entry flushed to the disk."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with suppress(FileExistsError):  # not by `exist_ok`, which looks whether it still is there
        folder.mkdir()
    _sync_folder(folder.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
