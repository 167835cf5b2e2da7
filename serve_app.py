"""The online endpoint on Ray Serve, beside `python -m jobs trainer`: `serve run serve_app:app`, or `run`.

Four deployments around a queue in SQL (docs/decisions/0011, 0014): `Ingress` speaks HTTP, `Dispatcher` leases jobs of
portraits, edits among them, `Sampler` draws candidates, `Finisher` finishes and judges them. All state is in SQL and
the store.
The studio page is an application of its own (`page`, docs/decisions/0017): it asks the other one over HTTP.
"""

import asyncio
import logging
import math
import os
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import ActorDiedError, RayTaskError
from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy
from ray.serve.exceptions import DeploymentUnavailableError, RayServeException
from ray.serve.handle import DeploymentHandle
from ray.util import metrics

from actors.dispatcher import Dispatcher
from actors.finisher import PortraitFinisher
from studiolo.errors import DatabaseError, WorkersAwayError
from studiolo.portraits.rounds import Draft, Drawing, Drawn
from studiolo.service.database import Database
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.erasure import Elsewhere
from studiolo.service.live import Progress
from studiolo.service.logs import configure
from studiolo.service.metrics import TABLE, Meters, Metric
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind
from studiolo.service.service import Service
from studiolo.service.speeds import Speeds
from studiolo.storage.store import Store
from web.app import create_app

log = logging.getLogger(__name__)

CONFIG = "STUDIOLO_ENDPOINT"
"""Environment variable with the path of the settings file for `app`."""
APPLICATION, DISPATCHER = "studiolo", "Dispatcher"
PAGE, PAGE_PREFIX = "page", "/studio"
"""The page's application, and where it is."""
_LOOK_S = 1.0
_APPEARS_S = 5.0
"""For a handle that is new to see the replicas that there are."""
_AFTER_DRAIN_S = 15.0
_FORGET_S = 20.0
_TOLD_S = 0.2
"""Between two messages about the steps of a draft."""
_OPEN_REQUESTS = 1000
_SPARE = 8
"""Calls that a sampler takes beside its drafts: an erasure does not wait for one of them to end."""
_LOGGING = {"encoding": "JSON", "enable_access_log": False}
"""The gate writes a line for each request, and none is wanted for each call between replicas."""
_HEALTH_S = 5.0
_LOOK_BACK_S = 11.0
"""Statistics of samplers are averaged over so long; Serve wants more than the 10 s after which replicas send theirs."""


class IngressReplica:
    """HTTP: the routes of `web/`."""

    def __init__(
        self,
        settings: EndpointSettings,
        dispatcher: DeploymentHandle,
        sampler: DeploymentHandle,
        finisher: DeploymentHandle,
    ) -> None:
        configure()
        self._settings, self._service = settings, Service.open(settings, RayMeters())
        self._live, self._elsewhere = LiveFar(dispatcher), elsewhere(sampler, finisher)

    def __serve_build_asgi_app__(self) -> FastAPI:
        return create_app(self._service, self._settings, self._live, self._elsewhere)


class PageReplica:
    """The studio page. Gradio keeps the sessions of those who look in its process, so there is one."""

    def __init__(self, settings: EndpointSettings, endpoint_url: str) -> None:
        configure()
        self._settings, self._endpoint_url = settings, endpoint_url

    def __serve_build_asgi_app__(self) -> FastAPI:
        from web.page.app import create_page  # Gradio, which the other replicas need not load

        return create_page(self._settings, self._endpoint_url)


class SamplerReplica:
    """A sampler that streams, says how fast it is, and counts what waits for it."""

    def __init__(self, settings: EndpointSettings) -> None:
        configure()
        from actors.sampler import Sampler  # torch and diffusers, which the other replicas need not load

        self._sampler = Sampler(
            Store(settings.store), settings.base, settings.generation, RayMeters(), settings.controlnets
        )
        self._sampler.open("cuda" if settings.sampler.gpus > 0 else "cpu")
        database = Database(settings.database, patience_s=settings.database_patience_s)
        self._queue = JobQueue(database, settings.queue)
        # Of the two threads for each draft one waits for what comes of it, the other may have to stop it.
        self._threads = ThreadPoolExecutor(2 * _drafts(settings), thread_name_prefix="draft")
        self._places = asyncio.Semaphore(_drafts(settings))
        self._stop = threading.Event()
        reporting = Speeds(database, settings.admission), self._stop
        self._reporter = threading.Thread(target=self._sampler.report, args=reporting, daemon=True)
        self._reporter.start()

    async def sample(self, draft: Draft) -> AsyncIterator[Drawing | Drawn]:
        """What comes of a draft. A caller that goes away frees its slots."""
        loop, told_s = asyncio.get_running_loop(), 0.0
        async with self._places:
            sampling = await loop.run_in_executor(self._threads, self._sampler.sample, draft)
            try:
                while (event := await loop.run_in_executor(self._threads, next, sampling, None)) is not None:
                    if isinstance(event, Drawing) and event.preview is None and event.done < event.total:
                        if time.monotonic() < told_s + _TOLD_S:
                            continue
                        told_s = time.monotonic()
                    yield event
            finally:
                self._threads.submit(sampling.close)

    def forget(self, identity_id: str) -> dict[str, int]:
        """Drop what is kept of a person."""
        return self._sampler.forget(identity_id)

    async def record_autoscaling_stats(self) -> dict[str, float]:
        """Denoising steps of portraits that are still to be done, here and elsewhere."""
        backlog = await asyncio.to_thread(self._queue.backlog, Kind.PORTRAITS)
        return {STEPS: float(backlog.queued_steps + backlog.running_steps)}

    def check_health(self) -> None:
        """Raises when nothing comes of drafts any more."""
        self._sampler.check()

    def __del__(self) -> None:
        self._stop.set()
        self._reporter.join(_HEALTH_S)
        self._sampler.close()


class FinisherReplica(PortraitFinisher):
    """A finisher with its models open."""

    def __init__(self, settings: EndpointSettings) -> None:
        configure()
        seeing = settings.perception.of_templates(settings.template_side_px)
        super().__init__(Store(settings.store), settings.suite, settings.generation, perception=seeing)
        self.open()

    def check_health(self) -> None:
        """Raises when a candidate hangs."""
        self.check()


class DispatcherReplica:
    """A dispatcher whose samplers and finishers are deployments."""

    def __init__(self, settings: EndpointSettings, sampler: DeploymentHandle, finisher: DeploymentHandle) -> None:
        configure()
        self._sampler, self._finisher = sampler.options(stream=True), finisher
        self._drain_s = settings.dispatcher.drain_s
        self._dispatcher = Dispatcher(
            Service.open(settings, RayMeters()),
            settings,
            lambda draft: DrawingsFar(self._sampler, draft),
            lambda rgb_u8, sitter, how: FinishingFar(self._finisher.finish, rgb_u8, sitter, how),
            lambda template, request_id: FinishingFar(self._finisher.look, template, request_id),
            jobs=settings.dispatcher.jobs,
            elsewhere=elsewhere(sampler, finisher),
        )
        self._dispatcher.start()

    async def look(self, job_id: str) -> Progress | None:
        """How far a job in hand is; None for one that is not in ours."""
        return await self._dispatcher.live.look(job_id)

    async def drain(self) -> None:
        """Lease no more, let jobs in hand end for `drain_s`, and give the rest back."""
        await asyncio.to_thread(self._dispatcher.drain, self._drain_s)

    def check_health(self) -> None:
        """Raises when it leases no more."""
        self._dispatcher.check()

    def __del__(self) -> None:
        self._dispatcher.drain(self._drain_s)


class RayMeters(Meters):
    """Metrics as Ray's own: Prometheus fetches them from the port of each node, with `ray_` before their names."""

    def __init__(self) -> None:
        self._families = {metric.name: _family(metric) for metric in TABLE}

    def record(self, metric: Metric, value: float, labels: dict[str, str]) -> None:
        """As `Meters` says."""
        family = self._families[metric.name]
        if isinstance(family, metrics.Counter):
            family.inc(value, labels)
        elif isinstance(family, metrics.Gauge):
            family.set(value, labels)
        else:
            family.observe(value, labels)


def _family(metric: Metric) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.help, boundaries=list(metric.buckets), tag_keys=metric.labels)
    if metric.kind == "gauge":
        return metrics.Gauge(metric.name, metric.help, tag_keys=metric.labels)
    return metrics.Counter(metric.name, metric.help, tag_keys=metric.labels)


@contextmanager
def _told() -> Iterator[None]:
    """Errors of a call to a replica are those that it raised, and `WorkersAwayError` when there is none."""
    try:
        yield
    except DeploymentUnavailableError as error:
        raise WorkersAwayError(f"no replica is there: {error}") from None
    except RayTaskError as error:
        raise error.cause if isinstance(error.cause, Exception) else error from None


class DrawingsFar:
    """What comes of a draft, from a sampler elsewhere."""

    def __init__(self, sampler: DeploymentHandle, draft: Draft) -> None:
        with _told():
            self._response = sampler.sample.remote(draft)

    def __iter__(self) -> "DrawingsFar":
        return self

    def __next__(self) -> Drawing | Drawn:
        with _told():
            event: Drawing | Drawn = next(self._response)
        return event

    def close(self) -> None:
        """Stop it, wherever it is."""
        with suppress(Exception):  # whoever is gone has stopped
            self._response.cancel()


class FinishingFar:
    """A candidate that is being finished elsewhere, or a template that is looked at there, by a method of finishers."""

    def __init__(self, method: DeploymentHandle, *what: Any) -> None:
        with _told():
            self._response = method.remote(*what)

    def result(self, wait_s: float) -> Any:
        """As `Finishing` says."""
        with _told():
            try:
                finished = self._response.result(timeout_s=wait_s)
            except TimeoutError as error:
                if isinstance(error, RayTaskError):  # the finisher raised it
                    raise
                return None
        return finished

    def close(self) -> None:
        """Take it back, wherever it is."""
        self._response.cancel()


class LiveFar:
    """Progress as the dispatchers know it; one that lost a job to another may still know of its own attempt."""

    def __init__(self, dispatcher: DeploymentHandle) -> None:
        self._dispatcher = dispatcher

    async def look(self, job_id: str) -> Progress | None:
        """As `Live` says. All are asked: while one replaces another there are two."""
        try:
            asked = self._dispatcher.broadcast("look", job_id)
            found = await asked.results_async(timeout_s=_LOOK_S, return_exceptions=True)
        except Exception as error:
            log.debug("no news of %s: %r", job_id, error)
            return None
        news = [one for one in found if isinstance(one, Progress)]
        return max(news, key=lambda one: one.attempt, default=None)


def elsewhere(*handles: DeploymentHandle) -> Elsewhere:
    """Forgets a person in all replicas of deployments.

    Those that start have nothing yet, those that end will not have it long, and who died has forgotten. Raises
    `DatabaseError` when one does not answer: the erasure is then finished later.
    """

    def forget(identity_id: str) -> Mapping[str, int]:
        counts: Counter[str] = Counter()
        for handle in handles:
            try:
                said = handle.broadcast("forget", identity_id).results(timeout_s=_FORGET_S, return_exceptions=True)
            except DeploymentUnavailableError:
                continue
            except TimeoutError:
                said = [TimeoutError(f"no answer in {_FORGET_S:g} s")]
            for one in said:
                if isinstance(one, dict):
                    counts.update(one)
                elif not isinstance(one, ActorDiedError):
                    raise DatabaseError(f"{handle.deployment_name}: did not forget {identity_id}: {one}")
        return counts

    return forget


STEPS = "steps"
"""Name of the statistic that samplers are scaled by."""


class BySteps:
    """How many samplers there should be: one for each `target_steps` denoising steps that are to be done.

    The steps are those of the queue in SQL, as the replicas report them. With no replica nobody reports: then a call
    that waits for one, which the dispatcher makes as soon as it has leased a job, starts the first (Serve's own rule).
    """

    def __init__(self, target_steps: int) -> None:
        self.target_steps = target_steps

    def __call__(self, context: AutoscalingContext) -> tuple[float, dict[str, Any]]:
        """The number, before bounds and delays."""
        reported = (context.aggregated_metrics or {}).get(STEPS) or {}
        steps = [value for value in reported.values() if value is not None]
        if not steps:
            return float(context.target_num_replicas), {}
        busy = context.total_num_requests > 0
        return float(max(math.ceil(max(steps) / self.target_steps), int(busy))), {}


def _drafts(settings: EndpointSettings) -> int:
    """Drafts a sampler works on at once: what all dispatchers may ask of it."""
    return settings.dispatcher.jobs * settings.dispatcher.replicas


def build(args: dict[str, Any]) -> serve.Application:
    """The application. `args`: `config`, the path of a YAML file of settings, and settings by name, which go on top.

    Raises `SettingsError`.
    """
    more = {name: value for name, value in args.items() if name != "config"}
    config = Path(args["config"]) if args.get("config") else None
    settings = EndpointSettings.load(config, more).placed(Path.cwd())
    sampling, drain_s = settings.sampler, settings.dispatcher.drain_s
    sampler = serve.deployment(
        SamplerReplica,
        name="Sampler",
        autoscaling_config=AutoscalingConfig(
            min_replicas=sampling.min_replicas,
            max_replicas=max(sampling.max_replicas, sampling.min_replicas),
            look_back_period_s=max(_LOOK_BACK_S, sampling.up_after_s),
            upscale_delay_s=sampling.up_after_s,
            downscale_delay_s=sampling.down_after_s,
            policy=AutoscalingPolicy(policy_function=BySteps, policy_kwargs={"target_steps": sampling.target_steps}),
        ),
        max_ongoing_requests=_drafts(settings) + _SPARE,
        graceful_shutdown_timeout_s=drain_s,
        health_check_period_s=_HEALTH_S,
        logging_config=_LOGGING,
        ray_actor_options={"num_cpus": sampling.cpus, "num_gpus": sampling.gpus},
    ).bind(settings)
    finishing = settings.finisher
    finisher = serve.deployment(
        FinisherReplica,
        name="Finisher",
        autoscaling_config=AutoscalingConfig(
            min_replicas=finishing.min_replicas,
            max_replicas=max(finishing.max_replicas, finishing.min_replicas),
            target_ongoing_requests=2,
        ),
        max_ongoing_requests=settings.dispatcher.jobs,
        graceful_shutdown_timeout_s=drain_s,
        logging_config=_LOGGING,
        ray_actor_options={"num_cpus": finishing.cpus},
    ).bind(settings)
    dispatcher = serve.deployment(
        DispatcherReplica,
        name=DISPATCHER,
        num_replicas=settings.dispatcher.replicas,
        max_ongoing_requests=_OPEN_REQUESTS,
        graceful_shutdown_timeout_s=drain_s + 30,
        health_check_period_s=_HEALTH_S,
        logging_config=_LOGGING,
        ray_actor_options={"num_cpus": settings.dispatcher.cpus},
    ).bind(settings, sampler, finisher)
    ingress = serve.deployment(
        serve.ingress()(IngressReplica),
        name="Ingress",
        num_replicas=settings.web.replicas,
        max_ongoing_requests=_OPEN_REQUESTS,
        logging_config=_LOGGING,
        ray_actor_options={"num_cpus": settings.web.cpus},
    )
    return ingress.bind(settings, dispatcher, sampler, finisher)


def build_page(args: dict[str, Any], endpoint_url: str = "http://127.0.0.1:8000") -> serve.Application:
    """The page's application; `args` as for `build`, `endpoint_url` when they do not say where `/v1` is.

    Raises `SettingsError`.
    """
    more = {name: value for name, value in args.items() if name != "config"}
    config = Path(args["config"]) if args.get("config") else None
    settings = EndpointSettings.load(config, more).placed(Path.cwd())
    page = serve.deployment(
        serve.ingress()(PageReplica),
        name="Page",
        num_replicas=1,
        max_ongoing_requests=_OPEN_REQUESTS,
        logging_config=_LOGGING,
        ray_actor_options={"num_cpus": settings.page.cpus},
    )
    return page.bind(settings, settings.page.endpoint_url or endpoint_url)


def run(port: str, config: str | None = None) -> None:
    """Both applications at a port of this machine, with settings of a file, until SIGINT; then jobs in hand end.

    `serve run` ends after half a minute then, whatever `dispatcher.drain_s` says.
    """
    serve.start(proxy_location="EveryNode", http_options={"port": int(port)})
    try:
        serve.run(build({"config": config}), name=APPLICATION, route_prefix="/")
        page = build_page({"config": config}, f"http://127.0.0.1:{port}")
        serve.run(page, name=PAGE, route_prefix=PAGE_PREFIX)
        while True:
            time.sleep(_LOOK_S)
    except KeyboardInterrupt:
        drain(EndpointSettings.load(Path(config) if config else None, {}).dispatcher.drain_s)
    finally:
        serve.shutdown()


def drain(for_s: float) -> None:
    """Have the application's dispatchers lease no more, and end what they have in hand for so long."""
    said: list[Any] | None = None
    give_up_s = time.monotonic() + _APPEARS_S
    while said is None:
        try:
            asked = serve.get_deployment_handle(DISPATCHER, APPLICATION).broadcast("drain")
            said = asked.results(timeout_s=for_s + _AFTER_DRAIN_S, return_exceptions=True)
        except RayServeException as error:  # none is seen as yet, or none was started
            if time.monotonic() > give_up_s:
                said = [error]
            time.sleep(_TOLD_S)
        except TimeoutError as error:
            said = [error]
    for one in filter(None, said):
        log.warning("a dispatcher was not drained: %s", one)


def __getattr__(name: str) -> serve.Application:
    """`app`, made when it is asked for: workers import this module, too, and need not have the settings' file."""
    if name != "app":
        raise AttributeError(f"serve_app has no {name!r}")
    return build({"config": os.environ.get(CONFIG)})
