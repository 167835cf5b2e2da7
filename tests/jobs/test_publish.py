"""What publishing leaves of earlier runs into the same output."""

from pathlib import Path

from jobs.publish import publish
from studiolo.identities.artifacts import lora_path
from studiolo.portraits.orders import portrait_path
from studiolo.storage.store import Store


def test_what_earlier_runs_made_of_people_stays_and_their_pages_go(tmp_path: Path):
    store = Store(tmp_path)
    kept = [lora_path("anna"), portrait_path("anna", "studio", 0), "gallery/notes.txt"]
    for path in ("contact-sheet.png", "gallery/people/anna.html", f"gallery/thumbs/{'0' * 24}.webp", *kept):
        store.write_bytes(path, b"x")
    figures = {"seconds_by_stage": {}, "peak_rss_gib": 1.0, "versions": {}}
    publish(store, [], [], [], [], [], [], lambda: figures)
    tables = {f"{name}.parquet" for name in ("references", "identities", "portraits", "prints", "orders")}
    assets = {f"gallery/{name}" for name in ("index.html", "assets/gallery.css", "assets/gallery.js")}
    assert set(store.list()) == tables | assets | {"summary.json", "approvals.csv", *kept}
