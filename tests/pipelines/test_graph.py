"""Rows through a pool on a real cluster."""

import os
from collections import Counter

import pyarrow as pa
import pytest

from pipelines.graph import OnWorker, stream
from pipelines.plan import Stage


class Doubler:
    """Annotates; counts how often it was opened, and dies where it is told to."""

    def __init__(self, dies_at: int | None = None, marker: str | None = None) -> None:
        self.dies_at = dies_at
        self.marker = marker
        self.opened = 0

    def open(self, device: str = "cpu") -> None:
        self.opened += 1

    def __call__(self, batch: pa.Table) -> pa.Table:
        assert batch.num_rows == 1, "a unit of work is a batch of its own"
        value = batch["value"][0].as_py()
        if value == self.dies_at and self.marker and not os.path.exists(self.marker):
            with open(self.marker, "w") as file:
                file.write("died once")
            os.abort()
        return pa.table({"value": [value], "double": [2 * value], "pid": [os.getpid()], "opened": [self.opened]})


@pytest.fixture(autouse=True)
def cluster(ray_cluster):
    return ray_cluster


def test_every_row_comes_out_once_from_actors_opened_once():
    rows = list(stream(pa.table({"value": list(range(12))}), Doubler(), Stage("double", 2, 0.5)))
    assert Counter(row["value"] for row in rows) == Counter(range(12))
    assert all(row["double"] == 2 * row["value"] and row["opened"] == 1 for row in rows)
    assert len({row["pid"] for row in rows}) <= 2


def test_no_rows_no_actors():
    assert list(stream(pa.table({"value": pa.array([], pa.int64())}), Doubler(), Stage("double", 1, 0.5))) == []


def test_a_killed_worker_loses_no_row(tmp_path):
    marker = tmp_path / "marker"
    rows = list(stream(pa.table({"value": list(range(5))}), Doubler(3, str(marker)), Stage("double", 1, 0.5)))
    assert marker.exists()
    assert sorted(row["value"] for row in rows) == list(range(5))


def test_a_broken_actor_is_an_exception_not_a_wait():
    class Broken(Doubler):
        def open(self, device: str = "cpu") -> None:
            raise RuntimeError("no weights here")

    with pytest.raises(Exception, match="no weights here"):
        list(stream(pa.table({"value": [1]}), Broken(), Stage("broken", 1, 0.5)))


def test_on_worker_opens_before_the_first_batch():
    actor = Doubler()
    assert OnWorker(actor)(pa.table({"value": [4]}))["double"][0].as_py() == 8
    assert actor.opened == 1
