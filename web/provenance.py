"""The route that is asked where a picture comes from.

It is a POST: a picture is a body, which a GET has no place for.
"""

import asyncio
import tempfile
from typing import IO

from fastapi import APIRouter, Request
from starlette.concurrency import run_in_threadpool

from studiolo.service.uploads import SNIFFED_BYTES, AlbumMeter, check_photo
from web.endpoint import Endpoint, Here, Who
from web.errors import TooSlowError
from web.gate import check_length
from web.types import ProvenanceView

router = APIRouter(prefix="/v1", tags=["provenance"])

_UPSCALE = 4
"""The largest portrait has so many sides of the base's pictures; an edit is as large as its template."""
_BINARY = {"schema": {"type": "string", "format": "binary"}, "example": "the file's bytes"}
_BODY = {"requestBody": {"required": True, "content": {"application/octet-stream": _BINARY}}}


@router.post("/provenance", openapi_extra=_BODY)
async def look_up_provenance(here: Here, who: Who, request: Request) -> ProvenanceView:
    """Whether a picture was made here: by its C2PA manifest, or, where that was taken away, by its pixels.

    The body is the picture's file and nothing else, under whatever content type. Whoever has a picture is told whether
    it was made here, for whomever that was; nothing else about it is told.
    """
    with tempfile.TemporaryFile() as file:
        await _receive(request, here, file)
        max_pixels = max(_UPSCALE * here.settings.base_px, here.settings.template_side_px) ** 2
        async with here.looks:
            verdict = await run_in_threadpool(here.service.provenance.judge, file, max_pixels)
    return ProvenanceView(
        made_here=verdict.by is not None, by=verdict.by, manifest=verdict.manifest, sentence=verdict.sentence()
    )


async def _receive(request: Request, here: Endpoint, file: IO[bytes]) -> None:
    """The body, metered like a photo of an album. Raises `RefusedError`, and `ClientDisconnect`."""
    meter, time_s, begins, size = AlbumMeter(here.service.settings.uploads), here.settings.web.upload_s, b"", 0
    check_length(request, int(meter.settings.max_photo_mib * 2**20))
    meter.begin_photo()
    try:
        async with asyncio.timeout(time_s):
            async for chunk in request.stream():
                meter.take(len(chunk))
                size += len(chunk)
                if len(begins) < SNIFFED_BYTES:
                    begins = (begins + chunk[:SNIFFED_BYTES])[:SNIFFED_BYTES]
                    if len(begins) == SNIFFED_BYTES:
                        check_photo(begins)
                file.write(chunk)
    except TimeoutError:
        raise TooSlowError("too_slow", f"The picture did not come in {time_s:g} s.") from None
    if size < SNIFFED_BYTES:
        check_photo(begins)
    here.service.meters.count("studiolo_upload_bytes_total", size)
    file.flush()
    file.seek(0)
