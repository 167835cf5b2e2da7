"""Pictures in WebDataset tars: files of one base name belong together, as `KEY.jpg` and `KEY.json`.

The identity is `label` or `identity` of a member's `KEY.json`, or the text of `KEY.cls`, where it stands before the
picture or right after it; the licence is `licence` or `license` of the JSON. Tars are not compressed, so a picture is
read as a stretch of its tar.
"""

import json
import tarfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import fsspec

from studiolo.albums.sources import is_local, is_picture, local_path
from studiolo.datasets.settings import SourceSettings
from studiolo.datasets.sources.folder import folder_of
from studiolo.datasets.sources.listed import File, Listed, files_at
from studiolo.datasets.sources.reading import stretch
from studiolo.errors import SettingsError

_SAID_BYTES = 2**20  # of a JSON or text member
_SAYING = (".json", ".cls")


def list_tars(source: SourceSettings) -> Iterator[Listed]:
    """The pictures of one tar, or of the tars of a folder or glob; see `sources.list_pictures`."""
    for tar in _tars(source):
        opened = (
            open(local_path(tar.place), "rb")  # noqa: SIM115  (closed below)
            if is_local(tar.place)
            else fsspec.open(tar.place, "rb").open()
        )
        with opened as file:
            try:
                yield from _members(file, tar, source)
            except tarfile.TarError as error:
                raise SettingsError(f"source {source.name!r}: {tar.place!r} is no tar: {error}") from None


def _tars(source: SourceSettings) -> Iterator[File]:
    place = source.place
    if place.lower().endswith(".tar") and not set(place) & set("*?["):
        place = place[:-4] + ".[t]ar"  # the one file, as a glob: found and dated as any other
        found = list(files_at(place, source.name))
        if not found:
            raise SettingsError(f"source {source.name!r}: no tar is at {source.place!r}")
        yield from found
    else:
        yield from (file for file in files_at(place, source.name) if file.uri.lower().endswith(".tar"))


def _members(file: BinaryIO, tar: File, source: SourceSettings) -> Iterator[Listed]:
    """Pictures wait until their key ends: what is said of them may come after."""
    key, said, waiting = "", dict[str, str](), list[tarfile.TarInfo]()
    with tarfile.open(fileobj=file, mode="r:") as members:
        for member in members:
            if not member.isfile():
                continue
            if _key(member.name) != key:
                yield from (_listed(one, tar, said, source) for one in waiting)
                key, said, waiting = _key(member.name), {}, []
            if is_picture(member.name):
                waiting.append(member)
            elif member.name.endswith(_SAYING) and member.size <= _SAID_BYTES:
                content = members.extractfile(member)
                said.update(_said(member.name, content.read() if content else b""))
    yield from (_listed(one, tar, said, source) for one in waiting)


def _listed(member: tarfile.TarInfo, tar: File, said: dict[str, str], source: SourceSettings) -> Listed:
    label = said.get("label") or (folder_of(member.name) if source.labels == "folders" else None)
    place = stretch(tar.place, member.offset_data, member.size)
    version = f"{tar.version}-{member.offset_data}-{member.size}"
    return Listed(f"{tar.uri}#{member.name}", place, version, label, said.get("licence"))


def _key(name: str) -> str:
    """The part before the first dot of the base name, with its folder, as WebDataset has it."""
    folder, slash, base = name.rpartition("/")
    return folder + slash + base.partition(".")[0]


def _said(name: str, content: bytes) -> dict[str, str]:
    if name.endswith(".cls"):
        return {"label": content.decode(errors="replace").strip()}
    try:
        values: Any = json.loads(content)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    found = {"label": ("label", "identity"), "licence": ("licence", "license")}
    texts = {
        of: next((values[name] for name in names if values.get(name) is not None), None) for of, names in found.items()
    }
    return {of: str(text) for of, text in texts.items() if isinstance(text, str | int)}
