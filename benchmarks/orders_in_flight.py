"""What does it gain that an actor of the bulk job works on several orders at once? Candidates a second.

One order at a time pads its lane when it wants fewer candidates than there are slots, and leaves the denoiser idle
while its last ones are judged. Every side makes the same orders of the same people with warm actors of one thread each,
the job's own, without Ray; the pictures must be the same. `small` orders are of one portrait (2 candidates), `usual`
ones of four (8 candidates, twice the slots); face-LoRAs have random weights.

    python -m benchmarks.orders_in_flight [--quick]
"""

import argparse
import multiprocessing
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import cv2
import pyarrow as pa
import torch

from actors.portraitist import ORDER_INPUT, Portraitist, order_row
from benchmarks.people import BASE, SUITE, sample_people
from benchmarks.report import write
from studiolo.settings import GenerationSettings
from studiolo.storage.store import Store

STYLES = ("studio", "black-and-white", "warm-film", "duotone")
WAIT_S = 300.0
"""Longest that an actor may take to load its models."""

Row = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """Orders, how many of them, by how many actors, and the numbers in flight to compare."""

    per_style: int
    orders: int
    actors: int
    in_flight: tuple[int, ...]


CASES = {
    "small": Case(1, 16, 2, (1, 2, 4)),
    "usual": Case(4, 8, 2, (1, 2)),
    "small_one_actor": Case(1, 8, 1, (1, 2)),
}
QUICK = {"small": Case(1, 2, 1, (1, 2))}


def main() -> None:
    """Run every case with every number in flight and report candidates a second."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 orders in 2 steps: shows that it runs")
    arguments = parser.parse_args()
    cases, steps = (QUICK, 2) if arguments.quick else (CASES, 30)
    os.environ["OMP_NUM_THREADS"] = "1"  # for the actors' processes
    ratios: dict[str, Any] = {}
    figures: dict[str, Any] = {"steps": steps, "slots": GenerationSettings().slots}
    with tempfile.TemporaryDirectory() as folder:
        rows = orders_of(Path(folder, "inputs"), max(case.orders for case in cases.values()))
        for name, case in cases.items():
            orders = [{**row, "count": case.per_style} for row in rows[: case.orders]]
            settings = [GenerationSettings(steps=steps, orders_in_flight=count) for count in case.in_flight]
            sides = {one.orders_in_flight: side(Path(folder), orders, case.actors, one) for one in settings}
            if any(made != sides[1][1] for _, made in sides.values()):
                raise AssertionError("the pictures differ")
            rates = {count: len(made) / seconds for count, (seconds, made) in sides.items()}
            figures[name] = {
                "orders": case.orders,
                "candidates": len(sides[1][1]),
                "actors": case.actors,
                "candidates_per_s": {str(count): round(rate, 4) for count, rate in rates.items()},
            }
            for count in case.in_flight[1:]:
                ratios[f"{name}_{count}_over_1"] = round(rates[count] / rates[1], 3)
    write("orders_in_flight-quick" if arguments.quick else "orders_in_flight", ratios, figures)


def orders_of(folder: Path, count: int) -> list[Row]:
    """Rows of `count` orders, of people who are seen as the job sees them; what they need lies in `folder`."""
    people = sample_people(folder, Store(folder / "store"), -(-count // len(STYLES)))
    loras = [(person.row, {"path": person.lora_path, "sha256": person.lora_sha256}) for person in people]
    return [order_row(row, lora, style, 1, 0) for row, lora in loras for style in STYLES][:count]


def portraitist(out: str, settings: GenerationSettings) -> Portraitist:
    """The job's actor over an output, opened."""
    actor = Portraitist(Store(out), SUITE, BASE, settings, unsafe_above=0.8)
    actor.open()
    return actor


def side(
    folder: Path,
    orders: Sequence[Row],
    actors: int,
    settings: GenerationSettings,
    make: Callable[[str, GenerationSettings], Portraitist] = portraitist,
) -> tuple[float, list[tuple[str, str]]]:
    """Seconds of the slowest actor, and (id, sha256 of the pixels) of every picture; the output is made anew of what
    `orders_of` left in `folder/inputs`.
    """
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder / "inputs" / "store", out)
    context = multiprocessing.get_context("spawn")
    begin = context.Barrier(actors)
    with context.Pool(actors, _open, (str(out), settings, begin, make)) as pool:
        results = pool.map(_work, [orders[number::actors] for number in range(actors)], chunksize=1)
    made = sorted((row["portrait_id"], row["image_sha256"]) for _, rows in results for row in rows)
    return max(seconds for seconds, _ in results), made


_actor: Portraitist
_begin: Barrier


def _open(
    out: str, settings: GenerationSettings, begin: Barrier, make: Callable[[str, GenerationSettings], Portraitist]
) -> None:
    global _actor, _begin
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    _actor, _begin = make(out, settings), begin


def _work(orders: Sequence[Row]) -> tuple[float, list[Row]]:
    """Seconds from when all actors are open, and the rows of the portraits."""
    _begin.wait(WAIT_S)
    started = time.monotonic()
    tables = [pa.Table.from_pylist([row], ORDER_INPUT) for row in orders]
    with ThreadPoolExecutor(_actor.settings.orders_in_flight) as pool:
        rows = [row for table in pool.map(_actor, tables) for row in table.to_pylist()]
    return time.monotonic() - started, rows


if __name__ == "__main__":
    main()
