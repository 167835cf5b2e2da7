"""Clients that ask for portraits, each for the next when it has its last, and what becomes of their requests."""

import itertools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import httpx

from benchmarks.workloads import percentiles

STYLES = ("studio", "black-and-white", "warm-film", "duotone", "pencil", "sepia")
COUNTS = (1, 2, 3, 4)
PROMPTS = ("", "smile", "blue backdrop")
DEADLINE_SHARE = 0.25
"""Of requests that come with a deadline."""
READ_S = 3600.0
"""Longest that a client waits for a byte: longer than any queue here."""
_FINAL = ("succeeded", "failed", "cancelled")


@dataclass(frozen=True)
class Wanted:
    """A request; that of a number is always the same."""

    number: int
    body: dict[str, Any]
    """As `POST /v1/portraits` takes it."""
    streams: bool
    """Whether its client reads events; else it waits for the answer."""


def wanted(number: int, identities: Sequence[str], deadline_s: float) -> Wanted:
    """Request `number`: any style, 1 to 4 portraits of anybody or of a person of the base's own."""
    rng = random.Random(number)
    body = {
        "identity_id": rng.choice([*identities, None]),
        "style": rng.choice(STYLES),
        "prompt": rng.choice(PROMPTS),
        "count": rng.choice(COUNTS),
        "seed": number,
        "deadline_s": deadline_s if rng.random() < DEADLINE_SHARE else None,
    }
    return Wanted(number, body, streams=rng.random() < 0.5)


@dataclass(frozen=True)
class Answer:
    """How a request ended."""

    state: str
    """succeeded | failed | cancelled, `refused` with a 429, or `error`."""
    portraits: int = 0
    retry_after_s: float = 0.0
    detail: str = ""


@dataclass(frozen=True)
class Outcome:
    """An answer and when it came, in seconds since the load began."""

    wanted: Wanted
    answer: Answer
    began_s: float
    ended_s: float


Ask = Callable[[httpx.Client, Wanted], Answer]


class Load:
    """Any number of clients at one address, in phases; all draw from one sequence of requests."""

    def __init__(self, url: str, token: str, ask: Ask, identities: Sequence[str], deadline_s: float) -> None:
        self._url, self._headers, self._ask = url, {"Authorization": f"Bearer {token}"}, ask
        self._identities, self._deadline_s = identities, deadline_s
        self._numbers, self._lock = itertools.count(), threading.Lock()
        self._began_s = time.monotonic()
        self.outcomes: list[Outcome] = []

    def now_s(self) -> float:
        """Seconds since the load began."""
        return time.monotonic() - self._began_s

    def run(self, clients: int, seconds: float) -> None:
        """`clients` at once begin requests for so long; returns when the last one has its answer."""
        until_s = self.now_s() + seconds
        with ThreadPoolExecutor(clients) as pool:
            for client in [pool.submit(self._client, until_s) for _ in range(clients)]:
                client.result()

    def _client(self, until_s: float) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=httpx.Timeout(30, read=READ_S)) as http:
            while (began_s := self.now_s()) < until_s:
                with self._lock:
                    one = wanted(next(self._numbers), self._identities, self._deadline_s)
                try:
                    answer = self._ask(http, one)
                except (httpx.HTTPError, KeyError, ValueError) as error:
                    answer = Answer("error", retry_after_s=1.0, detail=f"{type(error).__name__}: {error}"[:200])
                with self._lock:
                    self.outcomes.append(Outcome(one, answer, began_s, self.now_s()))
                time.sleep(max(0.0, min(answer.retry_after_s, until_s - self.now_s())))


def ask_endpoint(http: httpx.Client, one: Wanted) -> Answer:
    """Order, wait or follow the events, and fetch the pictures."""
    answer = http.post("/v1/portraits", json=one.body | ({} if one.streams else {"wait_s": 60}))
    if answer.status_code == 429:
        return Answer("refused", retry_after_s=float(answer.headers["Retry-After"]), detail=answer.json()["reason"])
    job = answer.raise_for_status().json()
    while job["state"] not in _FINAL:
        job = _followed(http, job["id"]) if one.streams else _looked(http, job["id"])
    for image in job["images"]:
        http.get(image["url"]).raise_for_status()
    return Answer(job["state"], len(job["images"]), detail=job["reason"])


def ask_plainly(http: httpx.Client, one: Wanted) -> Answer:
    """One request, one answer with all pictures in it."""
    answer = http.post("/portraits", json=one.body).raise_for_status().json()
    return Answer("succeeded", len(answer["images"]))


def summary(outcomes: Sequence[Outcome], from_s: float, to_s: float) -> dict[str, Any]:
    """Of requests that began in a span of time: latencies of those that succeeded (None when none did), and shares;
    portraits a second, of all requests that ended in it.
    """
    begun = [one for one in outcomes if from_s <= one.began_s < to_s]
    states = Counter(one.answer.state for one in begun)
    took_s = [one.ended_s - one.began_s for one in begun if one.answer.state == "succeeded"]
    portraits = sum(one.answer.portraits for one in outcomes if from_s <= one.ended_s < to_s)
    return {
        **(percentiles(took_s) if took_s else {"p50_s": None, "p95_s": None}),
        "portraits_per_s": round(portraits / (to_s - from_s), 4),
        "requests": dict(sorted(states.items())),
        "refused_share": round(states["refused"] / max(1, len(begun)), 4),
        "faults": sorted({one.answer.detail for one in begun if one.answer.state in ("failed", "error")}),
    }


def _looked(http: httpx.Client, job_id: str) -> dict[str, Any]:
    time.sleep(0.5)
    job: dict[str, Any] = http.get(f"/v1/jobs/{job_id}").raise_for_status().json()
    return job


def _followed(http: httpx.Client, job_id: str) -> dict[str, Any]:
    """The job at the end of its events, or as it is where they break off."""
    name = ""
    with http.stream("GET", f"/v1/jobs/{job_id}/events") as events:
        events.raise_for_status()
        for line in events.iter_lines():
            if line.startswith("event: "):
                name = line.removeprefix("event: ")
            elif line.startswith("data: ") and name == "end":
                job: dict[str, Any] = json.loads(line.removeprefix("data: "))
                return job
    return _looked(http, job_id)
