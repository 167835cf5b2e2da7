"""The endpoint under load, beside a server that takes one request at a time, as portrait demos do.

Side A is the whole endpoint as `serve run` starts it, with SQLite and a store on this disk; side B is
`benchmarks.plain_server` with the same models, people, steps, candidates and finishing. The same clients ask both, over
loopback, for the same sequence of requests: 1 to 4 portraits in any of six styles, of learned people or of nobody in
particular, half of them following the events; a quarter has a deadline, which only the endpoint minds. A client that is
refused waits as long as it is told and goes on with the next request. Latency counts from the request to the last
picture. Then the endpoint, allowed a second sampler, has a few clients, all, and a few again.

    python -m benchmarks.endpoint_load [--quick] [--clients N] [--minutes M]
"""

import argparse
import json
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from benchmarks.cluster import Cluster
from benchmarks.installation import Installation, end, free_port
from benchmarks.load import Ask, Load, Outcome, Wanted, ask_endpoint, ask_plainly, summary
from benchmarks.people import SamplePerson, sample_people
from benchmarks.report import ROOT, write
from studiolo.service.records import Consent, Kind, NewJob, Person, new_id
from studiolo.service.service import Service
from studiolo.storage.store import Store

PEOPLE, FEW = 3, 2
START_S = 180.0
"""Longest that a server may take to start."""
_TOLD_S = 10.0
"""Gauges are looked at so often: what looks takes time from what is measured."""
IMAGE = ROOT / "docs" / "images" / "endpoint-load.png"
NO_LIMITS = {"requests_per_s": 1e4, "burst": 100_000, "portraits_per_day": 1_000_000}
SCALED = {"max_replicas": 2, "cpus": 0.5, "up_after_s": 5.0, "down_after_s": 20.0}
"""Of the samplers in the step load."""


@dataclass(frozen=True)
class Plan:
    """How much is done."""

    clients: int
    seconds: float
    """Of each side, and of the three phases of the step load together."""
    steps: int
    deadline_s: float
    """Of requests that have one."""

    def settings(self, **sampler: Any) -> dict[str, Any]:
        """Of the endpoint: a candidate is accepted whatever it looks like, so that both sides make as many."""
        generation = {"steps": self.steps, "retries": 0, "accept_similarity": 0.0}
        return {"generation": generation, "limits": NO_LIMITS, "sampler": sampler}


@dataclass(frozen=True)
class Customers:
    """Who may ask for what."""

    token: str
    people: dict[str, SamplePerson]
    """By the identity's id."""

    @classmethod
    def of(cls, service: Service, people: list[SamplePerson]) -> "Customers":
        """A key, and the people as identities that have been learned."""
        new_key, known = service.keys.create("benchmark"), {}
        for person in people:
            consent = Consent(given_by="nobody", statement="A synthetic person.", given_at=0.0)
            new = NewJob(
                kind=Kind.IDENTITY,
                request={},
                steps=0,
                identity_id=new_id("id"),
                person=Person(name="sample", consent=consent),
            )
            job = service.queue.submit(service.keys.authenticate(new_key.token).tenant_id, new)
            (lease,) = service.queue.lease([Kind.IDENTITY], "benchmark", 60)
            record = person.learned().model_dump(mode="json")
            service.queue.complete(lease, {}, within=service.identities.learned(lease, record))
            known[str(job.identity_id)] = person
        return cls(new_key.token, known)


class Watch:
    """What the cluster says of itself, second by second, while a load goes on."""

    def __init__(self, cluster: Cluster, load: Load) -> None:
        self.replicas: list[tuple[float, int]] = []
        """Since when how many samplers run; only where that changes."""
        self._cluster, self._load, self._over = cluster, load, threading.Event()
        self._occupancy: list[float] = []
        self._pool = ThreadPoolExecutor(1)

    def __enter__(self) -> "Watch":
        self._watching = self._pool.submit(self._watch)
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watching.result()
        self._pool.shutdown()

    def occupancy(self) -> float | None:
        """Mean share of the slots that held a candidate; None when nobody told."""
        return round(sum(self._occupancy) / len(self._occupancy), 3) if self._occupancy else None

    def _watch(self) -> None:
        told_s = 0.0
        while not self._over.wait(1.0):
            now_s, count = round(self._load.now_s(), 1), self._cluster.replicas("Sampler")
            if not self.replicas or self.replicas[-1][1] != count:
                self.replicas.append((now_s, count))
            if now_s - told_s >= _TOLD_S:
                told_s = now_s
                with suppress(httpx.HTTPError):  # its agent is busy
                    self._occupancy += self._cluster.gauge("studiolo_slot_occupancy")


def main() -> None:
    """Load both sides, then the endpoint in steps, and report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="4 clients, 60 s, 3 steps: shows that it runs")
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--minutes", type=float, default=10.0, help="of each side, and of the step load")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that no server is left behind
    quick = arguments.quick
    plan = Plan(4, 60.0, 3, 30.0) if quick else Plan(arguments.clients, 60 * arguments.minutes, 30, 120.0)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        people = sample_people(place / "people", Store(place / "endpoint" / "store"), PEOPLE)
        with Installation.prepared(place / "endpoint", plan.settings()) as installation:
            service = Service.open(installation.settings)
            customers = Customers.of(service, people)
            service.close()
            endpoint = _endpoint(installation, customers, plan)
        with _plain_server(place / "plain", place / "endpoint" / "store", customers, installation) as url:
            plain = _loaded(_load(url, customers, plan, ask_plainly), plan)
        with Installation.prepared(place / "endpoint", plan.settings(**SCALED)) as installation:
            steps, outcomes = _step_load(installation, customers, plan)
    ratios = {
        "portraits_per_s_over_plain": round(endpoint["portraits_per_s"] / plain["portraits_per_s"], 3),
        "p50_over_plain": round(endpoint["p50_s"] / plain["p50_s"], 3),
        "p95_over_plain": round(endpoint["p95_s"] / plain["p95_s"], 3),
    }
    if not quick:
        _draw(steps, outcomes, IMAGE)
    figures = {**vars(plan), "endpoint": endpoint, "plain": plain, "step_load": steps}
    write("endpoint_load-quick" if quick else "endpoint_load", ratios, figures)


def _endpoint(installation: Installation, customers: Customers, plan: Plan) -> dict[str, Any]:
    """Side A."""
    with installation.serving() as process, Cluster.joined(process) as cluster:
        load = _load(installation.url, customers, plan, ask_endpoint)
        with Watch(cluster, load) as watch:
            figures = _loaded(load, plan)
        return figures | {"slot_occupancy": watch.occupancy()}


def _load(url: str, customers: Customers, plan: Plan, ask: Ask) -> Load:
    """Clients of one side, when a portrait of each person has opened all models."""
    headers = {"Authorization": f"Bearer {customers.token}"}
    with httpx.Client(base_url=url, headers=headers, timeout=START_S) as http:
        for identity_id in [*customers.people, None]:
            body = {"identity_id": identity_id, "style": "studio", "seed": 0}
            answer = ask(http, Wanted(0, body, streams=True))
            if answer.state != "succeeded":
                raise RuntimeError(f"the first request came to {answer}")
    return Load(url, customers.token, ask, list(customers.people), plan.deadline_s)


def _loaded(load: Load, plan: Plan) -> dict[str, Any]:
    """What all clients together get of one side. Raises `RuntimeError` when that is nothing."""
    load.run(plan.clients, plan.seconds)
    figures = summary(load.outcomes, 0.0, plan.seconds)
    print(figures, file=sys.stderr, flush=True)
    if not figures["portraits_per_s"]:
        raise RuntimeError(f"no portrait came in {plan.seconds:g} s: {[one.answer for one in load.outcomes][:5]}")
    return figures


@contextmanager
def _plain_server(folder: Path, store: Path, customers: Customers, installation: Installation) -> Iterator[str]:
    """The URL of side B, which runs as long as the `with`."""
    folder.mkdir()
    (folder / "store").symlink_to(store)
    people = {name: person.learned().model_dump(mode="json") for name, person in customers.people.items()}
    (folder / "people.json").write_text(json.dumps(people))
    (folder / "generation.json").write_text(installation.settings.generation.model_dump_json())
    port = free_port()
    command = [sys.executable, "-m", "benchmarks.plain_server", str(folder), str(port)]
    with (folder / "log").open("w+b") as log:
        process = subprocess.Popen(command, cwd=ROOT, stdout=log, stderr=log)
        try:
            give_up_s = time.monotonic() + START_S
            while not _answers(f"http://127.0.0.1:{port}/healthz"):
                if process.poll() is not None or time.monotonic() > give_up_s:
                    raise RuntimeError(f"the plain server did not start: {(folder / 'log').read_text()[-3000:]}")
                time.sleep(0.2)
            yield f"http://127.0.0.1:{port}"
        finally:
            end(process)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, timeout=5).is_success
    except httpx.HTTPError:
        return False


def _step_load(installation: Installation, customers: Customers, plan: Plan) -> tuple[dict[str, Any], list[Outcome]]:
    """A few clients all the time, and the others in the middle third of it."""
    third_s = plan.seconds / 3
    with installation.serving() as process, Cluster.joined(process) as cluster:
        load = _load(installation.url, customers, plan, ask_endpoint)
        more = threading.Timer(third_s, load.run, args=(plan.clients - FEW, third_s))
        with Watch(cluster, load) as watch:
            more.start()
            load.run(FEW, plan.seconds)
            more.join()
    phases = [(FEW, 0.0), (plan.clients, third_s), (FEW, 2 * third_s)]
    figures = [{"clients": clients, **summary(load.outcomes, at_s, at_s + third_s)} for clients, at_s in phases]
    return {"phases": figures, "replicas": watch.replicas}, load.outcomes


def _draw(steps: dict[str, Any], outcomes: list[Outcome], path: Path) -> None:
    """Latency of each request, and the samplers, over time."""
    from matplotlib import pyplot

    done = [one for one in outcomes if one.answer.state == "succeeded"]
    figure, latency = pyplot.subplots(figsize=(8, 3.2), layout="constrained")
    latency.plot([one.ended_s for one in done], [one.ended_s - one.began_s for one in done], ".", color="tab:blue")
    latency.set(xlabel="seconds", ylabel="latency, s", ylim=(0, None))
    samplers = latency.twinx()
    end = max(one.ended_s for one in outcomes), steps["replicas"][-1][1]
    times, counts = zip(*steps["replicas"], end, strict=True)
    samplers.step(times, counts, where="post", color="tab:orange")
    samplers.set(ylabel="samplers", ylim=(0, 3), yticks=(0, 1, 2))
    figure.savefig(path, dpi=100)
    pyplot.close(figure)


if __name__ == "__main__":
    main()
