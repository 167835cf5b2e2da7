"""Work beside the work."""

import logging
import threading

import pytest

from studiolo.errors import DatabaseError
from studiolo.service import regularly as module
from studiolo.service.regularly import regularly


def test_it_goes_on_after_faults_and_ends_with_its_block(caplog: pytest.LogCaptureFixture):
    calls, enough = [0], threading.Event()

    def work() -> None:
        calls[0] += 1
        if calls[0] == 1:
            raise DatabaseError("away")
        if calls[0] == 2:
            raise ZeroDivisionError
        enough.set()

    with caplog.at_level(logging.WARNING), regularly("leases", 0.001, work):
        assert enough.wait(60)
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]
    assert [record.getMessage() for record in caplog.records] == ["leases: away", "leases: a fault"]


def test_what_hangs_is_not_waited_for_for_ever(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "LAST_CALL_S", 0.05)
    begun, answer = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        assert answer.wait(60)

    with caplog.at_level(logging.WARNING), regularly("tending", 0.001, hang):
        assert begun.wait(60)
    (thread,) = [thread for thread in threading.enumerate() if thread.name == "tending"]
    assert [record.getMessage() for record in caplog.records] == ["tending: not waited for any longer"]
    answer.set()
    thread.join(60)
    assert not thread.is_alive()
