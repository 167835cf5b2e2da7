"""What tests share: verified weights, the sample people, one Ray cluster a session."""

import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import fsspec
import pytest
from hypothesis import HealthCheck, settings

from tests.to_the_end import ENDED

if TYPE_CHECKING:
    from tests.service.postgresql import Cluster

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
# Ray's workers are nicer by 15 than other processes: tests that compute beside them would leave them little of a core.
os.environ.setdefault("RAY_worker_niceness", "0")

ROOT = Path(__file__).resolve().parent.parent

# The same examples each time, and none that fails because the machine was busy with something else.
settings.register_profile(
    "studiolo", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("studiolo")


def pytest_sessionfinish() -> None:
    """Tells `tests.to_the_end` that the process has lived to its end."""
    if ENDED in os.environ:
        Path(os.environ[ENDED]).touch()


@pytest.fixture(scope="session")
def weights() -> Path:
    """The cache, in which `make weights` has put the embedded suite; a test that needs a model fails without it."""
    from studiolo.weights.cards import suite
    from studiolo.weights.fetch import home, pull

    for card_id in suite("embedded"):
        pull(card_id)
    return home()


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Albums of two sample people and one in which nothing is usable."""
    from studiolo.albums.samples import extract_people

    out = tmp_path_factory.mktemp("people")
    extract_people(out, count=2)
    return out


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """URL of a server on this machine that speaks S3's protocol."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URL of an empty bucket, with credentials and endpoint where every S3 client looks for them."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "tests")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "tests")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = f"bucket-{uuid.uuid4().hex}"
    fsspec.filesystem("s3").mkdir(bucket)
    yield f"s3://{bucket}"
    type(fsspec.filesystem("s3")).clear_instance_cache()


@pytest.fixture(scope="session")
def postgresql() -> Iterator["Cluster"]:
    """A private PostgreSQL server."""
    from tests.service.postgresql import Cluster

    with Cluster.started() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def ray_cluster() -> Iterator[float]:
    """CPU slots of the one cluster of the session."""
    from pipelines.graph import start, stop

    yield start(cpus=2, object_store_mib=128)
    stop()


@pytest.fixture(scope="module", autouse=True)
def slots_are_given_back() -> Iterator[None]:
    """Fails a module that leaves CPU slots of the session's cluster taken: a later one would wait for them."""
    before = _slots_taken()
    yield
    deadline_s = time.monotonic() + 60
    while _slots_taken() > before:
        assert time.monotonic() < deadline_s, f"CPU slots are still taken; alive are {_takers()}"
        time.sleep(0.2)


def _slots_taken() -> float:
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return 0.0
    return float(ray.cluster_resources().get("CPU", 0.0) - ray.available_resources().get("CPU", 0.0))


def _takers() -> list[str]:
    """Actors and placement groups of the cluster; Ray's own among them take no CPU."""
    from ray._private.state import actors
    from ray.util.placement_group import placement_group_table

    alive = [f"{one['ActorClassName']} ({one['State']})" for one in actors().values() if one["State"] != "DEAD"]
    groups = placement_group_table().values()
    return alive + [f"{one['bundles']} ({one['state']})" for one in groups if one["state"] != "REMOVED"]
