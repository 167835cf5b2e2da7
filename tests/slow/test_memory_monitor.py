"""Behind our watchdog stands Ray's memory monitor: what it kills counts as a death, and the unit fails alone."""

import json
import os
import sys
from pathlib import Path

import psutil
import pytest

from studiolo.storage.store import Store
from tests.processes import run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

_DRIVER = """
import json, sys
import pyarrow as pa
from pipelines.graph import start, stop, stream
from pipelines.plan import Stage
from studiolo.storage.store import Store
from tests.pipelines.poisoned import Whole
store = Store(sys.argv[1])
start(1, 100)
table = pa.table({"value": [0, 1, 2], "does": ["", "eat", ""]})
print(json.dumps(list(stream(table, Whole(store), Stage("hungry", 1, 1.0, limit_s=120), store))))
stop()
"""

ROOM_BYTES = 5 * 2**29
"""So much may Ray, its driver and the eater take before the monitor acts; the eater alone would take 4 GB."""


def test_what_the_memory_monitor_kills_fails_alone(tmp_path: Path) -> None:
    memory = psutil.virtual_memory()
    if memory.available < 2 * ROOM_BYTES:
        pytest.skip("needs 5 GiB of free memory")
    threshold = (memory.total - memory.available + ROOM_BYTES) / memory.total
    environment = {**os.environ, "RAY_memory_usage_threshold": f"{threshold:.4f}"}
    result = run([sys.executable, "-c", _DRIVER, str(tmp_path)], limit_s=300, env=environment)
    assert result.returncode == 0, result.stderr
    rows = {row["value"]: row for row in json.loads(result.stdout)}
    assert [rows[value]["status"] for value in range(3)] == ["ok", "failed", "ok"]
    assert rows[1]["reason"] == "crashed_worker"
    assert rows[1]["detail"] == "2 attempts, the last: the worker ended without a word"
    assert Store(tmp_path).list("attempts") == []
