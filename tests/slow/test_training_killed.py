"""Training workers killed twice: all are trained, none twice, to the bytes of an undisturbed run."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from pipelines.train import fit_group, train
from studiolo.storage.store import Store
from tests.pipelines.pupils import SETTINGS, Pupils, identities, loras
from tests.slow.running import TRAINING_WORKER

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

PEOPLE = 12
SLOW = SETTINGS.model_copy(update={"steps": 60, "workers": (1, 2), "checkpoint_seconds": 0.2})
LIMIT_S = 900.0


@pytest.fixture(scope="module", autouse=True)
def cluster(ray_cluster: float) -> float:
    return ray_cluster


def workers() -> list[psutil.Process]:
    """The training workers of this test's cluster, the oldest first."""
    found = [
        child for child in psutil.Process().children(recursive=True) if TRAINING_WORKER in " ".join(child.cmdline())
    ]
    return sorted(found, key=lambda child: child.create_time())


class Killer(threading.Thread):
    """kill -9 of a worker whenever the number of finished identities has reached the next of `at`."""

    def __init__(self, store: Store, at: list[int]) -> None:
        super().__init__(daemon=True)
        self.store, self.at, self.kills = store, at, 0
        self.over = threading.Event()

    def run(self) -> None:
        while self.at and not self.over.wait(0.05):
            if len(self.store.list("finished")) >= self.at[0] and (found := workers()):
                found[self.kills % len(found)].kill()
                self.kills += 1
                del self.at[0]


def rows_of(actor: Pupils) -> Iterator[dict[str, object]]:
    """The rows, in bounded time."""
    started = time.monotonic()
    for row in train(identities(actor.store, PEOPLE).to_pylist(), actor, fit_group(actor.settings, 2, PEOPLE)):
        yield row
        assert time.monotonic() - started < LIMIT_S


def test_workers_killed_twice_change_nothing(tmp_path: Path) -> None:
    calm = Pupils(Store(tmp_path / "calm"), SLOW)
    assert {row["status"] for row in rows_of(calm)} == {"ok"}
    disturbed = Pupils(Store(tmp_path / "disturbed"), SLOW)
    killer = Killer(disturbed.store, [1, 6])
    killer.start()
    rows = list(rows_of(disturbed))
    killer.over.set()
    killer.join()
    assert killer.kills == 2
    assert Counter(row["identity_id"] for row in rows) == Counter(f"p{number}" for number in range(PEOPLE))
    assert {row["status"] for row in rows} == {"ok"}
    finished = Counter(path.split("/")[1] for path in disturbed.store.list("finished"))
    assert max(finished.values()) == 1
    assert loras(tmp_path / "disturbed") == loras(tmp_path / "calm")
    assert len(loras(tmp_path / "calm")) == PEOPLE
    assert disturbed.store.list("attempts") == []
