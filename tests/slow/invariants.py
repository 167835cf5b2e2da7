"""What has to be true of the endpoint's database and store when nothing is left to do, whatever happened before."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Collection

import sqlalchemy as sa

from studiolo.identities.learned import LearnedVersion
from studiolo.portraits.requests import PortraitsResult
from studiolo.service.records import Kind, State, result_folder
from studiolo.service.service import Service
from studiolo.service.tables import JobRow, UsageRow, VersionRow
from studiolo.service.usage import STEPS


class Invariants:
    """Checks one service again and again; what was counted once stays counted, also when its row goes."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._counted: dict[str, dict[tuple[str, str], int]] = {}
        """By job, by key and what, how much."""

    def check(self, accepted: Collection[str]) -> None:
        """All of it; `accepted` are ids of jobs that were promised, and not erased since."""
        jobs, versions, used = self.service.database.read(
            lambda session: (
                {row.id: row for row in session.scalars(sa.select(JobRow))},
                list(session.scalars(sa.select(VersionRow))),
                list(session.scalars(sa.select(UsageRow))),
            )
        )
        assert set(accepted) <= jobs.keys(), "an accepted job is lost"
        for job in jobs.values():
            self._ended(job)
            if job.kind == Kind.PORTRAITS and job.state == State.SUCCEEDED:
                self._portraits(job)
        self._versions(jobs, versions)
        self._same_seeds_same_pictures(jobs.values())
        self._usage(jobs.values(), used)

    def _ended(self, job: JobRow) -> None:
        """Finished, or failed with a reason; and nobody holds it."""
        said = (job.id, job.state, job.reason, job.sentence, job.attempts)
        assert State(job.state).final, said
        assert (job.state == State.SUCCEEDED) == (job.reason == "" and job.sentence == ""), said
        assert job.lease_owner is None, said
        assert job.attempts <= self.service.queue.settings.max_attempts, said
        if job.state == State.SUCCEEDED:
            assert job.attempts >= 1, said
            assert job.result is not None, said

    def _portraits(self, job: JobRow) -> None:
        """The result names files of exactly one attempt, each there and whole."""
        result = PortraitsResult.model_validate(job.result)
        assert len(result.images) <= job.units
        assert len(result.images) == job.units or result.rejected, job.id
        folders = {image.path.rpartition("/")[0] for image in result.images}
        assert folders <= {f"{result_folder(job.id)}/{attempt}" for attempt in range(1, job.attempts + 1)}
        assert len(folders) <= 1, folders
        assert len({image.path for image in result.images}) == len(result.images)
        for image in result.images:
            assert hashlib.sha256(self.service.store.read_bytes(image.path)).hexdigest() == image.sha256

    def _versions(self, jobs: dict[str, JobRow], versions: list[VersionRow]) -> None:
        """One for each training that succeeded, with its face-LoRA, and no other."""
        made = Counter(version.job_id for version in versions)
        trained = [job.id for job in jobs.values() if job.kind == Kind.IDENTITY and job.state == State.SUCCEEDED]
        assert made == Counter(trained)
        for version in versions:
            record = LearnedVersion.model_validate(version.record)
            content = self.service.store.read_bytes(record.lora_path)
            assert hashlib.sha256(content).hexdigest() == record.lora_sha256

    @staticmethod
    def _same_seeds_same_pictures(jobs: Collection[JobRow]) -> None:
        """However often a job was begun: what was asked for with a seed looks like the same asked for in peace."""
        pictures = defaultdict(set)
        for job in jobs:
            if job.kind == Kind.PORTRAITS and job.state == State.SUCCEEDED and "seed" in job.request:
                images = PortraitsResult.model_validate(job.result).images
                pictures[job.request_sha256].add(tuple(image.pixels_sha256 for image in images))
        assert all(len(versions) == 1 for versions in pictures.values()), pictures

    def _usage(self, jobs: Collection[JobRow], used: list[UsageRow]) -> None:
        """Every accepted job was counted once."""
        for job in jobs:
            if job.key_id is not None:
                self._counted[job.id] = {(job.key_id, job.kind): job.units, (job.key_id, STEPS): job.steps}
        expected, found = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for counts in self._counted.values():
            expected.update(counts)
        for row in used:
            if row.what in (STEPS, *Kind):
                found[row.key_id, row.what] += row.amount
        assert found == expected
