"""Every error Studiolo raises on purpose.

StudioloError
├── UsageError             the caller asked for something that cannot be done: fails before any work, exit code 2
│   ├── SettingsError      a setting, style, suite or path that does not exist or does not fit
│   ├── PlanError          the CPU slots asked for exceed what the cluster has
│   └── LicenceError       a commercial job would use a model whose licence forbids it
├── WeightsError           a model file could not be had
│   └── ChecksumError      a model file is not the one its card names
├── PhotoError             one photo cannot be used; carries the Reason that ends in its row
├── IdentityError          one identity cannot be finished; carries the Reason that ends in its row
├── TrainingError          training diverged or was given nothing to learn from
├── DeviceMemoryError      a pack does not fit into its accelerator
├── RefusedError           the endpoint refuses a request; carries reason, HTTP status, and how long to wait
│   ├── UnauthorisedError  the API key is unknown, expired or revoked
│   ├── NotFoundError      there is no such thing, or it is another tenant's
│   ├── ConflictError      what is asked for does not go with what is there
│   ├── TooLargeError      more bytes or photos than are taken
│   ├── UnsupportedError   a file of a kind that is not taken
│   ├── UnacceptableError  the request cannot be carried out as it stands
│   └── BusyError          too much at the moment
├── LeaseLostError         a worker no longer holds its job; carries why
├── CaptionError           a vision server that writes captions cannot be reached or used
├── WorkersAwayError       nobody is there at the moment who could work on a job
├── DatabaseError          the service's database is away, or not the one it should be
└── StoreError             the output location could not be read or written
    └── LockedError        another live job is writing to the same output

A message says who speaks, what it got, what it wanted and what to do next. Errors about one photo or one identity
become rows, never the end of a job; everything else stops the job with its message.
"""

import difflib
from collections.abc import Iterable


class StudioloError(Exception):
    """Base of all errors raised on purpose."""


class UsageError(StudioloError):
    """The request itself cannot be carried out; nothing was started."""


class SettingsError(UsageError):
    """A setting, style, suite or path does not exist or does not fit."""


class PlanError(UsageError):
    """The plan needs more CPU slots than the cluster has."""


class LicenceError(UsageError):
    """A commercial job would use a model whose licence forbids it."""


class WeightsError(StudioloError):
    """A model file could not be had."""


class ChecksumError(WeightsError):
    """A model file differs from the sha256 on its card."""


class PhotoError(StudioloError):
    """One photo cannot be used.

    `reason` is a `studiolo.albums.records.Reason`; the text is the detail for the log.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class IdentityError(StudioloError):
    """One identity cannot be finished. `reason` is a `studiolo.albums.records.Reason`."""

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else str(reason))
        self.reason = reason
        self.detail = detail


class TrainingError(StudioloError):
    """Training diverged or was given nothing to learn from."""


class DeviceMemoryError(StudioloError):
    """The identities trained together do not fit into the accelerator's memory."""


class RefusedError(StudioloError):
    """The endpoint refuses a request. The text is the sentence for the caller.

    `reason` is a word for programs, `status` the HTTP status that says it, `retry_after_s` the seconds after which the
    same request may go through; None where waiting does not help.
    """

    status = 400

    def __init__(self, reason: str, sentence: str, retry_after_s: float | None = None) -> None:
        super().__init__(sentence)
        self.reason = reason
        self.sentence = sentence
        self.retry_after_s = retry_after_s

    def __reduce__(self) -> tuple[type["RefusedError"], tuple[str, str, float | None]]:
        return type(self), (self.reason, self.sentence, self.retry_after_s)


class UnauthorisedError(RefusedError):
    """The API key is unknown, expired or revoked."""

    status = 401


class NotFoundError(RefusedError):
    """There is no such thing, or it is another tenant's: the two look the same."""

    status = 404


class ConflictError(RefusedError):
    """What is asked for does not go with what is there."""

    status = 409


class TooLargeError(RefusedError):
    """More bytes or photos than are taken."""

    status = 413


class UnsupportedError(RefusedError):
    """A file of a kind that is not taken."""

    status = 415


class UnacceptableError(RefusedError):
    """The request cannot be carried out as it stands."""

    status = 422


class BusyError(RefusedError):
    """Too much at the moment; `retry_after_s` says how long to wait."""

    status = 429


class LeaseLostError(StudioloError):
    """A worker no longer holds its job and must stop.

    `reason`: `cancelled` (by its tenant), `finished` (otherwise ended), `taken` (its lease ran out and the job was
    given back), `erased` (nothing is left of it).
    """

    def __init__(self, job_id: str, reason: str) -> None:
        super().__init__(f"job {job_id}: the lease is lost ({reason}); stop, and throw away what was made")
        self.job_id = job_id
        self.reason = reason

    def __reduce__(self) -> tuple[type["LeaseLostError"], tuple[str, str]]:
        return type(self), (self.job_id, self.reason)


class CaptionError(StudioloError):
    """A vision server that writes captions cannot be reached or used."""


class WorkersAwayError(StudioloError):
    """Nobody is there at the moment who could work on a job; it has to wait."""


class DatabaseError(StudioloError):
    """The service's database is away, or not the one it should be."""


class StoreError(StudioloError):
    """The output location could not be read or written."""


class LockedError(StoreError):
    """Another live job is writing to the same output."""


def nearest(name: str, valid: Iterable[str]) -> str:
    """Half a sentence that helps someone who misspelt `name`: the closest valid name, else all of them."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {close[0]!r}?" if close else f"valid: {', '.join(names)}"
