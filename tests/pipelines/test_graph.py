"""Rows through a pool on a real cluster."""

import gc
import os
import sys
import time
from collections import Counter
from typing import Any

import pyarrow as pa
import pytest
import ray

from pipelines.graph import stream
from pipelines.plan import Stage
from studiolo.errors import StudioloError
from studiolo.storage.store import Store
from tests.processes import run


class Doubler:
    """Annotates; counts how often it was opened, and dies where it is told to."""

    def __init__(self, dies_at: int | None = None, marker: str | None = None) -> None:
        self.dies_at = dies_at
        self.marker = marker
        self.opened = 0

    def open(self, device: str = "cpu") -> None:
        self.opened += 1

    def unit(self, row: dict[str, Any]) -> str:
        return str(row["value"])

    def crashed(self, row: dict[str, Any], detail: str) -> pa.Table:
        raise AssertionError(detail)

    def __call__(self, batch: pa.Table) -> pa.Table:
        assert batch.num_rows == 1, "a unit of work is a batch of its own"
        value = batch["value"][0].as_py()
        if value == self.dies_at and self.marker and not os.path.exists(self.marker):
            with open(self.marker, "w") as file:
                file.write("died once")
            os.abort()
        return pa.table({"value": [value], "double": [2 * value], "pid": [os.getpid()], "opened": [self.opened]})


class Raiser(Doubler):
    """Raises at one row."""

    def __init__(self, raises_at: int) -> None:
        super().__init__()
        self.raises_at = raises_at

    def __call__(self, batch: pa.Table) -> pa.Table:
        if batch["value"][0].as_py() == self.raises_at:
            raise RuntimeError("a bug of ours")
        return super().__call__(batch)


def wait_for_all_slots() -> None:
    deadline = time.monotonic() + 30
    while ray.available_resources().get("CPU") != ray.cluster_resources()["CPU"]:
        assert time.monotonic() < deadline, ray.available_resources()
        time.sleep(0.2)


@pytest.fixture(autouse=True)
def cluster(ray_cluster):
    return ray_cluster


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "out")


def test_every_row_comes_out_once_from_actors_opened_once(store):
    rows = list(stream(pa.table({"value": list(range(12))}), Doubler(), Stage("double", 2, 0.5), store))
    assert Counter(row["value"] for row in rows) == Counter(range(12))
    assert all(row["double"] == 2 * row["value"] and row["opened"] == 1 for row in rows)
    assert len({row["pid"] for row in rows}) <= 2
    assert store.list() == []  # no mark is left


def test_no_rows_no_actors(store):
    assert list(stream(pa.table({"value": pa.array([], pa.int64())}), Doubler(), Stage("double", 1, 0.5), store)) == []


def test_tables_are_made_one_after_the_other(store):
    events: list[str] = []

    def tables():
        for first in (0, 3):
            events.append(f"table of {first}")
            yield pa.table({"value": list(range(first, first + 3))})

    for row in stream(tables(), Doubler(), Stage("double", 1, 0.5), store):
        events.append(row["value"])
    assert [events[0], *sorted(events[1:4])] == ["table of 0", 0, 1, 2]
    assert [events[4], *sorted(events[5:])] == ["table of 3", 3, 4, 5]
    assert list(stream(iter([]), Doubler(), Stage("double", 1, 0.5), store)) == []
    assert store.list() == []


def test_a_stream_that_is_left_gives_its_slots_back(store):
    rows = stream(pa.table({"value": list(range(50))}), Doubler(), Stage("left", 2, 0.5), store)
    next(rows)
    with pytest.raises(KeyError) as kept:
        rows.throw(KeyError("something failed, and its traceback is kept"))
    wait_for_all_slots()
    assert kept.traceback


def test_a_worker_that_raised_gives_its_slots_back_before_python_looks_for_cycles(store):
    gc.collect()
    gc.disable()
    try:
        with pytest.raises(StudioloError, match="a bug of ours") as kept:
            list(stream(pa.table({"value": [0, 1]}), Raiser(raises_at=1), Stage("raising", 2, 0.5), store))
        wait_for_all_slots()
    finally:
        gc.enable()
    assert kept.traceback


def test_a_killed_worker_loses_no_row(tmp_path, store):
    marker = tmp_path / "marker"
    actor = Doubler(3, str(marker))
    rows = list(stream(pa.table({"value": list(range(5))}), actor, Stage("double", 1, 0.5), store))
    assert marker.exists()
    assert sorted(row["value"] for row in rows) == list(range(5))


def test_a_broken_actor_is_an_exception_not_a_wait(store):
    class Broken(Doubler):
        def open(self, device: str = "cpu") -> None:
            raise RuntimeError("no weights here")

    with pytest.raises(StudioloError, match=r"stage 'broken': a worker failed: .*no weights here"):
        list(stream(pa.table({"value": [1]}), Broken(), Stage("broken", 1, 0.5), store))


_START = """
import os, ray
from pipelines import graph
seen = {}
ray.init = lambda address, **options: seen.update(options, address=address)
ray.is_initialized = lambda: False
ray.cluster_resources = lambda: {"CPU": 8.0}
print(graph.start(64, 100), seen["address"], seen["num_cpus"], os.environ.get("RAY_AUTH_MODE"))
"""


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (None, "8.0 local 64 disabled"),
        ("", "8.0 local 64 disabled"),
        ("auto", "64.0 auto None None"),
        ("10.0.0.1:6379", "64.0 10.0.0.1:6379 None None"),
    ],
)
def test_only_ray_address_joins_a_cluster_and_its_token_is_kept(address, said):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {} if address is None else {"RAY_ADDRESS": address}
    command = [sys.executable, "-c", _START]
    result = run(command, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == said
