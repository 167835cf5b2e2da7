"""The output fails: a full disk, an object store with faults. The job's end is clear, and the bytes stay the same."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from studiolo.storage.ledger import Ledger
from studiolo.storage.store import Store
from tests.slow.conftest import Calm
from tests.slow.running import Job, records, results
from tests.storage.faulty import COUNT, EVERY, install

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of its own, with 2 MiB: room for the references of one person and a part of a training."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def test_a_full_disk_ends_the_job_which_goes_on_when_there_is_room(calm: Calm, disk: Path, tmp_path: Path) -> None:
    out, tracking = disk / "out", f"sqlite:///{tmp_path}/mlflow.db"
    with Job(calm.albums, out, calm.config, "--tracking-uri", tracking) as job:
        code, said = job.finish()
    assert code == 1, said
    error = said.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert "No space left on device; check free space" in error
    assert "Traceback" not in said
    finished = records(out)
    ledger = Ledger(Store(out))
    for path in out.glob("ledger/done/*/*.json"):
        assert ledger.done(path.parent.name, path.stem) is not None
    subprocess.run(["mount", "-o", "remount,size=100m", str(disk)], check=True)
    with Job(calm.albums, out, calm.config, "--tracking-uri", tracking) as job:
        code, said = job.finish()
    assert code == 3, said
    assert finished
    assert finished.items() <= records(out).items()
    assert results(out) == calm.results


def test_a_store_that_fails_one_write_in_twenty_changes_nothing(calm: Calm, tmp_path: Path) -> None:
    out, environment = tmp_path / "out", install(tmp_path / "installed")
    environment[EVERY] = "20"
    tracking = f"sqlite:///{tmp_path}/mlflow.db"
    with Job(calm.albums, f"faulty://{out}", calm.config, "--tracking-uri", tracking, **environment) as job:
        code, said = job.finish()
    assert code == 3, said
    assert Path(environment[COUNT]).stat().st_size > 40  # so many writes, and at least two faults
    assert results(out) == calm.results
