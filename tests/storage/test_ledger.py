"""Completion records: there or not there, never half."""

import hashlib
import os
import pickle
import random
import re
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


@pytest.mark.parametrize("url", ["{tmp_path}", "memory://{tmp_path}"])
def test_a_record_counts_only_while_its_files_are_those_it_was_written_for(tmp_path: Path, url: str) -> None:
    store = Store(url.format(tmp_path=tmp_path))
    ledger = Ledger(store)
    for key, content in ((_key("first"), b"one"), (_key("second"), b"two")):
        store.write_bytes("people/a.png", content)
        store.write_bytes("people/b.png", b"both")
        ledger.complete("order", key, {"made": content.decode()}, ["people/a.png", "people/b.png"])
    assert ledger.done("order", _key("first")) is None  # the second run's bytes lie there
    assert ledger.done("order", _key("second")) == {"made": "two"}
    store.write_bytes("people/a.png", b"one")
    assert ledger.done("order", _key("first")) == {"made": "one"}
    store.remove("people/b.png")
    assert ledger.done("order", _key("first")) is None
    assert ledger.done("order", _key("second")) is None


def test_a_unit_is_not_complete_without_its_files(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    with pytest.raises(StoreError, match="it is not there"):
        ledger.complete("order", _key(1), {}, ["gone.png"])
    assert ledger.done("order", _key(1)) is None


def test_failures_are_counted_and_leave_the_unit_pending(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    assert (ledger.attempts("identity", _key(1)), ledger.failure("identity", _key(1))) == (0, None)
    ledger.fail("identity", _key(1), "training_failed", "loss was nan")
    ledger.fail("identity", _key(1), "nothing_usable")
    assert ledger.failure("identity", _key(1)) == {"reason": "nothing_usable", "detail": "", "attempts": 2}
    assert ledger.attempts("identity", _key(1)) == 2
    assert ledger.done("identity", _key(1)) is None
    ledger.complete("identity", _key(1), {"lora": "path"})
    assert ledger.done("identity", _key(1)) == {"lora": "path"}


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
for key in keys:
    if ledger.done("album", key) is not None:
        continue
    content = key.encode() * 400
    store.write_bytes(f"albums/{key}", content)
    record = {"path": f"albums/{key}", "sha256": hashlib.sha256(content).hexdigest()}
    ledger.complete("album", key, record, [record["path"]])
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
        worker.wait(30)
        worker.stdout.close()
        records = store.list("ledger/done/album")
        for path in records:
            record = ledger.done("album", Path(path).stem)
            assert record is not None
            assert hashlib.sha256(store.read_bytes(record["path"])).hexdigest() == record["sha256"]
        assert len(records) >= before
        before = len(records)
    assert before > 0


def test_records_are_found_by_the_names_in_them(tmp_path: Path) -> None:
    ledger, key = Ledger(Store(tmp_path)), "0" * 64
    ledger.complete("album", key, {"identity_id": "id_1", "paths": ["identities/id_2/x"], "embedding": [0.5]})
    ledger.fail("order", key, "crashed_worker", "order of 'id_1'")
    done, failed = f"ledger/done/album/{key}.json", f"ledger/failed/order/{key}.json"
    assert ledger.naming(re.compile(r"id_[0-9]")) == {"id_1": [done, failed], "id_2": [done]}


def test_records_about_someone_are_found_and_no_one_elses(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    keys = [f"{number:064x}" for number in range(9)]
    ledger.complete("album", keys[0], {"album_id": "anna"})
    ledger.complete("order", keys[1], {"portraits": [{"identity_id": "anna", "embedding": [0.5]}]})
    ledger.fail("identity", keys[2], "training_failed", "face-LoRA of 'anna': got a loss of nan")
    ledger.complete("album", keys[3], {"album_id": "anna-lena", "trigger": "a portrait of an anna"})
    ledger.fail("identity", keys[4], "training_failed", "face-LoRA of 'anna-lena': got a loss of nan")
    ledger.store.write_bytes("identities/anna/a.png", b"x")
    ledger.complete("print", keys[5], {}, ["identities/anna/a.png"])
    ledger.complete("identity", keys[6], {"identity_id": "anna/other-2"})
    ledger.fail("identity", keys[7], "training_failed", "face-LoRA of 'anna/other-1': got a loss of nan")
    ledger.complete("identity", keys[8], {"identity_id": "anna-lena/other-2"})
    about = ledger.about(["anna", "nobody"])
    assert {path[-69:-5] for path in about.pop("anna")} == {keys[number] for number in (0, 1, 2, 5, 6, 7)}
    assert about == {}
    assert ledger.about([]) == {}


def test_an_album_that_is_called_by_a_word_of_the_records_takes_nobody_elses(tmp_path: Path) -> None:
    ledger = Ledger(Store(tmp_path))
    keys = [f"{number:064x}" for number in range(3)]
    row = {"album_id": "anna", "status": "ok", "stage": "select", "style": "studio", "tags": ["smile", "glasses"]}
    ledger.complete("order", keys[0], {"portraits": [row]})
    ledger.fail("identity", keys[1], "training_failed", "face-LoRA of 'anna': got a loss of nan")
    words = ["studio", "ok", "select", "smile", "glasses", "training_failed", "portraits", "status", "record"]
    assert ledger.about(words) == {}
    ledger.complete("album", keys[2], {"album_id": "ok", "others": [{"identity_id": "smile/other-1"}]})
    own = [f"ledger/done/album/{keys[2]}.json"]
    assert ledger.about([*words, "anna"]) == {
        "ok": own,
        "smile": own,
        "anna": [f"ledger/done/order/{keys[0]}.json", f"ledger/failed/identity/{keys[1]}.json"],
    }
