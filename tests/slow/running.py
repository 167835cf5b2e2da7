"""A job in a process of its own, watched by its progress lines, and what it leaves."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import pytest

from tests.processes import ROOT, end_session

LIMIT_S = 1200.0
"""Longest that one job may take here: a minute on idle cores, six beside twenty others."""

TRAINING_WORKER = "RayTrainWorker"
"""In the name of a process that trains."""

STAGES = ("perceive", "train", "portraits", "publish")
_PROGRESS = re.compile(r"\d\d:\d\d:\d\d (\w+) ")
_DONE = re.compile(_PROGRESS.pattern + r".* done seconds=([\d.]+)")


class Command:
    """One run of `python -m jobs ARGUMENTS`; leaving the context leaves nothing of it running."""

    def __init__(self, stages: Sequence[str], cwd: Path, *arguments: str, **environment: str) -> None:
        self.stages = stages
        self.process = subprocess.Popen(
            [sys.executable, "-m", "jobs", *arguments],
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._started_s = time.monotonic()
        self._lines: list[str] = []
        self._began_s: dict[str, float] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        end_session(self.process)  # Ray's agents outlive a killed driver by a minute

    def finish(self) -> tuple[int, str]:
        """Exit code, and all it said to people."""
        try:
            code = self.process.wait(LIMIT_S)
        except subprocess.TimeoutExpired:
            pytest.fail(f"the job was not done after {LIMIT_S:g} s; the last it said: {''.join(self._lines)[-2000:]}")
        self._reader.join(5)  # its pipe has no end as long as a daemon of the job holds it
        return code, "".join(self._lines)

    def kill_at(self, stage: str, after_s: float) -> bool:
        """kill -9 of the driver alone, `after_s` seconds into `stage` or when that ends; whether it was still there."""
        while self.running():
            if self._over(stage) or self._into_s(stage) >= after_s:
                self.process.send_signal(signal.SIGKILL)
                return True
            time.sleep(0.01)
        return False

    def kill_worker(self, stage: str, after_s: float) -> bool:
        """kill -9 of the oldest worker, `after_s` seconds into `stage` or when there is one then; whether there was."""
        while self.running() and not self._over(stage):
            if self._into_s(stage) >= after_s and (workers := self.workers()):
                workers[0].kill()
                return True
            time.sleep(0.05)
        return False

    def _into_s(self, stage: str) -> float:
        """Seconds since `stage` began; below 0 before."""
        return time.monotonic() - self._began_s.get(stage, float("inf"))

    def _over(self, stage: str) -> bool:
        return any(later in self._began_s for later in self.stages[self.stages.index(stage) + 1 :])

    def running(self) -> bool:
        """Whether it still runs; a test fails that asks for longer than `LIMIT_S`."""
        if time.monotonic() - self._started_s > LIMIT_S:
            pytest.fail(f"the job runs for more than {LIMIT_S:g} s; the last it said: {''.join(self._lines)[-2000:]}")
        return self.process.poll() is None

    def workers(self) -> list[psutil.Process]:
        """The processes that hold the actors, the oldest first."""
        try:
            children = psutil.Process(self.process.pid).children(recursive=True)
            titles = {child: child.name() + " ".join(child.cmdline()) for child in children}
            found = [child for child, title in titles.items() if "MapWorker" in title or TRAINING_WORKER in title]
            return sorted(found, key=lambda child: child.create_time())
        except psutil.NoSuchProcess:
            return []

    def seconds(self) -> dict[str, float]:
        """Of each stage that is done."""
        return {match[1]: float(match[2]) for match in map(_DONE.match, self._lines) if match}

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._lines.append(line)
            if found := _PROGRESS.match(line):
                self._began_s.setdefault(found[1], time.monotonic())


class Job(Command):
    """One run of `python -m jobs studio`."""

    def __init__(self, albums: Path, out: str | Path, config: Path, *options: str, **environment: str) -> None:
        arguments = ["studio", "--albums", str(albums), "--out", str(out), "--config", str(config), *options]
        super().__init__(STAGES, config.parent, *arguments, **environment)


def results(out: Path) -> dict[str, str]:
    """sha256 of every table's rows and of every file that a customer gets, by name."""
    tables = [out / f"{name}.parquet" for name in ("albums", "references", "identities", "portraits")]
    found = [*tables, *out.glob("identities/**/*"), *out.glob("gallery/**/*"), out / "contact-sheet.png"]
    files = [path for path in found if path.is_file()]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def records(out: Path) -> dict[str, int]:
    """When each record of a finished unit was written, in ns: a unit done again would write it again."""
    return {path.name: path.stat().st_mtime_ns for path in out.glob("ledger/done/**/*.json")}
