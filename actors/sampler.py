"""The sampling actor: drafts in, steps, previews and drawn candidates out. One base, one engine, any number of drafts
at a time.
"""

import io
import itertools
import logging
import os
import tempfile
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from diffusers import StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from studiolo.errors import DatabaseError, StudioloError, WeightsError
from studiolo.generation.base import load_base
from studiolo.generation.engine import Engine, Events, Portrait, Step, Work
from studiolo.generation.engine import Order as EngineOrder
from studiolo.portraits.orders import to_engine
from studiolo.portraits.rounds import Draft, Drawing, Drawn
from studiolo.portraits.styles import style_lora_path
from studiolo.service.logs import answering
from studiolo.service.metrics import Meters, NoMeters
from studiolo.service.records import Kind
from studiolo.service.speeds import Speeds
from studiolo.settings import GenerationSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull, sha256_of

log = logging.getLogger(__name__)

_PREVIEW_PX = 256
_FAULTS = 3
"""So many drafts that failed one after another by no fault of their own, and the sampler is not well."""
_STALL_S = 120.0
"""Longest that a step may take."""


@dataclass
class _File:
    identity_id: str
    path: Path
    copy: BinaryIO | None = None
    """What `path` leads to, in memory, unless that is the store's own file."""


class FaceLoras:
    """Face-LoRAs of `store` as verified files, the `kept` used last; not for several threads.

    Where the store has no files on this disk, there are copies in memory: of a process that is killed none is left.
    """

    def __init__(self, store: Store, kept: int = 16) -> None:
        self._store, self._kept = store, kept
        self._folder = tempfile.TemporaryDirectory(prefix="face-loras-")
        self._numbers = itertools.count()
        self._files: OrderedDict[str, _File] = OrderedDict()
        """By sha256."""

    def get(self, identity_id: str, path: str, sha256: str) -> Path:
        """The file at `path` of the store. Raises `WeightsError` when it is not the one with `sha256`, `StoreError`."""
        found = self._files.pop(sha256, None) or self._open(identity_id, path)
        if not found.path.is_file() or sha256_of(found.path) != sha256:
            self._remove(found)
            raise WeightsError(f"face-LoRA {path}: not the file with the sha256 {sha256[:12]}...; train it again")
        self._files[sha256] = found
        while len(self._files) > self._kept:
            self._remove(self._files.popitem(last=False)[1])
        return found.path

    def forget(self, identity_id: str) -> tuple[list[str], int]:
        """Remove what there is of a person: the sha256 of files that were used, and how many copies there were."""
        gone = [sha256 for sha256, file in self._files.items() if file.identity_id == identity_id]
        return gone, sum(self._remove(self._files.pop(sha256)) for sha256 in gone)

    def _open(self, identity_id: str, path: str) -> _File:
        local = self._store.local_path(path)
        if local is not None:
            return _File(identity_id, local)
        copy = os.fdopen(os.memfd_create("face-lora"), "wb", buffering=0)
        copy.write(self._store.read_bytes(path))
        link = Path(self._folder.name) / f"{next(self._numbers)}.safetensors"
        link.symlink_to(f"/proc/{os.getpid()}/fd/{copy.fileno()}")
        return _File(identity_id, link, copy)

    @staticmethod
    def _remove(file: _File) -> bool:
        """Whether there was a copy; the store's own files stay."""
        if file.copy is None:
            return False
        file.copy.close()
        file.path.unlink(missing_ok=True)
        return True


class Sampler:
    """Draws drafts with the base `base` (a card's id), their face-LoRAs taken from `store`."""

    def __init__(self, store: Store, base: str, settings: GenerationSettings, meters: Meters | None = None) -> None:
        self.store, self.base, self.settings = store, base, settings
        self.meters = meters or NoMeters()
        self.name = f"sampler-{uuid.uuid4().hex[:12]}"
        self._faults = 0
        self._moved = 0, time.monotonic()
        """Turns of the engine, and when they were last seen to be others, or none was wanted."""

    def open(self, device: str = "cpu") -> None:
        """Load the base on a device."""
        self.use(load_base(pull(self.base), device=device))

    def use(self, pipeline: StableDiffusionPipeline) -> None:
        """Draw with this base."""
        self.engine = Engine.configured(pipeline, self.settings)
        self._loras, self._reading = FaceLoras(self.store), threading.Lock()

    def sample(self, draft: Draft) -> "Sampling":
        """The draft, which begins at once; from any thread.

        Raises `SettingsError` for what cannot be drawn, `WeightsError` and `StoreError` for a face-LoRA that cannot be
        had, and `UsageError` when the sampler is closed.
        """
        with answering(draft.request_id) if draft.request_id else nullcontext():
            log.info("a draft begins", extra={"candidates": draft.count, "worker": self.name})
        subject, style_lora = draft.subject, style_lora_path(draft.style)
        with self._reading:  # a file may go when another is fetched, but not before the engine has read it
            face_lora = None
            if subject.lora_path is not None:
                face_lora = self._loras.get(draft.order.identity_id, subject.lora_path, subject.lora_sha256)
            fields = to_engine(
                draft.order,
                draft.style,
                {"trigger": subject.trigger, "common_tags": subject.common_tags},
                face_lora_path=str(face_lora) if face_lora else None,
                style_lora_path=str(style_lora) if style_lora else None,
                count=draft.count,
                first_index=draft.first_index,
                fits=self.engine.fits,
            )
            order = EngineOrder(**fields, deadline_s=draft.deadline_s, previews=draft.preview_s > 0)
            events = self.engine.submit(order)
        return Sampling(self, events, fields["prompt"], draft.preview_s)

    def forget(self, identity_id: str) -> dict[str, int]:
        """Drop what is kept of a person whose drafts have ended; how much of what."""
        with self._reading:
            sha256s, copies = self._loras.forget(identity_id)
            return {"copies of face-LoRAs": copies, **self.engine.forget(sha256s)}

    def note(self, error: Exception | None) -> None:
        """A draft ended, with an error or without: what nobody raised on purpose speaks against the sampler."""
        self._faults = 0 if error is None or isinstance(error, StudioloError) else self._faults + 1

    def check(self) -> None:
        """Raises `WeightsError` when nothing comes of drafts any more, such as after a fault of the device."""
        if self._faults >= _FAULTS:
            raise WeightsError(f"sampler: {self._faults} drafts failed one after another; start it again")
        turns, now = self.engine.work().turns, time.monotonic()
        if turns != self._moved[0] or not self.engine.busy:
            self._moved = turns, now
        if now - self._moved[1] > _STALL_S:
            raise WeightsError(f"sampler: no step was done in {_STALL_S:g} s, though drafts are inside; start it again")

    def report(self, speeds: Speeds, stop: threading.Event, every_s: float = 2.0) -> None:
        """Say what this sampler does and how fast, idle or not, until `stop`; then leave."""
        told = told_speed = Work(0, 0, 0.0)
        while not stop.wait(every_s):
            work = self.engine.work()
            turns, steps = work.turns - told.turns, work.steps - told.steps
            self.meters.count("studiolo_denoising_steps_total", steps, worker=self.name)
            share = steps / (turns * self.settings.slots) if turns else 0.0
            self.meters.gauge("studiolo_slot_occupancy", share, worker=self.name)
            told = work
            try:
                busy_s = work.busy_s - told_speed.busy_s
                speeds.report(self.name, Kind.PORTRAITS, work.steps - told_speed.steps, busy_s)
            except DatabaseError as error:
                log.warning("the speed is not reported: %s", error)
            else:
                told_speed = work
        with suppress(DatabaseError):
            speeds.leave(self.name)

    def close(self) -> None:
        """End all drafts after the step in hand."""
        self.engine.close()


class Sampling(Iterator[Drawing | Drawn]):
    """What comes of one draft. Closing it, from any thread, frees its slots."""

    def __init__(self, sampler: Sampler, events: Events, prompt: str, preview_s: float) -> None:
        self._sampler, self._events, self._prompt, self._preview_s = sampler, events, prompt, preview_s
        self._previewed_s = time.monotonic() - preview_s

    def __next__(self) -> Drawing | Drawn:
        try:
            event = next(self._events)
        except StopIteration:
            self._sampler.note(None)
            raise
        except Exception as error:
            self._sampler.note(error)
            raise
        if isinstance(event, Portrait):
            return Drawn(event.index, event.seed, self._prompt, event.rgb_u8)
        return Drawing(event.done, event.total, self._preview(event))

    def close(self) -> None:
        """Stop it; returns when nothing of it is left in the engine."""
        self._events.close()

    def _preview(self, step: Step) -> bytes | None:
        """A small PNG of the first candidate of the step, when one is due."""
        now = time.monotonic()
        if not step.latents or now < self._previewed_s + self._preview_s:
            return None
        self._previewed_s = now
        return _small_png(self._sampler.engine.decode(step.latents[min(step.latents)]))


def _small_png(rgb_u8: NDArray[np.uint8]) -> bytes:
    image, buffer = Image.fromarray(rgb_u8), io.BytesIO()
    image.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
