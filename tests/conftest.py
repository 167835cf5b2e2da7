"""What tests share: verified weights, the sample people, one Ray cluster a session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

ROOT = Path(__file__).resolve().parent.parent


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
def ray_cluster() -> Iterator[float]:
    """CPU slots of the one cluster of the session."""
    from pipelines.graph import start, stop

    yield start(cpus=2, object_store_mib=128)
    stop()
