"""What a source says of a picture, and the files of a place."""

import os
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import fsspec

from studiolo.albums.sources import is_junk, is_local, local_path, printable, walk_local
from studiolo.errors import SettingsError
from studiolo.settings import require_path

ABSENT = "absent"
"""Version of what is listed and is no file: it fails when it is read."""

_TAGS = ("ETag", "etag", "md5", "md5Hash")
_TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class Listed(NamedTuple):
    """One picture of a source, not read yet."""

    uri: str
    """Within the source."""
    place: str
    """For `reading.PictureReader`."""
    version: str
    """Changes when the content does, as far as its storage tells."""
    label: str | None = None
    """The identity that the source names."""
    licence: str | None = None
    """Of this picture, where it is not the source's."""


class File(NamedTuple):
    """One file of a place."""

    uri: str
    """Below the place."""
    place: str
    """Absolute."""
    version: str


def files_at(place: str, name: str) -> Iterator[File]:
    """All files below the folder at `place`, or those that match the glob, in the order of their uris.

    `name` is the source's, for messages. Raises `SettingsError` when nothing is there. Leftovers of cameras and file
    managers are no files; links on this disk are followed within the folder only.
    """
    if is_local(place):
        path = local_path(place)
        found = _below_local(path) if os.path.isdir(path) else _matching_local(path, name)
    else:
        found = _remote(place, name)
    for file in sorted(found):
        if not any(map(is_junk, file.uri.split("/"))):
            yield file


def version_of_file(path: str) -> str:
    """Version of a file on this disk: its size and the time of its last change."""
    state = os.stat(path)
    return f"{state.st_size}-{state.st_mtime_ns}"


def version_of_entry(entry: Mapping[str, Any]) -> str:
    """Version of a file of another file system, from what its listing says."""
    tag = next((str(entry[name]).strip('"') for name in _TAGS if entry.get(name)), None)
    if tag is None:
        time = next((entry[name] for name in _TIMES if entry.get(name)), "")
        tag = time.isoformat() if isinstance(time, datetime) else str(time)
    return f"{entry.get('size')}-{tag}"


def _below_local(folder: str) -> Iterator[File]:
    real = os.path.realpath(folder)
    for path, target in walk_local(real, real):
        version = version_of_file(target) if os.path.isfile(target) else ABSENT  # a link out of the folder, say
        yield File(printable(os.path.relpath(path, real)), printable(target), version)


def _matching_local(pattern: str, name: str) -> Iterator[File]:
    if not is_glob(pattern):
        require_path(Path(pattern), f"source {name!r}:", "a folder or a glob", folder=True)
    base = base_of(pattern)
    for path in fsspec.filesystem("file").glob(pattern):
        if os.path.isfile(path):
            yield File(printable(os.path.relpath(path, base)), printable(path), version_of_file(path))


def _remote(url: str, name: str) -> Iterator[File]:
    _, chain, rest = url.partition("::")
    fs, root = fsspec.core.url_to_fs(url, use_listings_cache=False)
    if fs.isdir(root):
        base, entries = root.rstrip("/"), fs.find(root, detail=True)
    elif is_glob(root):
        base, entries = base_of(root), fs.glob(root, detail=True)
    else:
        raise SettingsError(f"source {name!r}: {url!r} is no folder; wanted a folder or a glob")
    for path, entry in entries.items():
        if entry["type"] == "file":
            place = f"{fs.unstrip_protocol(path)}{chain}{rest}"
            yield File(path.removeprefix(base).lstrip("/"), place, version_of_entry(entry))


def is_glob(path: str) -> bool:
    """Whether a path has a pattern in it."""
    return any(character in path for character in "*?[")


def base_of(pattern: str) -> str:
    """The folders of a glob before its pattern; of a path without one the folder that it is in."""
    parts = pattern.split("/")
    first = next(number for number, part in enumerate(parts) if is_glob(part) or number == len(parts) - 1)
    return "/".join(parts[:first]) or "/"
