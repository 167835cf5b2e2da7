"""The endpoint's processes, as tests kill them, and a customer who insists and keeps what was promised."""

import json
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import pytest

from benchmarks.installation import Installation
from tests.processes import end_session, session_of

LIMIT_S = 240.0
"""Longest that anything here is waited for: half a minute on idle cores."""
FINAL = {"succeeded", "failed", "cancelled"}
TEXTS = {
    "name": "Anna",
    "consent_given_by": "Anna herself",
    "consent_statement": "Portraits may be made of me.",
    "consent_given_at": "1794000000",
}
Found = TypeVar("Found")
Event = tuple[str, Any]
"""Its name and its data."""


def wait_for(what: str, look: Callable[[], Found | None], limit_s: float = LIMIT_S) -> Found:
    """The first thing that `look` finds; the test fails when that takes too long."""
    give_up_s = time.monotonic() + limit_s
    while not (found := look()):
        if time.monotonic() > give_up_s:
            pytest.fail(f"{what}: not after {limit_s:g} s")
        time.sleep(0.1)
    return found


class Processes:
    """What an installation runs: Serve with its cluster, and the trainer. Leaving the context leaves nothing of it."""

    def __init__(self, installation: Installation, *, trainer: bool = True, **environment: str) -> None:
        self.installation = installation
        self._commands = {"serve": installation.serve_command}
        if trainer:
            self._commands["trainer"] = installation.trainer_command
        self.environment = environment
        """On top of the installation's, from the next start on."""
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def running(self) -> bool:
        """Whether it was started and not killed as a whole."""
        return bool(self._running)

    def __enter__(self) -> "Processes":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def start(self) -> None:
        """Start all and wait until requests are taken."""
        environment = self.installation.environment(**self.environment)
        for name, command in self._commands.items():
            with self._log(name).open("ab") as log:
                options = {"cwd": self.installation.folder, "env": environment, "stdout": log, "stderr": log}
                self._running[name] = subprocess.Popen(command, start_new_session=True, **options)
        wait_for("the endpoint takes requests", self._ready)

    def kill(self) -> None:
        """kill -9 of every process there is."""
        for process in self._running.values():
            end_session(process)
        self._running.clear()

    def kill_replica(self, deployment: str) -> None:
        """kill -9 of a deployment's only replica."""
        (process,) = self._replicas(deployment)
        process.kill()

    def said(self) -> str:
        """The last that they wrote."""
        logs = [self._log(name) for name in self._commands]
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs if log.exists())

    def _ready(self) -> bool:
        if any(process.poll() is not None for process in self._running.values()):
            pytest.fail(f"a process ended by itself: {self.said()}")
        return self.installation.ready()

    def _replicas(self, deployment: str) -> list[psutil.Process]:
        title, session, found = re.compile(rf"ray::ServeReplica:[^:]+:{deployment}\b"), self._running["serve"].pid, []
        for process in psutil.process_iter():
            with suppress(psutil.NoSuchProcess):
                if title.match(" ".join(process.cmdline())) and session_of(process.pid) == session:
                    found.append(process)
        return found

    def _log(self, name: str) -> Path:
        return self.installation.folder / f"{name}.log"


class Customer:
    """Asks again until it is answered, always under the same idempotency key, and remembers what was accepted."""

    def __init__(self, url: str, token: str) -> None:
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        self.accepted: set[str] = set()
        """Ids of jobs."""

    def order(self, **body: Any) -> str:
        """Order portraits; the job's id."""
        return str(self._submitted("/v1/portraits", json=body)["id"])

    def learn(self, photos: Sequence[bytes], key: str | None = None, **texts: str) -> dict[str, Any]:
        """Send an album; the job."""
        files = [("photos", ("photo.jpg", photo, "image/jpeg")) for photo in photos]
        return self._submitted("/v1/identities", key, data={**TEXTS, **texts}, files=files)

    def job(self, job_id: str) -> dict[str, Any]:
        """The job as it is."""
        found: dict[str, Any] = self._insist("GET", f"/v1/jobs/{job_id}").json()
        return found

    def ended(self, job_ids: Collection[str]) -> list[dict[str, Any]]:
        """The jobs, when all have ended."""

        def end_of(job_id: str) -> dict[str, Any]:
            return wait_for(f"{job_id} ends", lambda: job if (job := self.job(job_id))["state"] in FINAL else None)

        return [end_of(job_id) for job_id in job_ids]

    def punctual(self, count: int, deadline_s: float) -> None:
        """New requests are accepted with a deadline, sooner or later, and meet it."""
        for job in self.ended([self.order(style="studio", deadline_s=deadline_s) for _ in range(count)]):
            assert job["state"] == "succeeded", job
            assert job["finished_at"] <= job["deadline_at"], job

    def events(self, job_id: str) -> Iterator[Event]:
        """The events of a job as they come."""
        name = ""
        with self.http.stream("GET", f"/v1/jobs/{job_id}/events") as answer:
            assert answer.status_code == 200
            for line in answer.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("data: "):
                    yield name, json.loads(line.removeprefix("data: "))

    def until_it_is_drawn(self, job_id: str) -> None:
        """Wait for the first progress of a job."""
        assert any(name == "progress" for name, _ in self.events(job_id)), "it ended before anything was told of it"

    def _submitted(self, path: str, key: str | None = None, **request: Any) -> dict[str, Any]:
        job: dict[str, Any] = self._insist(
            "POST", path, headers={"Idempotency-Key": key or uuid.uuid4().hex}, **request
        ).json()
        self.accepted.add(job["id"])
        return job

    def _insist(self, method: str, path: str, **request: Any) -> httpx.Response:
        """An answer of 2xx; a refusal for now, a fault of theirs and a broken connection are no answer."""

        def ask() -> httpx.Response | None:
            try:
                answer = self.http.request(method, path, **request)
            except httpx.TransportError:
                return None
            if answer.status_code == 429:
                time.sleep(float(answer.headers["Retry-After"]))
                return None
            if answer.status_code >= 500:
                assert '"reason": "fault"' not in answer.text, answer.text  # parts may be away, ours has no faults
                return None
            assert answer.is_success, answer.text
            return answer

        return wait_for(f"{method} {path} is answered", ask)
