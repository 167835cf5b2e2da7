"""The smallest job that goes through all stages with a training long enough to interrupt, and its calm result."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.jobs.conftest import small_albums  # noqa: F401  (a fixture)
from tests.slow.running import STAGES, Job, results

CONFIG = """\
styles: [studio]
per_style: 1
cpus: 2
object_store_mib: 100
perception: {actors: 1}
face_lora: {steps: 40, batch_size: 2, views_per_photo: 1, rank: 4, checkpoint_seconds: 0.5}
generation: {actors: 1, steps: 3, slots: 2, upscale: 1, retries: 0, accept_similarity: 0.0}
"""


@dataclass(frozen=True)
class Calm:
    """What the job is and comes to when nobody disturbs it."""

    albums: Path
    config: Path
    results: dict[str, str]
    seconds: dict[str, float]
    """By stage."""


@pytest.fixture(scope="session")
def calm(small_albums: Path, tmp_path_factory: pytest.TempPathFactory) -> Calm:  # noqa: F811
    folder = tmp_path_factory.mktemp("calm")
    config, out = folder / "config.yaml", folder / "out"
    config.write_text(CONFIG)
    with Job(small_albums, out, config) as job:
        code, said = job.finish()
    assert code == 3, said  # an album in which nothing is usable
    seconds = json.loads((out / "summary.json").read_text())["seconds_by_stage"]
    assert len(results(out)) > 10
    return Calm(small_albums, config, results(out), {stage: seconds[stage] for stage in STAGES})
