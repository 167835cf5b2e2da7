"""The endpoint's trainer killed, poisoned and told to end: nothing is lost, nothing is another's fault."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from studiolo.identities.artifacts import checkpoint_path
from studiolo.identities.learned import LearnedVersion
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.records import Job, JobReason, State
from studiolo.service.service import Service
from tests.actors.leased import (
    TENANT,
    album,
    endpoint_settings,
    identity_id,
    job_of,
    opened_service,
    submit,
    wait_for,
)
from tests.processes import ROOT, started

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900), pytest.mark.usefixtures("weights")]

STEPS = 120
BEGUN = "learned from step "
LIMIT_S = 300.0


class Endpoint:
    """A database and a store, and trainers that are started over them."""

    def __init__(self, folder: Path, **face_lora: Any) -> None:
        folder.mkdir()
        self.settings: EndpointSettings = endpoint_settings(
            folder, lease_s=1.5, **{"checkpoint_seconds": 0.2, "steps": STEPS, **face_lora}
        )
        self.service: Service = opened_service(self.settings)
        self.config, self.log = folder / "endpoint.yaml", folder / "trainer.log"
        self.config.write_text(yaml.safe_dump(self.settings.model_dump(mode="json")))

    @contextmanager
    def trainer(self, *words: str) -> Iterator["subprocess.Popen[Any]"]:
        """A process that works, and is killed at the end of the `with`."""
        command = [sys.executable, "-m", "tests.jobs.tiny_trainer", str(self.config), *words]
        with self.log.open("a") as log, started(command, cwd=ROOT, stderr=log, stdout=log) as process:
            yield process

    def finish(self) -> None:
        """Have done what is queued."""
        with self.trainer("once") as process:
            assert process.wait(LIMIT_S) == 0, self.said()

    def said(self) -> str:
        """What all its trainers wrote."""
        return self.log.read_text()

    def job(self, job: Job) -> Job:
        """The job as it is now."""
        return job_of(self.service, job)

    def checkpoint(self) -> bytes:
        """What is kept of the first identity's training; empty before its first checkpoint."""
        path = checkpoint_path(identity_id(1))
        return self.service.store.read_bytes(path) if self.service.store.exists(path) else b""

    def face_lora(self, job: Job) -> str:
        """sha256 of what was learned."""
        identity = self.service.identities.get(TENANT, str(job.identity_id))
        assert identity is not None
        (version,) = identity.versions
        return LearnedVersion.model_validate(version.record).lora_sha256


def test_killed_twice_it_comes_to_the_bytes_of_a_calm_run(people: Path, tmp_path: Path) -> None:
    calm = Endpoint(tmp_path / "calm")
    jobs = [submit(calm.service, number, album(people, count=2), STEPS) for number in (1, 2)]
    calm.finish()
    wanted = [calm.face_lora(job) for job in jobs]

    killed = Endpoint(tmp_path / "killed")
    jobs = [submit(killed.service, number, album(people, count=2), STEPS) for number in (1, 2)]
    first, kept = jobs[0], killed.checkpoint()
    for attempt in (1, 2):
        with killed.trainer() as process:
            wait_for(lambda: killed.checkpoint() != kept, LIMIT_S)  # noqa: B023
            process.kill()
            process.wait(30)
        kept = killed.checkpoint()
        assert (killed.job(first).state, killed.job(first).attempts) == (State.RUNNING, attempt), (
            "too fast to be killed"
        )
    with killed.trainer() as process:
        wait_for(lambda: all(killed.job(job).state.final for job in jobs), LIMIT_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert [killed.job(job).attempts for job in jobs] == [3, 2]
    assert [killed.face_lora(job) for job in jobs] == wanted
    lines = [json.loads(line) for line in killed.said().splitlines() if line.startswith("{")]
    told = [line["message"] for line in lines if line.get("job_id") == jobs[0].id]
    begun = [int(one.removeprefix(BEGUN)) for one in told if one.startswith(BEGUN)]
    assert begun[0] == 0 < begun[1] < begun[2]


def test_told_to_end_it_gives_back_untried(people: Path, tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "endpoint", steps=100_000)
    job = submit(endpoint.service, 1, album(people), 100_000)
    with endpoint.trainer() as process:
        wait_for(lambda: endpoint.job(job).steps_done > 0, LIMIT_S)
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    back = endpoint.job(job)
    assert (back.state, back.attempts) == (State.QUEUED, 0)
    assert endpoint.service.store.exists(checkpoint_path(identity_id(1)))


def test_an_identity_that_ends_its_trainers_fails_alone(people: Path, tmp_path: Path) -> None:
    endpoint = Endpoint(tmp_path / "endpoint", slots=3, steps=6)
    photos = album(people)
    jobs = [submit(endpoint.service, number, photos) for number in (1, 2, 3)]
    poisoned, *others = jobs
    deaths = 0
    while not all(endpoint.job(job).state.final for job in jobs):
        with endpoint.trainer("poison", str(poisoned.identity_id)) as process:
            wait_for(
                lambda: process.poll() is not None or all(endpoint.job(job).state.final for job in jobs),
                LIMIT_S,
            )
            if process.poll() is not None:
                assert process.poll() == -signal.SIGABRT, endpoint.said()
                deaths += 1
        assert deaths <= 3
    ended = endpoint.job(poisoned)
    assert (ended.state, ended.reason, ended.attempts) == (State.FAILED, JobReason.GAVE_UP, 3)
    assert ended.sentence == JobReason.GAVE_UP.sentence()
    assert [(endpoint.job(job).state, endpoint.job(job).attempts) for job in others] == [(State.SUCCEEDED, 2)] * 2
    assert deaths == 3
