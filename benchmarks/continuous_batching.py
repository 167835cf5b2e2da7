"""What does it gain that requests join and leave at any step? Latency and throughput at 50, 70 and 90 % of capacity.

Requests of one picture arrive at random (Poisson), in 10, 20 or 30 steps. Three servers take the same arrivals, with
the same base, precision and slots: continuous (the engine as it is), static (waits up to the wait window for a full
batch and runs it to the end; the slots of short requests stay idle meanwhile), and one at a time (one slot).
Capacity is what the continuous server makes of a full queue, measured first.

    python -m benchmarks.continuous_batching [--quick] [--requests N] [--loads PERCENT ...] [--base embedded|sd15]
"""

import argparse
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from benchmarks.report import write
from benchmarks.workloads import BASES, open_base, percentiles
from studiolo.generation.engine import Engine, Order, Portrait

SLOTS = 4
LOADS = (50, 70, 90)
"""Percent of the capacity."""
SEED = 0


@dataclass(frozen=True)
class Arrival:
    """A request: when it comes, and its order."""

    at_s: float
    order: Order


@dataclass(frozen=True)
class _Waiting:
    order: Order
    done: threading.Event


Server = Callable[[Order], None]
"""Returns when the order's picture is there; called from many threads."""


def main() -> None:
    """Run every load on every server and report latencies and throughput."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 requests of 2 to 4 steps: shows that it runs")
    parser.add_argument("--base", choices=BASES, default="embedded", help="sd15 needs CUDA")
    parser.add_argument("--requests", type=int, default=120, help="requests at each load")
    parser.add_argument("--loads", type=int, nargs="+", default=LOADS, help="percent of the capacity")
    arguments = parser.parse_args()
    count, steps = (6, (2, 3, 4)) if arguments.quick else (arguments.requests, (10, 20, 30))
    pipeline = open_base(arguments.base)
    engine, single = Engine(pipeline, SLOTS), Engine(pipeline, 1)
    capacity = _capacity(engine, steps)
    window_s = SLOTS / capacity / 2  # half the time in which a full batch arrives at capacity
    figures: dict[str, Any] = {"capacity_per_s": round(capacity, 4), "slots": SLOTS, "requests": count}
    figures |= {"steps": steps, "window_s": round(window_s, 3), "base": arguments.base}
    ratios = {}
    for percent in arguments.loads:
        arrivals = _arrivals(count, percent / 100 * capacity, steps)
        with _Static(engine, window_s) as static:
            servers = {"continuous": _whole(engine), "static": static, "one_at_a_time": _whole(single)}
            found = {name: _serve(server, arrivals) for name, server in servers.items()}
        figures[f"load_{percent}"] = found
        for name in ("static", "one_at_a_time"):
            ratios[f"p95_over_{name}_{percent}"] = round(found["continuous"]["p95_s"] / found[name]["p95_s"], 3)
    name = "continuous_batching" + ("" if arguments.base == "embedded" else f"-{arguments.base}")
    write(f"{name}-quick" if arguments.quick else name, ratios, figures)


def _order(number: int, steps: int) -> Order:
    return Order(number, f"request-{number}", "a portrait of a smiling woman", steps=steps, guidance_scale=3.0)


def _arrivals(count: int, rate_per_s: float, steps: tuple[int, ...]) -> list[Arrival]:
    rng = np.random.default_rng(SEED)
    at_s = np.cumsum(rng.exponential(1 / rate_per_s, count))
    return [Arrival(float(at), _order(i, int(rng.choice(steps)))) for i, at in enumerate(at_s)]


def _capacity(engine: Engine, steps: tuple[int, ...]) -> float:
    """Requests a second out of a full queue."""
    _whole(engine)(_order(0, 1))
    orders = [_order(number, steps[number % len(steps)]) for number in range(4 * SLOTS)]
    started = time.monotonic()
    for events in [engine.submit(order) for order in orders]:
        for _ in events:
            pass
    return len(orders) / (time.monotonic() - started)


def _whole(engine: Engine) -> Server:
    def serve(order: Order) -> None:
        assert sum(isinstance(event, Portrait) for event in engine.submit(order)) == order.count

    return serve


class _Static:
    """Collects a batch, for at most `window_s` after its first request; a batch takes the steps of its longest."""

    def __init__(self, engine: Engine, window_s: float) -> None:
        self._engine, self._window_s = engine, window_s
        self._waiting: queue.Queue[_Waiting | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Server:
        self._thread.start()
        return self._serve

    def __exit__(self, *_: object) -> None:
        self._waiting.put(None)
        self._thread.join()

    def _serve(self, order: Order) -> None:
        waiting = _Waiting(order, threading.Event())
        self._waiting.put(waiting)
        waiting.done.wait()

    def _run(self) -> None:
        while (first := self._waiting.get()) is not None:
            batch, until = [first], time.monotonic() + self._window_s
            while len(batch) < SLOTS and (left := until - time.monotonic()) > 0:
                try:
                    more = self._waiting.get(timeout=left)
                except queue.Empty:
                    break
                if more is None:
                    self._waiting.put(None)
                    break
                batch.append(more)
            for events in [self._engine.submit(one.order) for one in batch]:
                for _ in events:
                    pass
            for one in batch:
                one.done.set()


def _serve(server: Server, arrivals: list[Arrival]) -> dict[str, float]:
    """Seconds from arrival to picture, and requests a second from the first arrival to the last picture."""
    started = time.monotonic()

    def request(arrival: Arrival) -> float:
        time.sleep(max(0.0, started + arrival.at_s - time.monotonic()))
        server(arrival.order)
        return time.monotonic() - started - arrival.at_s

    with ThreadPoolExecutor(len(arrivals)) as pool:
        latencies_s = list(pool.map(request, arrivals))
    span_s = time.monotonic() - started - arrivals[0].at_s
    return percentiles(latencies_s) | {"requests_per_s": round(len(arrivals) / span_s, 4)}


if __name__ == "__main__":
    main()
