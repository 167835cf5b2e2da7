"""Experiment tracking: one parent run a job, a child run an identity, found again by its key.

The only module that imports MLflow, and only when a run is opened. Any process may write: a tracker is
pickled to the workers, and each makes its own client. One sqlite database serves the processes of one
machine; across machines give the URI of a tracking server or a PostgreSQL database.
"""

import hashlib
import logging
import os
import re
import sqlite3
import tempfile
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from functools import cached_property
from pathlib import Path, PurePosixPath
from statistics import fmean
from typing import TYPE_CHECKING, Any, Protocol

import filelock

from studiolo.errors import SettingsError, StoreError
from studiolo.identities.artifacts import album_of
from studiolo.storage.store import Store

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Metric

EXPERIMENT = "studiolo"
CURVE_POINTS = 100
"""What a curve of thousands of steps is thinned to: as many as a chart shows."""

_UNIT_TAG = "mlflow.studiolo."
"""A run's key is in the name of a tag, because MLflow's tables are indexed by tag names and not by values: a search for
a value looks at all runs. Tags of MLflow's own prefix are not shown as columns."""
_NO_PARENT = "job"
_PARENT_TAG = "mlflow.parentRunId"
_SQLITE = "sqlite:///"
_SECRETS = re.compile(r"(?<=://)[^/\s]*@|(?<=[?&]password=)[^&\s]*")
_OPENING = ".mlflow.tmp"
"""Locked while a database file is opened: MLflow makes its tables then, and two processes at once leave it in ruins."""
_METRICS_PER_BATCH = 1000  # the service's limits for one call
_PARAMS_PER_BATCH = 100
_PATIENCE_S = 60.0  # with others who read or write the database
_TRIES = 100
"""At deleting a run's files: more than files that others delete at the same moment."""

Curve = Sequence[tuple[int, float]]
"""(step, value) pairs."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as parameters of a run, `section.name: value`."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        found |= flat(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return found


def thinned(curve: Curve, points: int = CURVE_POINTS) -> list[tuple[int, float]]:
    """`curve` as at most `points` pairs: means of as many stretches of about equal length, each at its last step."""
    if len(curve) <= points:
        return list(curve)
    ends = [len(curve) * (number + 1) // points for number in range(points)]
    stretches = [curve[first:end] for first, end in zip([0, *ends], ends, strict=False)]
    return [(stretch[-1][0], fmean(value for _, value in stretch)) for stretch in stretches]


class Tracker(Protocol):
    """What a job needs of experiment tracking. A run is named by its id, a plain string."""

    def start(self, key: str, name: str, params: Mapping[str, object], parent: str | None = None) -> str:
        """Open the run of the unit `key`, the same one when it was opened before; its id."""

    def log_metrics(self, run: str, metrics: Mapping[str, float | Curve]) -> None:
        """Add final values (the last one counts) or whole curves (steps already there are skipped)."""

    def log_artifact(self, run: str, path: str, content: bytes) -> None:
        """Attach `content` as the file `path` (relative, `/`), replacing one of that name."""

    def finish(self, run: str, ok: bool) -> None:
        """Close the run as finished or failed."""


class MlflowTracker:
    """`Tracker` in the MLflow store at `uri`; artifacts go to `artifact_root`, else to the server.

    Failures are `StoreError`s.
    """

    def __init__(self, uri: str, artifact_root: Path | None = None) -> None:
        self.uri = uri
        self.artifact_root = artifact_root

    @classmethod
    def beside(cls, store: Store, uri: str | None = None) -> "MlflowTracker":
        """The tracker at `uri`, else of `mlflow.db` in the local folder of `store`; beside a database file lies
        `mlartifacts/`.

        Raises `SettingsError` for an object store without a `uri`: sqlite needs a disk.
        """
        if uri is not None and not uri.startswith(_SQLITE):
            return cls(uri)
        database = store.local_path("mlflow.db") if uri is None else Path(uri.removeprefix(_SQLITE)).absolute()
        if database is None:
            raise SettingsError(
                f"tracking: got the output {store.url}, beside which no database can lie, wanted one on this disk or a"
                " tracking URI (a server or PostgreSQL); give --tracking-uri, or set tracking_uri in the settings file"
            )
        return cls(f"{_SQLITE}{database}", database.parent / "mlartifacts")

    def __getstate__(self) -> dict[str, object]:
        return {"uri": self.uri, "artifact_root": self.artifact_root}  # clients stay in their process

    @contextmanager
    def run(self, key: str, name: str, params: Mapping[str, object]) -> Iterator[str]:
        """The id of a run that is closed at the end, as failed when anything is raised inside.

        Of its children those fail that are open then: of an identity that ended its worker nobody closes the run.
        """
        run = self.start(key, name, params)
        ok = False
        try:
            yield run
            ok = True
        finally:
            self._fail_children(run)
            self.finish(run, ok)

    def start(self, key: str, name: str, params: Mapping[str, object], parent: str | None = None) -> str:
        """Open the run of the unit `key`, the same one when it was opened before; its id.

        Parameters the run already has are kept, the others are added.
        """
        with self._guard(f"start run {name!r}"):
            from mlflow.entities import Param

            unit, where = f"{_UNIT_TAG}{hashlib.sha256(key.encode()).hexdigest()}", parent or _NO_PARENT
            found = self._client.search_runs([self._experiment], f"tags.`{unit}` = '{where}'", max_results=1)
            if found:
                run, known = found[0].info.run_id, found[0].data.params
                if found[0].info.status != "RUNNING":
                    self._client.update_run(run, status="RUNNING")
            else:
                tags = {unit: where} | ({_PARENT_TAG: parent} if parent else {})
                run = self._client.create_run(self._experiment, tags=tags, run_name=name).info.run_id
                known = {}
            missing = [Param(param, str(value)) for param, value in params.items() if param not in known]
            for first in range(0, len(missing), _PARAMS_PER_BATCH):
                self._client.log_batch(run, params=missing[first : first + _PARAMS_PER_BATCH])
            return str(run)

    def log_metrics(self, run: str, metrics: Mapping[str, float | Curve]) -> None:
        """Add final values (step 0, a changed one replaces the last) or whole curves, in two calls when they are new.

        Steps a curve already has are skipped, so that work done again after a crash does not double it.
        """
        with self._guard(f"log metrics of run {run}"):
            known = self._client.get_run(run).data.metrics
            points = [point for name, value in metrics.items() for point in self._new_points(run, name, value, known)]
            for first in range(0, len(points), _METRICS_PER_BATCH):
                self._client.log_batch(run, metrics=points[first : first + _METRICS_PER_BATCH])

    def log_artifact(self, run: str, path: str, content: bytes) -> None:
        """Attach `content` as the file `path` (relative, `/`), replacing one of that name."""
        place = PurePosixPath(path)
        with self._guard(f"attach {path!r} to run {run}"), tempfile.TemporaryDirectory() as folder:
            copy = Path(folder) / place.name
            copy.write_bytes(content)
            self._client.log_artifact(run, str(copy), str(place.parent) if len(place.parts) > 1 else None)

    def finish(self, run: str, ok: bool) -> None:
        """Close the run as finished or failed."""
        with self._guard(f"finish run {run}"):
            self._client.set_terminated(run, status="FINISHED" if ok else "FAILED")

    def runs_of(self, albums: Collection[str] | None = None) -> dict[str, list[str]]:
        """Ids of the runs of each album's people, deleted ones included; of none there is no entry. None: all albums.

        Names hold every character and the service's filters do not, so all runs are looked at.
        """
        from mlflow.entities import ViewType

        found: dict[str, list[str]] = {}
        with self._guard("look for runs"):
            page: str | None = None
            while True:
                runs = self._client.search_runs([self._experiment], "", ViewType.ALL, page_token=page)
                for run in runs:
                    album = album_of(run.info.run_name or "")
                    if (albums is None or album in albums) and _PARENT_TAG in run.data.tags:
                        found.setdefault(album, []).append(run.info.run_id)
                page = runs.token
                if not page:
                    return found

    def erase(self, runs: Iterable[str]) -> None:
        """Delete runs for good, their files first, and what a database file still holds of them; one that is gone
        already is no error.

        A tracking server keeps what it calls deleted until its own `mlflow gc` runs; there the name goes at once.
        """
        from mlflow.exceptions import MlflowException

        for run in runs:
            with self._guard(f"erase run {run}"):
                try:
                    found = self._client.get_run(run)
                    _delete_files(found.info.artifact_uri)
                    forget = getattr(self._client._tracking_client.store, "_hard_delete_run", None)
                    if forget is not None:  # what `mlflow gc` does
                        forget(run)
                    elif found.info.lifecycle_stage == "active":
                        self._client.update_run(run, name="erased")
                        self._client.delete_run(run)
                except MlflowException as error:  # it may go at any time, if others erase it, too
                    if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                        raise
        if self.uri.startswith(_SQLITE):
            file = self.uri.removeprefix(_SQLITE)
            with self._guard("compact the database"), closing(sqlite3.connect(file, timeout=_PATIENCE_S)) as base:
                base.execute("VACUUM")  # deleted rows lie in the file until their pages are written over

    def _fail_children(self, run: str) -> None:
        with self._guard(f"close what is open of run {run}"):
            left = f"tags.`{_PARENT_TAG}` = '{run}' and attributes.status = 'RUNNING'"
            while children := self._client.search_runs([self._experiment], left):
                for child in children:
                    self.finish(child.info.run_id, ok=False)

    def _new_points(self, run: str, name: str, value: float | Curve, known: Mapping[str, float]) -> Iterator["Metric"]:
        """What is not there yet; `known` are the run's latest values."""
        from mlflow.entities import Metric

        now_ms = int(time.time() * 1000)
        if isinstance(value, int | float):
            if known.get(name) != value:
                yield Metric(name, float(value), now_ms, 0)
            return
        steps = {point.step for point in self._client.get_metric_history(run, name)} if name in known else set()
        for step, number in value:
            if step not in steps:
                yield Metric(name, float(number), now_ms, int(step))

    @cached_property
    def _client(self) -> "MlflowClient":
        _silence()
        from mlflow import MlflowClient

        if not self.uri.startswith(_SQLITE):
            return MlflowClient(self.uri)
        folder = Path(self.uri.removeprefix(_SQLITE)).parent
        folder.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(folder / _OPENING):
            return MlflowClient(self.uri)

    @cached_property
    def _experiment(self) -> str:
        from mlflow.exceptions import MlflowException

        experiment = self._client.get_experiment_by_name(EXPERIMENT)
        if experiment is None:
            location = self.artifact_root.resolve().as_uri() if self.artifact_root else None
            try:
                return str(self._client.create_experiment(EXPERIMENT, artifact_location=location))
            except MlflowException:
                experiment = self._client.get_experiment_by_name(EXPERIMENT)  # another process was first
                if experiment is None:
                    raise
        return str(experiment.experiment_id)

    @contextmanager
    def _guard(self, doing: str) -> Iterator[None]:
        try:
            _silence()
            yield
        except Exception as error:  # the service, its database and its transport each raise their own classes
            reason = str(error).strip().split("\n")[0] or type(error).__name__
            advice = "check the URI and that its server or folder can be written"
            raise StoreError(_masked(f"tracking {self.uri}: cannot {doing}: {reason}; {advice}")) from error


class LenientTracker:
    """`tracker`, for work that goes on without it: what it cannot do is logged, and of a run that it could not open it
    hears nothing more.
    """

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def start(self, key: str, name: str, params: Mapping[str, object], parent: str | None = None) -> str:
        """The run's id, empty when it could not be opened."""
        with self._passing_over():
            return self.tracker.start(key, name, params, parent)
        return ""

    def log_metrics(self, run: str, metrics: Mapping[str, float | Curve]) -> None:
        """As `Tracker` says."""
        with self._passing_over():
            if run:
                self.tracker.log_metrics(run, metrics)

    def log_artifact(self, run: str, path: str, content: bytes) -> None:
        """As `Tracker` says."""
        with self._passing_over():
            if run:
                self.tracker.log_artifact(run, path, content)

    def finish(self, run: str, ok: bool) -> None:
        """As `Tracker` says."""
        with self._passing_over():
            if run:
                self.tracker.finish(run, ok)

    @contextmanager
    def _passing_over(self) -> Iterator[None]:
        try:
            yield
        except StoreError as error:
            logging.getLogger(__name__).warning("not tracked: %s", error)


def _delete_files(uri: str) -> None:
    """Delete a run's files, from the start again each time somebody else deletes one of them under our hands."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    repository = get_artifact_repository(uri)
    for left in reversed(range(_TRIES)):
        try:
            return repository.delete_artifacts()
        except FileNotFoundError:
            if not left:
                raise


def _masked(text: str) -> str:
    """`text` without the users and passwords of URLs in it: messages end in logs."""
    return _SECRETS.sub("***", text)


def _silence() -> None:
    """Keep MLflow from talking to its makers, into the progress panel and into the workers' logs."""
    for name, value in {
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
        "MLFLOW_LOGGING_LEVEL": "ERROR",
        "GIT_PYTHON_REFRESH": "quiet",
    }.items():
        os.environ.setdefault(name, value)
    for name in ("mlflow", "alembic"):
        logging.getLogger(name).setLevel(logging.ERROR)
