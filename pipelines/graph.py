"""From a table to a stream of rows through one pool of warm actors."""

import logging
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError

from pipelines.plan import Stage
from studiolo.errors import StudioloError

ROOT = Path(__file__).resolve().parent.parent
"""The application's root: workers import `actors` and `pipelines` from here, wherever the driver was started."""

MAX_RESTARTS = 2
"""A pool restarts a dead worker this often; Ray's own default has no end."""

NO_PROGRESS_S = 6 * 3600
"""A graph of which no unit ends for so long is an error, not a wait; a long training is none."""


class Actor(Protocol):
    """What `actors/` holds: settings in the constructor, weights in `open`, one batch a call."""

    def open(self, device: str = "cpu") -> None:
        """Load weights; runs once, on the worker."""

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Annotate one batch of rows."""
        ...


class OnWorker:
    """Ray's side of an actor: made on the worker, where it opens the actor that the driver built."""

    def __init__(self, actor: Actor) -> None:
        self.actor = actor
        actor.open()

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One batch through the actor."""
        return self.actor(batch)


def stream(table: pa.Table, actor: Actor, stage: Stage) -> Iterator[dict[str, Any]]:
    """Rows of `actor(row)` for every row of `table`, in whatever order they are done.

    A row is a unit of work (an album, an identity, an order), so each is a block and a batch of its own: one slow album
    holds up nobody, and no two share a failure. Raises `StudioloError` when workers keep failing.
    """
    if table.num_rows == 0:
        return
    blocks = [table.slice(index, 1) for index in range(table.num_rows)]
    results = _through_pool(ray.data.from_arrow(blocks), actor, stage)
    try:
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield from batch.to_pylist()
    except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
        raise StudioloError(f"stage {stage.name!r}: a worker failed: {_told_by_ray(error)}") from error


def _told_by_ray(error: Exception) -> str:
    """The worker's own exception, the last line of Ray's account of it, before the advice that Ray appends."""
    *before, last = str(error).split("The above exception was the direct cause of the following exception:")
    account = before[-1] if before and "UserCodeException" in last else last
    return account.strip().splitlines()[-1]


def _through_pool(rows: Dataset, actor: Actor, stage: Stage) -> Dataset:
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to bound restarts, and no named parameter for it yet; the pin ends before 2.64 does.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*", category=DeprecationWarning)
        return rows.map_batches(
            OnWorker,
            fn_constructor_args=(actor,),
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=stage.actors, max_tasks_in_flight_per_actor=1 + stage.queued),
            num_cpus=stage.cpus_per_actor,
            max_restarts=MAX_RESTARTS,
            max_task_retries=MAX_RESTARTS,
        )


def start(cpus: int | None, object_store_mib: int) -> float:
    """Start a local cluster of `cpus`, or join the one at `RAY_ADDRESS` (or already joined); returns its CPU slots.

    A local cluster takes no token and writes none: nothing outside this machine reaches it. A cluster that is joined
    counts with `cpus` when that is more than it has: it may grow to as many.
    """
    address = os.environ.get("RAY_ADDRESS") or "local"
    local = address == "local"
    if not ray.is_initialized():
        if local:
            os.environ.setdefault("RAY_AUTH_MODE", "disabled")
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
        os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        ray.init(
            address,
            num_cpus=cpus if local else None,
            object_store_memory=object_store_mib * 2**20 if local else None,
            include_dashboard=False if local else None,
            logging_level=logging.WARNING,
            log_to_driver=False,
        )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_S
    context.max_errored_blocks = 0
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    found = float(ray.cluster_resources().get("CPU", 0.0))
    return found if local else max(found, float(cpus or 0))


def stop() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
