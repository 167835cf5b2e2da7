"""An album that a job names, out of the endpoint's store, for the perception."""

import time
from typing import Any

from actors.perceiver import Perceiver, photo_row, refusal
from studiolo.albums.records import Reason
from studiolo.albums.sources import AlbumSource
from studiolo.errors import PhotoError
from studiolo.service.identities import album_folder, photo_path
from studiolo.service.records import Job
from studiolo.settings import PerceptionSettings, SelectionSettings
from studiolo.storage.store import Store

Row = dict[str, Any]


class AlbumPerceiver(Perceiver):
    """Reads photos from its store, by their paths there: that a store fails is no photo's fault.

    Photos that it has not come to see after `album_s` seconds are too slow: an album may hold up the others only so
    long.
    """

    def __init__(
        self, store: Store, suite: str, perception: PerceptionSettings, selection: SelectionSettings, album_s: float
    ) -> None:
        super().__init__(store, suite, perception, selection)
        self.album_s = album_s

    def fetch(self, place: str) -> bytes:
        """The photo's bytes; raises `StoreError`."""
        return self.store.read_bytes(place)

    def _perceive(self, source: AlbumSource, places: dict[str, str]) -> list[Row]:
        self._until_s = time.monotonic() + self.album_s
        return super()._perceive(source, places)

    def _photo(self, album_id: str, uri: str, place: str) -> Row:
        if time.monotonic() < self._until_s:
            return super()._photo(album_id, uri, place)
        error = PhotoError(Reason.TOO_SLOW, f"the album's photos before it took {self.album_s:g} s")
        return photo_row(album_id, uri) | refusal(error)


def album_row(job: Job) -> Row:
    """The album of a job as a row of `INPUT_SCHEMA` for `AlbumPerceiver`; photos are called by their numbers."""
    identity_id = str(job.identity_id)
    paths = [photo_path(identity_id, number) for number in range(1, len(job.request["photos"]) + 1)]
    photos = [{"uri": path.rpartition("/")[2], "absolute_uri": path} for path in paths]
    return {"album_id": identity_id, "album_uri": album_folder(identity_id), "photos": photos, "people": 1}
