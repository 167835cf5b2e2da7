"""Face-LoRAs and nothing after them: the first two stages of the studio job."""

import sys

from jobs.progress import Progress
from jobs.studio_check import check_request
from jobs.studio_job import StudioJob, require_photos
from pipelines.graph import stop
from studiolo.albums.records import Status
from studiolo.settings import StudioSettings
from studiolo.storage.store import Store

STAGES = ("perceive", "train")


def run(settings: StudioSettings) -> int:
    """Carry out the stages; returns the exit code 0 or 3. Raises as `studio_job.run`."""
    request = check_request(settings)
    store = Store(settings.out)
    with store.lock("train") as lock, Progress(STAGES) as progress:
        job = StudioJob(settings, request, store, lock, progress)
        try:
            job.plan()
            with job.tracked():
                job.perceive()
                require_photos(job.albums, settings.max_failed_share)
                job.train()
        finally:
            stop()
    people, failed = 0, []
    for album in job.albums:
        people += 1
        row = album if album["status"] != Status.OK else job.loras[album["identity_id"]]
        if row["status"] != Status.OK:
            failed.append(f"failed: {row['identity_id']} ({row['reason']})")
    print("\n".join([f"{people} people: {people - len(failed)} trained", *failed]), file=sys.stderr)
    print(store.local_path("face_loras.parquet") or f"{store.url}/face_loras.parquet")
    return 3 if failed else 0
