"""kill -9 of drivers and workers, and a node that goes; the same command again gives the bytes of a calm run."""

import hashlib
import os
import time
from pathlib import Path

import psutil
import pytest

from jobs.dataset_job import STAGES
from tests.slow.running import ROOT, Command, records

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]

FACES = 24
CONFIG = """\
cpus: 2
object_store_mib: 100
annotation: {actors: 2, cpus_per_actor: 0.75, image_side_px: 128, rows_per_shard: 3}
release: {min_quality: 0.05, validation_share: 0.2, test_share: 0.2, rows_per_file: 4}
"""


class Dataset(Command):
    """One run of `python -m jobs dataset` over random faces."""

    def __init__(self, out: Path, *options: str, **environment: str) -> None:
        config = out.parent / "config.yaml"
        config.write_text(CONFIG)
        source = f"synthetic:count={FACES},side=256"
        arguments = ["dataset", "--sources", source, "--out", str(out), "--config", str(config), *options]
        super().__init__(STAGES, out.parent, *arguments, **environment)


def results(out: Path) -> dict[str, str]:
    """sha256 of every file, by name, but MLflow's, the marks of workers whose driver was killed, and what that was
    writing then, which a later driver sweeps.
    """
    folders = ("listing", "shards", "captions", "captions-in-parts", "releases", "ledger")
    paths = (path for folder in folders for path in (out / folder).rglob("*"))
    files = [path for path in paths if path.is_file() and path.suffix != ".tmp"]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> tuple[dict[str, str], dict[str, float]]:
    """What comes of it when nobody disturbs it, and the seconds of each stage."""
    out = tmp_path_factory.mktemp("calm") / "out"
    with Dataset(out) as job:
        code, said = job.finish()
        seconds = job.seconds()
    assert code == 0, said
    assert len([path for path in results(out) if path.startswith("shards/")]) == FACES // 3
    return results(out), seconds


def test_a_driver_killed_in_every_stage_loses_nothing_and_does_nothing_twice(
    calm: tuple[dict[str, str], dict[str, float]], tmp_path: Path
) -> None:
    out, finished, kills = tmp_path / "out", {}, 0
    shares = {**dict.fromkeys(STAGES, (0.5,)), "annotate": (0.3, 0.8)}
    moments = [(stage, share * calm[1][stage]) for stage in STAGES for share in shares[stage]]
    for stage, after_s in moments:
        with Dataset(out) as job:
            kills += job.kill_at(stage, after_s)
        assert finished.items() <= records(out).items()  # of units that were done none was done again
        finished = records(out)
    assert kills >= len(moments) - 2  # the last moments may find the job at its end
    with Dataset(out) as job:
        code, said = job.finish()
    assert code == 0, said
    assert finished.items() <= records(out).items()
    assert results(out) == calm[0]


def test_killed_workers_change_nothing(calm: tuple[dict[str, str], dict[str, float]], tmp_path: Path) -> None:
    out, every_s, kills = tmp_path / "out", calm[1]["annotate"] / 3, 0
    with Dataset(out) as job:
        due_s = time.monotonic() + every_s
        while job.running():
            if time.monotonic() >= due_s and (workers := job.workers()):
                workers[kills % len(workers)].kill()
                kills += 1
                due_s = time.monotonic() + every_s
            time.sleep(0.05)
        code, said = job.finish()
    assert kills > 1
    assert code == 0, said
    assert results(out) == calm[0]


def test_a_node_that_goes_changes_nothing(
    calm: tuple[dict[str, str], dict[str, float]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")])))
    from ray.cluster_utils import Cluster

    out = tmp_path / "out"
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "object_store_memory": 100 * 2**20})
    try:
        nodes = [cluster.add_node(num_cpus=1, object_store_memory=80 * 2**20) for _ in range(3)]
        with Dataset(out, RAY_ADDRESS=cluster.address) as job:
            ledger = out / "ledger" / "done"
            while job.running() and len(list(ledger.rglob("*.json"))) < 2:
                time.sleep(0.2)
            cluster.remove_node(busiest(nodes), allow_graceful=False)
            code, said = job.finish()
    finally:
        cluster.shutdown()
    assert code == 0, said
    assert results(out) == calm[0]


def busiest(nodes: list[object]) -> object:
    """The node below whose processes an actor is at work."""
    for node in nodes:
        for process in node.all_processes.get("raylet", ()):  # type: ignore[attr-defined]
            children = psutil.Process(process.process.pid).children(recursive=True)
            if any("MapWorker" in " ".join(child.cmdline()) for child in children):
                return node
    raise AssertionError("nobody is at work")
