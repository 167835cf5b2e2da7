"""One actor tried out in a process of its own: how long it takes and how much memory."""

import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa


@dataclass(frozen=True)
class Probed:
    """What one actor did."""

    open_s: float
    call_s: tuple[float, ...]
    """Seconds of each call."""
    peak_bytes: int
    """Peak resident memory of the process."""
    rows: list[dict[str, Any]]
    """What the last call returned."""


def probe(actor: Any, table: pa.Table, settings: Sequence[Any] = ()) -> Probed:
    """`actor(table)` in a new process with one thread, as a worker has; once, or once with each of `settings`."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = "1"
    try:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_work, actor, table, settings).result()
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def _work(actor: Any, table: pa.Table, settings: Sequence[Any]) -> Probed:
    started = time.monotonic()
    actor.open()
    opened = time.monotonic()
    call_s = []
    for setting in settings or (None,):
        if setting is not None:
            actor.settings = setting
        at = time.monotonic()
        rows = actor(table).to_pylist()
        call_s.append(time.monotonic() - at)
    return Probed(opened - started, tuple(call_s), _peak_bytes(), rows)


def _peak_bytes() -> int:
    status = Path("/proc/self/status")
    if status.exists():
        peak = next((line for line in status.read_text().splitlines() if line.startswith("VmHWM:")), "")
        if peak:
            return int(peak.split()[1]) * 1024
    return int(psutil.Process().memory_info().rss)
