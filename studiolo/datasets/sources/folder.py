"""Pictures below a folder, or those that match a glob."""

from collections.abc import Iterator

from studiolo.albums.sources import is_picture
from studiolo.datasets.settings import SourceSettings
from studiolo.datasets.sources.listed import Listed, files_at


def list_folder(source: SourceSettings) -> Iterator[Listed]:
    """Every file that is called as a picture is; see `sources.list_pictures`."""
    for file in files_at(source.place, source.name):
        if is_picture(file.uri):
            label = folder_of(file.uri) if source.labels == "folders" else None
            yield Listed(file.uri, file.place, file.version, label)


def folder_of(uri: str) -> str | None:
    """Name of the folder that a file lies in; None at the top."""
    parts = uri.split("/")
    return parts[-2] if len(parts) > 1 else None
