"""The dispatcher: leases jobs of portraits, has them drawn, finished and ranked as the bulk job does, and ends them.

All it knows is in SQL and the store: one that dies loses the attempts in hand, no job. Any number may run at once.
"""

import hashlib
import logging
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from actors.finisher import Finish, Sitter, TemplateFile
from actors.hand import Hand, Stopped
from actors.held import HeldStore
from actors.plans import Plan, plan_of
from studiolo.albums.records import Reason
from studiolo.errors import (
    DatabaseError,
    LeaseLostError,
    StoreError,
    StudioloError,
    UnacceptableError,
    WorkersAwayError,
)
from studiolo.portraits.edit_rounds import work_off_edit
from studiolo.portraits.edit_templates import TemplateFace
from studiolo.portraits.edits import EDITED, EditOrder, EditPass
from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.portraits.finishing import Finished
from studiolo.portraits.requests import PortraitsResult, RejectedImages, ResultImage
from studiolo.portraits.rounds import (
    Draft,
    Drawing,
    Drawings,
    Drawn,
    Judged,
    Outcome,
    acceptance_of,
    settings_inside,
    work_off,
)
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.erasure import Elsewhere
from studiolo.service.live import Candidate, LiveMemory, Progress
from studiolo.service.logs import working_on
from studiolo.service.records import JobReason, Kind, Lease
from studiolo.service.regularly import regularly
from studiolo.service.service import Service
from studiolo.storage.store import Store

log = logging.getLogger(__name__)

_PREVIEW_S = 1.0
_PAUSE_S = 1.0
"""Before what may pass is tried again."""
_TEND_S = 1.0
_TIDY_S = 2.0
_KEEP_S = 1.0
_LOOK_S = 0.5
"""Between two looks at whether a candidate that is being finished is still wanted."""
_COUNT_S = 2.0
"""Between two counts of samplers."""
_END_S = 10.0
"""For jobs that were stopped to come to their end."""
_SILENT_S = 120.0
"""Longer than any database is waited for."""

Answer = TypeVar("Answer", covariant=True)
DrawFar = Callable[[Draft], Drawings]
"""Has a draft drawn. Raises `WorkersAwayError` when there is no sampler, `Exception` when it died."""


class Finishing(Protocol[Answer]):
    """A candidate that is being finished, or a template that is looked at."""

    def result(self, wait_s: float) -> Answer | None:
        """The portrait, waited for so long; None when it is not there yet. Raises as `DrawFar` does."""
        ...

    def close(self) -> None:
        """Nobody wants it any more."""
        ...


FinishFar = Callable[[NDArray[np.uint8], Sitter, Finish], Finishing[Finished]]
"""Has a candidate finished; raises the same."""
LookFar = Callable[[TemplateFile, str | None], Finishing[TemplateFace]]
"""Has a template looked at, for an HTTP request; raises the same."""


class Dispatcher:
    """Works on up to `jobs` jobs of portraits at once for each sampler there is, one thread each."""

    def __init__(
        self,
        service: Service,
        settings: EndpointSettings,
        draw: DrawFar,
        finish: FinishFar,
        look: LookFar,
        *,
        jobs: int,
        elsewhere: Elsewhere | None = None,
    ) -> None:
        self.service, self.settings = service, settings
        self.draw, self.finish, self.look = draw, finish, look
        self.jobs, self.elsewhere = jobs, elsewhere
        self.name = f"dispatcher-{uuid.uuid4().hex[:12]}"
        self.live = LiveMemory()
        self._hands: set[Hand] = set()
        self._changed = threading.Condition()
        """Guards the set of jobs in hand."""
        self._draining, self._over = threading.Event(), threading.Event()
        self._leasing, self._loops = ExitStack(), ExitStack()
        self._looked_s = time.monotonic()
        self._samplers, self._counted_s = 1, -_COUNT_S

    def start(self) -> None:
        """Begin to lease jobs."""
        settings = self.settings.dispatcher
        self._loops.enter_context(regularly("tend", _TEND_S, self.service.tend))
        self._loops.enter_context(regularly("tidy", _TIDY_S, lambda: self.service.tidy(self.elsewhere)))
        self._loops.enter_context(regularly("keep", min(_KEEP_S, settings.lease_s / 3), self._keep))
        self._leasing.enter_context(regularly("lease", settings.poll_s, self._lease))

    def check(self) -> None:
        """Raises `RuntimeError` when it has not looked for jobs for long, or a job in hand cannot be stopped."""
        silent_s = time.monotonic() - self._looked_s
        if silent_s > _SILENT_S and not self._draining.is_set():
            raise RuntimeError(f"dispatcher: it has not looked for jobs for {silent_s:.0f} s; start it again")
        for hand in self._in_hand():
            if hand.stopped and hand.silent_s > _SILENT_S:
                raise RuntimeError(f"dispatcher: job {hand.lease.job.id} cannot be stopped; start it again")

    def drain(self, for_s: float) -> None:
        """Lease no more, let jobs in hand end for so long, and give the rest back untried."""
        self._draining.set()
        self._leasing.close()  # what is leased in this moment is in hand then
        with self._changed:
            self._changed.wait_for(lambda: not self._hands, for_s)
        for hand in self._in_hand():
            hand.stop()
        with self._changed:
            self._changed.wait_for(lambda: not self._hands, _END_S)
        for hand in self._in_hand():  # it waits for somebody who does not answer
            with suppress(DatabaseError):
                self.service.queue.release(hand.lease)
        self._over.set()
        self._loops.close()

    def _in_hand(self) -> list[Hand]:
        with self._changed:
            return list(self._hands)

    def _lease(self) -> None:
        """Take as many jobs as there is room for."""
        self._looked_s = time.monotonic()
        free = self._room() - len(self._in_hand())
        if free <= 0 or self._draining.is_set():
            return
        lease_s = self.settings.dispatcher.lease_s
        for lease in self.service.queue.lease([Kind.PORTRAITS], self.name, lease_s, free):
            hand = Hand(lease, lease_s)
            with self._changed:
                self._hands.add(hand)
            if self._over.is_set():  # so long did the database take
                hand.stop()
            threading.Thread(target=self._work, args=(hand,), name=lease.job.id, daemon=True).start()

    def _room(self) -> int:
        """Jobs that may be in hand: what cannot be drawn yet is left to the queue, which knows what is due first."""
        if time.monotonic() > self._counted_s + _COUNT_S:
            self._samplers = max(1, self.service.speeds.workers(Kind.PORTRAITS))
            self._counted_s = time.monotonic()
        return self.jobs * self._samplers

    def _keep(self) -> None:
        """Extend the leases of jobs in hand, and stop those that are held in vain."""
        for hand in sorted(self._in_hand(), key=lambda hand: hand.extended_s):
            if hand.stopped:
                continue
            if hand.in_vain:
                log.warning("job %s: no news for %.0f s; it is given back", hand.lease.job.id, hand.silent_s)
                hand.stop()
            elif time.monotonic() - hand.extended_s >= self.settings.dispatcher.lease_s / 3:
                self._extend(hand)

    def _extend(self, hand: Hand) -> None:
        asked_s = time.monotonic()
        try:
            self.service.queue.extend(hand.lease, self.settings.dispatcher.lease_s, hand.steps_done)
            hand.extended_s = asked_s
        except LeaseLostError as error:
            log.info("%s", error)
            hand.stop(error.reason)
        except DatabaseError as error:  # tried again in a moment, and the others now
            log.warning("job %s: %s", hand.lease.job.id, error)

    def _work(self, hand: Hand) -> None:
        """One job, to its end or until it is lost."""
        with working_on(hand.lease.job):
            self._attempt(hand)

    def _attempt(self, hand: Hand) -> None:
        queue, lease = self.service.queue, hand.lease
        log.info("an attempt begins", extra={"attempt": lease.attempt, "worker": self.name})
        try:
            self._settle(hand, self._outcome(hand))
        except Stopped:
            pass
        except Exception as error:  # of a worker far away, too: anything
            log.exception("job %s", lease.job.id)
            (reason, sentence), after_s = _reason(error), _PAUSE_S * 4 ** (lease.attempt - 1)
            self._settle(hand, lambda: queue.retry(lease, reason, sentence, after_s))
        finally:
            if hand.lost in ("cancelled", "erased", "taken"):
                self._throw_away(lease)
            elif hand.given_up:
                self._settle(hand, lambda: queue.release(lease))
            self.live.forget(lease.job.id)
            with self._changed:
                self._hands.discard(hand)
                self._changed.notify_all()

    def _outcome(self, hand: Hand) -> Callable[[], object]:
        """What is to be said to the queue of a job; raises for what another attempt might change."""
        queue, lease = self.service.queue, hand.lease
        try:
            plan = plan_of(self.service, self.settings, lease.job)
            outcome = self._made(hand, plan)
            with hand.timed("store"):
                result = self._result(hand, plan, outcome)
            self._measure(hand, plan, outcome)
        except UnacceptableError as error:
            reason, sentence = error.reason, error.sentence
            return lambda: queue.fail(lease, reason, sentence)
        except Exception as error:  # `Stopped`, too
            if hand.stopped:
                raise Stopped from None
            if self._draining.is_set() or isinstance(error, WorkersAwayError):
                self._draining.wait(_PAUSE_S)
                hand.stop()
                raise Stopped from None
            raise
        content = result.model_dump(mode="json")
        if result.images:
            pixels = filter(None, (image.pixels_sha256 for image in result.images))
            known = self.service.provenance.remember(lease.job.id, pixels)
            return lambda: queue.complete(lease, content, within=known)
        return lambda: queue.fail(lease, Reason.NONE_ACCEPTED, Reason.NONE_ACCEPTED.sentence(), content)

    def _settle(self, hand: Hand, say: Callable[[], object]) -> None:
        """Say it to the queue, however long the database is away, while the job is ours."""
        while not hand.lost:
            try:
                say()
                return
            except LeaseLostError as error:
                log.info("%s", error)
                hand.lost = error.reason
            except DatabaseError as error:
                log.warning("job %s: %s", hand.lease.job.id, error)
                hand.move()
                if self._over.wait(_PAUSE_S):
                    return

    def _made(self, hand: Hand, plan: Plan) -> Outcome:
        began_s = time.monotonic()
        outcome = self._portraits(hand, plan) if plan.edit is None else self._edits(hand, plan, plan.edit)
        elsewhere_s = hand.seconds["finish"] + hand.seconds.get("look", 0.0)
        hand.seconds["sample"] += time.monotonic() - began_s - elsewhere_s
        return outcome

    def _portraits(self, hand: Hand, plan: Plan) -> Outcome:
        order, style = plan.order, plan.style
        generation, request_id = order.generation, hand.lease.job.request_id
        how = Finish(style.words, style.greyscale, generation.upscale, generation.fusion, request_id)
        return work_off(
            order,
            acceptance_of(order, likeness=plan.subject.lora_path is not None),
            lambda count, first_index: self._drawn(hand, plan, count, first_index),
            lambda rgb_u8: self._finished(hand, plan, rgb_u8, how),
            keep_rejected=False,
            watch=lambda news: self._hear(hand, news),
        )

    def _edits(self, hand: Hand, plan: Plan, order: EditOrder) -> Outcome:
        request_id, template = hand.lease.job.request_id, plan.template
        assert template is not None  # an edit has one
        self._tell(hand, "look", hand.steps_done)
        with hand.timed("look"):
            face = _awaited(hand, self.look(template, request_id))
        plain = Finish("", False, order.generation.upscale, order.generation.fusion, request_id)
        sketched, set_in = replace(plain, outline=True), replace(plain, template=template)
        return work_off_edit(
            order,
            face,
            lambda shown, count, first_index: self._drawn(hand, plan, count, first_index, shown),
            lambda rgb_u8: self._finished(hand, plan, rgb_u8, sketched),
            lambda rgb_u8: self._finished(hand, plan, rgb_u8, set_in),
            keep_rejected=False,
            watch=lambda news: self._hear(hand, news),
        )

    def _drawn(
        self, hand: Hand, plan: Plan, count: int, first_index: int, shown: EditPass | None = None
    ) -> Iterator[Drawing | Drawn]:
        if hand.stopped:
            raise Stopped
        deadline_s = max(1.0, hand.left_s)
        hand.steps_before = hand.steps_done
        about = deadline_s, _PREVIEW_S, hand.lease.job.request_id, plan.style_lora, shown
        yield from hand.hold(self.draw(Draft(plan.order, plan.style, plan.subject, count, first_index, *about)))
        if hand.stopped:  # what came is not all
            raise Stopped

    def _finished(self, hand: Hand, plan: Plan, rgb_u8: NDArray[np.uint8], how: Finish) -> Finished:
        if hand.stopped:
            raise Stopped
        self._tell(hand, "finish", hand.steps_done)
        with hand.timed("finish"):
            return _awaited(hand, self.finish(rgb_u8, plan.sitter, how))

    def _hear(self, hand: Hand, news: Drawing | Judged) -> None:
        if isinstance(news, Judged):
            verdict = Candidate(news.index, not news.reason, news.reason.value, news.reason.sentence())
            hand.candidates = (*hand.candidates, verdict)
            self._tell(hand, "finish", hand.steps_done)
        else:
            hand.steps_done = hand.steps_before + news.done
            hand.preview = news.preview or hand.preview
            self._tell(hand, "denoise", hand.steps_before + news.total)

    def _tell(self, hand: Hand, stage: str, total: int) -> None:
        hand.move()
        lease, done = hand.lease, hand.steps_done
        total = max(total, lease.job.steps)
        self.live.tell(lease.job.id, Progress(lease.attempt, stage, done, total, hand.preview, hand.candidates))

    def _result(self, hand: Hand, plan: Plan, outcome: Outcome) -> PortraitsResult:
        """Sign and store what was accepted, best first."""
        lease, images, likeness = hand.lease, [], plan.subject.lora_path is not None
        store = self._store_for(hand)
        for item in (item for item in outcome.ranked if item.rank > 0):
            index, made = item.candidate.index, outcome.made[item.candidate.index]
            rgb_u8, score = made.portrait.rgb_u8, made.portrait.score
            inside = settings_inside(plan.order, plan.style, made, index, self.settings.base, plan.subject.lora_sha256)
            if plan.style_lora is not None:
                inside["style_lora_sha256"] = plan.style_lora.sha256
            if plan.edit is not None:
                inside |= {"controlnets": self.settings.controlnets, **plan.edit.model_dump(include=EDITED)}
            content = self.service.provenance.sign(encode_portrait(rgb_u8, inside), composite=plan.edit is not None)
            path = f"{lease.folder}/{index:03d}.png"
            store.write_bytes(path, content)
            images.append(
                ResultImage(
                    path=path,
                    sha256=hashlib.sha256(content).hexdigest(),
                    pixels_sha256=image_sha256(rgb_u8),
                    seed=made.seed,
                    width_px=rgb_u8.shape[1],
                    height_px=rgb_u8.shape[0],
                    similarity=score.similarity if likeness else None,
                    verdict=score.verdict.value if likeness else None,
                )
            )
        reasons = Counter(item.reason for item in outcome.ranked if item.rank == 0)
        rejected = [
            RejectedImages(reason=reason.value, sentence=reason.sentence(), count=count)
            for reason, count in sorted(reasons.items())
        ]
        return PortraitsResult(images=tuple(images), rejected=tuple(rejected))

    def _store_for(self, hand: Hand) -> Store:
        """Takes files of a job that is in hand; a fault that passes soon does not cost the pictures, which took so much
        longer to make.
        """

        def guard() -> None:
            hand.move()
            if hand.stopped:
                raise Stopped

        return HeldStore(self.service.store.url, guard, lambda pause_s: not self._over.wait(pause_s))

    def _measure(self, hand: Hand, plan: Plan, outcome: Outcome) -> None:
        meters = self.service.meters
        for stage, seconds in hand.seconds.items():
            meters.observe("studiolo_job_seconds", seconds, kind=Kind.PORTRAITS, stage=stage)
        for item in outcome.ranked:
            if item.rank:
                meters.count("studiolo_candidates_accepted_total")
            else:
                meters.count("studiolo_candidates_rejected_total", reason=item.reason.value)
            if plan.subject.lora_path is not None:
                meters.observe("studiolo_candidate_similarity", item.candidate.similarity)

    def _throw_away(self, lease: Lease) -> None:
        """Remove the files of an attempt that counts no more; what is missed goes with the job, or as an orphan."""
        with suppress(StudioloError):
            for path in self.service.store.list(lease.folder):
                self.service.store.remove(path)


def _awaited(hand: Hand, finishing: Finishing[Answer]) -> Answer:
    """Raises `Stopped` when nobody wants it any more."""
    while (finished := finishing.result(_LOOK_S)) is None:
        if hand.stopped:
            with suppress(Exception):  # whoever is gone has stopped
                finishing.close()
            raise Stopped
    return finished


def _reason(error: Exception) -> tuple[str, str]:
    """What a job fails with when the last attempt ended so: a word and a sentence."""
    if isinstance(error, StoreError):
        return "store", "The place where pictures are kept could not be reached."
    return JobReason.GAVE_UP, JobReason.GAVE_UP.sentence()
