"""Data sets in the folders in which they are published.

    FFHQ     images1024x1024/00000/00000.png ..., else in-the-wild-images/
    CelebA   (Img/)img_align_celeba/000001.jpg ..., else img_celeba/; (Anno/)identity_CelebA.txt: `000001.jpg 2880`
    SFHQ     parts with images/SFHQ_pt1_00000001.jpg ..., beside segmentations and landmarks

Folders that Kaggle doubles (`img_align_celeba/img_align_celeba/`) are as good.
"""

import re
from collections.abc import Iterator, Sequence

from studiolo.albums.sources import is_picture, read_bytes
from studiolo.datasets.settings import SourceSettings
from studiolo.datasets.sources.listed import File, Listed, files_at
from studiolo.errors import PhotoError, SettingsError
from studiolo.weights.cards import CommercialUse

LICENCES = {
    "ffhq": ("CC-BY-NC-SA-4.0", CommercialUse.FORBIDDEN),
    "celeba": ("non-commercial research only (CelebA's agreement)", CommercialUse.FORBIDDEN),
    "sfhq": ("MIT", CommercialUse.ALLOWED),
}
"""Of the data set as a whole, as its publisher states it, and whether it allows commercial use."""

_FFHQ = ("images1024x1024", "in-the-wild-images")
_CELEBA = ("img_align_celeba", "img_align_celeba_png", "img_celeba")
_CELEBA_IDENTITIES = "identity_CelebA.txt"
_SFHQ = re.compile(r"SFHQ_pt\d+_\d+\.(jpg|jpeg|png)", re.IGNORECASE)


def list_ffhq(source: SourceSettings) -> Iterator[Listed]:
    """Aligned pictures, else those in the wild; nobody is named."""
    for file in _below_one_of(source, list(files_at(source.place, source.name)), _FFHQ):
        yield Listed(file.uri, file.place, file.version)


def list_celeba(source: SourceSettings) -> Iterator[Listed]:
    """Aligned pictures, else those in the wild, with the identities of the identity file."""
    files = list(files_at(source.place, source.name))
    found = next((file for file in files if file.uri.split("/")[-1] == _CELEBA_IDENTITIES), None)
    if found is None:
        raise SettingsError(
            f"source {source.name!r}: {source.place!r} holds no {_CELEBA_IDENTITIES}; put it there, or name the folder"
            " of pictures as a folder"
        )
    names = _celeba_identities(source, found)
    for file in _below_one_of(source, files, _CELEBA):
        stem = file.uri.split("/")[-1].rpartition(".")[0]
        yield Listed(file.uri, file.place, file.version, names.get(stem))


def list_sfhq(source: SourceSettings) -> Iterator[Listed]:
    """The pictures of all parts; nobody is named. Segmentations are called alike and lie in folders of their own."""
    for file in files_at(source.place, source.name):
        *folders, name = file.uri.split("/")
        if _SFHQ.fullmatch(name) and "segmentations" not in folders:
            yield Listed(file.uri, file.place, file.version)


def _celeba_identities(source: SourceSettings, file: File) -> dict[str, str]:
    try:
        text = read_bytes(file.place).decode("utf-8", "replace")
    except PhotoError as error:
        raise SettingsError(f"source {source.name!r}: {file.place!r} cannot be read: {error.detail}") from None
    names: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), start=1):
        parts = line.split()
        if len(parts) != 2 and parts:
            raise SettingsError(
                f"source {source.name!r}: {file.uri}, line {number}: got {line!r}, wanted a file's name and a number"
            )
        if parts:
            names[parts[0].rpartition(".")[0]] = parts[1]
    return names


def _below_one_of(source: SourceSettings, files: Sequence[File], folders: Sequence[str]) -> Iterator[File]:
    """The pictures that lie in the first of `folders` that has any."""
    for folder in folders:
        found = [file for file in files if folder in file.uri.split("/")[:-1] and is_picture(file.uri)]
        if found:
            yield from found
            return
    raise SettingsError(
        f"source {source.name!r}: {source.place!r} holds no pictures in {' or '.join(folders)}; wanted the data set's"
        " folders as published"
    )
