"""The endpoint's trainer: albums of leased jobs in, identities learned in one pack, versions of them out."""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import pyarrow as pa

from actors.album_perceiver import AlbumPerceiver, album_row
from actors.held import HeldStore, HeldTracker, is_missing
from actors.trainer import Trainer, Training
from studiolo.albums.records import Reason, Status
from studiolo.albums.sources import INPUT_SCHEMA
from studiolo.errors import DatabaseError, DeviceMemoryError, LeaseLostError, StoreError
from studiolo.identities.artifacts import identity_folder
from studiolo.identities.learned import LearnedVersion, photo_verdicts
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.holding import Held, LeaseKeeper
from studiolo.service.logs import working_on
from studiolo.service.records import Job, JobReason, Kind, State
from studiolo.service.regularly import regularly
from studiolo.service.service import Service
from studiolo.service.speeds import Effort
from studiolo.storage.ledger import Ledger
from studiolo.training.learner import Learner

Row = dict[str, Any]
Result = TypeVar("Result")
Watch = Callable[[float, Callable[[str], None]], AbstractContextManager[Callable[[], None]]]
"""Entered with the seconds that what is inside may take, and what is told the reason before the process is ended, from
another thread; gives what begins the seconds anew."""

SEED = 0
"""Like the bulk job's when it is told none: the same album and settings give the same face-LoRA."""
REPORT_S = 5.0
"""Pause between two reports of speed and progress, if leases are not so short that they need more."""
TEND_S = 1.0
TIDY_S = 5.0
_REST_S = 5.0
"""Nothing is begun for so long after the store has failed a job, or a lease's time if that is less."""
_NAP_S = 0.1
"""A drain is noticed so soon."""

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


class LeasedTrainer:
    """Leases jobs of identities and learns as many at once as its pack has slots.

    A job joins when a slot is free, and one that was begun before is learned alone: it may have ended its trainer. What
    goes wrong with one job is that job's. A store that fails costs it no attempt, and nothing is begun until it answers
    again; a database that is away is waited for. Killed, it loses the steps since the last checkpoints, and whoever
    takes a job up goes on to the same bytes.
    """

    def __init__(
        self,
        service: Service,
        settings: EndpointSettings,
        worker: str,
        watch: Watch = lambda limit_s, explain: nullcontext(lambda: None),
    ) -> None:
        """`worker` is the same after a restart: speeds and metrics are known by it."""
        self.service, self.settings, self.worker, self.watch = service, settings, worker, watch
        self.keeper = LeaseKeeper(service.queue, f"{worker}-{secrets.token_hex(4)}", settings.trainer.lease_s)
        self.effort = Effort()
        self.store = HeldStore(service.store.url, self._hold, self._wait_for_store)
        self.perceiver = AlbumPerceiver(
            self.store, settings.suite, settings.perception, settings.selection, settings.trainer.album_s
        )
        self.perceiver.part = self._part
        self._draining = False  # no Event: its lock may be held when a signal comes
        self._pupils: dict[Learner, _Pupil] = {}
        self._looked_s = 0.0
        self._rests_until_s: float | None = None
        """After a fault of the store."""
        self._held: Held | None = None
        """The job that is begun or ended, all others waiting."""
        self._moved: Callable[[], None] = lambda: None

    def open(self) -> None:
        """Load models and base."""
        settings, tracker = self.settings, HeldTracker(self.service.tracker, self._hold)
        self.perceiver.open()
        face_lora, base, suite = settings.face_lora, settings.base, settings.suite
        self.trainer = Trainer(self.store, base, face_lora, SEED, tracker, "", suite, versions=True)
        self.trainer.open(settings.trainer.device)
        self.training = Training(self.trainer)

    def drain(self) -> None:
        """End soon: jobs in hand are given back untried, with a checkpoint. From any thread or signal handler."""
        self._draining = True

    def work(self, once: bool = False) -> None:
        """Learn what is queued, until `drain` is called or, with `once`, until nothing is queued any more."""
        report_s = min(self.settings.trainer.lease_s / 3, REPORT_S)
        try:
            with (
                regularly("leases", report_s, self._report),
                regularly("tending", TEND_S, self._tend),
                regularly("tidying", TIDY_S, self.service.tidy),
                self.watch(self.settings.trainer.stall_s, self._last_words) as self._moved,
            ):
                self._work(once)
        finally:
            with suppress(DatabaseError):
                self.service.speeds.leave(self.worker)

    def _work(self, once: bool) -> None:
        try:
            while not self._draining:
                self.training.pack.run(self._join, self._leave, self._stepped, self._more)
                self.effort.rest()
                self._moved()
                if once and not self._queued():
                    break
                self._pause(self.settings.trainer.poll_s)
        except (DeviceMemoryError, KeyboardInterrupt):  # no fault of those who are learned
            for pupil in self._pupils.values():
                self._give_back(pupil.held, self.settings.trainer.lease_s)
            raise
        except BaseException:
            for pupil in self._pupils.values():
                self._put_off(pupil.held)
            raise
        finally:
            self.perceiver.forget()

    # The pack asks

    def _join(self, free: int) -> Iterator[Learner]:
        while free and (held := self._take()) is not None:
            self.effort.work()
            learner = self._begin(held)
            if learner is not None:
                free -= 1
                yield learner

    def _leave(self, learner: Learner) -> None:
        pupil = self._pupils.pop(learner)
        held = pupil.held
        with self._answering_for(held):
            if learner.withdrawn:
                if held.sure:
                    with _warned("no checkpoint"):
                        self.training.save(learner)
                self._unless_lost(held)
                raise _Drained
            self._insist(partial(self.keeper.extend, held))  # nobody else writes the same files now
            self._settle(held, pupil.perceived, self.training.end(learner))
            self._took("train", pupil.joined_s)
        if learner in self.training.works:
            self.training.abandon(learner)
        self.keeper.drop(held)
        self._moved()

    def _stepped(self) -> None:
        self._moved()
        self.effort.work(len(self._pupils))
        for learner, pupil in self._pupils.items():
            held = pupil.held
            held.steps_done, held.losses = len(learner.losses), learner.losses
            if not held.lost:
                with working_on(held.lease.job), _warned("no checkpoint"):  # none is needed without a crash
                    self.training.stepped(learner, writes=held.sure)
            learner.withdrawn = bool(held.lost) or (self._draining and not learner.finished)

    def _more(self) -> bool:
        return time.monotonic() - self._looked_s > self.settings.trainer.poll_s

    # One job

    def _take(self) -> Held | None:
        """The next job that may be worked on beside those in hand."""
        self._looked_s = time.monotonic()
        if self._draining or any(pupil.held.lease.attempt > 1 for pupil in self._pupils.values()):
            return None
        if self._rests_until_s is not None and not self._store_answers():
            return None
        try:
            self.keeper.secure()
            return self.keeper.take([Kind.IDENTITY], fresh=bool(self._pupils))
        except DatabaseError as error:
            _log.warning("no job can be taken: %s", error)
            return None

    def _begin(self, held: Held) -> Learner | None:
        """The learner of a job; None when it has ended already."""
        with self._answering_for(held):
            perceived = self._perceived(held)
            if perceived["status"] != Status.OK:
                self._fail(held, perceived, perceived["reason"])
            else:
                self._hold()
                begun = self.training.begin(self.trainer.needed(perceived))
                if isinstance(begun, Learner):
                    _log.info("learned from step %d", len(begun.losses))
                    self._pupils[begun] = _Pupil(held, perceived, time.monotonic())
                    return begun
                self._settle(held, perceived, begun)
        self.keeper.drop(held)
        return None

    def _perceived(self, held: Held) -> Row:
        """What is seen of the job's album, of `PERCEIVED_SCHEMA`; of its photos nothing else is kept."""
        began_s = time.monotonic()
        album = pa.Table.from_pylist([album_row(held.lease.job)], INPUT_SCHEMA)
        try:
            (perceived,) = self.perceiver(album).to_pylist()
        finally:
            self.perceiver.forget()
        self._took("perceive", began_s)
        return dict(perceived)

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
        self._held = held
        with working_on(held.lease.job):
            try:
                yield
            except _Drained:
                self._give_back(held)
            except LeaseLostError as lost:
                self._lost(lost, held.lease.job)
            except Exception as error:
                if isinstance(error, StoreError) and not is_missing(error):  # no job's fault
                    _log.warning("the store failed it: %s", error)
                    self._rest()
                    self._give_back(held, self.settings.trainer.lease_s)
                else:
                    _log.exception("attempt %d came to grief", held.lease.attempt)
                    self._put_off(held)
            finally:
                self._held = None

    def _give_back(self, held: Held, after_s: float = 0.0) -> None:
        """Give the job back untried."""
        with suppress(DatabaseError):  # then its lease runs out
            self.service.queue.release(held.lease, after_s)
        _log.info("given back")

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
        identity_id, store, tracker = str(job.identity_id), self.service.store, self.service.tracker
        try:
            identity = self.service.identities.get(job.tenant_id, identity_id)
        except DatabaseError as error:
            _log.warning("files may be left: %s", error)
            return
        if identity is not None and identity.versions:
            return

        with _warned("files may be left"):
            for path in store.list(identity_folder(identity_id)):
                store.remove(path)
        if identity is None:  # it was erased, perhaps before all of this was written
            with _warned("records may be left"):
                for path in Ledger(store).about({identity_id}).get(identity_id, []):
                    store.remove(path)
            with _warned("runs may be left"):
                tracker.erase(tracker.runs_of({identity_id}).get(identity_id, []))

    # Beside the work

    def _tend(self) -> None:
        self.keeper.secure()
        self.service.tend()

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
                self._moved()
                if not self._pause(self.settings.trainer.poll_s):
                    raise _Drained from error

    def _pause(self, seconds: float) -> bool:
        """Whether there is still time after it."""
        until_s = time.monotonic() + seconds
        while not self._draining and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, _NAP_S))
        return not self._draining

    def _rest(self) -> None:
        self._rests_until_s = time.monotonic() + min(_REST_S, self.settings.trainer.lease_s)

    def _store_answers(self) -> bool:
        """Whether the store has had its rest, and takes a file and gives it back."""
        if self._rests_until_s is not None and time.monotonic() < self._rests_until_s:
            return False
        store, place = self.service.store, f"probes/{self.worker}"
        try:
            store.write_bytes(place, b"probe")
            store.read_bytes(place)
            store.remove(place)
        except StoreError:
            self._rest()
            return False
        _log.info("the store answers again")
        self._rests_until_s = None
        return True

    def _wait_for_store(self, pause_s: float) -> bool:
        """Whether what the store did not do is tried again, after the pause; not between the steps of a pack."""
        return self._held is not None and not self._held.lost and self._pause(pause_s)

    def _unless_lost(self, held: Held) -> None:
        if held.lost:
            raise LeaseLostError(held.lease.job.id, held.lost)

    def _hold(self) -> None:
        """Before anything is written for the job that is begun or ended: nobody else has it.

        Raises `LeaseLostError`, and `_Drained` when it cannot be known in time.
        """
        self._moved()
        if self._held is not None:
            self._unless_lost(self._held)
            if not self._held.sure:
                self._insist(partial(self.keeper.extend, self._held))

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        """Around all work on one photo."""
        if self._draining:
            raise _Drained
        self._hold()
        assert self._held is not None
        with self.watch(self.settings.perception.time_limit_s, partial(self._last_words, held=[self._held])):
            yield

    def _last_words(self, why: str, held: Sequence[Held] | None = None) -> None:
        """Of the watchdog, in its own thread, about the jobs in hand."""
        for one in self.keeper.held if held is None else held:
            with working_on(one.lease.job):
                _log.error("the trainer ends itself with this job in hand: it %s", why)
        _log.error("the trainer ends itself: it %s", why)


@contextmanager
def _warned(what: str) -> Iterator[None]:
    """What the store or the tracker does not do is said, and the work goes on."""
    try:
        yield
    except StoreError as error:
        _log.warning("%s: %s", what, error)
