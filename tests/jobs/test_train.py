"""`python -m jobs train` on real models: face-LoRAs and nothing after them, which a second run finds done."""

from pathlib import Path

import pytest

from jobs.train_job import run
from studiolo.identities.artifacts import kohya_path, lora_path
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store


@pytest.mark.timeout(1200)
def test_it_trains_everybody_once_and_stops_there(
    small_albums: Path, quick_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"albums": str(small_albums), "out": str(tmp_path / "out")}
    quick = {"steps": 3, "batch_size": 1, "views_per_photo": 1, "rank": 2, "slots": 2, "kohya_file": True}
    settings = StudioSettings.load(quick_config, {**places, "face_lora": quick})
    assert run(settings) == 3  # one album in which nothing is usable
    said = capsys.readouterr()
    assert said.out.splitlines() == [str(tmp_path / "out" / "face_loras.parquet")]
    assert "3 people: 2 trained\nfailed: nobody (nothing_usable)" in said.err
    store = Store(settings.out)
    rows = store.read_table("face_loras.parquet").to_pylist()
    assert [(row["identity_id"], row["status"], row["resumed"]) for row in rows] == [
        ("P001", "ok", False),
        ("P002", "ok", False),
    ]
    assert all(store.exists(path(row["identity_id"])) for row in rows for path in (lora_path, kohya_path))
    assert store.list("attempts") == store.list("gallery") == []
    before = store.read_bytes(lora_path("P001"))
    assert run(settings) == 3
    assert [row["resumed"] for row in store.read_table("face_loras.parquet").to_pylist()] == [True, True]
    assert store.read_bytes(lora_path("P001")) == before
