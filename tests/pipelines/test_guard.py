"""Units that end their workers fail alone; every other one is finished, once."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pytest

from pipelines import graph
from pipelines.graph import stream
from pipelines.guard import ATTEMPTS, MOST_CRASHES, Guard
from pipelines.plan import Stage
from studiolo.albums.records import Reason
from studiolo.errors import PhotoError, StudioloError
from studiolo.storage.attempts import COMPANY, Attempts
from studiolo.storage.store import Store
from tests.pipelines.poisoned import Parted, Whole

Row = dict[str, Any]


@pytest.fixture(autouse=True)
def cluster(ray_cluster):
    return ray_cluster


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "out")


def rows_of(actor: Whole, deeds: list[str], actors: int = 2, **limits: Any) -> dict[int, Row]:
    """Rows by value, each of which came out once, of a stage that does `deeds`; in bounded time."""
    table = pa.table({"value": list(range(len(deeds))), "does": deeds})
    started = time.monotonic()
    rows = list(stream(table, actor, Stage("poisoned", actors, 0.5, queued=1, **limits), actor.store))
    assert time.monotonic() - started < 300
    assert Counter(row["value"] for row in rows) == Counter(range(len(deeds)))
    return {row["value"]: row for row in rows}


def finished(store: Store, what: str = "finished") -> Counter[int]:
    """How often each row was finished; with "begun", how often each bad deed was begun."""
    return Counter(int(path.split("/")[1]) for path in store.list(what))


@pytest.mark.parametrize(
    ("deed", "told"),
    [
        ("abort", "2 attempts, the last: the worker ended without a word"),
        pytest.param("hang", "2 attempts, the last: took longer than 4 s", marks=pytest.mark.slow),
        pytest.param("eat", "2 attempts, the last: its worker took ", marks=pytest.mark.slow),
    ],
)
def test_a_poison_row_fails_alone(store: Store, deed: str, told: str):
    deeds = ["", "", "", deed, "", "", "", ""]
    rows = rows_of(Whole(store), deeds, limit_s=4.0 if deed == "hang" else 60.0, memory_mib=1000)
    assert (rows[3]["status"], rows[3]["reason"]) == ("failed", "crashed_worker")
    assert rows[3]["detail"].startswith(told)
    assert {value for value, row in rows.items() if row["status"] == "ok"} == set(rows) - {3}
    assert finished(store) == Counter(set(rows) - {3})
    assert store.list("attempts") == []


def test_many_poison_rows_use_up_no_common_bound(store: Store):
    deeds = ["", "abort", "", "abort", "abort", "", "abort", ""]
    rows = rows_of(Whole(store), deeds)
    assert [rows[value]["status"] for value in range(8)] == ["failed" if deed else "ok" for deed in deeds]
    assert finished(store) == Counter(value for value, deed in enumerate(deeds) if not deed)


@pytest.mark.slow
def test_among_units_in_flight_the_culprits_alone_are_given_up(store: Store):
    """Each dies once in company and twice alone; the others are finished, and their rows come out once.

    One that ends as its worker dies may be done twice: its row had not left yet.
    """
    deeds = ["", "", "abort", "", "", "hang", "", "", "", ""]
    rows = rows_of(Whole(store, slow_s=1.0), deeds, actors=1, together=3, limit_s=4.0)
    assert [rows[value]["status"] for value in range(10)] == ["failed" if deed else "ok" for deed in deeds]
    assert rows[2]["detail"] == "3 attempts, the last: the worker ended without a word"
    assert rows[5]["detail"] == "3 attempts, the last: took longer than 4 s"
    assert finished(store, "begun") == {2: ATTEMPTS + 1, 5: ATTEMPTS + 1}
    assert set(finished(store)) == {value for value, deed in enumerate(deeds) if not deed}
    assert store.list("attempts") == []


class Crowd(Whole):
    """Notes for each row who was in the worker with it, and what its mark said it would be a crash of."""

    def __init__(self, store: Store, attempts: Attempts) -> None:
        super().__init__(store)
        self.attempts = attempts
        self.inside: set[int] = set()
        self.company: dict[int, set[int]] = {}
        self.marks: dict[int, str] = {}
        self.lock = threading.Lock()

    def __call__(self, batch: pa.Table) -> pa.Table:
        (row,) = batch.to_pylist()
        with self.lock:
            self.inside.add(row["value"])
            for value in self.inside:
                self.company.setdefault(value, set()).update(self.inside)
        mark = self.store.read_json(self.attempts._path(self.unit(row)))
        self.marks[row["value"]] = mark["crashes"][-1][0]
        time.sleep(0.2)
        with self.lock:
            self.inside.remove(row["value"])
        return self.finished(row, [])


def test_a_unit_with_a_crash_to_its_name_is_worked_on_alone(store: Store):
    attempts = Attempts(store, "crowded", "run")
    for suspect in ("2", "3"):
        attempts.begin(suspect).work_on(COMPANY)
    actor = Crowd(store, attempts)
    guard = Guard(actor, attempts, limit_s=60, together=3)
    tables = [pa.table({"value": [value], "does": [""]}) for value in range(9)]
    with ThreadPoolExecutor(3) as pool:
        rows = [table.to_pylist()[0] for table in pool.map(guard, tables)]
    assert [row["status"] for row in rows] == ["ok"] * 9
    assert (actor.company[2], actor.company[3]) == ({2}, {3})
    assert any(len(together) > 1 for together in actor.company.values())
    assert actor.marks == {value: "" if value in (2, 3) else COMPANY for value in range(9)}
    assert store.list("attempts") == []


def test_deaths_in_company_condemn_nobody(store: Store):
    attempts = Attempts(store, "crowded", "run")
    for _ in range(ATTEMPTS + 1):
        attempts.begin("0").work_on(COMPANY)
    (row,) = Guard(Whole(store), attempts, limit_s=60, together=2)(pa.table({"value": [0], "does": [""]})).to_pylist()
    assert row["status"] == "ok"


def test_the_culprit_part_alone_is_lost(store: Store):
    rows = rows_of(Parted(store), ["ok ok ok", "ok abort ok hang ok", "ok"], limit_s=4.0)
    assert [rows[value]["status"] for value in range(3)] == ["ok"] * 3
    assert rows[0]["lost"] == rows[2]["lost"] == []
    assert rows[1]["lost"] == [
        "1: crashed_worker: 2 attempts, the last: the worker ended without a word",
        "3: crashed_worker: 2 attempts, the last: took longer than 4 s",
    ]
    assert finished(store) == Counter(range(3))


def test_a_unit_of_many_slow_parts_is_not_too_slow(store: Store):
    rows = rows_of(Parted(store, slow_s=1.0), ["ok " * 6], limit_s=4.0)
    assert rows[0]["status"] == "ok"


def test_a_unit_of_nothing_but_poison_is_given_up(store: Store):
    earlier = Attempts(store, "poisoned", "of a driver that was killed")
    for part in range(MOST_CRASHES):
        earlier.begin("0").work_on(str(part // 2))
    rows = rows_of(Parted(store), ["abort " * MOST_CRASHES, "ok"])
    assert (rows[0]["status"], rows[0]["reason"]) == ("failed", "crashed_worker")
    assert rows[0]["detail"].startswith(f"{MOST_CRASHES} attempts")
    assert rows[1]["status"] == "ok"


def test_a_worker_that_dies_while_it_opens_ends_the_job(store: Store):
    with pytest.raises(StudioloError, match=r"stage 'poisoned': a worker failed: .*load its models in 3 attempts"):
        rows_of(Whole(store, at_opening="abort"), [""] * 4)


def test_a_worker_that_cannot_be_opened_ends_the_job(store: Store):
    with pytest.raises(StudioloError, match="a bug of ours"):
        rows_of(Whole(store, at_opening="raise"), [""] * 4)


def test_an_exception_is_no_crash(store: Store):
    with pytest.raises(StudioloError, match="a bug of ours"):
        rows_of(Whole(store), ["", "raise"])


def test_when_every_unit_crashes_it_is_the_workers(store: Store, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(graph, "GIVEN_UP_IN_A_ROW", 3)
    with pytest.raises(
        StudioloError, match=r"stage 'poisoned': 3 units in a row ended their workers \(2 attempts, the last"
    ):
        rows_of(Whole(store), ["abort"] * 6)


@pytest.mark.parametrize(("units", "broken"), [(2, False), (3, True)])
def test_a_unit_of_several_rows_counts_once(store: Store, monkeypatch: pytest.MonkeyPatch, units: int, broken: bool):
    crashed = [{"reason": "crashed_worker", "detail": "2 attempts"}, {"reason": "crashed_worker"}, {"reason": "other"}]
    monkeypatch.setattr(graph, "GIVEN_UP_IN_A_ROW", 3)
    monkeypatch.setattr(graph, "_done", lambda *_: (crashed for _ in range(units)))
    rows = stream(pa.table({"value": [0]}), Whole(store), Stage("poisoned", 1, 0.5), store)
    if broken:
        with pytest.raises(StudioloError, match=r"3 units in a row ended their workers \(2 attempts\)"):
            list(rows)
    else:
        assert len(list(rows)) == 3 * units


class Looker(Parted):
    """Says of which part it would be a crash now: in a part, after it, and after one that could not be used."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        (path,) = self.store.list("attempts")
        seen = []
        for name in ("good", "damaged"):
            try:
                with self.part(name):
                    seen.append(self.store.read_json(path)["crashes"][-1][0])
                    if name == "damaged":
                        raise PhotoError(Reason.DAMAGED)
            except PhotoError:
                pass
            seen.append(self.store.read_json(path)["crashes"][-1][0])
        return pa.table({"seen": seen})


def test_a_part_is_to_blame_only_while_it_is_worked_on(store: Store):
    attempts = Attempts(store, "looking", "run")
    for _ in range(ATTEMPTS):
        attempts.begin("1")
    result = Guard(Looker(store), attempts, limit_s=60)(pa.table({"value": [1]}))
    assert result["seen"].to_pylist() == ["good", "", "damaged", ""]
