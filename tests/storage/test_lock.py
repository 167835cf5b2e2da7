"""One live driver an output: the second is refused, a dead one is replaced."""

import os
import re
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest

from studiolo.errors import LockedError
from studiolo.storage import lock
from studiolo.storage.store import Store


@pytest.fixture(params=["disk", "objects", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr(lock, "SETTLE_S", 0.05)
    if request.param == "s3":
        return Store(f"{request.getfixturevalue('s3')}/out")
    return Store(tmp_path / "out" if request.param == "disk" else f"memory://{uuid.uuid4().hex}/out")


def test_a_second_live_driver_is_refused_and_told_who_has_it(store: Store) -> None:
    with store.lock("studio"):
        holder = rf"job 'studio' \(host \S+, pid {os.getpid()}, last heartbeat [0-9] s ago\)"
        with pytest.raises(LockedError, match=holder), store.lock("studio again"):
            pass
        assert store.exists(lock.LOCK_PATH)
        assert store.list() == []
    assert not store.exists(lock.LOCK_PATH)
    with store.lock("next"):
        pass


def test_the_lock_is_released_when_the_job_fails(store: Store) -> None:
    with pytest.raises(RuntimeError, match="boom"), store.lock("studio"):
        raise RuntimeError("boom")
    assert not store.exists(lock.LOCK_PATH)


def test_the_heart_beats_and_a_live_lock_never_goes_stale(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.02)
    monkeypatch.setattr(lock, "STALE_S", 2.0)
    with store.lock("studio") as held:
        first = store.read_json(lock.LOCK_PATH)["beat_unix_s"]
        time.sleep(3)
        assert store.read_json(lock.LOCK_PATH)["beat_unix_s"] > first
        with pytest.raises(LockedError), store.lock("other"):
            pass
        held.check()


def _abandon(store: Store, **changes: object) -> None:
    """Leave the lock file of a driver that is gone."""
    store.remove(lock.LOCK_PATH)
    held = lock.Lock(store, "gone")
    held.acquire()
    record = store.read_json(lock.LOCK_PATH) | changes
    held.release()
    store.write_json(lock.LOCK_PATH, record)


def test_a_stale_heartbeat_is_taken_over(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    _abandon(store, beat_unix_s=time.time() - lock.STALE_S - 1)
    with store.lock("studio"):
        assert store.read_json(lock.LOCK_PATH)["owner"] == "studio"
    _abandon(store, host="elsewhere", beat_unix_s=time.time() - lock.STALE_S + 5)
    with pytest.raises(LockedError, match="host elsewhere"), store.lock("studio"):
        pass
    monkeypatch.setattr(lock, "BEAT_S", 0.05)
    _abandon(store, host="elsewhere", beat_unix_s=time.time() - lock.STALE_S - 1)
    with store.lock("studio"):
        pass


def test_a_slow_clock_elsewhere_does_not_make_a_beating_lock_stale(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.3)
    _abandon(store, host="elsewhere", beat_unix_s=time.time() - 3600)
    real_sleep = time.sleep

    def beat_meanwhile(seconds: float) -> None:
        record = store.read_json(lock.LOCK_PATH)
        store.write_json(lock.LOCK_PATH, record | {"beat_unix_s": record["beat_unix_s"] + 1})
        real_sleep(seconds)

    monkeypatch.setattr(lock.time, "sleep", beat_meanwhile)
    with pytest.raises(LockedError, match="host elsewhere"), store.lock("studio"):
        pass


def test_a_driver_that_lost_its_lock_learns_it_and_leaves_the_new_one_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lock, "BEAT_S", 0.02)
    with store.lock("slept") as held:
        winner = store.read_json(lock.LOCK_PATH) | {"token": "another", "owner": "winner"}
        deadline_s = time.monotonic() + 60
        while held._lost_to is None and time.monotonic() < deadline_s:
            store.write_json(lock.LOCK_PATH, winner)  # again, because a beat may be under way
            time.sleep(0.01)
        with pytest.raises(LockedError, match=r"job 'winner' .* took it over; run the same command again"):
            held.check()
    assert store.read_json(lock.LOCK_PATH)["owner"] == "winner"


_HOLDER = """
import sys, time
from studiolo.storage.store import Store
with Store(sys.argv[1]).lock("killed"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_killed_driver_on_this_host_is_replaced_at_once(tmp_path: Path) -> None:
    store = Store(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _HOLDER, store.url]
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)
    assert holder.stdout is not None
    assert holder.stdout.readline() == b"held\n"
    with pytest.raises(LockedError, match=re.escape(f"pid {holder.pid}")), store.lock("studio"):
        pass
    holder.send_signal(signal.SIGKILL)
    holder.wait(30)
    holder.stdout.close()
    with store.lock("studio"):
        assert store.read_json(lock.LOCK_PATH)["pid"] == os.getpid()


_RACER = """
import sys
from studiolo.errors import LockedError
from studiolo.storage.store import Store
print("ready", flush=True)
sys.stdin.readline()
try:
    with Store(sys.argv[1]).lock("racer"):
        print("won", flush=True)
        sys.stdin.readline()
except LockedError:
    print("refused", flush=True)
"""


def test_of_simultaneous_drivers_exactly_one_wins(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    command = [sys.executable, "-c", _RACER, str(tmp_path)]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
        for _ in range(4)
    ]
    assert [_line(racer) for racer in racers] == ["ready"] * 4
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("\n")
        racer.stdin.flush()
    answers = [_line(racer) for racer in racers]  # the winner holds on until its input ends
    for racer in racers:
        racer.communicate(timeout=60)
    assert sorted(answers) == ["refused", "refused", "refused", "won"]


def _line(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()
