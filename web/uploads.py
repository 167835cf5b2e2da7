"""An album that streams in as multipart/form-data: metered, put into the store photo by photo, and gone if refused.

A photo waits in a temporary file until it is whole. What the client calls its files is not looked at.
"""

import asyncio
import hashlib
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from typing import IO, Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from studiolo.errors import StoreError, UnacceptableError, UnsupportedError
from studiolo.service.identities import album_folder, photo_path
from studiolo.service.uploads import AlbumMeter, check_photo
from studiolo.storage.store import Store
from web.endpoint import Endpoint
from web.errors import TooSlowError
from web.gate import check_length, too_large

PHOTOS = "photos"
"""Name of the parts that are photos."""
_SNIFFED = 16
_IN_MEMORY = 2**20
_FIELD_BYTES = 32 * 1024
_ENVELOPE = 2**20
"""Bytes of a body beside its photos: boundaries, headers, fields."""


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


@dataclass
class _Part:
    """A part of the form that is coming in."""

    name: str
    file: IO[bytes] | None
    text: bytearray = field(default_factory=bytearray)
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    begins: bytes = b""


async def receive_album(request: Request, here: Endpoint, identity_id: str, fields: frozenset[str]) -> Album:
    """The album of a request, its photos in the store; none is left there when it is refused.

    `fields` are the names of the text fields there may be. Raises `RefusedError`, `StoreError`, and `ClientDisconnect`
    when the client hangs up.
    """
    album, time_s = Album(identity_id), here.settings.web.upload_s
    try:
        async with asyncio.timeout(time_s):
            await _Reader(request, here, album, fields).read()
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


class _Reader:
    """Reads one form. The parser calls back while it is fed; what it said is carried out afterwards, in order."""

    def __init__(self, request: Request, here: Endpoint, album: Album, fields: frozenset[str]) -> None:
        self.request, self.here, self.album, self.fields = request, here, album, fields
        self.meter = AlbumMeter(here.service.settings.uploads)
        self._said: list[tuple[str, bytes]] = []
        self._header, self._headers = (bytearray(), bytearray()), dict[bytes, bytes]()
        self._part: _Part | None = None
        self._ended = False

    async def read(self) -> None:
        """The whole body. Raises `RefusedError`."""
        kind, options = parse_options_header(self.request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UnsupportedError("content_type", "Send the album as multipart/form-data.")
        limit, came = int(self.meter.settings.max_album_mib * 2**20) + _ENVELOPE, 0
        check_length(self.request, limit)
        try:
            parser = MultipartParser(options[b"boundary"], self._callbacks())
            async for chunk in self.request.stream():
                came += len(chunk)
                if came > limit:
                    raise too_large(limit)
                parser.write(chunk)
                await self._carry_out()
        except FormParserError:
            raise UnacceptableError("form", "The form is damaged; send multipart/form-data.") from None
        finally:
            if self._part is not None and self._part.file is not None:
                self._part.file.close()
        if not self._ended:
            raise UnacceptableError("form", "The form breaks off before its end.")

    def _callbacks(self) -> Any:
        def say(what: str) -> Any:
            return lambda *data: self._said.append((what, data[0][data[1] : data[2]] if data else b""))

        names = ("part_begin", "header_field", "header_value", "header_end", "headers_finished", "part_data")
        return {f"on_{what}": say(what) for what in (*names, "part_end", "end")}

    async def _carry_out(self) -> None:
        said, self._said = self._said, []
        for what, data in said:
            match what:
                case "part_begin":
                    self._headers = {}
                case "header_field":
                    self._header[0].extend(data)
                case "header_value":
                    self._header[1].extend(data)
                case "header_end":
                    name, value = self._header
                    self._headers[bytes(name).lower()] = bytes(value)
                    self._header = (bytearray(), bytearray())
                case "headers_finished":
                    self._part = self._begun()
                case "part_data":
                    await self._take(data)
                case "part_end":
                    await self._finish()
                case "end":
                    self._ended = True

    def _begun(self) -> _Part:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if name == PHOTOS:
            self.meter.begin_photo()
            return _Part(name, tempfile.SpooledTemporaryFile(_IN_MEMORY))
        if name not in self.fields or name in self.album.fields:
            wanted = ", ".join(sorted(self.fields))
            raise UnacceptableError("form", f"Got the part {name[:60]!r}; send {PHOTOS} and, each once, {wanted}.")
        return _Part(name, None)

    async def _take(self, data: bytes) -> None:
        part = self._part
        if part is None:
            return
        part.size += len(data)
        if part.file is None:
            if part.size > _FIELD_BYTES:
                raise UnacceptableError("form", f"The part {part.name} has more than {_FIELD_BYTES} bytes.")
            part.text += data
            return
        self.meter.take(len(data))
        if len(part.begins) < _SNIFFED <= len(part.begins) + len(data):
            check_photo(part.begins + data[:_SNIFFED])
        part.begins = (part.begins + data[:_SNIFFED])[:_SNIFFED]
        part.digest.update(data)
        part.file.write(data)

    async def _finish(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        if part.file is None:
            try:
                self.album.fields[part.name] = part.text.decode()
            except UnicodeDecodeError:
                raise UnacceptableError("form", f"The part {part.name} is not UTF-8.") from None
            return
        with part.file:
            if part.size < _SNIFFED:
                check_photo(part.begins)
            number = len(self.album.photos) + 1
            async with self.here.writes:
                await run_in_threadpool(_store, self.here.service.store, self.album.path(number), part.file)
        self.album.photos.append({"sha256": part.digest.hexdigest(), "bytes": part.size})


def _store(store: Store, path: str, file: IO[bytes]) -> None:
    file.seek(0)
    store.write_bytes(path, file.read())
