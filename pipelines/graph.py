"""From a table to a stream of rows through one pool of warm actors."""

import gc
import logging
import math
import os
import traceback
import uuid
import warnings
from collections.abc import Generator, Iterable, Iterator
from contextlib import closing, suppress
from itertools import chain
from pathlib import Path
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset
from ray.data.exceptions import ExecutionTimeoutError

from pipelines.guard import ATTEMPTS, GIVEN_UP_IN_A_ROW, NO_PROGRESS_S, Actor, Guard
from pipelines.plan import Stage
from studiolo.albums.records import Reason
from studiolo.errors import StudioloError
from studiolo.storage.attempts import Attempts
from studiolo.storage.store import Store

ROOT = Path(__file__).resolve().parent.parent
"""The application's root: workers import `actors` and `pipelines` from here, wherever the driver was started."""


class OnWorker:
    """Ray's side of an actor: made on the worker, where it opens the actor that the driver built, under guard."""

    def __init__(self, actor: Actor, attempts: Attempts, stage: Stage) -> None:
        self.guard = Guard(actor, attempts, stage.limit_s, stage.memory_mib, stage.together)
        self.guard.open(ray.get_runtime_context().get_actor_id())  # a restarted worker keeps its id

    def __call__(self, batch: pa.Table) -> pa.Table:
        """One batch through the actor."""
        return self.guard(batch)


def stream(tables: pa.Table | Iterable[pa.Table], actor: Actor, stage: Stage, store: Store) -> Iterator[dict[str, Any]]:
    """Rows of `actor(row)` for every row of `tables`, in whatever order they are done; attempts are marked in `store`.

    A row is a unit of work (an album, an identity, an order), so each is a block and a batch of its own: one slow album
    holds up nobody, and no two share a failure. One that ends its workers comes out as `actor.crashed` says. Of several
    tables each is made and worked on when the one before is done, with workers of its own: so ten thousand rows are
    never all in memory. Raises `StudioloError` when a worker raises, cannot load its models, or when
    `GIVEN_UP_IN_A_ROW` units crash.
    """
    tables = iter([tables] if isinstance(tables, pa.Table) else tables)
    first = next((table for table in tables if table.num_rows), None)
    if first is None:
        return
    attempts = Attempts(store, stage.name, run=uuid.uuid4().hex)
    DataContext.get_current().execution_no_progress_timeout_s = NO_PROGRESS_S + (1 + ATTEMPTS) * stage.limit_s
    given_up = 0
    try:
        with attempts.kept():
            for table in chain([first], tables):
                with closing(_done(table, actor, attempts, stage)) as units:
                    for rows in units:
                        crashed = [row for row in rows if row.get("reason") == Reason.CRASHED_WORKER]
                        given_up = given_up + 1 if crashed else 0
                        if given_up >= GIVEN_UP_IN_A_ROW:
                            raise StudioloError(_not_working(stage, given_up, crashed[0]))
                        yield from rows
    except (ray.exceptions.RayError, ExecutionTimeoutError) as error:
        _forget_workers(error)
        raise StudioloError(f"stage {stage.name!r}: a worker failed: {_told_by_ray(error)}") from error


def _done(
    table: pa.Table, actor: Actor, attempts: Attempts, stage: Stage
) -> Generator[list[dict[str, Any]], None, None]:
    """The rows of each unit of one graph, which is at an end, and its slots free, when the generator is, also one that
    is closed.
    """
    blocks = [table.slice(index, 1) for index in range(table.num_rows)]
    results = _through_pool(ray.data.from_arrow(blocks), (actor, attempts, stage), stage)
    try:
        for batch in results.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
            yield batch.to_pylist()
    finally:
        # An execution that is left early ends when Python forgets it, and an error that is kept remembers it. Ray 2.60
        # has no public way to end it.
        results._synchronize_progress_bar()


def _forget_workers(error: BaseException) -> None:
    """After an error Ray only drops its workers: each lives, and keeps its slots, until nothing remembers it.

    The frames that the error came through do, and those that called them. Whoever keeps the error keeps them, and what
    is left then are cycles, which a process that waits does not look for by itself.
    """
    left: list[BaseException | None] = [error]
    seen: list[BaseException] = []
    while left:
        one = left.pop()
        if one is None or any(one is other for other in seen):
            continue
        seen.append(one)
        left += [one.__cause__, one.__context__]
        for frame, _ in traceback.walk_tb(one.__traceback__):
            for caller, _ in traceback.walk_stack(frame):
                with suppress(RuntimeError):  # it is at work
                    caller.clear()
    gc.collect()


def _told_by_ray(error: Exception) -> str:
    """The worker's own exception, the last line of Ray's account of it, before the advice that Ray appends."""
    *before, last = str(error).split("The above exception was the direct cause of the following exception:")
    account = before[-1] if before and "UserCodeException" in last else last
    return account.strip().splitlines()[-1]


def _not_working(stage: Stage, given_up: int, row: dict[str, Any]) -> str:
    return (
        f"stage {stage.name!r}: {given_up} units in a row ended their workers ({row.get('detail')}), and none was"
        f" finished between them; check the machine's memory and {stage.name}.memory_limit_mib, then run the same"
        " command again"
    )


def _through_pool(rows: Dataset, arguments: tuple[Actor, Attempts, Stage], stage: Stage) -> Dataset:
    """Workers are restarted, and units sent again, without an end: the bounds are those of `pipelines.guard`.

    Ray's own count the deaths of a worker, whichever units it met, and the retries of a unit, also when it only waited
    at a worker that died over another.
    """
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to set restarts, and no named parameter for it yet; the pin ends before 2.64 does.
        warnings.filterwarnings("ignore", message=".*ray_remote_args.*", category=DeprecationWarning)
        return rows.map_batches(
            OnWorker,
            fn_constructor_args=arguments,
            batch_size=None,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(
                size=stage.actors,
                max_tasks_in_flight_per_actor=stage.together + stage.queued,
                max_concurrent_calls_per_actor=stage.together,
                enable_true_multi_threading=stage.together > 1,
            ),
            num_cpus=stage.cpus_per_actor,
            max_restarts=-1,
            max_task_retries=-1,
        )


def start(cpus: int | None, object_store_mib: int) -> float:
    """Start a local cluster of `cpus`, or join the one at `RAY_ADDRESS` (or already joined); returns its CPU slots.

    A local cluster takes no token and writes none: nothing outside this machine reaches it. A cluster that is joined
    counts with `cpus` when that is more than it has: it may grow to as many.
    """
    address, local = os.environ.get("RAY_ADDRESS") or "local", is_local()
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
    context.max_errored_blocks = 0
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    found = float(ray.cluster_resources().get("CPU", 0.0))
    return found if local else max(found, float(cpus or 0))


def is_local() -> bool:
    """Whether the cluster is this process's own: it never grows, and nobody else takes of it."""
    return (os.environ.get("RAY_ADDRESS") or "local") == "local"


def gpus() -> float:
    """GPUs that may be planned with: those of the local cluster; one that is joined may grow."""
    return float(ray.cluster_resources().get("GPU", 0.0)) if is_local() else math.inf


def stop() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()
