"""Work beside the work."""

import logging
import threading

import pytest

from studiolo.errors import DatabaseError
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
        assert enough.wait(20)
    ended = calls[0]
    assert not [thread for thread in threading.enumerate() if thread.name == "leases"]
    assert [record.getMessage() for record in caplog.records] == ["leases: away", "leases: a fault"]
    assert calls[0] == ended
