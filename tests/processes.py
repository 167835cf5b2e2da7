"""Processes that tests start: none is waited for without an end, and nothing of them is left behind."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[1]


@contextmanager
def started(command: Sequence[str], **options: Any) -> Iterator["subprocess.Popen[Any]"]:
    """`command` in a session of its own, of which nothing is left afterwards."""
    process = subprocess.Popen(command, start_new_session=True, **options)
    try:
        yield process
    finally:
        end_session(process)


def run(command: Sequence[str], limit_s: float = 120.0, **options: Any) -> "subprocess.CompletedProcess[str]":
    """Exit code, output and errors of `command`; after `limit_s` it is ended, and the test fails with what it said.

    Both go through files: a pipe has no end as long as anybody holds it, and a daemon that inherited it may for ever.
    """
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        with started(command, cwd=ROOT, stdout=output, stderr=errors, **options) as process:
            with suppress(subprocess.TimeoutExpired):
                process.wait(limit_s)
            code = process.poll()
        said = []
        for file in (output, errors):
            file.seek(0)
            said.append(file.read())
    if code is None:
        last = "".join(said)[-2000:]
        pytest.fail(f"{' '.join(command)[:200]}: not done after {limit_s:g} s; the last it said: {last}")
    return subprocess.CompletedProcess(command, code, *said)


def end_session(process: "subprocess.Popen[Any]") -> None:
    """kill -9 of `process`, the leader of a session, and of all in it, in whatever process group, as Ray's daemons."""
    deadline_s = time.monotonic() + 30
    while members := [pid for pid in psutil.pids() if session_of(pid) == process.pid]:
        assert time.monotonic() < deadline_s, f"processes {members} do not end"
        for pid in members:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    process.wait(30)


def session_of(pid: int) -> int | None:
    """The session of a process that lives; None for one that is gone."""
    with suppress(psutil.NoSuchProcess, ProcessLookupError):
        if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
            return os.getsid(pid)
    return None
