"""Is the tracking still usable at ten thousand identities? What the last thousand cost beside the first thousand.

Each identity is logged as the trainer logs one: a run found or opened by its key, its parameters, a curve of 800 steps
thinned, two final values, two small sheets, the end. One process, one SQLite database; processor time counts, because
neighbours on the machine change the clock. Then the list that MLflow's page of runs asks for, and the look-up of a run
by its key and by the value of a tag, with all runs in the database.

    python -m benchmarks.tracking [--quick] [--identities N]
"""

import argparse
import io
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image
from sqlalchemy import event

from benchmarks.report import write
from studiolo.settings import FaceLoraSettings
from studiolo.storage.store import Store
from studiolo.storage.tracking import MlflowTracker, thinned

ROUNDS = 10
"""Parts that are compared: the first and the last."""

PAGE = 100
"""Runs that MLflow's page of runs asks for at once."""


def main() -> None:
    """Log so many identities, ask for what people ask for, report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="100 identities: shows that it runs")
    parser.add_argument("--identities", type=int, default=10_000)
    arguments = parser.parse_args()
    count = 100 if arguments.quick else arguments.identities
    with tempfile.TemporaryDirectory() as folder:
        tracker = MlflowTracker.beside(Store(folder))
        job = tracker.start("job", "studio", {})
        log_identity(tracker, job, "warming", 0)  # makes the database's tables
        with statements(tracker) as executed:
            log_identity(tracker, job, "counted", 1)
        cpu_s, wall_s = [], []
        for part in range(ROUNDS):
            cpu, wall = time.process_time(), time.perf_counter()
            for number in range(part * count // ROUNDS, (part + 1) * count // ROUNDS):
                log_identity(tracker, job, f"{number:08d}", number)
            cpu_s.append(time.process_time() - cpu)
            wall_s.append(time.perf_counter() - wall)
        figures = {
            "identities": count,
            "cpu_s_by_tenth": [round(value, 2) for value in cpu_s],
            "wall_s_by_tenth": [round(value, 2) for value in wall_s],
            "sql_statements_per_identity": len(executed),
            "list_page_cpu_s": round(cpu_seconds(lambda: list_page(tracker)), 4),
            "look_up_cpu_s": round(cpu_seconds(lambda: tracker.start("counted", "counted", {}, job)), 4),
            "search_by_value_cpu_s": round(cpu_seconds(lambda: search_by_value(tracker)), 4),
            "database_mb": round(os.path.getsize(Path(folder) / "mlflow.db") / 1e6, 1),
            "artifacts_mb": round(sum(path.stat().st_size for path in Path(folder).rglob("*.jpg")) / 1e6, 1),
            "load_average": [round(value, 1) for value in os.getloadavg()],
        }
    name = "tracking-quick" if arguments.quick else "tracking"
    write(name, {"last_tenth_over_first": round(cpu_s[-1] / cpu_s[0], 3)}, figures)


def log_identity(tracker: MlflowTracker, job: str, key: str, number: int) -> None:
    """One identity as `actors.trainer.Trainer` logs it."""
    random = np.random.default_rng(number)
    settings = FaceLoraSettings()
    curve = [(step, float(value)) for step, value in enumerate(random.uniform(0.01, 0.05, settings.steps))]
    run = tracker.start(key, f"identity-{key}", {**settings.model_dump(), "photos": 5}, job)
    tracker.log_metrics(run, {"loss": thinned(curve), "final_loss": curve[-1][1], "seconds": 100.0 + number})
    for name in ("references.jpg", "samples.jpg"):
        tracker.log_artifact(run, name, SHEET)
    tracker.finish(run, ok=True)


def list_page(tracker: MlflowTracker) -> None:
    """The first page of runs, the newest first, as MLflow's page shows it."""
    order = ["attributes.start_time DESC"]
    found = tracker._client.search_runs([tracker._experiment], max_results=PAGE, order_by=order)
    if len(found) != PAGE:
        raise RuntimeError(f"got {len(found)} runs, wanted {PAGE}")


def search_by_value(tracker: MlflowTracker) -> None:
    """One run by the value of a tag: what a look-up would cost without the key in the tag's name."""
    named = "tags.`mlflow.runName` = 'identity-counted'"
    (_,) = tracker._client.search_runs([tracker._experiment], named, max_results=1)


def cpu_seconds(work: Callable[[], object], rounds: int = 7) -> float:
    """Median over `rounds` of the processor time of `work`, after one round that counts not."""
    taken = []
    for _ in range(rounds + 1):
        started = time.process_time()
        work()
        taken.append(time.process_time() - started)
    return median(taken[1:])


@contextmanager
def statements(tracker: MlflowTracker) -> Iterator[list[str]]:
    """The SQL statements that are executed inside."""
    executed: list[str] = []
    engine = tracker._client._tracking_client.store.engine

    def heard(connection: object, cursor: object, statement: str, *rest: object) -> None:
        executed.append(statement)

    event.listen(engine, "before_cursor_execute", heard)
    yield executed
    event.remove(engine, "before_cursor_execute", heard)


def _sheet() -> bytes:
    buffer = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (32, 80, 3), np.uint8)
    Image.fromarray(noise).resize((640, 256)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


SHEET = _sheet()

if __name__ == "__main__":
    main()
