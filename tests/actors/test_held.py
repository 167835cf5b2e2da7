"""Writes of a worker that may no longer be wanted."""

from pathlib import Path
from typing import Any

import pytest

from actors import held
from actors.held import HeldStore, HeldTracker, is_missing
from studiolo.errors import LeaseLostError, StoreError
from studiolo.storage.store import Store
from tests.actors.test_trainer import Runs


def guarded(folder: Path, lost: list[str], waits: list[float] | None = None) -> HeldStore:
    """A store that refuses writes once something is in `lost`, and is patient with `waits`."""

    def guard() -> None:
        if lost:
            raise LeaseLostError("job", lost[0])

    def wait(pause_s: float) -> bool:
        if waits is not None:
            waits.append(pause_s)
        return waits is not None

    return HeldStore(str(folder), guard, wait)


def test_who_has_lost_its_job_reads_and_does_not_write(tmp_path: Path) -> None:
    lost: list[str] = []
    store = guarded(tmp_path, lost)
    store.write_bytes("a", b"1")
    lost.append("erased")
    for write in (lambda: store.write_bytes("a", b"2"), lambda: store.write_json("b", 2)):
        with pytest.raises(LeaseLostError):
            write()
    assert store.read_bytes("a") == b"1"
    assert store.list() == ["a"]


def test_what_fails_is_asked_again_as_long_as_there_is_patience(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [0]

    def away(*_: Any) -> bytes:
        asked[0] += 1
        raise StoreError("away")

    waits: list[float] = []
    with pytest.raises(StoreError) as missing:
        guarded(tmp_path, [], waits).read_bytes("a")
    assert is_missing(missing.value)
    monkeypatch.setattr(Store, "read_bytes", away)
    with pytest.raises(StoreError) as error:
        guarded(tmp_path, []).read_bytes("a")
    assert (asked, waits, is_missing(error.value)) == ([1], [], False)
    with pytest.raises(StoreError):
        guarded(tmp_path, [], waits).read_bytes("a")
    assert (asked[0], tuple(waits)) == (2 + len(held.RETRY_PAUSES_S), held.RETRY_PAUSES_S)


def test_no_run_is_opened_but_below_the_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    runs = Runs()

    def away(*_: Any) -> str:
        raise StoreError("away")

    tracker = HeldTracker(runs, lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(runs, "start", away)
        assert tracker.start("key", "anna", {}) == ""
        tracker.finish("", ok=True)
    assert tracker.start("key", "anna", {}) == "None/endpoint/endpoint/anna/key"
    tracker.log_metrics("run", {"loss": 1.0})
    assert (runs.metrics, runs.closed) == ({"run": {"loss": 1.0}}, {})
