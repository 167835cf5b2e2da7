"""What tests of the routes share: two tenants, and jobs brought to where a test wants them."""

import hashlib
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import numpy as np
from fastapi import FastAPI
from fastapi.testclient import TestClient

from studiolo.albums.records import Reason
from studiolo.portraits.files import encode_portrait
from studiolo.service.endpoint import EndpointSettings, WebSettings
from studiolo.service.live import LiveMemory
from studiolo.service.records import Consent, Job, Kind, Lease, NewJob, Person, new_id
from studiolo.service.service import Service
from studiolo.settings import GenerationSettings

__all__ = ["REJECTED", "SETTINGS", "LiveMemory", "World", "settings_with"]

SETTINGS = EndpointSettings(
    base="tiny-base",
    base_px=64,
    controlnets="tiny-controlnets",
    web=WebSettings(poll_s=0.02),
    generation=GenerationSettings(steps=4, slots=2, precision="float32"),
)


def settings_with(**web: float) -> EndpointSettings:
    """`SETTINGS` with other waits of the routes."""
    return SETTINGS.model_copy(update={"web": SETTINGS.web.model_copy(update=web)})


class World:
    """Two tenants, `anna` and `bert`, before one application."""

    def __init__(self, service: Service, app: FastAPI, client: TestClient) -> None:
        self.service, self.app, self.client = service, app, client
        self.tokens = {name: service.keys.create(name).token for name in ("anna", "bert")}

    def tenant(self, name: str = "anna") -> str:
        """A tenant's id."""
        return self.service.keys.authenticate(self.tokens[name]).tenant_id

    def ask(self, method: str, path: str, by: str = "anna", **more: Any) -> httpx.Response:
        """One request with a tenant's key."""
        headers = {"Authorization": f"Bearer {self.tokens[by]}"} | more.pop("headers", {})
        return self.client.request(method, path, headers=headers, **more)

    def lease(self, kind: Kind = Kind.PORTRAITS) -> Lease:
        """The next job, begun."""
        (lease,) = self.service.queue.lease([kind], "worker", 60)
        return lease

    @contextmanager
    def meanwhile(self, work: Callable[[], object]) -> Iterator[None]:
        """Do `work` in a thread as soon as a job of portraits is queued; it is done when the `with` ends."""
        over = threading.Event()

        def run() -> None:
            while not self.service.queue.backlog(Kind.PORTRAITS).queued:
                if over.wait(0.01):
                    return
            work()

        worker = threading.Thread(target=run)
        worker.start()
        try:
            yield
        finally:
            over.set()
            worker.join()

    def make(self, images: int = 1) -> Job:
        """Finish the next job of portraits with small pictures."""
        lease, made = self.lease(), []
        for number in range(images):
            rgb_u8 = np.full((8, 8, 3), 40 * number, np.uint8)
            content, path = encode_portrait(rgb_u8, {"seed": number}), f"{lease.folder}/{number:03d}.png"
            self.service.store.write_bytes(path, content)
            sha256 = hashlib.sha256(content).hexdigest()
            made.append({"path": path, "sha256": sha256, "seed": number, "width_px": 8, "height_px": 8})
        self.service.queue.complete(lease, {"images": made})
        return lease.job

    def reject(self) -> Job:
        """End the next job of portraits as a dispatcher does that found none good enough."""
        lease, reason = self.lease(), Reason.NONE_ACCEPTED
        self.service.queue.fail(lease, reason, reason.sentence(), {"images": [], "rejected": REJECTED})
        return lease.job

    def identity(self, by: str = "anna", ready: bool = True) -> str:
        """An identity of a tenant, learned when it is to be `ready`; the id."""
        person = Person(name="Anna", consent=Consent(given_by="Anna", statement="Yes.", given_at=0.0))
        new = NewJob(kind=Kind.IDENTITY, request={}, steps=8, identity_id=new_id("id"), person=person)
        job = self.service.queue.submit(self.tenant(by), new)
        if ready:
            lease = self.lease(Kind.IDENTITY)
            learned = self.service.identities.learned(lease, LEARNED)
            self.service.queue.complete(lease, {"photos": LEARNED["photos"]}, within=learned)
        return str(job.identity_id)


REJECTED = [
    {"reason": str(reason), "sentence": reason.sentence(), "count": count}
    for reason, count in ((Reason.LOW_SIMILARITY, 5), (Reason.NOT_ONE_FACE, 2))
]
LEARNED = {
    "lora_path": "identities/x/lora/pytorch_lora_weights.safetensors",
    "lora_sha256": "0" * 64,
    "steps": 8,
    "trigger": "a handsome man",
    "references": [
        {"photo": 1, "crop_path": "x.png", "quality_score": 0.75, "verdict": "same", "embedding": [0.0] * 128}
    ],
    "photos": [
        {"number": 1, "status": "ok"},
        {"number": 2, "status": "dropped", "stage": "detect", "reason": "no_face", "sentence": "No face was found."},
    ],
    "curve": [[1, 0.5], [8, 0.25]],
}
