"""The whole endpoint on Ray Serve, from deploy/serve.yaml, on fractions of two cores with the embedded suite."""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from ray import serve
from ray.serve.schema import ServeDeploySchema

import serve_app
from actors.perceiver import png_bytes
from benchmarks.workloads import write_loras
from studiolo.generation.base import load_base
from studiolo.identities.learned import LearnedReference, LearnedVersion
from studiolo.perception.suite import open_suite
from studiolo.portraits.files import decode_portrait
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.records import Consent, Kind, NewJob, Person, new_id
from studiolo.service.service import Service
from studiolo.weights.fetch import pull, sha256_of
from tests.portraits.test_fusion import crop_of

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.usefixtures("weights"), pytest.mark.timeout(240)]


def small(folder: Path) -> dict[str, Any]:
    """What is otherwise than in production."""
    return {
        "database": f"sqlite:///{folder}/service.db",
        "store": str(folder / "store"),
        "tracking_uri": None,
        "receipt_key": str(folder / "receipts.pem"),
        "generation": {"steps": 3, "slots": 2, "accept_similarity": 0.0, "face_share": (0.05, 1.0)},
        "web": {"poll_s": 0.05, "cpus": 0.1},
        "sampler": {"min_replicas": 0, "cpus": 0.5},
        "finisher": {"cpus": 0.2},
        "dispatcher": {"cpus": 0.1, "replicas": 2, "lease_s": 3, "drain_s": 5, "poll_s": 0.1},
    }


@dataclass
class Deployed:
    """A client of the endpoint, and the service behind it."""

    client: httpx.Client
    service: Service
    tenant_id: str

    def learned(self, photo: Path) -> str:
        """An identity with a face-LoRA of its own and one reference; its id."""
        identity_id, store = new_id("id"), self.service.store
        (lora,) = write_loras(load_base(pull("embedded-base")), photo.parent, 1)
        store.write_bytes(f"identities/{identity_id}/lora.safetensors", lora.read_bytes())
        crop = crop_of(photo, open_suite("embedded"), 0.35, 512)[0]
        store.write_bytes(f"identities/{identity_id}/references/a.png", png_bytes(crop))
        reference = LearnedReference(
            photo=1,
            crop_path=f"identities/{identity_id}/references/a.png",
            quality_score=0.9,
            verdict="same",
            embedding=(0.0,) * 128,
        )
        version = LearnedVersion(
            lora_path=f"identities/{identity_id}/lora.safetensors",
            lora_sha256=sha256_of(lora),
            steps=1,
            trigger="a handsome man",
            references=(reference,),
        )
        person = Person(name="Anna", consent=Consent(given_by="Anna", statement="Yes.", given_at=0.0))
        new = NewJob(kind=Kind.IDENTITY, request={}, steps=1, identity_id=identity_id, person=person)
        self.service.queue.submit(self.tenant_id, new)
        (lease,) = self.service.queue.lease([Kind.IDENTITY], "trainer", 60)
        within = self.service.identities.learned(lease, version.model_dump(mode="json"))
        self.service.queue.complete(lease, {}, within=within)
        return identity_id

    def events(self, job_id: str) -> list[tuple[str, dict[str, Any]]]:
        """All events of a job, until its end."""
        with self.client.stream("GET", f"/v1/jobs/{job_id}/events", timeout=120) as answer:
            lines = [line for line in answer.iter_lines() if line.startswith(("event: ", "data: "))]
        names, data = lines[::2], lines[1::2]
        return [
            (name.removeprefix("event: "), json.loads(content.removeprefix("data: ")))
            for name, content in zip(names, data, strict=True)
        ]


@pytest.fixture(scope="module")
def deployed(ray_cluster: float, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    folder = tmp_path_factory.mktemp("endpoint")
    schema = ServeDeploySchema.model_validate(yaml.safe_load((ROOT / "deploy" / "serve.yaml").read_text()))
    (application,) = schema.applications
    assert application.import_path == "serve_app:build"
    args = application.args
    assert isinstance(args, dict)
    EndpointSettings.load(None, args)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(serve_app.build(args | small(folder)), name=application.name, route_prefix=application.route_prefix)
        service = Service.open(EndpointSettings.load(None, args | small(folder)))
        token = service.keys.create("shop").token
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            yield Deployed(client, service, service.keys.authenticate(token).tenant_id)
        service.close()
    finally:
        serve.shutdown()


def test_a_job_from_a_request_to_its_portraits_with_progress(deployed: Deployed, people: Path) -> None:
    identity_id = deployed.learned(people / "P001" / "portrait.jpg")
    body = {"identity_id": identity_id, "style": "studio", "count": 2, "seed": 7}
    accepted = deployed.client.post("/v1/portraits", json=body)
    assert accepted.status_code == 202, accepted.text
    events = deployed.events(accepted.json()["id"])
    names = [name for name, _ in events]
    job = events[-1][1]
    assert (names[-1], job["state"]) == ("end", "succeeded"), job
    assert {"progress", "preview", "candidate"} <= set(names)
    assert len(job["images"]) == 2
    assert all(image["similarity"] is not None for image in job["images"])
    for number, image in enumerate(job["images"]):
        content = deployed.client.get(f"/v1/jobs/{job['id']}/images/{number}").content
        rgb_u8, inside = decode_portrait(content)
        assert rgb_u8.shape == (256, 256, 3)
        assert inside["seed"] == image["seed"]
    erased = deployed.client.delete(f"/v1/identities/{identity_id}")
    assert erased.status_code == 200, erased.text
    counts = erased.json()["receipt"]["erased"]
    assert (counts["adapters"], counts["templates"]) == (1, 1)
    assert deployed.client.get(f"/v1/jobs/{job['id']}").status_code == 404


def test_many_jobs_under_two_dispatchers_are_each_done_once(deployed: Deployed) -> None:
    body = {"prompt": "a portrait of a smiling woman", "size_px": 128}
    jobs = [deployed.client.post("/v1/portraits", json={**body, "seed": seed}).json() for seed in (1, 2, 3, 1)]
    give_up_s = time.monotonic() + 60
    while any(job["state"] in ("queued", "running") for job in jobs):
        assert time.monotonic() < give_up_s, jobs
        time.sleep(0.2)
        jobs = [deployed.client.get(f"/v1/jobs/{job['id']}").json() for job in jobs]
    assert {job["state"] for job in jobs} == {"succeeded"}, jobs
    assert [job["attempts"] for job in jobs] == [1] * 4
    pictures = [decode_portrait(deployed.client.get(f"/v1/jobs/{job['id']}/images/0").content)[0] for job in jobs]
    digests = [hashlib.sha256(rgb_u8.tobytes()).hexdigest() for rgb_u8 in pictures]
    assert digests[0] == digests[3]
    assert len(set(digests)) == 3
