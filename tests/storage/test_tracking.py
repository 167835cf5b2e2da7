"""Runs in a real MLflow database in a temporary folder."""

import os
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from studiolo.errors import SettingsError, StoreError
from studiolo.storage.store import Store
from studiolo.storage.tracking import CURVE_POINTS, LenientTracker, MlflowTracker, Tracker, thinned


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tracked")


@pytest.fixture(scope="module")
def tracker(folder: Path) -> MlflowTracker:
    return MlflowTracker.beside(Store(folder / "out"))


def _run(tracker: MlflowTracker, run: str):  # type: ignore[no-untyped-def]
    from mlflow import MlflowClient

    return MlflowClient(tracker.uri).get_run(run)


def test_a_run_is_found_again_by_its_key(tracker: MlflowTracker) -> None:
    job = tracker.start("job-1", "studio", {"seed": 1})
    child = tracker.start("identity-1", "anna", {"rank": 16}, parent=job)
    other = tracker.start("identity-2", "ben", {"rank": 16}, parent=job)
    assert len({job, child, other}) == 3
    again = pickle.loads(pickle.dumps(tracker))
    assert again.start("job-1", "studio", {"seed": 1}) == job
    assert again.start("identity-1", "anna", {"rank": 99, "steps": 5}, parent=job) == child
    run = _run(tracker, child)
    assert run.data.params == {"rank": "16", "steps": "5"}
    assert run.data.tags["mlflow.parentRunId"] == job
    assert run.info.run_name == "anna"


def test_curves_are_stored_whole_and_not_twice(tracker: MlflowTracker) -> None:
    from mlflow import MlflowClient

    run = tracker.start("curves", "curves", {})
    curve = [(step, 1 / (step + 1)) for step in range(2300)]  # more than one batch
    tracker.log_metrics(run, {"loss": curve[:1200], "similarity": 0.7})
    tracker.log_metrics(run, {"loss": curve})
    history = MlflowClient(tracker.uri).get_metric_history(run, "loss")
    assert sorted((point.step, point.value) for point in history) == curve
    assert _run(tracker, run).data.metrics["similarity"] == 0.7


def test_a_thinned_curve_keeps_its_length_its_end_and_its_mean() -> None:
    curve = [(step, float(step % 7)) for step in range(10, 4010)]
    thin = thinned(curve)
    assert len(thin) == CURVE_POINTS
    assert thin[-1][0] == curve[-1][0]
    assert [step for step, _ in thin] == sorted({step for step, _ in thin})
    assert sum(value for _, value in thin) / len(thin) == pytest.approx(sum(value for _, value in curve) / len(curve))
    assert thinned(curve[:CURVE_POINTS]) == curve[:CURVE_POINTS]
    assert len(thinned(curve[: CURVE_POINTS + 1])) == CURVE_POINTS


def test_the_same_again_costs_no_writing(tracker: MlflowTracker) -> None:
    from sqlalchemy import event

    written: list[str] = []
    metrics = {"loss": [(step, step * 0.5) for step in range(100)], "final_loss": 49.5}
    run = tracker.start("again", "again", {"rank": 16})
    tracker.log_metrics(run, metrics)
    engine = tracker._client._tracking_client.store.engine

    @event.listens_for(engine, "before_cursor_execute")
    def heard(connection, cursor, statement, *rest):  # type: ignore[no-untyped-def]
        written.append(statement.split()[0])

    assert tracker.start("again", "again", {"rank": 16}) == run
    tracker.log_metrics(run, metrics)
    event.remove(engine, "before_cursor_execute", heard)
    assert written
    assert not {"INSERT", "UPDATE", "DELETE"} & set(written)


def test_runs_that_nobody_closed_fail_when_their_job_ends(tracker: MlflowTracker) -> None:
    with tracker.run("closing", "studio", {}) as job:
        runs = [tracker.start(f"closing {number}", str(number), {}, parent=job) for number in range(4)]
        tracker.finish(runs[0], ok=True)
        tracker.finish(runs[1], ok=False)
        other = tracker.start("of another job", "5", {}, parent=tracker.start("another job", "studio", {}))
    statuses = [_run(tracker, run).info.status for run in [*runs, job, other]]
    assert statuses == ["FINISHED", "FAILED", "FAILED", "FAILED", "FINISHED", "RUNNING"]


def test_artifacts_lie_beside_a_database_that_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number, uri in enumerate((f"sqlite:///{tmp_path}/absolute/runs.db", "sqlite:///relative/runs.db")):
        named = pickle.loads(pickle.dumps(MlflowTracker.beside(Store("memory://bucket/out"), uri)))
        named.log_artifact(named.start("job", "job", {}), "note.txt", b"x" * number)
    found = sorted(path.relative_to(tmp_path).parts[:2] for path in tmp_path.rglob("note.txt"))
    assert found == [("absolute", "mlartifacts"), ("relative", "mlartifacts")]


def test_the_last_of_several_final_values_counts(tracker: MlflowTracker) -> None:
    run = tracker.start("finals", "finals", {})
    for accepted in (3, 3, 5):
        tracker.log_metrics(run, {"accepted": accepted})
        time.sleep(0.002)
    assert _run(tracker, run).data.metrics["accepted"] == 5


def test_artifacts_lie_beside_the_output(tracker: MlflowTracker, folder: Path) -> None:
    run = tracker.start("artifacts", "artifacts", {})
    tracker.log_artifact(run, "sheets/step.png", b"old")
    tracker.log_artifact(run, "sheets/step.png", b"new")
    tracker.log_artifact(run, "lora.safetensors", b"weights")
    files = [path for path in (folder / "out" / "mlartifacts").rglob("*") if path.is_file()]
    found = {path.name: path.read_bytes() for path in files}
    assert found == {"step.png": b"new", "lora.safetensors": b"weights"}
    assert (folder / "out" / "mlflow.db").is_file()


@pytest.mark.parametrize(("ok", "status"), [(True, "FINISHED"), (False, "FAILED")])
def test_a_finished_run_says_how_it_ended_and_opens_again(tracker: MlflowTracker, ok: bool, status: str) -> None:
    run = tracker.start(f"end-{ok}", "end", {})
    assert _run(tracker, run).info.status == "RUNNING"
    tracker.finish(run, ok)
    assert _run(tracker, run).info.status == status
    assert tracker.start(f"end-{ok}", "end", {}) == run
    assert _run(tracker, run).info.status == "RUNNING"


_WRITER = """
import sys
import time
from pathlib import Path
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker
tracker = MlflowTracker.beside(Store(sys.argv[1]))
job = tracker.start("job", "job", {"seed": 1})
for number in range(3):
    run = tracker.start(f"{sys.argv[2]}-{number}", "identity", {"number": number}, parent=job)
    tracker.log_metrics(run, {"loss": [(step, step * 0.5) for step in range(200)]})
    tracker.log_artifact(run, "note.txt", b"x")
    tracker.finish(run, True)
"""


def test_several_processes_write_one_database_and_say_nothing(tmp_path: Path) -> None:
    from mlflow import MlflowClient

    tracker = MlflowTracker.beside(Store(tmp_path))
    job = tracker.start("job", "job", {"seed": 1})
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(tmp_path), str(number)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
        )
        for number in range(3)
    ]
    assert [writer.communicate(timeout=120)[0] for writer in writers] == ["", "", ""]
    assert [writer.returncode for writer in writers] == [0, 0, 0]
    client = MlflowClient(tracker.uri)
    experiment = client.get_run(job).info.experiment_id
    runs = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{job}'")
    assert len(runs) == 9
    assert all(len(client.get_metric_history(run.info.run_id, "loss")) == 200 for run in runs)


def test_failures_name_the_uri_and_what_was_tried(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    tracker: Tracker = MlflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db")
    with pytest.raises(StoreError, match=r"tracking sqlite:///.*: cannot start run 'job': .*; check the URI"):
        tracker.start("job", "job", {})


def test_an_object_store_needs_a_tracking_uri() -> None:
    with pytest.raises(SettingsError, match="give --tracking-uri"):
        MlflowTracker.beside(Store("memory://bucket/out"))
    assert MlflowTracker.beside(Store("memory://bucket/out"), "http://localhost:5000").uri == "http://localhost:5000"


def test_erased_runs_leave_neither_rows_nor_files(tracker: MlflowTracker) -> None:
    from mlflow.exceptions import MlflowException

    job = tracker.start("erase 0", "carl", {})  # a job's run is nobody's, whatever it is called
    names = ('anna o\'hara "7"', "carl")
    runs = {name: tracker.start(f"erase {len(name)}", name, {"rank": 1}, parent=job) for name in names}
    for name, run in runs.items():
        tracker.log_artifact(run, "references.png", name.encode())
        tracker.log_metrics(run, {"loss": [(0, 1.0), (1, 0.5)]})
    assert tracker.artifact_root is not None
    second = tracker.start("erase second", "carl/other-1", {}, parent=job)
    of_albums = tracker.runs_of([*names, "nobody"])
    assert {album: set(found) for album, found in of_albums.items()} == {
        names[0]: {runs[names[0]]},
        "carl": {runs["carl"], second},
    }
    for _ in range(2):
        tracker.erase([runs[names[0]]])
    with pytest.raises(MlflowException):
        _run(tracker, runs[names[0]])
    assert _run(tracker, runs["carl"]).data.params == {"rank": "1"}
    contents = [path.read_bytes() for path in tracker.artifact_root.rglob("references.png")]
    assert b"carl" in contents
    assert names[0].encode() not in contents


def test_several_may_erase_a_run_at_once(tracker: MlflowTracker) -> None:
    erasers = 4
    job, together = tracker.start("several", "several", {}), threading.Barrier(erasers, timeout=60)

    def erase(run: str) -> None:
        together.wait()
        tracker.erase([run])

    assert tracker.artifact_root is not None
    with ThreadPoolExecutor(erasers) as pool:
        for number in range(10):
            run = tracker.start(f"several {number}", "dora", {}, parent=job)
            for name in ("references.png", "samples/0.png", "samples/1.png", "samples/2.png"):
                tracker.log_artifact(run, name, b"dora")
            list(pool.map(erase, [run] * erasers))
            assert [*(tracker.artifact_root / run).rglob("*.png")] == []
    assert tracker.runs_of(["dora"]) == {}


@pytest.mark.slow
def test_processes_that_open_a_new_database_at_once_do_it_no_harm(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    script = f"from studiolo.storage.tracking import MlflowTracker; print(MlflowTracker({uri!r}).runs_of(['anna']))"
    openers = [subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE) for _ in range(4)]
    assert [opener.communicate(timeout=120)[0] for opener in openers] == [b"{}\n"] * 4
    assert MlflowTracker(uri).start("job-1", "studio", {})


def test_work_that_can_do_without_its_tracker_goes_on_when_it_is_away(
    tmp_path: Path, tracker: MlflowTracker, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    away, there = LenientTracker(MlflowTracker(f"sqlite:///{tmp_path}/file/mlflow.db")), LenientTracker(tracker)
    assert away.start("identity-1", "anna", {}, parent="x") == ""
    assert "not tracked: tracking sqlite" in caplog.text
    for one in (away, there):
        one.log_metrics("", {"loss": 1.0})
        one.log_artifact("", "sheet.jpg", b"")
        one.finish("", ok=True)
    run = there.start("lenient", "anna", {"rank": 4})
    there.log_metrics(run, {"loss": 0.5})
    there.finish(run, ok=True)
    found = _run(tracker, run)
    assert (found.info.status, found.data.metrics["loss"]) == ("FINISHED", 0.5)
    there.finish("gone", ok=False)


@pytest.mark.parametrize(
    "uri", ["odd://anna:SECRET@x.org/db", "odd://anna:a@SECRET@x.org", "odd://x.org/?password=SECRET&a=b"]
)
def test_messages_hold_no_password(uri: str) -> None:
    with pytest.raises(StoreError, match=r"x\.org") as raised:
        MlflowTracker(uri).start("key", "name", {})
    assert "SECRET" not in str(raised.value)
    assert "anna" not in str(raised.value)
