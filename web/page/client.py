"""`/v1` as the page asks it: over HTTP, with the key of whoever is signed in."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pydantic

from studiolo.errors import RefusedError
from web.errors import Problem
from web.types import ErasureView, IdentityPage, IdentityView, JobPage, JobView, StyleList, StyleView

View = TypeVar("View", bound=pydantic.BaseModel)
Event = tuple[str, dict[str, Any]]
"""Its name and its data, as `GET /v1/jobs/{id}/events` tells it."""

NO_KEY = "This key is not known, or is no longer valid."
_AWAY = "The service cannot be reached at the moment; nothing that was accepted is lost."
_BUSY = "Too much was asked at once; wait a moment."
_ODD = "The service gave an answer that this page does not understand."
_PART = 100
MOST_PEOPLE = 20 * _PART
_TRIES = 5
_PAUSE_S = 1.0
_TAKEN_S = 300.0
"""For an album to be stored, and for an erasure to go through."""
_SILENCE_S = 45.0
"""Between two signs of life of a stream of events, of which there is one every 15 seconds."""


class AnswerError(RefusedError):
    """What `/v1` said instead of what was asked for; 503 when nobody answered."""

    def __init__(self, status: int, reason: str, sentence: str, retry_after_s: float | None = None) -> None:
        super().__init__(reason, sentence, retry_after_s)
        self.status = status


class Client:
    """`/v1` with one key. Each method raises `AnswerError`."""

    def __init__(self, http: httpx.AsyncClient, key: str) -> None:
        """`http` knows the endpoint's address; it may be shared. What can be no key is refused without asking."""
        if not (key and key == key.strip() and key.isascii() and key.isprintable()):
            raise AnswerError(401, "unknown_key", NO_KEY)
        self._http, self._headers = http, {"Authorization": f"Bearer {key}"}

    async def styles(self) -> list[StyleView]:
        """The styles that can be ordered. The cheapest question that only a sound key is answered."""
        return (await self._view(StyleList, "GET", "/v1/styles")).data

    async def people(self) -> list[IdentityView]:
        """The newest identities, at most `MOST_PEOPLE`."""
        found: list[IdentityView] = []
        before: dict[str, str] = {}
        while len(found) < MOST_PEOPLE:
            part = await self._view(IdentityPage, "GET", "/v1/identities", params={"limit": _PART, **before})
            found += part.data
            if part.next is None:
                break
            before = {"before": part.next}
        return found

    async def person(self, identity_id: str) -> IdentityView:
        """One identity."""
        return await self._view(IdentityView, "GET", f"/v1/identities/{_named(identity_id)}")

    async def learn(self, photos: Sequence[Path], texts: dict[str, str], name: str) -> JobView:
        """Send an album with the texts of its form; under the same idempotency key `name` it is the same job."""
        with ExitStack() as files:
            parts = [("photos", ("photo", files.enter_context(path.open("rb")))) for path in photos]
            request = {"data": texts, "files": parts, "headers": {"Idempotency-Key": name}}
            return await self._view(JobView, "POST", "/v1/identities", timeout=_TAKEN_S, **request)

    async def erase(self, identity_id: str) -> tuple[ErasureView, float]:
        """How far the erasure is that this begins or goes on with, and the seconds after which to ask again."""
        answer = await self._ask("DELETE", f"/v1/identities/{_named(identity_id)}", timeout=_TAKEN_S)
        return _read(ErasureView, answer), float(answer.headers.get("Retry-After", 0))

    async def order(self, body: dict[str, Any], name: str) -> JobView:
        """Order portraits; under the same idempotency key `name` it is the same job."""
        return await self._view(JobView, "POST", "/v1/portraits", json=body, headers={"Idempotency-Key": name})

    async def edit(self, template: Path, texts: dict[str, str], name: str) -> JobView:
        """Order edits of a template with the texts of its form, else as `order`."""
        with template.open("rb") as file:
            request = {"data": texts, "files": {"template": ("template", file)}, "headers": {"Idempotency-Key": name}}
            return await self._view(JobView, "POST", "/v1/edits", timeout=_TAKEN_S, **request)

    async def no_edits(self) -> str:
        """Why this service makes no edits; empty where it does. It is sent no form, and says so where it wants one."""
        try:
            await self._ask("POST", "/v1/edits")
        except AnswerError as error:
            if error.reason == "no_edits":
                return error.sentence
            if error.status != 415:
                raise
        return ""

    async def delete_style(self, style_id: str) -> StyleView:
        """Delete a style of one's own; the style as it was."""
        return await self._view(StyleView, "DELETE", f"/v1/styles/{_named(style_id)}")

    async def jobs(self, limit: int, **filters: str) -> JobPage:
        """The newest jobs, at most 100."""
        return await self._view(JobPage, "GET", "/v1/jobs", params={"limit": limit, **filters})

    async def job(self, job_id: str) -> JobView:
        """One job as it is."""
        return await self._view(JobView, "GET", f"/v1/jobs/{_named(job_id)}")

    async def cancel(self, job_id: str) -> JobView:
        """Cancel a job; the job as it is then."""
        return await self._view(JobView, "DELETE", f"/v1/jobs/{_named(job_id)}")

    async def image(self, job_id: str, number: int) -> httpx.Response:
        """One portrait, whole, with the headers it came with. A page shows many at once: they wait their turn."""
        for _ in range(_TRIES):
            try:
                return await self._ask("GET", f"/v1/jobs/{_named(job_id)}/images/{number}")
            except AnswerError as error:
                if error.status != 429:
                    raise
                await asyncio.sleep(error.retry_after_s or _PAUSE_S)
        raise AnswerError(429, "rate_limit", _BUSY)

    async def events(self, job_id: str) -> AsyncIterator[Event]:
        """How a job goes on, until the event `end`; a stream that breaks off is taken up again a few times."""
        tries = 0
        while True:
            try:
                async for event in self._stream(job_id):
                    tries = 0
                    yield event
                    if event[0] == "end":
                        return
            except AnswerError as error:
                if error.status < 500 or tries >= _TRIES:
                    raise
            else:
                if tries >= _TRIES:
                    raise AnswerError(503, "away", _AWAY)
            tries += 1
            await asyncio.sleep(_PAUSE_S)

    async def _stream(self, job_id: str) -> AsyncIterator[Event]:
        path, name = f"/v1/jobs/{_named(job_id)}/events", ""
        with _told():
            async with AsyncExitStack() as opened:
                asked = self._http.stream("GET", path, headers=self._headers, timeout=_SILENCE_S)
                answer = await opened.enter_async_context(asked)
                if not answer.is_success:
                    await answer.aread()
                    raise _refusal(answer)
                async for line in answer.aiter_lines():
                    if line.startswith("event: "):
                        name = line.removeprefix("event: ")
                    elif line.startswith("data: "):
                        yield name, json.loads(line.removeprefix("data: "))

    async def _view(self, view: type[View], method: str, path: str, **request: Any) -> View:
        return _read(view, await self._ask(method, path, **request))

    async def _ask(self, method: str, path: str, **request: Any) -> httpx.Response:
        headers = {**self._headers, **request.pop("headers", {})}
        with _told():
            answer = await self._http.request(method, path, headers=headers, **request)
        if not answer.is_success:
            raise _refusal(answer)
        return answer


def _named(identifier: str) -> str:
    """An id as part of a path. Raises `AnswerError` for what none can be: it would ask for something else."""
    if not identifier.replace("_", "").isalnum() or not identifier.isascii():
        raise AnswerError(404, "not_found", "There is no such thing.")
    return identifier


def _read(view: type[View], answer: httpx.Response) -> View:
    try:
        return view.model_validate_json(answer.content)
    except pydantic.ValidationError:
        raise AnswerError(502, "odd", _ODD) from None


def _refusal(answer: httpx.Response) -> AnswerError:
    try:
        problem = Problem.model_validate_json(answer.content)
    except pydantic.ValidationError:
        return AnswerError(answer.status_code, "away", _AWAY if answer.status_code >= 500 else _ODD)
    return AnswerError(answer.status_code, problem.reason, problem.detail, problem.retry_after_s)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except (httpx.HTTPError, json.JSONDecodeError):
        raise AnswerError(503, "away", _AWAY) from None
