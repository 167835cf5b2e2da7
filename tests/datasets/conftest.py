import shutil
from pathlib import Path
from typing import Any

import pytest

from studiolo.datasets.describe import describe
from studiolo.datasets.releases import find
from studiolo.storage.store import Store
from tests.datasets.release import NAME, write_release

Release = tuple[Store, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def finished_release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release that tests only read, and its kept rows."""
    store = Store(tmp_path_factory.mktemp("data set #1"))
    return store, write_release(store)


@pytest.fixture(scope="session")
def described_release(finished_release: Release, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """The same with card, metadata and page, only to be read, too."""
    store = _copied(finished_release, tmp_path_factory.mktemp("described #1"))
    assert list(describe(store, *find(store, NAME))) == ["card"]
    return store, finished_release[1]


@pytest.fixture
def release(finished_release: Release, tmp_path: Path) -> Release:
    """A release of a test's own."""
    return _copied(finished_release, tmp_path), finished_release[1]


@pytest.fixture
def own_described(described_release: Release, tmp_path: Path) -> Release:
    """A release of a test's own, with card, metadata and page."""
    return _copied(described_release, tmp_path), described_release[1]


def _copied(release: Release, folder: Path) -> Store:
    shutil.copytree(release[0].url, folder, dirs_exist_ok=True)
    return Store(folder)
