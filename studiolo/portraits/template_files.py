"""The templates of a bulk job: pictures in a folder, ordered by their files' names as styles are by theirs.

wedding                 the picture `wedding.jpg`: its only face, or the one that dominates
wedding@0.31x0.42       its face at 31 % of the width and 42 % of the height
"""

import hashlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import fsspec
import numpy as np
from numpy.typing import NDArray

from studiolo.albums.decode import decode
from studiolo.albums.records import Reason
from studiolo.albums.sources import is_junk, is_local, is_picture, local_path, read_bytes, walk_local
from studiolo.errors import PhotoError, SettingsError, nearest
from studiolo.portraits.styles import Style
from studiolo.settings import PerceptionSettings

_POINT = re.compile(r"(?P<x>0?\.\d+|0|1(\.0*)?)x(?P<y>0?\.\d+|0|1(\.0*)?)")


@dataclass(frozen=True)
class OrderedTemplate:
    """A picture in which people are drawn."""

    name: str
    """As it is ordered, and what stands in the place of a style's name."""
    file: str
    """The file's name without its ending."""
    uri: str
    sha256: str
    """Of the file."""
    face_xy: tuple[float, float] | None = None
    """A point of the face that is meant, in shares of width and height."""

    @property
    def style(self) -> Style:
        """What people read in the place of a style."""
        picture, where = os.path.basename(self.uri), ""
        if self.face_xy is not None:
            where = " ({:.0%} across, {:.0%} down)".format(*self.face_xy)
        return Style(name=self.name, title=f"In {self.file}{where}", description=f"Drawn into the picture {picture}.")

    def row(self) -> dict[str, Any]:
        """What a worker has to know."""
        return {"uri": self.uri, "sha256": self.sha256, "face_xy": self.face_xy and list(self.face_xy)}


class Templates:
    """The pictures in a folder (any fsspec URL), by their files' names; a file is read when it is ordered."""

    def __init__(self, url: str) -> None:
        """Raises `SettingsError`: the folder cannot be listed, holds no picture, or two of one name."""
        self.url = url
        try:
            found = sorted(_local(url) if is_local(url) else _remote(url))
        except (ImportError, OSError, ValueError) as error:
            raise SettingsError(f"templates {url!r} cannot be listed: {error}") from error
        if not found:
            raise SettingsError(f"templates {url!r}: holds no picture")
        self._uris = dict(found)
        if len(self._uris) < len(found):
            twice = next(name for (name, _), (other, _) in pairwise(found) if name == other)
            raise SettingsError(f"templates {url!r}: two pictures are called {twice!r}; rename one")

    def ordered(self, name: str) -> OrderedTemplate:
        """The template of an order. Raises `SettingsError`: there is none of this name, it cannot be read."""
        file, face_xy = (name, None) if name in self._uris else self._split(name)
        try:
            content = read_bytes(self._uris[file])
        except PhotoError as error:
            raise SettingsError(f"template {name!r} cannot be read: {error.detail}") from None
        return OrderedTemplate(name, file, self._uris[file], hashlib.sha256(content).hexdigest(), face_xy)

    def _split(self, name: str) -> tuple[str, tuple[float, float] | None]:
        """The file's name and the point in an order; `SettingsError` when there is no such file, or no such point."""
        file, at, point = name.rpartition("@")
        if at and file in self._uris:
            match = _POINT.fullmatch(point)
            if match is None:
                raise SettingsError(f"template {name!r}: got the point {point!r}, wanted shares such as 0.31x0.42")
            return file, (float(match["x"]), float(match["y"]))
        file = file or name
        raise SettingsError(f"templates {self.url!r}: no picture is called {file!r}; {nearest(file, self._uris)}")


def read_template(uri: str, sha256: str, settings: PerceptionSettings) -> NDArray[np.uint8]:
    """The picture [H, W, 3] at `uri`. Raises `PhotoError`, also when it is not the file with `sha256` any more."""
    content = read_bytes(uri)
    if hashlib.sha256(content).hexdigest() != sha256:
        raise PhotoError(Reason.UNREADABLE, f"{uri!r} is another file than when the job began")
    return decode(content, settings)


def _local(url: str) -> Iterator[tuple[str, str]]:
    folder = os.path.realpath(local_path(url))
    if not os.path.isdir(folder):
        raise SettingsError(f"templates {url!r}: wanted a folder with pictures")
    for path, uri in walk_local(folder, folder):
        if os.path.dirname(path) == folder and is_picture(path):
            yield os.path.splitext(os.path.basename(path))[0], uri


def _remote(url: str) -> Iterator[tuple[str, str]]:
    _, chain, rest = url.partition("::")
    fs, root = fsspec.core.url_to_fs(url)
    for path in fs.ls(root, detail=False):
        name = path.rpartition("/")[2]
        if is_picture(name) and not is_junk(name):
            yield os.path.splitext(name)[0], f"{fs.unstrip_protocol(path)}{chain}{rest}"
