"""What publishing leaves of earlier runs into the same output."""

import datetime
from pathlib import Path

from jobs.publish import publish
from studiolo.albums.records import Status
from studiolo.identities.artifacts import lora_path
from studiolo.portraits.orders import portrait_path
from studiolo.portraits.thumbs import photo_origin, thumb_path
from studiolo.storage.store import Store
from tests.jobs.finished_job import SHARED, finished_job


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


def test_unused_photos_of_every_album_of_a_manifest_have_thumbnails_of_their_own(tmp_path: Path):
    store = finished_job(tmp_path, ("anna", "bert", "clara"), {}, datetime.date.today(), manifest=True)
    shown: list[str] = []
    for row in store.iter_rows("albums.parquet"):
        unused = [photo["uri"] for photo in row["photos"] if photo["status"] == Status.DROPPED]
        assert len(unused) == 2
        assert SHARED in unused
        shown += [thumb_path(photo_origin(row["album_id"], uri)) for uri in unused]
        page = store.read_bytes(f"gallery/people/{row['album_id']}.html").decode()
        assert all(path.removeprefix("gallery/") in page for path in shown[-2:])
    assert all(map(store.exists, shown))
    assert len(set(shown)) == 6
