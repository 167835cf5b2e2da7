"""`python -m jobs serve` told to end: jobs in hand end first, for longer than Serve itself would wait."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.installation import Installation
from studiolo.service.records import State
from studiolo.service.service import Service
from tests.processes import started
from tests.slow.endpoint import Customer, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600), pytest.mark.usefixtures("weights")]

SETTINGS = {
    "generation": {"steps": 250, "slots": 4, "upscale": 1, "retries": 0, "accept_similarity": 0.0},
    "dispatcher": {"drain_s": 240.0, "jobs": 1, "poll_s": 0.1},
}
"""One job of four portraits takes three quarters of a minute on two idle cores; one is in hand."""


def test_ctrl_c_lets_a_job_in_hand_end_for_as_long_as_it_is_told(tmp_path: Path) -> None:
    with Installation.prepared(tmp_path, SETTINGS) as installation:
        config = tmp_path / "endpoint.yaml"
        service = Service.open(installation.settings)
        token = service.keys.create("shop").token
        customer = Customer(installation.url, token)
        command = [sys.executable, "-m", "jobs", "serve", "--config", str(config), "--port", str(installation.port)]
        with (tmp_path / "log").open("wb") as log:
            options = {"env": installation.environment(), "stdout": log, "stderr": subprocess.STDOUT}
            with started(command, **options) as process:
                wait_for("the endpoint takes requests", installation.ready)
                drawn, waits = (customer.order(style="studio", count=4, seed=seed) for seed in range(2))
                customer.until_it_is_drawn(drawn)
                process.send_signal(signal.SIGINT)
                code = process.wait(300)
        assert code == 0, (tmp_path / "log").read_text()[-3000:]
        jobs = [service.queue.get(service.keys.authenticate(token).tenant_id, one) for one in (drawn, waits)]
        assert [(job.state, job.attempts) for job in jobs if job] == [(State.SUCCEEDED, 1), (State.QUEUED, 0)]
        service.close()
