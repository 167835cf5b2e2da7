"""The two processes of the endpoint end together, whoever ends first; stood in for by small ones."""

import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from jobs.serve import Part, environment, run_together

pytestmark = pytest.mark.timeout(60)

_SCRIPT = """
import pathlib, signal, sys, time
def end(*_):
    pathlib.Path(sys.argv[1]).write_text("ended in order")
    sys.exit(0)
if sys.argv[2] != "deaf":
    signal.signal(signal.{name}, end)
else:
    signal.signal(signal.{name}, signal.SIG_IGN)
pathlib.Path(sys.argv[1] + ".begun").touch()
time.sleep(0.3 if sys.argv[2] == "short" else 60)
sys.exit(7)
"""


def part(mark: Path, ends_by: signal.Signals, how: str = "long") -> Part:
    """A process that runs for a minute unless it is ended, and then leaves a mark."""
    return Part([sys.executable, "-c", _SCRIPT.format(name=ends_by.name), str(mark), how], ends_by)


def begun(*marks: Path) -> None:
    while not all(Path(f"{mark}.begun").exists() for mark in marks):
        time.sleep(0.02)


@pytest.mark.parametrize("told_by", [signal.SIGINT, signal.SIGTERM])
def test_told_to_end_it_ends_both_in_order(tmp_path: Path, told_by: signal.Signals) -> None:
    a, b = tmp_path / "a", tmp_path / "b"

    def tell() -> None:
        begun(a, b)
        os.kill(os.getpid(), told_by)

    threading.Thread(target=tell).start()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert run_together([part(a, signal.SIGINT), part(b, signal.SIGTERM)], os.environ, 30) == 0
    assert (a.read_text(), b.read_text()) == ("ended in order", "ended in order")
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_when_one_ends_the_other_is_ended(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    assert run_together([part(a, signal.SIGINT), part(b, signal.SIGTERM, "short")], os.environ, 30) == 1
    assert (a.read_text(), b.exists()) == ("ended in order", False)
    assert "ended with 7" in capfd.readouterr().err


def test_what_does_not_end_is_killed(tmp_path: Path) -> None:
    a, b = tmp_path / "a", tmp_path / "b"
    began_s = time.monotonic()
    assert run_together([part(a, signal.SIGINT, "deaf"), part(b, signal.SIGTERM, "short")], os.environ, 0.5) == 1
    assert time.monotonic() - began_s < 30


def test_what_the_user_has_set_for_ray_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "ray.internal:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    joined = environment()
    assert joined["RAY_ADDRESS"] == "ray.internal:6379"
    assert "RAY_AUTH_MODE" not in joined
    monkeypatch.setenv("RAY_ADDRESS", "local")
    assert environment()["RAY_AUTH_MODE"] == "disabled"
