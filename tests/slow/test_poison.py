"""The whole job over a photo, an identity and an order that end their workers: these fail, the rest is finished."""

import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from jobs import studio_job
from studiolo.albums.records import Reason
from studiolo.errors import StoreError
from studiolo.identities.artifacts import safe_segment
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store
from tests.jobs.conftest import quick_config, small_albums  # noqa: F401  (fixtures)
from tests.processes import ROOT, run, started
from tests.slow.poisoned import STYLE, UNTRAINABLE, PoisonedPerceiver, PoisonedPortraitist, PoisonedTrainer

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def poisoned(settings: StudioSettings) -> Store:
    """The output of a job whose actors are poisoned."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(studio_job, "Perceiver", PoisonedPerceiver)
        patch.setattr(studio_job, "Trainer", PoisonedTrainer)
        patch.setattr(studio_job, "Portraitist", PoisonedPortraitist)
        assert studio_job.run(settings) == 3
    return Store(settings.out)


def by(rows: list[dict[str, Any]], *names: str) -> dict[Any, tuple[str, str]]:
    return {tuple(row[name] for name in names): (row["status"], row["reason"]) for row in rows}


def deaths(store: Store) -> Counter[str]:
    return Counter(path.split("/")[1] for path in store.list("deaths"))


def test_what_ends_its_workers_fails_alone(
    small_albums: Path,  # noqa: F811
    quick_config: Path,  # noqa: F811
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    settings = StudioSettings.load(
        quick_config, {"albums": str(small_albums), "out": str(tmp_path), "styles": f"studio,{STYLE}"}
    )
    store = poisoned(settings)
    assert capsys.readouterr().out.splitlines() == [str(tmp_path / studio_job.GALLERY_INDEX)]
    assert deaths(store) == {"photo": 4, "identity": 3, "order": 3}  # an identity and an order die once in company
    assert store.list("attempts") == []
    photos = [
        {**photo, "album": album["album_id"]}
        for album in store.read_table("albums.parquet").to_pylist()
        for photo in album["photos"]
    ]
    outcomes = by(photos, "album", "uri")
    assert outcomes.pop(("P001", "selfie.jpg")) == ("failed", Reason.CRASHED_WORKER)
    assert Counter(outcomes.values()) == {
        ("ok", ""): 5,
        ("failed", Reason.EMPTY_FILE): 1,
        ("failed", Reason.NOT_AN_IMAGE): 1,
    }
    assert by(store.read_table("identities.parquet").to_pylist(), "identity_id") == {
        ("P001",): ("ok", ""),
        ("P002",): ("failed", Reason.CRASHED_WORKER),
        ("nobody",): ("failed", Reason.NOTHING_USABLE),
    }
    portraits = store.read_table("portraits.parquet").to_pylist()
    assert by([row for row in portraits if row["style"] == STYLE], "identity_id") == {
        ("P001",): ("failed", Reason.CRASHED_WORKER)
    }
    assert ("ok", "") in by([row for row in portraits if row["style"] == "studio"], "index").values()
    summary = store.read_json("summary.json")
    assert (summary["orders"], summary["orders_failed"]) == (6, 1)
    assert summary["reasons"]["identities"] == {Reason.CRASHED_WORKER: 1, Reason.NOTHING_USABLE: 1}
    page = store.read_bytes(f"gallery/people/{safe_segment(UNTRAINABLE)}.html").decode()
    assert Reason.CRASHED_WORKER.sentence() in page

    assert studio_job.run(settings) == 3  # without the fault: what failed is tried again, and an album done as it is
    assert deaths(store) == {"photo": 4, "identity": 3, "order": 3}
    assert by(store.read_table("identities.parquet").to_pylist(), "identity_id") == {
        ("P001",): ("ok", ""),
        ("P002",): ("ok", ""),
        ("nobody",): ("failed", Reason.NOTHING_USABLE),
    }
    summary = store.read_json("summary.json")
    assert (summary["photos_failed"], summary["orders"], summary["orders_failed"]) == (3, 6, 0)


_DRIVER = """
import sys
import pyarrow as pa
from pipelines.graph import start, stream
from pipelines.plan import Stage
from studiolo.storage.store import Store
from tests.pipelines.poisoned import Whole
store = Store(sys.argv[1])
start(1, 128)
table = pa.table({"value": [1, 2], "does": ["", ""]})
rows = list(stream(table, Whole(store, slow_s=float(sys.argv[2])), Stage("slow", 1, 1.0), store))
print([row["status"] for row in rows])
"""


def at_work(store: Store) -> bool:
    """Whether the one unit in work is marked by the run that is on now."""
    try:
        runs = [store.read_json(path)["run"] for path in store.list("attempts")]
    except StoreError:  # a mark was taken away between the two
        return False
    return len(runs) == 2 and len(set(runs)) == 1


def test_a_driver_that_is_killed_over_a_unit_again_and_again_condemns_it_not(tmp_path: Path):
    store = Store(tmp_path)
    for _ in range(3):
        command = [sys.executable, "-c", _DRIVER, str(tmp_path), "600"]
        with started(command, cwd=ROOT):
            deadline = time.monotonic() + 300
            while not at_work(store):
                assert time.monotonic() < deadline
                time.sleep(0.1)
            time.sleep(1)  # the first mark was perhaps that of the opening
            assert at_work(store)
    command = [sys.executable, "-c", _DRIVER, str(tmp_path), "0"]
    result = run(command, limit_s=300)
    assert result.stdout.strip() == "['ok', 'ok']"
    assert store.list("attempts") == []
