from pathlib import Path

import pytest

from studiolo.identities.artifacts import crop_path, lora_path, mask_path, safe_segment
from studiolo.portraits.orders import portrait_path
from studiolo.portraits.orphans import remove_orphans
from studiolo.portraits.thumbs import portrait_thumb
from studiolo.storage.store import Store
from tests.portraits.job_rows import ODD_NAME, Job


def files_of(name: str) -> list[str]:
    """A page, a thumbnail, and a path of each other kind that a job writes for a person."""
    job = Job()
    job.add(name)
    thumb = portrait_thumb(job.access, job.people[0][2][0]["path"]).src
    page = f"gallery/people/{safe_segment(name)}.html"
    photo_id = "a" * 64
    portraits = [portrait_path(name, "studio", index) for index in (0, 1000)]
    return [page, f"gallery/{thumb}", crop_path(name, photo_id), mask_path(name, photo_id), lora_path(name), *portraits]


OTHERS = (
    "identities/notes.txt",
    "identities/anna/portraits/studio/my favourite.png",
    "gallery/people/photo.jpg",
    "gallery/index.html",
    "gallery/assets/gallery.css",
    "people/old.html",
    "mlartifacts/1/samples.png",
    "ledger/done/order/0.json",
    "000.png",
)


@pytest.mark.parametrize("url", ["{tmp_path}", "memory://{tmp_path}"])
def test_what_would_be_taken_for_the_jobs_goes_and_nothing_else(tmp_path: Path, url: str):
    store = Store(url.format(tmp_path=tmp_path))
    page, thumb, *kept = files_of(ODD_NAME)
    third, _, *unwanted = files_of("anna/other-2")  # of an earlier order
    named = [*files_of("anna"), *files_of("anna/other-1")]
    gone = [page, thumb, third, portrait_path("anna", "studio", 7), portrait_path("anna/other-1", "studio", 7)]
    kept += [portrait_path("anna", "warm-film", 0), *unwanted, *OTHERS]
    for path in (*named, *gone, *kept):
        store.write_bytes(path, b"x")
    assert sorted(remove_orphans(store, named)) == sorted(gone)
    assert store.list() == sorted([*named, *kept])
    assert remove_orphans(store, named) == []
