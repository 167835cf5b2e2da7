"""Captions by any server that speaks OpenAI's protocol and sees pictures: two prompts a picture, as ConsistentID has
them.

Requests go out a few at a time. A server that is busy, ill or away is asked again, after the pause it names or a
growing one of our own; a picture that it refuses gets no caption; anything else ends the work with a message.
"""

import asyncio
import base64
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from studiolo.datasets.captions.captioner import FACE_PROMPT, PERSON_PROMPT, Caption, Row, Usage, version_of
from studiolo.datasets.captions.descriptions import captions_of
from studiolo.datasets.captions.pictures import jpeg_of
from studiolo.datasets.captions.settings import VisionServerSettings
from studiolo.errors import CaptionError

_AGAIN = frozenset((408, 409, 425, 429, 500, 502, 503, 504, 529))
"""Statuses of a server that may answer the same request later."""

_REFUSED = frozenset((400, 413, 415, 422))
"""Statuses of a server that does not take this picture."""

_MANY = 8
"""Of fewer pictures all may be ones that no server takes."""

_DECISIVE = ("model", "max_new_tokens", "side_px")


class VisionServer:
    """A vision model behind a URL. `usage` counts what it takes, from `open` on."""

    def __init__(self, settings: VisionServerSettings | None = None) -> None:
        self.settings = settings or VisionServerSettings()
        decisive = {name: getattr(self.settings, name) for name in _DECISIVE}
        self.id = f"{self.settings.model}@{version_of(PERSON_PROMPT, FACE_PROMPT, decisive)}"
        self.rows_per_part: int | None = self.settings.rows_per_part
        self.usage = Usage()

    def open(self, device: str = "cpu") -> None:
        """Begins to count anew; the server's device is its own affair."""
        self.usage = Usage()

    def __call__(self, rows: Sequence[Row]) -> list[list[Caption]]:
        """See `Captioner`. Raises `CaptionError` for a server that cannot be reached or used."""
        return asyncio.run(self._all(rows))

    def close(self) -> None:
        """Nothing stays open between calls."""

    async def _all(self, rows: Sequence[Row]) -> list[list[Caption]]:
        limits = httpx.Limits(max_connections=self.settings.in_flight)
        gate = asyncio.Semaphore(self.settings.in_flight)
        async with httpx.AsyncClient(timeout=self.settings.timeout_s, limits=limits) as client:
            tasks = [asyncio.create_task(self._row(client, gate, row)) for row in rows]
            try:
                told = await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        refusals = [answer for answer in told if isinstance(answer, _Refusal)]
        if len(refusals) == len(rows) >= _MANY:
            raise CaptionError(
                f"captions: {self.settings.url} refuses all of {len(rows)} pictures ({refusals[0].why}), wanted a "
                f"model that sees pictures; is {self.settings.model!r} one?"
            )
        return [[] if isinstance(answer, _Refusal) else answer for answer in told]

    async def _row(self, client: httpx.AsyncClient, gate: asyncio.Semaphore, row: Row) -> "list[Caption] | _Refusal":
        picture = base64.b64encode(jpeg_of(row, self.settings.side_px)).decode()
        answers = []
        for prompt in (PERSON_PROMPT, FACE_PROMPT):
            async with gate:
                answer = await self._ask(client, prompt, f"data:image/jpeg;base64,{picture}")
            if isinstance(answer, _Refusal):
                self.usage.refused += 1
                return answer
            answers.append(answer)
        return captions_of(*answers)

    async def _ask(self, client: httpx.AsyncClient, prompt: str, picture: str) -> "str | _Refusal":
        """The answer to one prompt; `CaptionError` when the last attempt brought none."""
        content = [{"type": "text", "text": prompt}, {"type": "image_url", "image_url": {"url": picture}}]
        body = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": content}],
            "max_tokens": self.settings.max_new_tokens,
            "temperature": 0,
            "seed": 0,
        }
        why = ""
        for attempt in range(self.settings.attempts):
            self.usage.requests += 1
            self.usage.repeated += attempt > 0
            pause_s = self.settings.pause_s * 2**attempt
            try:
                response = await client.post(self._url, json=body, headers=self._headers())
            except httpx.TransportError as error:
                why = f"{type(error).__name__} {error}".strip()
            else:
                if response.status_code == 200 and (answer := self._answer(response)) is not None:
                    return answer
                why = f"status {response.status_code}: {response.text[:200]!r}"
                if response.status_code in _REFUSED:
                    return _Refusal(why)
                if response.status_code not in _AGAIN and response.status_code != 200:
                    raise CaptionError(f"captions: {self._url} answers with {why}; check its URL, model and key")
                pause_s = retry_after_s(response.headers.get("retry-after"), time.time()) or pause_s
            if attempt + 1 < self.settings.attempts:
                await asyncio.sleep(min(pause_s, self.settings.longest_pause_s))
        raise CaptionError(f"captions: {self._url} gave no answer in {self.settings.attempts} attempts: {why}")

    @property
    def _url(self) -> str:
        return f"{self.settings.url.rstrip('/')}/chat/completions"

    def _headers(self) -> dict[str, str]:
        key = os.environ.get(self.settings.api_key_variable)
        return {"Authorization": f"Bearer {key}"} if key else {}

    def _answer(self, response: httpx.Response) -> "str | _Refusal | None":
        """What a server says that is well; None for what is no answer at all."""
        try:
            reply = response.json()
            text = reply["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError):
            return None
        self._count(reply.get("usage"))
        if not isinstance(text, str) or not text.strip():
            return _Refusal(f"an empty answer, {reply['choices'][0].get('finish_reason')}")
        return text

    def _count(self, usage: Any) -> None:
        if not isinstance(usage, dict):
            return
        prompt, completion = (int(usage.get(f"{kind}_tokens") or 0) for kind in ("prompt", "completion"))
        self.usage.prompt_tokens += prompt
        self.usage.completion_tokens += completion
        price = prompt * self.settings.prompt_price + completion * self.settings.completion_price
        self.usage.cost += price / 1e6


@dataclass(frozen=True)
class _Refusal:
    why: str


def retry_after_s(header: str | None, now: float) -> float | None:
    """Seconds to wait by a Retry-After header, a number or a date; None where it says nothing that can be read.

    `now`: seconds since 1970.
    """
    if header is None:
        return None
    try:
        return max(float(header), 0.0)
    except ValueError:
        pass
    try:
        return max(parsedate_to_datetime(header).timestamp() - now, 0.0)
    except ValueError:
        return None
