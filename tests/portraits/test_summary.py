import json
from typing import Any

import pytest

from studiolo.errors import StudioloError
from studiolo.portraits.summary import summary
from tests.portraits.job_rows import Job

WANTED = {"studio": 2, "warm-film": 2}


def wanted(job: Job) -> dict[str, dict[str, int]]:
    return {identity["identity_id"]: WANTED for identity, _, _ in job.people}


def figures(job: Job, others: tuple[float, ...] = (0.1, 0.3)) -> dict[str, Any]:
    return summary(
        (album for _, album, _ in job.people),
        (identity for identity, _, _ in job.people),
        (row for _, _, rows in job.people for row in rows),
        wanted=wanted(job),
        other_similarities=others,
        seconds_by_stage={"perceive": 12.34567},
        peak_rss_gib=3.21987,
        versions={"torch": "2", "ray": "1"},
    )


def test_figures_of_a_small_job(job: Job):
    assert figures(job) == {
        "photos_in": 10,
        "photos_ok": 4,
        "photos_dropped": 3,
        "photos_failed": 3,
        "identities": 3,
        "identities_failed": 1,
        "orders": 6,
        "orders_short": 3,
        "orders_failed": 0,
        "portraits_wanted": 12,
        "portraits_accepted": 6,
        "portraits_rejected": 9,
        "similarity_own_median": 0.895,
        "similarity_own_unfused_median": 0.395,
        "similarity_other_median": 0.2,
        "seconds_by_stage": {"perceive": 12.346},
        "peak_rss_gib": 3.22,
        "versions": {"ray": "1", "torch": "2"},
        "reasons": {
            "photos": {"low_quality": 3, "not_an_image": 3},
            "identities": {"nothing_usable": 1},
            "portraits": {"low_similarity": 3, "not_one_face": 3, "surplus": 3},
        },
    }


def test_an_empty_job_is_json_too():
    empty = figures(Job(), others=())
    assert empty["similarity_own_median"] is None
    assert empty["photos_in"] == 0
    json.dumps(empty, allow_nan=False)


@pytest.mark.parametrize(("field", "value"), [("status", ""), ("status", None), ("status", "done"), ("reason", "")])
def test_a_photo_without_an_outcome_is_an_error(job: Job, field: str, value: str | None):
    job.people[0][1]["photos"][-1][field] = value
    with pytest.raises(StudioloError, match=r"photo .* has status"):
        figures(job)


def test_a_portrait_without_an_outcome_is_an_error(job: Job):
    job.people[0][2][-1]["reason"] = None
    with pytest.raises(StudioloError, match=r"portrait .* has status"):
        figures(job)


def test_a_photo_counted_twice_is_an_error(job: Job):
    job.people.append(job.people[0])
    with pytest.raises(StudioloError, match="counted already"):
        figures(job)
