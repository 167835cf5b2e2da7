"""A small house: a service, one sampler with the tiny base, one finisher, and dispatchers that come and go."""

import hashlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from actors.dispatcher import Dispatcher
from actors.finisher import Finish, PortraitFinisher, Sitter, TemplateFile
from actors.sampler import Sampler
from studiolo.portraits.files import decode_portrait, image_sha256
from studiolo.portraits.requests import EditRequest
from studiolo.portraits.rounds import Draft, Drawing, Drawn
from studiolo.service.endpoint import DispatcherSettings, EndpointSettings
from studiolo.service.metrics import MemoryMeters
from studiolo.service.records import Job, Kind, NewJob, new_id, template_path
from studiolo.service.service import Service
from studiolo.settings import GenerationSettings
from tests.jobs.finished_job import empty_database
from tests.service.rows import add_tenant
from tests.service.test_service import settings as service_settings

TINY = GenerationSettings(steps=4, slots=2, precision="float32", upscale=1)
QUICK = DispatcherSettings(lease_s=3, poll_s=0.02)
NOBODY = {"prompt": "a photo of a person", "seed": 5}


def small_service(folder: Path) -> Service:
    """An endpoint's service in a folder, with a tenant."""
    service = Service.open(service_settings(folder), MemoryMeters())
    service.store.write_bytes("mlflow.db", empty_database())
    add_tenant(service.database, "shop")
    return service


class Near:
    """A candidate that is being finished, in a thread."""

    def __init__(self, future: Future[Any]) -> None:
        self.future = future

    def result(self, wait_s: float) -> Any:
        """As `Finishing` says."""
        try:
            return self.future.result(wait_s)
        except TimeoutError:
            return None

    def close(self) -> None:
        """As `Finishing` says."""
        self.future.cancel()


class House:
    """A service with one sampler and one finisher, and dispatchers that come and go."""

    def __init__(
        self, service: Service, generation: GenerationSettings = TINY, base: str = "tiny-base", **settings: Any
    ) -> None:
        self.service = service
        settings = {"dispatcher": QUICK, **settings}
        self.settings = EndpointSettings(base=base, generation=generation, **settings)
        self.sampler = Sampler(service.store, base, generation)
        self.finisher = PortraitFinisher(service.store, "embedded", generation)
        self.finisher.open()
        self.threads = ThreadPoolExecutor(4)
        self.dispatchers: list[Dispatcher] = []

    def close(self) -> None:
        """Stop all that was begun."""
        for dispatcher in self.dispatchers:
            dispatcher.drain(0)
        self.sampler.close()
        self.threads.shutdown()

    def finish(self, rgb_u8: NDArray[np.uint8], sitter: Sitter, how: Finish) -> Near:
        """As the finisher does it."""
        return Near(self.threads.submit(self.finisher.finish, rgb_u8, sitter, how))

    def look(self, template: TemplateFile, request_id: str | None) -> Near:
        """As the finisher does it."""
        return Near(self.threads.submit(self.finisher.look, template, request_id))

    def dispatcher(
        self, draw: Callable[[Draft], Any] | None = None, jobs: int = 3, finish: Callable[..., Any] | None = None
    ) -> Dispatcher:
        """Another one, at work."""
        made = self.idle(draw, jobs, finish)
        made.start()
        self.dispatchers.append(made)
        return made

    def idle(
        self, draw: Callable[[Draft], Any] | None = None, jobs: int = 3, finish: Callable[..., Any] | None = None
    ) -> Dispatcher:
        """Another one, which was not started."""
        return Dispatcher(
            self.service,
            self.settings,
            draw or self.sampler.sample,
            finish or self.finish,
            self.look,
            jobs=jobs,
            elsewhere=lambda name: {**self.sampler.forget(name), **self.finisher.forget(name)},
        )

    def order(self, request: dict[str, Any], steps: int = 4, **more: Any) -> Job:
        """A job for the tenant."""
        new = NewJob(kind=Kind.PORTRAITS, request=request, steps=steps, **more)
        return self.service.queue.submit("ten_shop", new)

    def edit(self, template: bytes, request: dict[str, Any]) -> Job:
        """A job that draws an identity in a template."""
        job_id, sha256 = new_id("job"), hashlib.sha256(template).hexdigest()
        self.service.store.write_bytes(template_path(job_id), template)
        wanted = EditRequest.model_validate({**request, "template_sha256": sha256})
        kept, steps = wanted.model_dump(mode="json", exclude_defaults=True), wanted.steps(self.settings.generation)
        return self.order(kept, steps, id=job_id, identity_id=wanted.identity_id)

    def job(self, job: Job) -> Job:
        """As it is now."""
        found = self.service.queue.get("ten_shop", job.id)
        assert found is not None
        return found

    def ended(self, job: Job) -> Job:
        """When it has ended."""
        until(lambda: self.job(job).state.final)
        return self.job(job)

    def pictures(self, job: Job) -> list[str]:
        """Of a job that succeeded, by their pixels."""
        assert job.result is not None
        contents = [self.service.store.read_bytes(image["path"]) for image in job.result["images"]]
        return [image_sha256(decode_portrait(content)[0]) for content in contents]


def until(holds: Callable[[], object], limit_s: float = 90.0) -> None:
    give_up_s = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < give_up_s, "it did not come about"
        time.sleep(0.01)


class Slow:
    """Draws, but waits for leave after the first step."""

    def __init__(self, house: House) -> None:
        self.house, self.begun, self.go_on = house, threading.Event(), threading.Event()

    def __call__(self, draft: Draft) -> "Slow._Drawings":
        return Slow._Drawings(self, self.house.sampler.sample(draft))

    class _Drawings:
        def __init__(self, slow: "Slow", inner: Any) -> None:
            self.slow, self.inner, self.closed = slow, inner, threading.Event()

        def __iter__(self) -> "Slow._Drawings":
            return self

        def __next__(self) -> Drawing | Drawn:
            event: Drawing | Drawn = next(self.inner)
            self.slow.begun.set()
            while not (self.slow.go_on.wait(0.01) or self.closed.is_set()):
                pass
            return event

        def close(self) -> None:
            self.inner.close()
            self.closed.set()


class Never:
    """A candidate that nobody finishes, a draft that nobody draws."""

    def __init__(self) -> None:
        self.begun, self.closed = threading.Event(), threading.Event()

    def result(self, wait_s: float) -> None:
        """Not there yet."""
        self.begun.set()
        self.closed.wait(wait_s)

    def __iter__(self) -> "Never":
        return self

    def __next__(self) -> Drawing | Drawn:
        self.begun.set()
        assert self.closed.wait(40)
        raise StopIteration

    def close(self) -> None:
        """As of a worker that is gone."""
        self.closed.set()
        raise RuntimeError("the actor died")
