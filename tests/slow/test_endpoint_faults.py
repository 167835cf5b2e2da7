"""The whole endpoint, with its processes, under faults: what was accepted ends, once, and what comes after is on time.

One service on SQLite goes through the faults one after another; another one has its PostgreSQL taken away.
"""

import base64
import io
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from PIL import Image

from benchmarks.installation import Installation
from studiolo.identities.learned import LearnedVersion
from studiolo.service.receipts import verify_receipt
from studiolo.service.records import Kind
from studiolo.service.service import Service
from tests.service.postgresql import Cluster
from tests.service.traces import traces
from tests.slow.endpoint import TEXTS, Customer, Processes, wait_for
from tests.slow.invariants import Invariants
from tests.storage.faulty import COUNT, EVERY, install

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SETTINGS = {
    "face_lora": {"steps": 6, "batch_size": 2, "views_per_photo": 1, "rank": 4},
    "generation": {"steps": 6, "slots": 2, "upscale": 1, "retries": 0, "accept_similarity": 0.0},
    "dispatcher": {"lease_s": 5.0, "jobs": 3},
    "trainer": {"lease_s": 6.0, "poll_s": 0.2},
    "web": {"poll_s": 0.1},
    "limits": {"requests_per_s": 1000.0, "burst": 10_000},
}
DEADLINE_S = 60.0
"""Of requests after a fault: they take two seconds on idle cores, and a replica begins in ten."""
OUTAGE_S = 20.0
NEVER, EVERY_TENTH = str(10**9), "10"
PHOTOS = ("portrait.jpg", "selfie.jpg", "expression-02-happy.jpg")


@dataclass
class World:
    """A service that runs, somebody who orders from it, and a look behind it."""

    processes: Processes
    customer: Customer
    service: Service
    """The library over the same database and store."""
    invariants: Invariants

    @classmethod
    def of(cls, processes: Processes, **settings: Any) -> "World":
        """The customer has a key of its own."""
        installation = processes.installation
        service = Service.open(installation.settings.model_copy(update=settings))
        customer = Customer(installation.url, service.keys.create("shop").token)
        return cls(processes, customer, service, Invariants(service))

    def check(self) -> None:
        """Everything that was accepted has ended, and the next orders are on time."""
        self.customer.ended(self.customer.accepted)
        wait_for("nothing is left to do", self._idle)
        self.invariants.check(self.customer.accepted)
        self.customer.punctual(3, DEADLINE_S)
        self.invariants.check(self.customer.accepted)

    def orders(self, count: int) -> list[str]:
        """Orders of four portraits each, the first of which is being drawn."""
        job_ids = [self.customer.order(style="studio", count=4, seed=number % 2) for number in range(count)]
        self.customer.until_it_is_drawn(job_ids[0])
        return job_ids

    def succeeded(self, job_ids: list[str]) -> bool:
        """Whether all of them did, when they have ended."""
        return all(job["state"] == "succeeded" for job in self.customer.ended(job_ids))

    def _idle(self) -> bool:
        backlogs = map(self.service.queue.backlog, Kind)
        return not any(backlog.queued + backlog.running for backlog in backlogs)


@pytest.fixture(scope="module")
def one_world(weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A service on SQLite whose store can be made to fail."""
    folder = tmp_path_factory.mktemp("endpoint")
    environment = install(folder / "installed") | {EVERY: NEVER, "OMP_NUM_THREADS": "1"}
    values = SETTINGS | {"store": f"faulty://{folder}/store"}
    with Installation.prepared(folder, values) as installation, Processes(installation, **environment) as processes:
        yield World.of(processes, store=str(folder / "store"))


@pytest.fixture
def world(one_world: World) -> World:
    """The same service, which runs, also after a test that left it killed."""
    if not one_world.processes.running:
        one_world.processes.start()
    return one_world


@pytest.fixture(scope="session")
def photos(people: Path) -> list[bytes]:
    """An album."""
    return [(people / "P001" / name).read_bytes() for name in PHOTOS]


def test_a_sampler_is_killed_in_the_middle_of_requests(world: World) -> None:
    job_ids = world.orders(4)
    world.processes.kill_replica("Sampler")
    assert world.succeeded(job_ids)
    world.check()


def test_the_ingress_is_killed(world: World) -> None:
    job_ids = world.orders(3)
    world.processes.kill_replica("Ingress")
    job_ids.append(world.customer.order(style="studio"))
    assert world.succeeded(job_ids)
    world.check()


def test_clients_hang_up_in_the_middle_of_albums_and_of_events(world: World, photos: list[bytes]) -> None:
    job_ids = world.orders(2)
    for share in (0.1, 0.5, 0.9):
        hang_up(world, "/v1/identities", *album(photos), share)
    for job_id in job_ids:
        next(world.customer.events(job_id))
    request = world.customer.http.build_request("POST", "/v1/portraits", json={"style": "studio", "wait_s": 30})
    hang_up(world, "/v1/portraits", dict(request.headers), request.read(), 1.0)
    headers, body = album(photos)
    hang_up(world, "/v1/identities", headers | {"Idempotency-Key": "album-1"}, body, 1.0)
    job = world.customer.learn(photos, "album-1")
    assert world.succeeded([*job_ids, job["id"]])
    known = {one.id for one in world.service.identities.page(tenant(world)).items}
    assert known == {job["identity_id"]}
    wait_for("photos of broken albums are gone", lambda: album_folders(world) == known)
    world.check()


def test_everything_is_killed_and_begins_again_over_a_store_that_fails_each_tenth_write(
    world: World, photos: list[bytes]
) -> None:
    training = world.customer.learn(photos)
    wait_for("the training begins", lambda: world.customer.job(training["id"])["state"] == "running")
    job_ids = world.orders(6)
    world.processes.kill()
    backlog = world.service.queue.backlog(Kind.PORTRAITS)
    assert backlog.queued > 0 < backlog.running
    world.processes.environment[EVERY] = EVERY_TENTH
    writes = Path(world.processes.environment[COUNT])
    before = writes.stat().st_size
    world.processes.start()
    assert world.succeeded([training["id"], *job_ids])
    of_her = world.customer.order(style="studio", identity_id=training["identity_id"], count=2)
    assert world.succeeded([of_her])
    world.check()
    assert writes.stat().st_size - before > 20  # so many writes, and at least two faults


def test_an_erased_person_leaves_no_byte(world: World, photos: list[bytes]) -> None:
    folder, ray_folder = world.processes.installation.folder, world.processes.installation.ray_folder
    stays = world.customer.learn(photos)
    marks: dict[str, str | bytes] = {name: f"MARK{name.upper()}" for name in ("name", "given", "statement", "prompt")}
    texts = {"name": "MARKNAME", "consent_given_by": "MARKGIVEN", "consent_statement": "MARKSTATEMENT"}
    marked = [planted(photo, f"MARKEXIF{number}", f"MARKTAIL{number}") for number, photo in enumerate(photos)]
    training = world.customer.learn(marked, **texts)
    assert world.succeeded([stays["id"], training["id"]])
    identity_id = training["identity_id"]
    job_ids = [
        world.customer.order(identity_id=identity_id, style="studio", prompt="MARKPROMPT", count=2) for _ in range(2)
    ]
    previews = [data["png"] for name, data in world.customer.events(job_ids[0]) if name == "preview"]
    assert previews
    assert world.succeeded(job_ids)
    marks |= kept_of(world, identity_id) | {"exif": "MARKEXIF", "tail": "MARKTAIL"}
    assert [name for name, mark in marks.items() if not traces(folder, mark)] == []  # else nothing is looked for
    others = traces(folder / "store", stays["identity_id"])
    world.invariants.check(world.customer.accepted)  # some rows of these jobs go
    world.processes.kill_replica("Sampler")  # it cannot clear up after itself
    receipt = erased(world, identity_id)
    assert verify_receipt(receipt, world.service.erasure.key.public_pem)
    assert receipt["erased"]["photos"] == len(photos)
    marks |= {f"preview {number}, text": png[200:264] for number, png in enumerate(previews)}
    marks |= {f"preview {number}": piece(base64.b64decode(png)) for number, png in enumerate(previews)}
    left = {name: [*traces(folder, mark), *traces(ray_folder, mark)] for name, mark in marks.items()}
    assert {name: found for name, found in left.items() if found} == {}
    assert traces(folder / "store", identity_id) == []
    assert traces(folder / "store", stays["identity_id"]) == others
    world.customer.accepted -= {training["id"], *job_ids}
    world.check()


def test_postgresql_is_away(weights: Path, tmp_path: Path) -> None:
    environment = {"OMP_NUM_THREADS": "1"}
    with Cluster.started() as cluster:
        values = SETTINGS | {"database": cluster.create_database()}
        with (
            Installation.prepared(tmp_path, values) as installation,
            Processes(installation, trainer=False, **environment) as processes,
        ):
            world = World.of(processes)
            job_ids = world.orders(6)
            cluster.stop()
            began_s = time.monotonic()
            assert httpx.get(f"{installation.url}/healthz", timeout=30).status_code == 200
            answer = world.customer.http.post("/v1/portraits", json={"style": "studio"})
            assert (answer.status_code, answer.json()["reason"]) == (503, "away")
            time.sleep(max(0.0, began_s + OUTAGE_S - time.monotonic()))
            cluster.start()
            assert world.succeeded(job_ids)
            world.check()
            world.service.close()


def album(photos: list[bytes]) -> tuple[dict[str, str], bytes]:
    """Headers and body of a request with an album."""
    files = [("photos", ("photo.jpg", photo, "image/jpeg")) for photo in photos]
    request = httpx.Request("POST", "http://x/", data=TEXTS, files=files)
    return dict(request.headers), request.read()


def hang_up(world: World, path: str, headers: dict[str, str], body: bytes, share: float) -> None:
    """Send a request up to a share of its body, and be gone."""
    headers = headers | {"host": "test", "authorization": world.customer.http.headers["authorization"]}
    head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    with socket.create_connection(("127.0.0.1", world.processes.installation.port), 30) as client:
        client.sendall(f"POST {path} HTTP/1.1\r\n{head}\r\n".encode() + body[: round(share * len(body))])
        time.sleep(0.5)  # so that it is read


def tenant(world: World) -> str:
    """The customer's id."""
    token = world.customer.http.headers["authorization"].removeprefix("Bearer ")
    return world.service.keys.authenticate(token).tenant_id


def album_folders(world: World) -> set[str]:
    """Identities of which there are photos."""
    return {path.split("/")[1] for path in world.service.store.list("albums")}


def planted(photo: bytes, inside: str, behind: str) -> bytes:
    """The photo with a text in its EXIF and one after its end."""
    image, buffer = Image.open(io.BytesIO(photo)), io.BytesIO()
    exif = image.getexif()
    exif[0x010E] = inside  # ImageDescription
    image.save(buffer, "JPEG", quality=95, exif=exif)
    return buffer.getvalue() + behind.encode()


def kept_of(world: World, identity_id: str) -> dict[str, str | bytes]:
    """A piece of every file that is kept of a person, and of what is known of the face."""
    store, found = world.service.store, world.service.identities.get(tenant(world), identity_id)
    assert found is not None
    jobs = world.service.queue.page(tenant(world), identity_id=identity_id).items
    folders = [f"albums/{identity_id}", f"identities/{identity_id}", *(f"results/{job.id}" for job in jobs)]
    contents = {path: store.read_bytes(path) for folder in folders for path in store.list(folder)}
    assert {path.split("/")[0] for path in contents} == {"albums", "identities", "results"}
    record = LearnedVersion.model_validate(found.versions[-1].record)
    numbers = {f"embedding {one.photo}": f"{one.embedding[0]!r}" for one in record.references}
    return numbers | {path: piece(content) for path, content in contents.items()}


def piece(content: bytes) -> bytes:
    """64 bytes out of the middle."""
    return content[len(content) // 2 :][:64]


def erased(world: World, identity_id: str) -> dict[str, Any]:
    """The receipt, when nobody may write any more."""

    def ask() -> dict[str, Any] | None:
        answer = world.customer.http.delete(f"/v1/identities/{identity_id}")
        if answer.status_code == 202:
            time.sleep(float(answer.headers["Retry-After"]))
            return None
        receipt: dict[str, Any] | None = answer.json()["receipt"] if answer.status_code == 200 else None
        return receipt

    return wait_for("the person is erased", ask)
