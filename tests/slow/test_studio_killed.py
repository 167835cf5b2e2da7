"""kill -9 the driver at random moments; the same command again gives the bytes of an undisturbed run."""

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.jobs.conftest import quick_config, small_albums  # noqa: F401  (fixtures)

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]


def run(albums: Path, out: Path, config: Path, kill_after_s: float | None = None) -> int:
    """Exit code of one job in a process group of its own; negative when it was killed."""
    options = ["--albums", str(albums), "--out", str(out), "--config", str(config)]
    command = [sys.executable, "-m", "jobs", "studio", *options]
    with subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    ) as job:
        try:
            return job.wait(kill_after_s)
        except subprocess.TimeoutExpired:
            os.killpg(job.pid, signal.SIGKILL)
            return job.wait()


def hashes(out: Path) -> dict[str, str]:
    """Content of everything a customer gets."""
    found = [*out.glob("identities/**/*"), *out.glob("gallery/**/*"), *out.glob("contact-sheet.png")]
    files = [path for path in found if path.is_file()]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_killed_and_run_again_gives_the_same_bytes(small_albums, quick_config, tmp_path):  # noqa: F811
    started = time.monotonic()
    assert run(small_albums, tmp_path / "calm", quick_config) == 3
    whole_s = time.monotonic() - started
    moments = random.Random(0)
    for _ in range(3):
        code = run(small_albums, tmp_path / "killed", quick_config, moments.uniform(0.2, 0.9) * whole_s)
        assert code in (-signal.SIGKILL, 3)
    assert run(small_albums, tmp_path / "killed", quick_config) == 3
    calm = hashes(tmp_path / "calm")
    assert len(calm) > 10
    assert hashes(tmp_path / "killed") == calm
