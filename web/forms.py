"""Forms that stream in as multipart/form-data: texts, and files that wait in temporary files until they are whole.

What the client calls its files is not looked at.
"""

import hashlib
import tempfile
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import IO, Any, TypeVar

import pydantic
from fastapi.exceptions import RequestValidationError
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from studiolo.errors import UnacceptableError, UnsupportedError
from studiolo.service.uploads import SNIFFED_BYTES
from web.gate import check_length, too_large

_IN_MEMORY = 2**20
_FIELD_BYTES = 32 * 1024
_LISTED_BYTES = 2048
_MOST_LISTED = 500
_ENVELOPE = 2**20
"""Bytes of a body beside its files: boundaries, headers, texts."""


Texts = TypeVar("Texts", bound=pydantic.BaseModel)


@dataclass
class Part:
    """A part of the form that is coming in."""

    name: str
    file: IO[bytes] | None
    """None of a text."""
    text: bytearray = field(default_factory=bytearray)
    digest: Any = field(default_factory=hashlib.sha256)
    size: int = 0
    begins: bytes = b""
    """The first `SNIFFED_BYTES`."""


class FormReader(ABC):
    """Reads one form with files called `files`, of `most` bytes together, and texts called `texts`, each once but for
    those called `many`, which are short.

    The parser calls back while it is fed; what it said is carried out afterwards, in order.
    """

    def __init__(self, request: Request, files: str, texts: frozenset[str], most: int, many: str = "") -> None:
        self.request, self.files, self.texts, self.most, self.many = request, files, texts, most, many
        self.fields: dict[str, str] = {}
        """The texts that came."""
        self.listed: list[str] = []
        """Those called `many`."""
        self._said: list[tuple[str, bytes]] = []
        self._header, self._headers = (bytearray(), bytearray()), dict[bytes, bytes]()
        self._part: Part | None = None
        self._ended = False

    def is_file(self, name: str) -> bool:
        """Whether a part of this name is a file. Raises `RefusedError`."""
        return name == self.files

    @abstractmethod
    def begin(self) -> None:
        """Another file begins. Raises `RefusedError`."""

    @abstractmethod
    def take(self, count: int) -> None:
        """`count` more bytes of the file have come in. Raises `RefusedError`."""

    @abstractmethod
    def sniff(self, begins: bytes) -> None:
        """A file's first bytes, `SNIFFED_BYTES` if it has so many. Raises `RefusedError`."""

    @abstractmethod
    async def keep(self, file: IO[bytes], part: Part) -> None:
        """A file is whole; it is closed afterwards. Raises `RefusedError`."""

    async def read(self) -> None:
        """The whole body. Raises `RefusedError`."""
        kind, options = parse_options_header(self.request.headers.get("content-type"))
        if kind != b"multipart/form-data" or not options.get(b"boundary"):
            raise UnsupportedError("content_type", "Send a form, as multipart/form-data.")
        limit, came = self.most + _ENVELOPE, 0
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
                    self._take(data)
                case "part_end":
                    await self._finish()
                case "end":
                    self._ended = True

    def _begun(self) -> Part:
        _, options = parse_options_header(self._headers.get(b"content-disposition"))
        name = options.get(b"name", b"").decode("utf-8", "replace")
        if self.is_file(name):
            self.begin()
            return Part(name, tempfile.SpooledTemporaryFile(_IN_MEMORY))
        if self.many and name == self.many and len(self.listed) < _MOST_LISTED:
            return Part(name, None)
        if name not in self.texts or name in self.fields:
            wanted = ", ".join(sorted(self.texts))
            raise UnacceptableError("form", f"Got the part {name[:60]!r}; send {self.files} and, each once, {wanted}.")
        return Part(name, None)

    def _take(self, data: bytes) -> None:
        part = self._part
        if part is None:
            return
        part.size += len(data)
        if part.file is None:
            most = _LISTED_BYTES if part.name == self.many else _FIELD_BYTES
            if part.size > most:
                raise UnacceptableError("form", f"The part {part.name} has more than {most} bytes.")
            part.text += data
            return
        self.take(len(data))
        if len(part.begins) < SNIFFED_BYTES <= len(part.begins) + len(data):
            self.sniff(part.begins + data[:SNIFFED_BYTES])
        part.begins = (part.begins + data[:SNIFFED_BYTES])[:SNIFFED_BYTES]
        part.digest.update(data)
        part.file.write(data)

    async def _finish(self) -> None:
        part, self._part = self._part, None
        if part is None:
            return
        if part.file is None:
            try:
                text = part.text.decode()
            except UnicodeDecodeError:
                raise UnacceptableError("form", f"The part {part.name} is not UTF-8.") from None
            if part.name == self.many:
                self.listed.append(text)
            else:
                self.fields[part.name] = text
            return
        with part.file:
            if part.size < SNIFFED_BYTES:
                self.sniff(part.begins)
            await self.keep(part.file, part)


def parsed(kind: type[Texts], fields: dict[str, str]) -> Texts:
    """The texts of a form; raises `RequestValidationError`."""
    try:
        return kind.model_validate(fields)
    except pydantic.ValidationError as error:
        raise RequestValidationError([{**item, "loc": ("body", *item["loc"])} for item in error.errors()]) from None
