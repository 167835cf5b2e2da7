"""What the tabs of the page share."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx

from studiolo.service.endpoint import EndpointSettings
from web.page.client import MOST_PEOPLE, AnswerError, Client
from web.page.gate import COOKIE
from web.page.photos import Looker
from web.types import IdentityView, StyleView

NO_ONE = "-"
"""Choice of a person of the base's own."""
KINDS = ["image", ".heic", ".heif", ".avif"]
"""Of files that may be dropped."""
SEED = "A whole number, for the same pictures again. Empty: new ones."
AGAIN = "You are signed out: load the page again."
QUIET: dict[str, Any] = {"show_progress": "hidden", "concurrency_limit": None, "api_visibility": "private"}
"""How events are listened to: nothing covers what is shown, none waits for another, none is an API."""

Choices = list[tuple[str, str]]
"""What is shown and what it stands for."""


@dataclass(frozen=True)
class Studio:
    """What a tab may use."""

    settings: EndpointSettings
    http: httpx.AsyncClient
    looker: Looker

    def client(self, cookies: Mapping[str, str]) -> Client:
        """`/v1` with the key of whoever asks. Raises `AnswerError` for nobody."""
        key = cookies.get(COOKIE)
        if key is None:
            raise AnswerError(401, "signed_out", AGAIN)
        return Client(self.http, key)


def now_s() -> float:
    """Seconds since 1970."""
    return time.time()


def said(error: AnswerError) -> str:
    """What went wrong, with what to do about it."""
    if error.status == 401:
        return AGAIN
    if error.retry_after_s is not None and error.status == 429:
        return f"{error.sentence} In {error.retry_after_s:g} s it may go through."
    return error.sentence


def names_of(people: list[IdentityView]) -> dict[str, str]:
    """Names by identity."""
    return {one.id: one.name for one in people}


def titles_of(styles: list[StyleView]) -> dict[str, str]:
    """Titles by the names that styles are ordered by."""
    return {one.name: one.title for one in styles}


def choices_of(people: list[IdentityView]) -> Choices:
    """People to choose from; those of one name are told apart by the end of their ids."""
    names = [one.name for one in people]
    return [(one.name if names.count(one.name) == 1 else f"{one.name} ({one.id[-4:]})", one.id) for one in people]


def cut_off(people: list[IdentityView]) -> str:
    """That there may be more people than are shown; empty where all are."""
    return f"The newest {MOST_PEOPLE:,} people are shown." if len(people) >= MOST_PEOPLE else ""


def offered(choices: Choices, chosen: str | None) -> dict[str, Any]:
    """What to change of a control for new choices. What is `chosen` and still there is left alone: whoever is at the
    page may choose something else while this is asked."""
    values = [value for _, value in choices]
    return {"choices": choices} if chosen in values else {"choices": choices, "value": next(iter(values), None)}
