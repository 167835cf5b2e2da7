"""What is said of photos, and of whom was learned."""

from typing import Any

import pytest

from studiolo.albums.records import Reason
from studiolo.identities.learned import LearnedVersion, PhotoVerdict, photo_verdicts

OK = {"status": "ok", "stage": "select", "reason": "", "detail": "", "apparent_minor": False}


def photo(number: int, **changes: Any) -> dict[str, Any]:
    return {"photo_id": f"p{number}", "uri": f"{number:03d}", **OK, **changes}


def test_verdicts_come_by_number_each_with_its_sentence() -> None:
    dropped = photo(12, status="dropped", reason="no_face", detail="for the log")
    assert photo_verdicts([dropped, photo(2)]) == (
        PhotoVerdict(number=2, status="ok", stage="select"),
        PhotoVerdict(number=12, status="dropped", stage="select", reason="no_face", sentence=Reason.NO_FACE.sentence()),
    )


@pytest.mark.parametrize("minor", [True, False])
def test_of_an_apparent_minor_who_is_kept_it_is_said(minor: bool) -> None:
    verdict = PhotoVerdict.of(photo(1, apparent_minor=minor, detail="appears to be a minor: 12.0 years"))
    assert verdict.sentence == ("appears to be a minor: 12.0 years" if minor else "")
    assert (verdict.status, verdict.reason) == ("ok", "")


def test_references_name_their_photos_by_number() -> None:
    reference = {"crop_path": "c.png", "quality_score": 0.5, "verdict": "same", "embedding": [0.25] * 128}
    references = [{**reference, "photo_id": "p3"}, {**reference, "photo_id": "p1"}]
    perceived = {"trigger": "a woman", "common_tags": ["smile"], "references": references}
    face_lora = {"path": "lora", "sha256": "0" * 64, "steps": 8, "curve": [(1, 0.5), (8, 0.25)]}
    version = LearnedVersion.of({**perceived, "photos": [photo(3), photo(1), photo(2)]}, face_lora)
    assert [one.photo for one in version.references] == [3, 1]
    assert [one.number for one in version.photos] == [1, 2, 3]
    assert LearnedVersion.model_validate(version.model_dump(mode="json")) == version
