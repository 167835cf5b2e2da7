"""Face-LoRAs by one Ray Train group: each worker trains a pack, and pulls the next identity whenever a slot falls free.

One `DataParallelTrainer` for the whole job: a `fit` costs seconds. It is no `TorchTrainer`, which joins its workers in
a process group of torch's: ours share no tensor. No `train.report` in the loop: it is a barrier over all workers. What
is worth keeping lies in our store (checkpoints, results, the ledger), and the queue is an actor of the driver's, see
`pipelines.leases`.
"""

import logging
import math
import os
import tempfile
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

import ray
import ray.train
from ray.train.collective import broadcast_from_rank_zero
from ray.train.v2.api.callback import UserCallback
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipelines.graph import is_local
from pipelines.guard import ATTEMPTS, NO_PROGRESS_S, OPEN_LIMIT_S
from pipelines.leases import Leases
from pipelines.watchdog import Watchdog
from studiolo.errors import PlanError, StudioloError
from studiolo.settings import FaceLoraSettings
from studiolo.storage.attempts import Attempts

if TYPE_CHECKING:  # the queue's and the controller's processes do without torch and diffusers
    from actors.trainer import Trainer

Row = dict[str, Any]

STAGE = "face_lora"
POLL_S = 0.25
"""The driver looks for new rows so often."""
END_S = 60.0
"""So long the group may take to end when all rows are there, or none is wanted any more."""
STARTS = 20
"""So often Ray may fail to place the group, for a minute each, or to start its processes; then the job ends."""
LOCAL_START_S = 300.0
"""So long the group may take to be at work, at first or after a death, where all CPUs are there from the beginning."""
JOINED_START_S = 60.0 * STARTS
"""The same on a cluster that is joined: it may have to start machines first."""
LOOK_S = 2.0
"""A worker asks so often whether its work is still wanted."""
LOOKING = 8
"""Threads that look for what an earlier run finished; each reads an identity's photos."""

_ENVIRONMENT = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",  # it would look every 2 s, at the start and the end as well
    "RAY_CHDIR_TO_TRIAL_DIR": "0",  # paths in settings are relative to where the job was started
    "RAY_TRAIN_METRICS_ENABLED": "0",
}


@dataclass(frozen=True)
class Group:
    """How many training workers, and what each takes."""

    least: int
    most: int
    cpus: int
    accelerator: bool
    limit_s: float
    memory_mib: int | None

    @property
    def num_workers(self) -> int | tuple[int, int]:
        """As Ray Train wants it: a fixed number, or least and most."""
        return self.most if self.least == self.most else (self.least, self.most)

    @property
    def wants(self) -> str:
        """In words, what Ray is asked for."""
        number = str(self.most) if self.least == self.most else f"{self.least} to {self.most}"
        return f"{number} workers of {self.cpus} CPUs{' and a GPU' if self.accelerator else ''} each"

    @property
    def patience_s(self) -> float:
        """Longest that may pass until an identity comes out: one may end a worker in company and `ATTEMPTS` alone."""
        return NO_PROGRESS_S + (1 + ATTEMPTS) * self.limit_s


def fit_group(settings: FaceLoraSettings, cpus: float, identities: int, gpus: float = math.inf) -> Group:
    """No more workers than there are identities for their slots, and at most what `cpus` and `gpus` of the cluster
    allow.

    Raises `PlanError` with the numbers when not even the least fit: Ray Train would wait for ever.
    """
    least, most = settings.workers
    possible = int((cpus + 1e-6) // settings.cpus_per_worker)
    if possible < least:
        raise PlanError(
            f"stage {STAGE!r} does not fit: {least} workers x {settings.cpus_per_worker} CPUs = "
            f"{least * settings.cpus_per_worker}, and the cluster has {cpus:g}; lower {STAGE}.workers or"
            f" {STAGE}.cpus_per_worker, or give more CPUs"
        )
    if settings.accelerator and gpus < least:
        raise PlanError(
            f"stage {STAGE!r} does not fit: {least} workers with a GPU each, and the cluster has {gpus:g}; lower"
            f" {STAGE}.workers, give more GPUs, or set {STAGE}.accelerator to false"
        )
    if settings.accelerator:
        possible = int(min(possible, gpus))
    useful = max(1, -(-identities // (settings.slots or 1)))
    most = min(most, possible, useful)
    return Group(
        min(least, most),
        most,
        settings.cpus_per_worker,
        settings.accelerator,
        settings.time_limit_s,
        settings.memory_limit_mib,
    )


def train(
    people: Iterable[Row], actor: "Trainer", group: Group, watch: Callable[[float], None] = lambda under_way: None
) -> Iterator[Row]:
    """A row of `actor` for every identity of `people`, as they are done; first those that an earlier run finished.

    `watch` is told again and again how much is done of those in training, in identities.

    An identity that ends its workers comes out as `actor.crashed` says. Raises `StudioloError` when a worker raises,
    cannot load its models, when too many identities in a row crash, or when the workers find no place in time.
    """
    left = []
    rows = map(actor.needed, people)
    with ThreadPoolExecutor(LOOKING) as pool:
        while some := list(islice(rows, 4 * LOOKING)):  # a pool's own `map` would read all people at once
            for row, found in zip(some, pool.map(actor.done, some), strict=True):
                if found is None:
                    left.append(row)
                else:
                    yield found
    if not left:
        return
    attempts = Attempts(actor.store, STAGE, run=uuid.uuid4().hex)
    with attempts.kept():
        # Here and not on any node: one that is taken away, a spot instance, may end workers and not the job.
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
        remote = ray.remote(num_cpus=0, scheduling_strategy=here)
        queue = remote(Leases).remote([(actor.unit(row), row) for row in left], attempts)
        runner = remote(_Runner).remote(joined=not is_local())
        fitted = runner.fit.remote(queue, [ray.put(actor)], group)
        try:
            for row, lost in _rows(queue, fitted, len(left), group, watch):
                yield row if lost is None else actor.crashed(row, lost).to_pylist()[0]
        finally:
            with suppress(ray.exceptions.RayError):  # the cluster itself may be gone
                queue.fail.remote("the driver has left")
                ray.wait([fitted], timeout=END_S)  # a controller that is killed leaves its CPUs taken
            ray.kill(runner)
            ray.kill(queue)


def _rows(
    queue: Any, fitted: Any, wanted: int, group: Group, watch: Callable[[float], None]
) -> Iterator[tuple[Row, str | None]]:
    """The outcomes as they come into the queue, until all are there, the group has ended or could not begin, or none
    came for its `patience_s`; with a word of why, the rows that were given up.
    """
    ended, last_s, start_s = False, time.monotonic(), LOCAL_START_S if is_local() else JOINED_START_S
    while wanted:
        try:
            asked = (queue.collect.remote(), queue.starting_s.remote(), queue.under_way.remote())
            (rows, lost, fatal), starting_s, under_way = ray.get(list(asked))
            watch(under_way)
            if fatal:
                raise StudioloError(f"stage {STAGE!r}: a worker failed: {fatal}")
            if rows or lost:
                last_s = time.monotonic()
            elif starting_s > start_s:
                raise StudioloError(_no_place(group, start_s))
            elif time.monotonic() - last_s > group.patience_s:
                raise StudioloError(
                    f"stage {STAGE!r}: no identity was finished in {group.patience_s:g} s; look at the workers' logs,"
                    " then run the same command again"
                )
            wanted -= len(rows) + len(lost)
            yield from ((row, None) for row in rows)
            yield from lost
            if wanted and ended:
                raise StudioloError(f"stage {STAGE!r}: the workers ended with {wanted} identities left; run again")
            ended = bool(ray.wait([fitted], timeout=POLL_S)[0]) if wanted else True
            if ended and wanted:
                ray.get(fitted)
        except ray.exceptions.RayError as error:
            raise StudioloError(f"stage {STAGE!r}: a worker failed: {str(error).strip().splitlines()[-1]}") from error


def _no_place(group: Group, start_s: float) -> str:
    all_cpus, free_cpus = (found.get("CPU", 0.0) for found in (ray.cluster_resources(), ray.available_resources()))
    return (
        f"stage {STAGE!r}: its workers were not at work after {start_s:g} s: it wants {group.wants}, and {free_cpus:g}"
        f" of the cluster's {all_cpus:g} CPUs are free. If that is too few, end what takes the others or lower"
        f" {STAGE}.workers; else look at the workers' logs. Then run the same command again"
    )


class _Blame(UserCallback):
    """Tells the queue which workers of the group have died; the others are ended with them and are not to blame.

    Nor are those whose node was taken away: Ray Train tells of them at every look until the node is gone.
    """

    def __init__(self, queue: Any) -> None:
        self.queue = queue

    def after_exception(self, run_context: Any, worker_exceptions: dict[int, Exception]) -> None:
        ranks = sorted(rank for rank, error in worker_exceptions.items() if not _was_preempted(error))
        if ranks:
            ray.get(self.queue.blame.remote(ranks))


def _was_preempted(error: Exception) -> bool:
    """Whether a worker died because its node was; Ray Train wraps what Ray says of it."""
    return bool(getattr(getattr(error, "health_check_failure", error), "preempted", False))


class _Unwanted(Exception):
    """Nobody waits for the worker's results."""


class _Runner:
    """Holds Ray Train's controller in a process of its own: what it says, and its signal handler, stay there."""

    def __init__(self, joined: bool) -> None:
        # The one node of a cluster of the driver's own is not taken away before the driver is.
        os.environ.update(_ENVIRONMENT | {"RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": str(int(joined))})

    def fit(self, queue: Any, actor: list[Any], group: Group) -> None:
        """Run the group until the queue is empty."""
        logging.getLogger("ray.train").setLevel(logging.ERROR)
        resources = {"CPU": float(group.cpus), **({"GPU": 1.0} if group.accelerator else {})}
        with tempfile.TemporaryDirectory() as folder:
            DataParallelTrainer(
                _work,
                train_loop_config={"queue": queue, "actor": actor, "group": group},
                scaling_config=ray.train.ScalingConfig(
                    num_workers=group.num_workers, use_gpu=group.accelerator, resources_per_worker=resources
                ),
                run_config=ray.train.RunConfig(
                    name="face-loras",
                    storage_path=folder,
                    # The queue bounds the deaths, by identity; of a group that never began it hears nothing.
                    failure_config=ray.train.FailureConfig(max_failures=-1, controller_failure_limit=STARTS),
                    callbacks=[_Blame(queue)],
                ),
            ).fit()


def _work(config: dict[str, Any]) -> None:
    """One worker: its pack trains what the queue gives, until that gives nothing more."""
    import torch

    queue, actor, group = config["queue"], cast("Trainer", ray.get(config["actor"][0])), cast(Group, config["group"])
    rank = ray.train.get_context().get_world_rank()
    attempt = broadcast_from_rank_zero(ray.get(queue.begin.remote()) if rank == 0 else None)
    watchdog = Watchdog(group.memory_mib)

    def explain(why: str) -> None:
        ray.get(queue.explain.remote(attempt, rank, why))

    def take(free: int) -> list[Row]:
        restart()
        return cast(list[Row], ray.get(queue.take.remote(attempt, rank, free)))

    def finished(row: Row) -> None:
        restart()
        ray.get(queue.finish.remote(attempt, row))

    asked_s = time.monotonic()

    def tick(shares: Mapping[str, float]) -> None:
        nonlocal asked_s
        if time.monotonic() - asked_s > LOOK_S:
            asked_s = time.monotonic()
            if ray.get(queue.hear.remote(attempt, shares)):
                raise _Unwanted

    if not ray.get(queue.met.remote(attempt)):  # the last identity was given up: no models for nothing
        return
    try:
        torch.set_num_threads(group.cpus)
        with watchdog.watching(OPEN_LIMIT_S, explain):
            actor.open("cuda" if group.accelerator else "cpu")
        with watchdog.watching(group.limit_s, explain) as restart:
            actor.work(take, finished, tick)
    except _Unwanted:
        return
    except Exception as error:  # a bug or a store that fails is no identity's fault, and another attempt no cure
        cause = getattr(error, "cause", None) or error  # of what the queue itself could not do
        ray.get(queue.fail.remote(f"{type(cause).__name__}: {cause}"))
