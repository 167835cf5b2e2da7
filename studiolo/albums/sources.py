"""Where albums come from: a folder of album folders, or a manifest; any fsspec URL.

Every file of an album becomes a photo row, also the ones that turn out not to be pictures, except the few
well-known names that cameras and file managers leave behind (`is_junk`). Sidecars such as `.json` or `.xmp`
are rows: a customer who sent only those shall read so.

On a local disk links are followed only within their album, and only to files: a link out of the album, a link
to a folder, a pipe or a device is listed with an absolute uri that starts with `unreadable:`, so that its row
ends `failed/unreadable`. An album folder may itself be a link, because the operator made it, not a customer.
"""

import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pydantic

from studiolo.albums import manifests
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, SettingsError, nearest
from studiolo.keys import unit_key

MAX_FILE_BYTES = 256 * 1024 * 1024
"""Default limit of `read_bytes`."""

_UNREADABLE = "unreadable:"
_JUNK_NAMES = frozenset(
    (
        *("__macosx", "@eadir", ".appledouble", ".ds_store", ".fseventsd", ".git", ".nomedia", ".picasa.ini"),
        *(".spotlight-v100", ".trashes", "desktop.ini", "ehthumbs.db", "icon\r", "picasa.ini", "thumbs.db"),
    )
)
_PICTURE_SUFFIXES = frozenset(
    (".avif", ".bmp", ".gif", ".heic", ".heif", ".jfif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
)
"""Ends of the names of pictures, in lower case."""


INPUT_SCHEMA = pa.schema(
    [
        ("album_id", pa.string()),
        ("album_uri", pa.string()),
        ("photos", pa.list_(pa.struct([("uri", pa.string()), ("absolute_uri", pa.string())]))),
        ("people", pa.int32()),  # wanted
    ]
)
"""One row an album before perception."""


@dataclass(frozen=True)
class AlbumSource:
    """One album before anything was read.

    `photos` holds (relative uri, absolute uri) in order of the relative uri; an album may have none.
    """

    album_id: str
    album_uri: str
    photos: tuple[tuple[str, str], ...]
    people: int = 1
    """How many of its people are wanted, the owner first."""

    def row(self) -> dict[str, Any]:
        """This album as a row of `INPUT_SCHEMA`."""
        photos = [{"uri": uri, "absolute_uri": absolute} for uri, absolute in self.photos]
        return {"album_id": self.album_id, "album_uri": self.album_uri, "photos": photos, "people": self.people}

    def key(
        self,
        contents: Mapping[str, str],
        settings: Mapping[str, pydantic.BaseModel],
        weights_sha256: Mapping[str, str],
    ) -> str:
        """Key of the unit "this album's references".

        `contents`: relative uri -> sha256 of the bytes, or the reason they could not be read; one for every
        photo (`KeyError` otherwise). `settings`: the sections used, by name.
        """
        inputs: list[Any] = [[self.album_id], *([uri, contents[uri]] for uri, _ in self.photos)]
        if self.people > 1:
            inputs.append({"people": self.people})
        return unit_key("album", inputs, settings, weights_sha256)


def is_picture(name: str) -> bool:
    """Whether a file is called as a picture is."""
    return os.path.splitext(name)[1].lower() in _PICTURE_SUFFIXES


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is a well-known leftover of a camera or file manager."""
    return name.startswith("._") or name.lower() in _JUNK_NAMES


def list_albums(url: str) -> list[AlbumSource]:
    """The albums at `url`, sorted by id, each with its photos sorted.

    `url`: a folder whose sub-folders are albums (their folders included), or a `.parquet`, `.csv` or `.jsonl`
    manifest, see `studiolo.albums.manifests`. Raises `SettingsError`: nothing there, not a folder or
    manifest, pictures lying outside the album folders, a manifest that does not fit, two albums of one id.
    """
    try:
        found = _list_local(local_path(url)) if is_local(url) else _list_remote(url)
    except (ImportError, OSError, ValueError) as error:
        raise SettingsError(f"albums {url!r} cannot be listed: {error}") from error
    albums = sorted(found, key=lambda album: album.album_id)
    if not albums:
        raise SettingsError(f"albums {url!r} holds no album; wanted one folder for each customer, or a manifest")
    _refuse_twins(url, [album.album_id for album in albums])
    return albums


def folders_of(album_uri: str, uris: Iterable[str]) -> set[str]:
    """Where the photos of an album lie, `uris` in its rows: its folder; for a manifest itself and each photo's folder.

    A photo that is a link on this disk lies in two folders.
    """
    if not manifests.is_manifest(album_uri):
        return {album_uri}
    places = {absolute(album_uri, uri) for uri in uris}
    local = {local_path(place) for place in places if is_local(place)}
    remote = {_parent(place) for place in places if not is_local(place) and "::" not in place}  # else in an archive
    return {album_uri, *map(os.path.dirname, local | set(map(os.path.realpath, local))), *remote}


def read_bytes(uri: str, limit: int = MAX_FILE_BYTES) -> bytes:
    """The file at an absolute uri of `AlbumSource.photos`, at most `limit` bytes.

    Raises `PhotoError`: `UNREADABLE` when it cannot be read, `TOO_MANY_PIXELS` when it is longer than
    `limit`.
    """
    if uri.startswith(_UNREADABLE):
        raise PhotoError(Reason.UNREADABLE, uri.removeprefix(_UNREADABLE))
    try:
        data = _read_local(local_path(uri), limit) if is_local(uri) else _read_remote(uri, limit)
    except PhotoError:
        raise
    except Exception as error:  # every file system has its own errors; one unreadable file must stay one row
        raise PhotoError(Reason.UNREADABLE, f"{uri!r}: {type(error).__name__}: {error}") from error
    if len(data) > limit:
        raise PhotoError(Reason.TOO_MANY_PIXELS, f"{uri!r} is longer than {limit} bytes")
    return data


def is_local(url: str) -> bool:
    """Whether `url` is a path or `file://` URL of this machine."""
    return url.startswith(("file://", "local://")) or "://" not in url


def local_path(url: str) -> str:
    """Absolute path of a local URL; nothing in it is decoded: names may hold `%`, `#` and line breaks."""
    return os.path.abspath(os.path.expanduser(url.removeprefix("file://").removeprefix("local://")))


# Local disks


def _list_local(path: str) -> list[AlbumSource]:
    if not os.path.lexists(path):
        raise SettingsError(_nothing_at(path, os.path.dirname, os.path.isdir, os.listdir))
    if os.path.isfile(path):
        return _from_manifest(path, Path(path).read_bytes)
    if not os.path.isdir(path):
        raise SettingsError(f"albums {path!r} is neither a folder nor a file")
    names = [name for name in sorted(os.listdir(path)) if not is_junk(name)]
    folders = [name for name in names if os.path.isdir(os.path.join(path, name))]
    _refuse_strays(path, folders, set(names) - set(folders))
    return [_local_album(os.path.join(path, name)) for name in folders]


def _local_album(folder: str) -> AlbumSource:
    real = os.path.realpath(folder)
    photos = ((os.path.relpath(path, real), uri) for path, uri in walk_local(real, real))
    listed = ((printable(relative), printable(uri)) for relative, uri in photos)
    return AlbumSource(printable(os.path.basename(folder)), printable(folder), tuple(sorted(listed)))


def walk_local(folder: str, album: str) -> Iterator[tuple[str, str]]:
    """(path, absolute uri) of all below `folder`, sorted in each folder; links may not leave `album`, a real path.

    The uri of what is no file begins with `unreadable:` and says why.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        yield folder, f"{_UNREADABLE}{error}"
        return
    for entry in entries:
        if is_junk(entry.name):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from walk_local(entry.path, album)
        elif entry.is_symlink():
            target = os.path.realpath(entry.path)
            inside = os.path.commonpath([album, target]) == album
            fault = "a link that leaves the album" if not inside else "a link that leads to no file"
            yield entry.path, target if inside and os.path.isfile(target) else f"{_UNREADABLE}{fault}"
        elif entry.is_file():
            yield entry.path, entry.path
        else:
            yield entry.path, f"{_UNREADABLE}neither a file nor a folder"


def _read_local(path: str, limit: int) -> bytes:
    # O_NONBLOCK: a pipe put in the place of a listed file would otherwise block its reader for ever.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise PhotoError(Reason.UNREADABLE, f"{path!r} is not a file")
        return file.read(limit + 1)


def printable(name: str) -> str:
    """`name` as Unicode: bytes that are no UTF-8 show as `\\xNN`, and the file cannot be opened."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


# Everything fsspec knows


def _list_remote(url: str) -> list[AlbumSource]:
    _, chain, rest = url.partition("::")
    fs, root = fsspec.core.url_to_fs(url)

    def full(path: str) -> str:
        return f"{fs.unstrip_protocol(path)}{chain}{rest}"

    if fs.isfile(root):
        return _from_manifest(url, lambda: fs.cat_file(root))
    if not fs.isdir(root):
        raise SettingsError(_nothing_at(root.rstrip("/"), _parent, fs.isdir, lambda path: _names(fs, path)))
    entries = {_name(entry["name"]): entry for entry in fs.ls(root, detail=True)}
    names = sorted(name for name in entries if name and not is_junk(name))
    folders = [name for name in names if entries[name]["type"] == "directory"]
    _refuse_strays(url, folders, set(names) - set(folders))
    albums = []
    for name in folders:
        place = entries[name]["name"].rstrip("/")
        below = ((path.removeprefix(place).lstrip("/"), full(path)) for path in fs.find(place))
        # Some object stores keep folders as empty objects whose names end in a slash.
        files = ((path, uri) for path, uri in below if path and not path.endswith("/"))
        photos = sorted((path, uri) for path, uri in files if not any(map(is_junk, path.split("/"))))
        albums.append(AlbumSource(name, full(place), tuple(photos)))
    return albums


def _read_remote(uri: str, limit: int) -> bytes:
    fs, path = fsspec.core.url_to_fs(uri)
    with fs.open(path, "rb") as file:
        return bytes(file.read(limit + 1))


def _names(fs: Any, folder: str) -> list[str]:
    return [_name(path) for path in fs.ls(folder, detail=False)]


def _name(path: str) -> str:
    return path.rstrip("/").rpartition("/")[2]


def _parent(path: str) -> str:
    return path.rpartition("/")[0]


# Both


def _from_manifest(url: str, read: Callable[[], bytes]) -> list[AlbumSource]:
    uris_by_album = manifests.read_manifest(url, read)
    return [
        AlbumSource(album_id, url, tuple(sorted((uri, absolute(url, uri)) for uri in uris)))
        for album_id, uris in uris_by_album.items()
    ]


def absolute(manifest: str, uri: str) -> str:
    """`uri` of a photo in a manifest: itself when absolute, else below the manifest's folder; in the same archive."""
    link, chain, rest = (manifest, "", "") if is_local(manifest) else manifest.partition("::")
    return (uri if "://" in uri or uri.startswith("/") else f"{_parent(link)}/{uri}") + chain + rest


def _nothing_at(
    path: str,
    parent: Callable[[str], str],
    is_dir: Callable[[str], bool],
    names: Callable[[str], Iterable[str]],
) -> str:
    """Message for a path that is not there, with the nearest name where the path stops being right."""
    missing, folder = path, parent(path)
    while folder != parent(folder) and not is_dir(folder):
        missing, folder = folder, parent(folder)
    siblings = [name for name in names(folder) if not name.startswith(".")] if is_dir(folder) else []
    hint = f"{folder!r} is empty or missing"
    if siblings:
        hint = f"in {folder!r}: {nearest(_name(missing), siblings)}"
    if "did you mean" not in hint and len(siblings) > 10:
        hint = f"{folder!r} holds {len(siblings)} other names"
    return f"albums {path!r}: nothing is there; {hint}"


def _refuse_strays(url: str, folders: Sequence[str], files: Iterable[str]) -> None:
    """Pictures beside the album folders belong to no album; saying nothing would lose them."""
    strays = sorted(filter(is_picture, files))
    if strays:
        what = "pictures beside the album folders" if folders else "pictures but no album folder"
        raise SettingsError(
            f"albums {url!r} holds {what} ({len(strays)}, such as {strays[0]!r}); put each customer's"
            " pictures in a folder of their own"
        )


def _refuse_twins(url: str, album_ids: Sequence[str]) -> None:
    """Ids that look the same (Unicode NFC) would share folders and gallery entries."""
    seen: dict[str, str] = {}
    for album_id in album_ids:
        normal = unicodedata.normalize("NFC", album_id)
        if normal in seen:
            raise SettingsError(f"albums {url!r}: two albums are called {album_id!r}; rename one of them")
        seen[normal] = album_id
