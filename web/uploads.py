"""An album that streams in as a form: metered, put into the store photo by photo, and gone if refused.

Photos that are given as URLs are fetched when the form is whole, and metered in the same way.
"""

import asyncio
import hashlib
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from studiolo.errors import StoreError
from studiolo.service.identities import album_folder, photo_path
from studiolo.service.uploads import SNIFFED_BYTES, AlbumMeter, check_photo
from studiolo.storage.store import Store
from web.endpoint import Endpoint
from web.errors import TooSlowError
from web.forms import FormReader, Part

PHOTOS = "photos"
"""Name of the parts that are photos."""
PHOTO_URLS = "photo_urls"
"""Name of the parts that are URLs of photos."""
_IN_MEMORY = 2**20


@dataclass
class Album:
    """What came in."""

    identity_id: str
    fields: dict[str, str] = field(default_factory=dict)
    photos: list[dict[str, Any]] = field(default_factory=list)
    """sha256 and bytes of each, in the order they were sent."""

    def path(self, number: int) -> str:
        """Where photo `number`, from 1, lies in the store."""
        return photo_path(self.identity_id, number)


async def receive_album(request: Request, here: Endpoint, identity_id: str, fields: frozenset[str]) -> Album:
    """The album of a request, its photos in the store; none is left there when it is refused.

    `fields` are the names of the text fields there may be. Raises `RefusedError`, `StoreError`, and `ClientDisconnect`
    when the client hangs up.
    """
    album, time_s = Album(identity_id), here.settings.web.upload_s
    try:
        async with asyncio.timeout(time_s):
            reader = _AlbumReader(request, here, album, fields)
            await reader.read()
            await reader.fetch()
    except BaseException as error:
        await asyncio.shield(run_in_threadpool(remove_album, here.service.store, identity_id))
        if isinstance(error, TimeoutError):
            raise TooSlowError("too_slow", f"The album did not come in {time_s:g} s.") from None
        raise
    here.service.meters.count("studiolo_upload_bytes_total", sum(photo["bytes"] for photo in album.photos))
    return album


def remove_album(store: Store, identity_id: str) -> None:
    """Remove the photos of an identity that there will not be; what a store that is away keeps goes as an orphan."""
    with suppress(StoreError):
        for path in store.list(album_folder(identity_id)):
            store.remove(path)


class _AlbumReader(FormReader):
    """Reads one album into the store."""

    def __init__(self, request: Request, here: Endpoint, album: Album, fields: frozenset[str]) -> None:
        self.here, self.album, self.meter = here, album, AlbumMeter(here.service.settings.uploads)
        super().__init__(request, PHOTOS, fields, int(self.meter.settings.max_album_mib * 2**20), PHOTO_URLS)
        album.fields = self.fields

    def begin(self) -> None:
        self.meter.begin_photo()

    def take(self, count: int) -> None:
        self.meter.take(count)

    def sniff(self, begins: bytes) -> None:
        check_photo(begins)

    async def keep(self, file: IO[bytes], part: Part) -> None:
        await self._put(file, part.digest.hexdigest(), part.size)

    async def fetch(self) -> None:
        """The photos that were given as URLs, behind the others. Raises `RefusedError`."""
        fetcher = self.here.service.fetcher
        self.meter.expect(len(self.listed))
        for url in self.listed:
            fetcher.check(url)
        for url in self.listed:
            self.meter.begin_photo()
            with tempfile.SpooledTemporaryFile(_IN_MEMORY) as file:
                digest = hashlib.sha256()

                def take(chunk: bytes, file: IO[bytes] = file, digest: Any = digest) -> None:
                    self.meter.take(len(chunk))
                    digest.update(chunk)
                    file.write(chunk)

                await fetcher.fetch(url, take)
                file.seek(0)
                check_photo(file.read(SNIFFED_BYTES))
                await self._put(file, digest.hexdigest(), self.meter.photo_bytes)

    async def _put(self, file: IO[bytes], sha256: str, size: int) -> None:
        number = len(self.album.photos) + 1
        async with self.here.writes:
            await run_in_threadpool(store_file, self.here.service.store, self.album.path(number), file)
        self.album.photos.append({"sha256": sha256, "bytes": size})


def store_file(store: Store, path: str, file: IO[bytes]) -> None:
    """Put the whole of an open file into the store."""
    file.seek(0)
    store.write_bytes(path, file.read())
