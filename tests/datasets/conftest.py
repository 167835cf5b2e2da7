from pathlib import Path
from typing import Any

import pytest

from studiolo.storage.store import Store
from tests.datasets.release import write_release

Release = tuple[Store, list[dict[str, Any]]]


@pytest.fixture(scope="session")
def finished_release(tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release that tests only read, and its kept rows."""
    store = Store(tmp_path_factory.mktemp("data set #1"))
    return store, write_release(store)


@pytest.fixture
def release(tmp_path: Path) -> Release:
    """A release of a test's own."""
    store = Store(tmp_path)
    return store, write_release(store)
