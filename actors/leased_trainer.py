"""The endpoint's trainer: albums of leased jobs in, identities learned in one pack, versions of them out."""

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from actors.perceiver import Perceiver
from actors.trainer import Trainer, Training
from studiolo.albums.records import Reason, Status
from studiolo.albums.sources import INPUT_SCHEMA
from studiolo.errors import DatabaseError, LeaseLostError, StoreError
from studiolo.identities.artifacts import identity_folder
from studiolo.identities.learned import LearnedVersion, photo_verdicts
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.holding import Held, LeaseKeeper
from studiolo.service.identities import album_folder, photo_path
from studiolo.service.logs import working_on
from studiolo.service.records import Job, JobReason, Kind, State
from studiolo.service.regularly import regularly
from studiolo.service.service import Service
from studiolo.service.speeds import Effort
from studiolo.storage.retention import survey
from studiolo.storage.tracking import LenientTracker
from studiolo.training.learner import Learner

Row = dict[str, Any]
Result = TypeVar("Result")
Watch = Callable[[float], AbstractContextManager[Callable[[], None]]]
"""Entered with the seconds that what is inside may take; gives what begins them anew. It may end the process."""

SEED = 0
"""Like the bulk job's when it is told none: the same album and settings give the same face-LoRA."""
REPORT_S = 5.0
"""Pause between two reports of speed and progress, if leases are not so short that they need more."""
TEND_S = 1.0
TIDY_S = 5.0

_log = logging.getLogger(__name__)


class _Drained(Exception):
    """The process is to end; what is in hand goes back."""


@dataclass(eq=False)
class _Pupil:
    """A job whose identity is in the pack."""

    held: Held
    perceived: Row
    """Of `PERCEIVED_SCHEMA`."""
    joined_s: float


class AlbumPerceiver(Perceiver):
    """Reads photos from its store, by their paths there: that a store fails is no photo's fault."""

    def fetch(self, place: str) -> bytes:
        """The photo's bytes; raises `StoreError`."""
        return self.store.read_bytes(place)


def album_row(job: Job) -> Row:
    """The album of a job as a row of `INPUT_SCHEMA` for `AlbumPerceiver`; photos are called by their numbers."""
    identity_id = str(job.identity_id)
    paths = [photo_path(identity_id, number) for number in range(1, len(job.request["photos"]) + 1)]
    photos = [{"uri": path.rpartition("/")[2], "absolute_uri": path} for path in paths]
    return {"album_id": identity_id, "album_uri": album_folder(identity_id), "photos": photos, "people": 1}


class LeasedTrainer:
    """Leases jobs of identities and learns as many at once as its pack has slots.

    A job joins when a slot is free, and one that was begun before is learned alone: it may have ended its trainer. What
    goes wrong with one job is that job's; a store that fails costs it an attempt, a database that is away is waited
    for. Killed, it loses the steps since the last checkpoints, and whoever takes a job up goes on to the same bytes.
    """

    def __init__(
        self,
        service: Service,
        settings: EndpointSettings,
        worker: str,
        watch: Watch = lambda limit_s: nullcontext(lambda: None),
    ) -> None:
        self.service, self.settings, self.worker, self.watch = service, settings, worker, watch
        self.keeper = LeaseKeeper(service.queue, worker, settings.trainer.lease_s)
        self.effort = Effort()
        self.perceiver = AlbumPerceiver(service.store, settings.suite, settings.perception, settings.selection)
        self.perceiver.part = self._part
        self._draining = threading.Event()
        self._pupils: dict[Learner, _Pupil] = {}
        self._looked_s = 0.0
        self._seen: Held
        """The job whose album is looked at."""

    def open(self) -> None:
        """Load models and base."""
        settings, service = self.settings, self.service
        self.perceiver.open()
        run = service.tracker.start("endpoint", "endpoint", {})  # erasures look for runs below one
        tracker = LenientTracker(service.tracker)
        self.trainer = Trainer(service.store, settings.base, settings.face_lora, SEED, tracker, run, settings.suite)
        self.trainer.open(settings.trainer.device)
        self.training = Training(self.trainer)

    def drain(self) -> None:
        """End soon: jobs in hand are given back untried, with a checkpoint. From any thread or signal handler."""
        self._draining.set()

    def work(self, once: bool = False) -> None:
        """Learn what is queued, until `drain` is called or, with `once`, until nothing is queued any more."""
        report_s = min(self.settings.trainer.lease_s / 3, REPORT_S)
        with (
            regularly("leases", report_s, self._report),
            regularly("tending", TEND_S, self.service.tend),
            regularly("tidying", TIDY_S, self.service.tidy),
            self.watch(self.settings.face_lora.time_limit_s) as self._moved,
        ):
            try:
                while not self._draining.is_set():
                    self.training.pack.run(self._join, self._leave, self._stepped, self._more)
                    self.effort.rest()
                    self._moved()
                    if once and not self._queued():
                        break
                    self._draining.wait(self.settings.trainer.poll_s)
            finally:
                for pupil in self._pupils.values():  # of a fault that was no job's
                    self._put_off(pupil.held)
                self.perceiver.decode.close()
        with suppress(DatabaseError):
            self.service.speeds.leave(self.worker)

    # The pack asks

    def _join(self, free: int) -> Iterator[Learner]:
        while free and (held := self._take()) is not None:
            self._moved()
            self.effort.work()
            learner = self._begin(held)
            if learner is not None:
                free -= 1
                yield learner

    def _leave(self, learner: Learner) -> None:
        pupil = self._pupils.pop(learner)
        held = pupil.held
        with self._answering_for(held):
            if held.lost:
                raise LeaseLostError(held.lease.job.id, held.lost)
            if learner.withdrawn:
                if held.sure:
                    self.training.save(learner)
                raise _Drained
            self._insist(partial(self.keeper.extend, held))  # nobody else writes the same files now
            self._settle(held, pupil.perceived, self.training.end(learner))
            self._took("train", pupil.joined_s)
        if learner in self.training.works:
            self.training.abandon(learner)
        self.keeper.drop(held)
        self._moved()

    def _stepped(self) -> None:
        self.effort.work(len(self._pupils))
        for learner, pupil in self._pupils.items():
            pupil.held.steps_done = len(learner.losses)
            learner.withdrawn = bool(pupil.held.lost) or self._draining.is_set()
            if learner.withdrawn:
                continue
            try:
                self.training.stepped(learner, writes=pupil.held.sure)
            except StoreError as error:  # the next checkpoint may succeed, and none is needed without a crash
                with working_on(pupil.held.lease.job):
                    _log.warning("no checkpoint: %s", error)

    def _more(self) -> bool:
        return time.monotonic() - self._looked_s > self.settings.trainer.poll_s

    # One job

    def _take(self) -> Held | None:
        """The next job that may be worked on beside those in hand."""
        self._looked_s = time.monotonic()
        if self._draining.is_set() or any(pupil.held.lease.attempt > 1 for pupil in self._pupils.values()):
            return None
        try:
            return self.keeper.take([Kind.IDENTITY], fresh=bool(self._pupils))
        except DatabaseError as error:
            _log.warning("no job can be taken: %s", error)
            return None

    def _begin(self, held: Held) -> Learner | None:
        """The learner of a job; None when it has ended already."""
        with self._answering_for(held):
            self._seen, began_s = held, time.monotonic()
            album = pa.Table.from_pylist([album_row(held.lease.job)], INPUT_SCHEMA)
            (perceived,) = self.perceiver(album).to_pylist()
            self._took("perceive", began_s)
            if perceived["status"] != Status.OK:
                self._fail(held, perceived, perceived["reason"])
            else:
                begun = self.training.begin(self.trainer.needed(perceived))
                if isinstance(begun, Learner):
                    _log.info("learned from step %d", len(begun.losses))
                    self._pupils[begun] = _Pupil(held, perceived, time.monotonic())
                    return begun
                self._settle(held, perceived, begun)
        self.keeper.drop(held)
        return None

    def _settle(self, held: Held, perceived: Row, face_lora: Row) -> None:
        """End the job with what came of its training."""
        if face_lora["status"] != Status.OK:
            self._fail(held, perceived, face_lora["reason"])
            return
        lease, version = held.lease, LearnedVersion.of(perceived, face_lora).model_dump(mode="json")
        result, within = {"photos": version["photos"]}, self.service.identities.learned(lease, version)
        self._insist(lambda: self.service.queue.complete(lease, result, within=within))
        _log.info("learned")

    def _fail(self, held: Held, perceived: Row, reason: str) -> None:
        """End the job with a reason that no other attempt would change, and what is to be said of each photo."""
        result = {"photos": [verdict.model_dump(mode="json") for verdict in photo_verdicts(perceived["photos"])]}
        sentence = Reason(reason).sentence()
        self._insist(lambda: self.service.queue.fail(held.lease, reason, sentence, result))
        _log.info("failed (%s)", reason)
        self._clear(held.lease.job)

    @contextmanager
    def _answering_for(self, held: Held) -> Iterator[None]:
        """What is raised inside is this job's, and the others go on."""
        with working_on(held.lease.job):
            try:
                yield
            except _Drained:
                with suppress(DatabaseError):  # then its lease runs out
                    self.service.queue.release(held.lease)
                _log.info("given back")
            except LeaseLostError as lost:
                self._lost(lost, held.lease.job)
            except Exception:
                _log.exception("attempt %d came to grief", held.lease.attempt)
                self._put_off(held)

    def _lost(self, lost: LeaseLostError, job: Job) -> None:
        _log.info("no longer ours (%s)", lost.reason)
        if lost.reason in ("cancelled", "erased"):  # else somebody goes on with it, or has ended it
            self._clear(job)

    def _put_off(self, held: Held) -> None:
        """Give the job back after a fault; after its last attempt it fails."""
        reason = JobReason.GAVE_UP
        with suppress(DatabaseError):  # then its lease runs out
            try:
                job = self.service.queue.retry(held.lease, reason, reason.sentence(), self.settings.trainer.lease_s)
            except LeaseLostError as lost:
                self._lost(lost, held.lease.job)
            else:
                if job.state == State.FAILED:
                    self._clear(job)

    def _clear(self, job: Job) -> None:
        """Remove what a training that came to nothing has left. The album stays, until its identity is erased."""
        identity_id, store = str(job.identity_id), self.service.store
        try:
            identity = self.service.identities.get(job.tenant_id, identity_id)
            if identity is not None and identity.versions:
                return
            files = store.list(identity_folder(identity_id))
            if identity is None:  # it was erased, perhaps before all of this was written
                found = survey(store, {identity_id}, self.service.tracker, ())[identity_id]
                self.service.tracker.erase(found.runs)
                files = [*found.files, *found.ledger]
            for path in files:
                store.remove(path)
        except (DatabaseError, StoreError) as error:
            _log.warning("files may be left: %s", error)

    # Beside the work

    def _report(self) -> None:
        self.keeper.extend_all()
        steps, busy_s = self.effort.take()
        occupancy = len(self._pupils) / len(self.training.pack.slots)
        self.service.meters.count("studiolo_training_steps_total", steps)
        self.service.meters.gauge("studiolo_slot_occupancy", occupancy, worker=self.worker)
        self.service.speeds.report(self.worker, Kind.IDENTITY, steps, busy_s)

    def _took(self, stage: str, began_s: float) -> None:
        seconds = time.monotonic() - began_s
        self.service.meters.observe("studiolo_job_seconds", seconds, kind=Kind.IDENTITY, stage=stage)

    def _queued(self) -> bool:
        try:
            return self.service.queue.backlog(Kind.IDENTITY).queued > 0
        except DatabaseError:
            return True

    def _insist(self, ask: Callable[[], Result]) -> Result:
        """Ask the database until it answers. Raises `_Drained` when there is no time for that."""
        while True:
            try:
                return ask()
            except DatabaseError as error:
                _log.warning("the database is waited for: %s", error)
                if self._draining.wait(self.settings.trainer.poll_s):
                    raise _Drained from error

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """Around all work on one photo."""
        if self._draining.is_set():
            raise _Drained
        if self._seen.lost:
            raise LeaseLostError(self._seen.lease.job.id, self._seen.lost)
        with self.watch(self.settings.perception.time_limit_s):
            yield
