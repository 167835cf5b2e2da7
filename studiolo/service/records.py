"""What the queue takes and gives: plain frozen values, apart from the tables."""

import hashlib
import re
import secrets
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import pydantic

from studiolo.keys import canonical_json

if TYPE_CHECKING:
    from studiolo.service.tables import JobRow

Item = TypeVar("Item")
_ID = re.compile(r"[a-z]{2,8}_[0-9a-f]{32}")
NAME_PATTERN = r"^[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]*$"
"""Of a name: no control characters, line breaks, or signs that turn the direction in which what follows is read."""


class Kind(StrEnum):
    """What a job makes."""

    IDENTITY = "identity"
    PORTRAITS = "portraits"


class State(StrEnum):
    """Where a job stands."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether it stays so."""
        return self in (State.SUCCEEDED, State.FAILED, State.CANCELLED)


class JobReason(StrEnum):
    """Why the queue itself ended a job; a worker's own reasons are those of `studiolo.albums.records.Reason`."""

    DEADLINE = "deadline"
    GAVE_UP = "gave_up"
    CANCELLED = "cancelled"
    ERASED = "erased"

    def sentence(self) -> str:
        """The reason in one plain sentence."""
        return _SENTENCES[self]


_SENTENCES = {
    JobReason.DEADLINE: "It could not be finished before its deadline.",
    JobReason.GAVE_UP: "Our program broke off each time it came to this, so it was given up.",
    JobReason.CANCELLED: "It was cancelled.",
    JobReason.ERASED: "The person it was for is being erased.",
}


class Consent(pydantic.BaseModel):
    """That a person may be learned: whose word it is, to what, since when."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    given_by: str = pydantic.Field(min_length=1, max_length=500, pattern=NAME_PATTERN)
    """Who consented: the person, or whoever answers for it."""
    statement: str = pydantic.Field(min_length=1, max_length=5000)
    """To what, in the words that were agreed to."""
    given_at: float = pydantic.Field(ge=0)
    """Seconds since 1970."""


class Person(pydantic.BaseModel):
    """A new identity."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = pydantic.Field(min_length=1, max_length=200, pattern=NAME_PATTERN)
    """What its tenant calls it."""
    consent: Consent
    """Without it nothing is learned."""


class NewJob(pydantic.BaseModel):
    """What is asked for."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    kind: Kind
    """What to make."""
    id: str | None = None
    """A fresh `new_id("job")`, when files of it lie in the store already; None: one is made."""
    request: dict[str, Any]
    """The validated request as JSON; no picture and no key."""
    steps: int = pydantic.Field(ge=0)
    """Denoising or training steps that it takes: what the backlog is counted in."""
    units: int = pydantic.Field(1, ge=1)
    """Portraits wanted, or 1: what quotas are counted in."""
    identity_id: str | None = None
    """The person; None for the base's own."""
    person: Person | None = None
    """Given, when the job makes the identity: `identity_id` is then a fresh `new_id("id")`."""
    deadline_s: float | None = pydantic.Field(None, gt=0)
    """Seconds from now; None: the kind's default."""
    idempotency_key: str | None = pydantic.Field(None, pattern=r"^[\x21-\x7e]{1,255}$")
    """The caller's name for this request."""
    webhook_url: str | None = pydantic.Field(None, pattern=r"^https?://[\x21-\x7e]{1,2000}$")
    """Told when the job has ended."""
    request_id: str | None = pydantic.Field(None, pattern=r"^[A-Za-z0-9._-]{1,64}$")
    """The name of the HTTP request that asks for it."""

    @pydantic.model_validator(mode="after")
    def _fresh(self) -> "NewJob":
        if self.id is not None and not is_id(self.id):
            raise ValueError("an id of a job is one of new_id('job')")
        if self.person is not None and (self.kind != Kind.IDENTITY or not is_id(self.identity_id or "")):
            raise ValueError("a new person takes a job of kind identity, and an identity_id of new_id('id')")
        return self

    def sha256(self) -> str:
        """What makes it the same request: not deadline, webhook, key, HTTP request, nor the id of a fresh person."""
        same = self.model_dump(mode="json", include={"kind", "request", "steps", "units", "identity_id", "person"})
        if self.person is not None:
            del same["identity_id"]
        return hashlib.sha256(canonical_json(same).encode()).hexdigest()


@dataclass(frozen=True)
class Job:
    """An accepted job, as its tenant may see it. Times are seconds since 1970."""

    id: str
    tenant_id: str
    request_id: str | None
    """The HTTP request that made it."""
    kind: Kind
    state: State
    reason: str
    sentence: str
    identity_id: str | None
    request: dict[str, Any]
    result: dict[str, Any] | None
    units: int
    steps: int
    steps_done: int
    curve: list[tuple[int, float]] | None
    """Step and loss of a training that goes on."""
    attempts: int
    created_at: float
    deadline_at: float
    started_at: float | None
    finished_at: float | None
    result_until: float | None

    @classmethod
    def of(cls, row: "JobRow") -> "Job":
        """The record of a row."""
        values = {name: getattr(row, name) for name in cls.__dataclass_fields__}
        return cls(**(values | {"kind": Kind(row.kind), "state": State(row.state)}))


@dataclass(frozen=True)
class Lease:
    """One attempt at a job, held by one worker until it ends, is given back, or runs out."""

    job: Job
    worker: str
    token: str
    until: float
    """Seconds since 1970 by the database's clock."""

    @property
    def attempt(self) -> int:
        """From 1."""
        return self.job.attempts

    @property
    def folder(self) -> str:
        """Where the files of this attempt's result go, relative to the store."""
        return f"{result_folder(self.job.id)}/{self.attempt}"


@dataclass(frozen=True)
class Backlog:
    """What of one kind is still to be done."""

    queued: int
    queued_steps: int
    running: int
    running_steps: int
    """Of the jobs that are running, those left when their leases were last extended."""
    oldest_wait_s: float
    """How long the job has waited that has waited longest."""


@dataclass(frozen=True)
class Page(Generic[Item]):
    """Part of a list, newest first."""

    items: list[Item]
    next: str | None
    """Give it as `before` for the next part; None at the end."""


def result_folder(job_id: str) -> str:
    """Where the files of all attempts at a job lie, relative to the store."""
    return f"results/{job_id}"


def template_path(job_id: str) -> str:
    """Where the template of an edit lies, relative to the store: it goes when the files of the result go."""
    return f"{result_folder(job_id)}/template"


def new_id(prefix: str) -> str:
    """A name that nobody can guess; those of later milliseconds sort behind."""
    return f"{prefix}_{time.time_ns() // 1_000_000:012x}{secrets.token_hex(10)}"


def made_at(text: str) -> float:
    """When an id was made, in seconds since 1970 by the clock of the machine that made it."""
    return int(text.partition("_")[2][:12], 16) / 1000


def is_id(text: str) -> bool:
    """Whether `text` could be an id; databases do not take every character that a caller may send."""
    return _ID.fullmatch(text) is not None
