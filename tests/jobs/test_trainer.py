"""`python -m jobs trainer` over an album that came in by HTTP, on the real models; and its signals."""

import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from fastapi.testclient import TestClient

from jobs.trainer_job import on_this_machine, told_to_end, worker_name
from studiolo.service.endpoint import EndpointSettings
from studiolo.service.identities import IdentityState
from studiolo.service.live import LiveMemory
from studiolo.service.metrics import LABELS
from studiolo.service.records import State
from tests.actors.leased import album, endpoint_settings, opened_service
from tests.processes import run
from web.app import create_app

FORM = {
    "name": "Anna",
    "consent_given_by": "Anna",
    "consent_statement": "Portraits of me may be made.",
    "consent_given_at": "1700000000",
}


@pytest.mark.usefixtures("weights")
@pytest.mark.timeout(600)
def test_an_album_that_was_posted_is_an_identity_once_the_trainer_has_run(people: Path, tmp_path: Path) -> None:
    settings = endpoint_settings(tmp_path, steps=3, batch_size=1, slots=1, precision="bfloat16")
    config = tmp_path / "endpoint.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    service = opened_service(settings)
    headers = {"Authorization": f"Bearer {service.keys.create('shop').token}"}
    with TestClient(create_app(service, settings, LiveMemory()), headers=headers) as client:
        photos = [("photos", (f"{number}.jpg", content)) for number, content in enumerate(album(people, count=2))]
        accepted = client.post("/v1/identities", data=FORM, files=photos)
        assert accepted.status_code == 202, accepted.text
        ended = run(
            [sys.executable, "-m", "jobs", "trainer", "--config", str(config), "--once", "--device", "cpu"], limit_s=400
        )
        assert ended.returncode == 0, ended.stderr
        job = client.get(f"/v1/jobs/{accepted.json()['id']}").json()
        identity = client.get(f"/v1/identities/{job['identity_id']}").json()
    service.close()
    assert (job["state"], job["steps_done"], len(job["photos"])) == (State.SUCCEEDED, 3, 2)
    (version,) = identity["versions"]
    assert (identity["state"], version["steps"]) == (IdentityState.READY, 3)
    assert [point["step"] for point in version["curve"]] == [1, 2, 3]
    assert {reference["photo"] for reference in version["references"]} == {1, 2}


@pytest.fixture
def interrupts() -> Iterator[None]:
    """Ctrl-C is Python's own, also where the tests were started in the background, whose processes ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_signals_ask_it_to_end_and_are_put_back() -> None:
    asked: list[str] = []
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with told_to_end(lambda: asked.append("end")):
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked == ["end", "end"]
        with pytest.raises(KeyboardInterrupt):  # it has been asked
            os.kill(os.getpid(), signal.SIGINT)
    with told_to_end(lambda: asked.append("end")):
        os.kill(os.getpid(), signal.SIGINT)
    assert asked == ["end"] * 3
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_trainers_of_a_machine_have_names_of_their_own_and_keep_them() -> None:
    with worker_name() as first:
        with worker_name() as second:
            assert first != second
        with worker_name() as third:
            assert third == second
    assert re.fullmatch(LABELS["worker"], first)
    assert first.startswith(f"trainer-{socket.gethostname()}-")


def test_slots_that_are_not_given_are_those_of_the_device_and_no_other_setting_changes() -> None:
    settings = EndpointSettings()
    found = on_this_machine(settings)
    assert found.slots is not None
    assert found == settings.face_lora.model_copy(update={"slots": found.slots})
