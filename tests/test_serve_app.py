"""The whole endpoint on Ray Serve, from deploy/serve.yaml, on fractions of two cores with the embedded suite."""

import asyncio
import hashlib
import io
import json
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import ray
import yaml
from PIL import Image
from ray import serve
from ray.exceptions import ActorDiedError, ActorUnavailableError
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingConfig, AutoscalingContext
from ray.serve.schema import ServeDeploySchema

import serve_app
from studiolo.errors import DatabaseError, SettingsError
from studiolo.generation.base import load_base
from studiolo.portraits.files import decode_portrait
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.live import Progress
from studiolo.service.metrics import TABLE
from studiolo.service.service import Service
from studiolo.weights.fetch import pull
from tests.service.learned import learn

ROOT = Path(__file__).parents[1]
pytestmark = [pytest.mark.usefixtures("weights"), pytest.mark.timeout(240)]
WHOLE = pytest.mark.slow
"""Needs the cluster and the replicas, which take a minute to start."""


def small(folder: Path) -> dict[str, Any]:
    """What is otherwise than in production."""
    return {
        "database": f"sqlite:///{folder}/service.db",
        "store": str(folder / "store"),
        "tracking_uri": None,
        "receipt_key": str(folder / "receipts.pem"),
        "provenance": {"development": str(folder / "provenance")},
        "generation": {"steps": 10, "slots": 2, "accept_similarity": 0.0, "face_share": (0.05, 1.0)},
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
    application, page = schema.applications
    assert (page.import_path, page.route_prefix) == ("serve_app:build_page", serve_app.PAGE_PREFIX)
    EndpointSettings.load(None, page.args)
    assert application.import_path == "serve_app:build"
    args = application.args
    assert isinstance(args, dict)
    EndpointSettings.load(None, args)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    try:
        serve.run(serve_app.build(args | small(folder)), name=application.name, route_prefix=application.route_prefix)
        serve.run(serve_app.build_page({}, f"http://127.0.0.1:{port}"), name=page.name, route_prefix=page.route_prefix)
        service = Service.open(EndpointSettings.load(None, args | small(folder)))
        token = service.keys.create("shop").token
        headers = {"Authorization": f"Bearer {token}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
            yield Deployed(client, service, service.keys.authenticate(token).tenant_id)
        service.close()
    finally:
        serve.shutdown()


@WHOLE
def test_a_job_from_a_request_to_its_portraits_with_progress(deployed: Deployed, people: Path) -> None:
    identity_id = learn(
        deployed.service, deployed.tenant_id, people / "P001" / "portrait.jpg", load_base(pull("embedded-base"))
    )
    body = {"identity_id": identity_id, "style": "studio", "count": 2, "seed": 7}
    accepted = deployed.client.post("/v1/portraits", json=body)
    assert accepted.status_code == 202, accepted.text
    events = deployed.events(accepted.json()["id"])
    names = [name for name, _ in events]
    job = events[-1][1]
    assert (names[-1], job["state"]) == ("end", "succeeded"), job
    assert {"progress", "preview", "candidate"} <= set(names), names
    assert len(job["images"]) == 2
    assert all(image["similarity"] is not None for image in job["images"])
    for number, image in enumerate(job["images"]):
        content = deployed.client.get(f"/v1/jobs/{job['id']}/images/{number}").content
        rgb_u8, inside = decode_portrait(content)
        assert rgb_u8.shape == (256, 256, 3)
        assert inside["seed"] == image["seed"]
    session = Path(ray._private.worker._global_node.get_session_dir_path())
    assert [*session.glob("ray_spilled_objects*/*")] == []  # no picture went from Ray's memory to a disk
    give_up_s = time.monotonic() + 60
    while (erased := deployed.client.delete(f"/v1/identities/{identity_id}")).status_code in (202, 503):
        assert time.monotonic() < give_up_s, erased.text
        time.sleep(0.5)
    counts = erased.json()["receipt"]["erased"]
    assert (counts["adapters"], counts["templates"]) == (1, 1)
    assert deployed.client.get(f"/v1/jobs/{job['id']}").status_code == 404


@WHOLE
def test_a_person_is_drawn_into_a_picture_and_nothing_else_of_it_is(deployed: Deployed, people: Path) -> None:
    identity_id = learn(
        deployed.service, deployed.tenant_id, people / "P001" / "portrait.jpg", load_base(pull("embedded-base"))
    )
    with Image.open(people / "P002" / "portrait.jpg") as photo:
        template = photo.convert("RGB").resize((480, 480))
    sent = io.BytesIO()
    template.save(sent, "PNG")
    accepted = deployed.client.post(
        "/v1/edits", data={"identity_id": identity_id, "seed": "7"}, files={"template": ("party.png", sent.getvalue())}
    )
    assert accepted.status_code == 202, accepted.text
    events = deployed.events(accepted.json()["id"])
    name, job = events[-1]
    assert (name, job["state"], len(job["images"])) == ("end", "succeeded", 1), job
    assert {"progress", "preview", "candidate"} <= {name for name, _ in events}
    rgb_u8, inside = decode_portrait(deployed.client.get(f"/v1/jobs/{job['id']}/images/0").content)
    changed = (rgb_u8 != np.asarray(template)).any(axis=-1)
    assert inside["controlnets"] == "embedded-controlnets"
    assert 0.02 < changed.mean() < 0.5
    assert not changed[[0, -1]].any()


@WHOLE
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


@WHOLE
def test_the_page_is_beside_the_routes_and_stays_below_its_prefix(deployed: Deployed) -> None:
    token = deployed.client.headers["Authorization"].removeprefix("Bearer ")
    with httpx.Client(base_url=deployed.client.base_url, timeout=60) as browser:
        bare = browser.get("/studio")
        assert (bare.status_code, bare.headers["location"]) == (308, "/studio/")
        assert browser.get("/studio/").headers["location"] == "sign-in"
        signed_in = browser.post("/studio/sign-in", data={"key": token})
        assert (signed_in.status_code, signed_in.headers["location"]) == (303, "./")
        assert "Path=/studio/;" in signed_in.headers["set-cookie"]
        assert "page.css" in browser.get("/studio/").text
        assert browser.get("/studio/config").json()["root"].endswith("/studio")
        assert browser.get("/studio/gradio_api/info").status_code == 404
        assert "Path=/studio/;" in browser.post("/studio/sign-out").headers["set-cookie"]


def context(replicas: int, steps: dict[str, float], requests: float = 0.0) -> AutoscalingContext:
    """What Serve tells the policy."""
    return AutoscalingContext(
        deployment_id=DeploymentID("Sampler", "studiolo"),
        deployment_name="Sampler",
        app_name="studiolo",
        current_num_replicas=replicas,
        target_num_replicas=replicas,
        running_replicas=[],
        total_num_requests=requests,
        total_queued_requests=0.0,
        aggregated_metrics={"steps": steps} if steps else {},
        raw_metrics={},
        capacity_adjusted_min_replicas=0,
        capacity_adjusted_max_replicas=8,
        policy_state={},
        last_scale_up_time=None,
        last_scale_down_time=None,
        current_time=0.0,
        config=AutoscalingConfig(min_replicas=0, max_replicas=8, upscale_delay_s=0, downscale_delay_s=0),
    )


@pytest.mark.parametrize(
    ("replicas", "steps", "requests", "wanted"),
    [
        (1, {"a": 0}, 0, 0),
        (1, {"a": 1}, 0, 1),
        (1, {"a": 100}, 4, 1),
        (1, {"a": 101}, 4, 2),
        (2, {"a": 730, "b": 650}, 9, 8),  # all report the same queue; the newest count is the largest under load
        (3, {}, 0, 3),  # nobody has reported yet
        (1, {"a": 0}, 1, 1),  # the last job is being finished
        (0, {}, 1, 1),  # a call waits for the first
        (0, {}, 0, 0),
    ],
)
def test_there_are_as_many_samplers_as_the_queued_steps_want(
    replicas: int, steps: dict[str, float], requests: float, wanted: int
) -> None:
    """The policy as Serve's controller gets it: pickled, made from its settings, with Serve's own rules around it."""
    policy = sampler_options()["autoscaling_config"].policy
    called = _apply_autoscaling_config(_resolve_policy_callable(policy))
    assert called(context(replicas, steps, requests))[0] == wanted


def sampler_options() -> dict[str, Any]:
    """Of the sampler's deployment, with 100 steps for each replica."""
    ingress = serve_app.build({"sampler": {"target_steps": 100, "min_replicas": 0, "max_replicas": 8}})
    sampler = ingress._bound_deployment.init_args[2]._bound_deployment
    return {"autoscaling_config": sampler._deployment_config.autoscaling_config}


def test_the_application_is_built_of_a_file_or_of_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "endpoint.yaml"
    config.write_text("web: {replicas: 3}\nstore: here\ndatabase: sqlite:///here.db\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(serve_app.CONFIG, str(config))
    for built in (serve_app.app, serve_app.build({"config": str(config)})):
        settings = built._bound_deployment.init_args[0]
        assert (built._bound_deployment.num_replicas, settings.store) == (3, str(tmp_path / "here"))
        assert settings.database == f"sqlite:///{tmp_path}/here.db"  # replicas stand elsewhere
    more = serve_app.build({"config": str(config), "web": {"replicas": 2}})
    assert more._bound_deployment.num_replicas == 2
    with pytest.raises(SettingsError, match="did you mean 'sampler'"):
        serve_app.build({"smapler": {}})
    with pytest.raises(AttributeError, match="no 'apps'"):
        _ = serve_app.apps


def test_the_page_is_one_process_that_asks_the_endpoint_where_it_is() -> None:
    page = serve_app.build_page({"page": {"cpus": 0.5}}, "http://127.0.0.1:9000")._bound_deployment
    _, endpoint_url = page.init_args
    assert (page.num_replicas, page.ray_actor_options["num_cpus"], endpoint_url) == (1, 0.5, "http://127.0.0.1:9000")
    elsewhere = serve_app.build_page(
        {"page": {"endpoint_url": "https://portraits.example.com"}}, "http://127.0.0.1:9000"
    )
    assert elsewhere._bound_deployment.init_args[1] == "https://portraits.example.com"


def test_every_metric_of_the_table_is_one_of_rays() -> None:
    meters = serve_app.RayMeters()
    labels = {"kind": "portraits", "state": "queued", "stage": "sample", "reason": "none", "worker": "sampler-1"}
    labels |= {"method": "GET", "route": "none", "status": "200", "outcome": "delivered"}
    for metric in TABLE:
        tell = {"counter": meters.count, "gauge": meters.gauge, "histogram": meters.observe}[metric.kind]
        tell(metric.name, 1, **{label: labels[label] for label in metric.labels})
    made = {name: (type(family).__name__.lower(), family.info["tag_keys"]) for name, family in meters._families.items()}
    assert made == {metric.name: (metric.kind, metric.labels) for metric in TABLE}


class Said:
    """A deployment's handle: what its replicas answer to all that is asked of all of them."""

    deployment_name = "Said"

    def __init__(self, *answers: Any) -> None:
        self.answers = [*answers]

    def broadcast(self, *asked: str) -> "Said":
        return self

    def results(self, **how: Any) -> list[Any]:
        return self.answers

    async def results_async(self, **how: Any) -> list[Any]:
        return self.answers


def test_who_died_has_forgotten_a_person_and_who_is_away_for_a_moment_has_not() -> None:
    forgotten = serve_app.elsewhere(Said({"adapters": 1}, ActorDiedError()), Said({"adapters": 2, "templates": 1}))
    assert forgotten("id_1") == {"adapters": 3, "templates": 1}
    for error in (ActorUnavailableError("away", None), ValueError("a fault")):
        with pytest.raises(DatabaseError, match="did not forget id_1"):
            serve_app.elsewhere(Said({"adapters": 1}, error))("id_1")


def test_of_two_attempts_the_news_are_those_of_the_later() -> None:
    def news(*answers: Any) -> Progress | None:
        return asyncio.run(serve_app.LiveFar(Said(*answers)).look("job_1"))

    older, newer = Progress(1, "denoise", 5, 8), Progress(2, "denoise", 1, 8)
    assert news(older, None, newer, ActorDiedError()) == newer
    assert news(None) is None
