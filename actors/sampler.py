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
import weakref
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext, suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
from diffusers import ControlNetModel, StableDiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from studiolo.errors import DatabaseError, StudioloError, UnacceptableError, WeightsError
from studiolo.generation.base import load_base
from studiolo.generation.controlnets import load_controlnets
from studiolo.generation.engine import Engine, Events, Portrait, Step, Work
from studiolo.generation.engine import Order as EngineOrder
from studiolo.portraits.edit_passes import engine_order
from studiolo.portraits.orders import to_engine
from studiolo.portraits.rounds import Draft, Drawing, Drawn, StoredLora
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
"""So many faults one after another, by no fault of the drafts, and the sampler is not well."""
_STALL_S = 120.0
"""Longest that a step may take."""


class LoraFile:
    """A LoRA of the store as a file, which is there for as long as anybody holds this, or until it is closed."""

    def __init__(self, path: Path, copy: BinaryIO | None = None) -> None:
        """`copy` is what `path` leads to, in memory, unless that is the store's own file."""
        self.path, self._copy = path, copy

    def close(self) -> bool:
        """Remove the copy; whether there was one. The store's own files stay."""
        if self._copy is None or self._copy.closed:
            return False
        self._copy.close()
        self.path.unlink(missing_ok=True)
        return True

    def __del__(self) -> None:
        self.close()


class LoraFiles:
    """LoRAs of people and styles in `store` as verified files, the `kept` used last; from any thread, one read waits
    for no other.

    Where the store has no files on this disk, there are copies in memory: of a process that is killed none is left.
    """

    def __init__(self, store: Store, kept: int = 16) -> None:
        self._store, self._kept = store, kept
        self._folder = tempfile.TemporaryDirectory(prefix="loras-")
        self._numbers = itertools.count()
        self._lock = threading.Lock()
        """Guards the two below; never held while the store is read."""
        self._files: OrderedDict[str, LoraFile] = OrderedDict()
        """By sha256."""
        self._used: defaultdict[str, set[str]] = defaultdict(set)
        """By person or style: every sha256 that was had. What an engine made of a file may outlive the file here."""

    def get(self, whose: str, path: str, sha256: str) -> LoraFile:
        """The file at `path` of the store. Raises `WeightsError` when it is not the one with `sha256`, `StoreError`."""
        with self._lock:
            found = self._files.get(sha256)
        found = found or self._open(path)
        if not found.path.is_file() or sha256_of(found.path) != sha256:
            with self._lock:
                self._files.pop(sha256, None)
            raise WeightsError(f"LoRA {path}: not the file with the sha256 {sha256[:12]}...; train or send it again")
        with self._lock:
            self._used[whose].add(sha256)
            self._files[sha256] = found
            self._files.move_to_end(sha256)
            while len(self._files) > self._kept:
                self._files.popitem(last=False)
        return found

    def forget(self, whose: str) -> tuple[list[str], int]:
        """Remove what there is of a person or style: the sha256 of files that were used, how many copies there were."""
        with self._lock:
            used = sorted(self._used.pop(whose, ()))
            return used, sum(self._files.pop(sha256).close() for sha256 in used if sha256 in self._files)

    def _open(self, path: str) -> LoraFile:
        local = self._store.local_path(path)
        if local is not None:
            return LoraFile(local)
        copy = os.fdopen(os.memfd_create("lora"), "wb", buffering=0)
        link = Path(self._folder.name) / f"{next(self._numbers)}.safetensors"
        link.symlink_to(f"/proc/{os.getpid()}/fd/{copy.fileno()}")
        made = LoraFile(link, copy)
        copy.write(self._store.read_bytes(path))
        return made


class Sampler:
    """Draws drafts with the base `base` (a card's id), their face-LoRAs taken from `store`; edits with `controlnets`,
    another card's.
    """

    def __init__(
        self,
        store: Store,
        base: str,
        settings: GenerationSettings,
        meters: Meters | None = None,
        controlnets: str | None = None,
    ) -> None:
        self.store, self.base, self.settings, self.controlnets = store, base, settings, controlnets
        self.meters = meters or NoMeters()
        self.name = f"sampler-{uuid.uuid4().hex[:12]}"
        self._faults = 0
        self._fault: Exception | None = None
        self._moved = 0, time.monotonic()
        """Turns of the engine, and when they were last seen to be others, or none was wanted."""

    def open(self, device: str = "cpu") -> None:
        """Load the base, and the ControlNets, on a device."""
        networks = None if self.controlnets is None else load_controlnets(pull(self.controlnets), device=device)
        self.use(load_base(pull(self.base), device=device), networks)

    def use(self, pipeline: StableDiffusionPipeline, controlnets: Mapping[str, ControlNetModel] | None = None) -> None:
        """Draw with this base, and these ControlNets."""
        self.engine = Engine.configured(pipeline, self.settings, controlnets)
        self._loras, self._entering = LoraFiles(self.store), threading.Lock()
        self._forgotten: set[str] = set()
        self._inside: weakref.WeakKeyDictionary[Sampling, tuple[str, ...]] = weakref.WeakKeyDictionary()
        """Drafts that were begun, and of which people and styles."""

    def sample(self, draft: Draft) -> "Sampling":
        """The draft, which begins at once; from any thread.

        Raises `SettingsError` for what cannot be drawn, `WeightsError` and `StoreError` for a face-LoRA that cannot be
        had, `UnacceptableError` for a person who was forgotten, and `UsageError` when the sampler is closed.
        """
        with answering(draft.request_id) if draft.request_id else nullcontext():
            log.info("a draft begins", extra={"candidates": draft.count, "worker": self.name})
        loras = _loras_of(draft)
        whose = (draft.order.identity_id, *(one.whose for one in loras.values()))
        files = {name: self._loras.get(*astuple(one)) for name, one in loras.items() if not self._is_forgotten(whose)}
        order = self._order(draft, {name: str(file.path) for name, file in files.items()})
        order = replace(order, deadline_s=draft.deadline_s, previews=draft.preview_s > 0)
        with self._entering:
            if self._is_forgotten(whose):
                for one in self._forgotten.intersection(whose):
                    self._loras.forget(one)  # what was read meanwhile
                person = whose[0] in self._forgotten
                reason, what = ("identity", "person") if person else ("style", "style")
                raise UnacceptableError(reason, f"The {what} is not there any more.")
            sampling = Sampling(self, self.engine.submit(order), order.prompt, draft)
            self._inside[sampling] = whose
        return sampling

    def _order(self, draft: Draft, loras: dict[str, str]) -> EngineOrder:
        """What the engine is asked for; `loras` are paths on this disk."""
        if draft.edit is not None:
            who = draft.subject, loras.get("face")
            return engine_order(self.engine, draft.edit, *who, draft.count, draft.first_index)
        style_file = style_lora_path(draft.style)
        fields = to_engine(
            draft.order,
            draft.style,
            {"trigger": draft.subject.trigger, "common_tags": draft.subject.common_tags},
            face_lora_path=loras.get("face"),
            style_lora_path=loras.get("style") or (str(style_file) if style_file else None),
            count=draft.count,
            first_index=draft.first_index,
            fits=self.engine.fits,
        )
        return EngineOrder(**fields)

    def forget(self, name: str) -> dict[str, int]:
        """Stop the drafts of a person or style, take no more, and drop what is kept of them; how much of what."""
        with self._entering:
            self._forgotten.add(name)
            for sampling in [one for one, whose in self._inside.items() if name in whose]:
                sampling.close()
            sha256s, copies = self._loras.forget(name)
            return {"copies of face-LoRAs": copies, **self.engine.forget(sha256s)}

    def _is_forgotten(self, whose: tuple[str, ...]) -> bool:
        return not self._forgotten.isdisjoint(whose)

    def note(self, error: Exception | None) -> None:
        """A draft ended, with an error or without: what nobody raised on purpose speaks against the sampler.

        An error that ended several drafts at once is one fault.
        """
        if error is not None and error is self._fault:
            return
        self._fault = error
        self._faults = 0 if error is None or isinstance(error, StudioloError) else self._faults + 1

    def check(self) -> None:
        """Raises `WeightsError` when nothing comes of drafts any more, such as after a fault of the device."""
        if self._faults >= _FAULTS:
            raise WeightsError(f"sampler: {self._faults} faults one after another; start it again")
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


def _loras_of(draft: Draft) -> dict[str, StoredLora]:
    """The LoRAs of a draft that are in the store: `face`, `style`."""
    subject = draft.subject
    found: dict[str, StoredLora] = {}
    if subject.lora_path is not None:
        found["face"] = StoredLora(draft.order.identity_id, subject.lora_path, subject.lora_sha256)
    if draft.style_lora is not None:
        found["style"] = draft.style_lora
    return found


class Sampling(Iterator[Drawing | Drawn]):
    """What comes of one draft. Closing it, from any thread, frees its slots."""

    def __init__(self, sampler: Sampler, events: Events, prompt: str, draft: Draft) -> None:
        self._sampler, self._events, self._prompt = sampler, events, prompt
        self._count, self._preview_s = draft.count, draft.preview_s
        self._previewed_s = time.monotonic() - draft.preview_s
        self._done: Counter[int] = Counter()
        """Steps of each candidate."""

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
        """A small PNG of the first candidate of the step, when one is due.

        None is made of a candidate's last third: that would be the picture, and nobody has judged yet what it shows.
        """
        self._done.update(step.latents.keys())
        early = [index for index in step.latents if 3 * self._done[index] * self._count <= 2 * step.total]
        now = time.monotonic()
        if not early or now < self._previewed_s + self._preview_s:
            return None
        self._previewed_s = now
        return _small_png(self._sampler.engine.decode(step.latents[min(early)]))


def _small_png(rgb_u8: NDArray[np.uint8]) -> bytes:
    image, buffer = Image.fromarray(rgb_u8), io.BytesIO()
    image.thumbnail((_PREVIEW_PX, _PREVIEW_PX))
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()
