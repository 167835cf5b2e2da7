"""Completion records: there or not there, never half."""

import hashlib
import os
import pickle
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from studiolo.errors import StoreError
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store


def _key(name: object) -> str:
    return hashlib.sha256(str(name).encode()).hexdigest()


def test_a_unit_is_done_once_its_record_is_written(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    assert ledger.done("album", _key(1)) is None
    ledger.complete("album", _key(1), {"path": "x", "count": 3})
    again = pickle.loads(pickle.dumps(ledger))
    assert again.done("album", _key(1)) == {"path": "x", "count": 3}
    assert again.done("identity", _key(1)) is None  # kinds do not mix
    assert again.done("album", _key(2)) is None


def test_pending_keeps_the_order_and_drops_what_is_done() -> None:
    ledger = Ledger(Store("memory://pending"))
    keys = [_key(number) for number in range(20)]
    assert ledger.pending("order", keys) == keys
    for key in keys[::3]:
        ledger.complete("order", key, {})
    ledger.complete("identity", keys[1], {})
    assert ledger.pending("order", keys) == [key for index, key in enumerate(keys) if index % 3]


def test_failures_are_counted_and_leave_the_unit_pending(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    assert (ledger.attempts("identity", _key(1)), ledger.failure("identity", _key(1))) == (0, None)
    ledger.fail("identity", _key(1), "training_failed", "loss was nan")
    ledger.fail("identity", _key(1), "nothing_usable")
    assert ledger.failure("identity", _key(1)) == {"reason": "nothing_usable", "detail": "", "attempts": 2}
    assert ledger.attempts("identity", _key(1)) == 2
    assert ledger.pending("identity", [_key(1)]) == [_key(1)]
    ledger.complete("identity", _key(1), {"lora": "path"})
    assert ledger.pending("identity", [_key(1)]) == []


@pytest.mark.parametrize(("kind", "key"), [("album", "short"), ("album", "../" * 20 + "abcd"), ("../x", "0" * 64)])
def test_malformed_names_are_a_mistake_of_the_caller(tmp_path: Path, kind: str, key: str) -> None:
    with pytest.raises(ValueError, match="wanted"):
        Ledger(Store(tmp_path)).done(kind, key)


def test_a_record_damaged_by_other_hands_is_reported(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    ledger.complete("album", _key(1), {})
    (tmp_path / "ledger" / "done" / "album" / f"{_key(1)}.json").write_text("[1]")
    with pytest.raises(StoreError, match="got a list, wanted an object; delete it"):
        ledger.done("album", _key(1))


_WORKER = """
import hashlib, sys
from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
store = Store(sys.argv[1])
ledger = Ledger(store)
print("ready", flush=True)
keys = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(5000)]
for key in ledger.pending("album", keys):
    content = key.encode() * 400
    store.write_bytes(f"albums/{key}", content)
    ledger.complete("album", key, {"path": f"albums/{key}", "sha256": hashlib.sha256(content).hexdigest()})
"""


def test_whatever_is_killed_a_record_speaks_of_whole_files(tmp_path: Path) -> None:
    store, rng, before = Store(tmp_path), random.Random(3), 0
    ledger = Ledger(store)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    for _ in range(6):
        command = [sys.executable, "-c", _WORKER, store.url]
        worker = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
        assert worker.stdout is not None
        assert worker.stdout.readline() == b"ready\n"
        time.sleep(rng.uniform(0.05, 0.2))
        worker.send_signal(signal.SIGKILL)
        worker.wait()
        worker.stdout.close()
        records = store.list("ledger/done/album")
        for path in records:
            record = ledger.done("album", Path(path).stem)
            assert record is not None
            assert hashlib.sha256(store.read_bytes(record["path"])).hexdigest() == record["sha256"]
        assert len(records) >= before
        before = len(records)
    assert before > 0
