"""Routes of styles: ours and a tenant's own, which are LoRAs that the tenant sends."""

import asyncio
import logging
from contextlib import suppress
from functools import lru_cache
from typing import IO, Any

import pydantic
from fastapi import APIRouter, Request
from fastapi.exceptions import RequestValidationError
from starlette.concurrency import run_in_threadpool

from studiolo.errors import (
    ConflictError,
    NotFoundError,
    RefusedError,
    StoreError,
    StudioloError,
    TooLargeError,
    UnacceptableError,
    UnsupportedError,
)
from studiolo.generation.lora_files import Layers, base_layers, inspect_lora
from studiolo.portraits.requests import PROMPT_STYLE
from studiolo.portraits.styles import all_styles
from studiolo.service.keys import Caller
from studiolo.service.records import new_id
from studiolo.service.styles import STYLE_NAME, Look, OwnStyle, StyleLora, style_path
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull
from web import examples
from web.endpoint import Endpoint, Here, StyleId, Who
from web.errors import TooSlowError
from web.forms import FormReader, Part, parsed
from web.types import OwnStyleView, StyleList, StyleView

log = logging.getLogger(__name__)
router = APIRouter(prefix="/v1/styles", tags=["styles"])

LORA = "lora"
"""Name of the part that is the LoRA."""


class _Texts(Look):
    """The texts of the form."""

    name: str = pydantic.Field(pattern=STYLE_NAME)
    """How it is ordered: lower-case letters, digits and `-`."""


_SCHEMA: dict[str, Any] = _Texts.model_json_schema()["properties"]
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [LORA, "name"],
                "properties": {
                    LORA: {
                        "type": "string",
                        "format": "binary",
                        "description": "A .safetensors file with a LoRA for the base, as kohya's trainer, diffusers or"
                        " peft write it.",
                    },
                    **_SCHEMA,
                },
            },
            "example": examples.OWN_STYLE,
        }
    },
}


@router.get("")
def list_styles(here: Here, who: Who) -> StyleList:
    """The styles that can be ordered, your own first."""
    ours = all_styles(here.settings.style_folder).values()
    views = [StyleView(name=one.name, title=one.title, description=one.description, own=None) for one in ours]
    return StyleList(data=[*map(_view, here.service.styles.all(who.tenant_id)), *views])


@router.post("", status_code=201, openapi_extra={"requestBody": _FORM})
async def add_style(here: Here, who: Who, request: Request) -> StyleView:
    """A style of your own: its LoRA is inspected and written anew. It can be ordered at once, with a person or without.

    The same style sent again is the one that is there.
    """
    service, style_id, time_s = here.service, new_id("style"), here.settings.web.upload_s
    reader = _StyleReader(request, here, style_id)
    try:
        async with asyncio.timeout(time_s):
            await reader.read()
    except BaseException as error:
        await asyncio.shield(run_in_threadpool(_remove, service.store, style_id))
        if isinstance(error, TimeoutError):
            raise TooSlowError("too_slow", f"The style did not come in {time_s:g} s.") from None
        raise
    service.meters.count("studiolo_upload_bytes_total", reader.came)
    try:
        style = await run_in_threadpool(_add, here, who, reader)
    except (RefusedError, RequestValidationError):  # after any other fault the row may be there all the same
        await run_in_threadpool(_remove, service.store, style_id)
        raise
    if style.id != style_id:  # it was sent before, and that file is there
        await run_in_threadpool(_remove, service.store, style_id)
    return _view(style)


def _add(here: Endpoint, who: Caller, reader: "_StyleReader") -> OwnStyle:
    texts = parsed(_Texts, reader.fields)
    if reader.lora is None:
        raise UnacceptableError("no_lora", f"Send the LoRA as a part called {LORA}.")
    if texts.name in (PROMPT_STYLE, *all_styles(here.settings.style_folder)):
        raise ConflictError("style_name", f"There is a style of ours called {texts.name!r}; choose another name.")
    look = Look.model_validate(texts.model_dump(exclude={"name"}))
    return here.service.styles.add(who.tenant_id, reader.style_id, texts.name, look, reader.lora)


def _remove(store: Store, style_id: str) -> None:
    """The file of a style that there will not be; what a store that is away keeps goes as an orphan."""
    with suppress(StoreError):
        store.remove(style_path(style_id))


@router.delete("/{style_id}")
def delete_style(style_id: StyleId, here: Here, who: Who) -> StyleView:
    """Delete a style of your own, as it was: nothing is drawn with it any more. Portraits that were made stay."""
    style = here.service.styles.get(who.tenant_id, style_id)
    if style is None or not here.service.styles.end(who.tenant_id, style_id):
        raise NotFoundError("style", f"There is no style {style_id[:60]} of yours.")
    if here.elsewhere is not None:
        try:
            here.service.styles.finish(here.elsewhere)
        except StudioloError as error:  # it is hidden, and whoever tidies goes on
            log.warning("style %s: %s", style_id, error)
    return _view(style)


class _StyleReader(FormReader):
    """Reads one style; as soon as its LoRA is whole it is inspected, and what is kept of it put into the store."""

    def __init__(self, request: Request, here: Endpoint, style_id: str) -> None:
        self.here, self.style_id = here, style_id
        self.limit = int(here.service.settings.uploads.max_style_mib * 2**20)
        super().__init__(request, LORA, frozenset(_Texts.model_fields), self.limit)
        self.lora: StyleLora | None = None
        self.came = 0
        self._files = 0

    def begin(self) -> None:
        self._files += 1
        if self._files > 1:
            raise UnacceptableError("form", "Send one LoRA.")

    def take(self, count: int) -> None:
        self.came += count
        if self.came > self.limit:
            raise TooLargeError("lora_too_large", f"The LoRA has more than {self.limit / 2**20:g} MiB.")

    def sniff(self, begins: bytes) -> None:
        if begins[8:9] != b"{":  # a pickle, an archive
            raise UnsupportedError("not_safetensors", "Send the LoRA as a .safetensors file; others can run code.")

    async def keep(self, file: IO[bytes], part: Part) -> None:
        layers = await run_in_threadpool(_layers, self.here.settings.base)
        async with self.here.inspections:
            self.lora = await run_in_threadpool(self._kept, file, layers, part.digest.hexdigest())

    def _kept(self, file: IO[bytes], layers: Layers, sent_sha256: str) -> StyleLora:
        settings = self.here.settings
        found = inspect_lora(file, layers, settings.generation.rank_budget - settings.face_lora.rank)
        self.here.service.store.write_bytes(style_path(self.style_id), found.content)
        return StyleLora(sent_sha256=sent_sha256, sha256=found.sha256, rank=found.rank, layers=found.layers)


@lru_cache(maxsize=1)
def _layers(base: str) -> Layers:
    return base_layers(pull(base))


def _view(style: OwnStyle) -> StyleView:
    look, lora = style.look, style.lora
    own = OwnStyleView(
        id=style.id,
        prompt=look.prompt,
        negative_prompt=look.negative_prompt,
        weight=look.weight,
        rank=lora.rank,
        layers=lora.layers,
        created_at=style.created_at,
    )
    return StyleView(name=style.name, title=look.title or style.name, description=look.description, own=own)
