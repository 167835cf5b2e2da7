from pathlib import Path
from typing import Any

import numpy as np
import pytest

from studiolo.datasets.decide import decide, decision_rows
from studiolo.datasets.measures import Measures, Shard, gather
from studiolo.datasets.records import Split
from studiolo.datasets.releases import counted
from studiolo.datasets.settings import ReleaseSettings, SourceSettings
from studiolo.storage.store import Store
from tests.datasets.rows import Row, face, listed, make_output

SOURCE = SourceSettings(kind="folder", place="/faces", name="faces", licence="CC0", weight=2.0)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


def decided(measures: Measures, **settings: Any) -> dict[str, Row]:
    """Rows of `DECISION_SCHEMA` by uri, which stands in for an id here."""
    wanted = ReleaseSettings(**settings)
    rows = decision_rows(measures, decide(measures, wanted), wanted, {"faces": SOURCE})
    return dict(enumerate(rows))  # type: ignore[arg-type]


def reasons(measures: Measures, **settings: Any) -> list[str]:
    return [row["reason"] for row in decided(measures, **settings).values()]


def test_each_row_says_why_it_is_left_out(store: Store) -> None:
    quality = {**dict.fromkeys(["size", "sharpness", "exposure", "pose", "eyes"], 1.0), "score": 0.1}
    different: list[dict[str, Any]] = [
        {},
        {"status": "failed", "reason": "unreadable", "detail": "gone"},
        {"status": "dropped", "reason": "opted_out", "detail": "a face in it is on the list"},
        {"unsafe_score": 0.95},
        {"photo_bbox_xyxy_px": [0.0, 0.0, 90.0, 30.0]},
        {"second_face_share": 0.9},
        {"pose": {"yaw_deg": -75.0, "pitch_deg": 0.0, "roll_deg": 0.0}},
        {"quality": quality},
        {"unsafe_score": 0.95, "quality": quality},
    ]
    rows = [(listed(str(number)), {"person": number, **more}) for number, more in enumerate(different)]
    measures = gather(store, make_output(store, "faces", rows))
    found = decided(measures)
    assert [row["reason"] for row in found.values()] == [
        *("", "not_annotated", "opted_out", "unsafe", "too_small"),
        *("several_faces", "pose", "low_quality", "unsafe"),
    ]
    assert found[1]["detail"] == "unreadable: gone"
    assert found[4]["detail"] == "30 px across, wanted 64"
    assert found[6]["detail"] == "yaw -75, pitch 0 degrees, limits 60 and 45"
    assert [row["keep"] for row in found.values()] == [True, *[False] * 8]
    assert {row["split"] for row in found.values() if not row["keep"]} == {None}
    assert (found[0]["licence"], found[0]["weight"]) == ("CC0", 2.0)
    looser = reasons(measures, min_quality=0, unsafe_above=1, min_face_px=1, max_yaw_deg=90, max_second_face_share=1)
    assert looser == ["", "not_annotated", "opted_out", *[""] * 6]


def test_duplicates_name_the_row_that_stays(store: Store) -> None:
    content, near = "ab" * 32, {"phash": "00000000000000ff", "image_embedding": [1.0, *[0.0] * 383]}
    different = [
        {"content_sha256": content},
        {"unsafe_score": 0.9, **near},  # dropped itself, so nobody is its duplicate
        {"content_sha256": content},
        near,
        {**near, "phash": "00000000000000f0"},
    ]
    rows = [(listed(str(number)), {"person": number, **more}) for number, more in enumerate(different)]
    found = decided(gather(store, make_output(store, "faces", rows)))
    assert [row["reason"] for row in found.values()] == ["", "unsafe", "exact_duplicate", "", "near_duplicate"]
    assert found[2]["duplicate_of"] == found[0]["row_id"]
    assert found[4]["duplicate_of"] == found[3]["row_id"]
    assert found[4]["detail"] == "4 of 64 bits differ"


def test_a_wrong_label_is_dropped_and_is_nobody(store: Store) -> None:
    people = [0, 0, 0, 7]
    rows = [(listed(str(number), "anna"), {"person": person}) for number, person in enumerate(people)]
    found = decided(gather(store, make_output(store, "faces", rows)))
    assert [row["reason"] for row in found.values()] == ["", "", "", "wrong_label"]
    assert [row["identity"] for row in found.values()] == ["faces/anna"] * 3 + [None]
    assert [row["known"] for row in found.values()] == [True] * 3 + [None]
    assert {row["label"] for row in found.values()} == {"anna"}


def test_nobody_is_in_two_splits(store: Store) -> None:
    people = [number // 3 for number in range(90)]
    rows = [(listed(f"{number:02d}", f"p{person}" if person % 2 else None), {"person": person})
            for number, person in enumerate(people)]  # fmt: skip
    found = decided(gather(store, make_output(store, "faces", rows, 16)), validation_share=0.3, test_share=0.3)
    splits: dict[int, set[str]] = {}
    for row, person in zip(found.values(), people, strict=True):
        splits.setdefault(person, set()).add(row["split"])
    assert all(len(some) == 1 for some in splits.values())
    assert {split for some in splits.values() for split in some} == set(Split)


def test_a_source_that_comes_later_changes_no_earlier_row(store: Store) -> None:
    other = SOURCE.model_copy(update={"name": "more", "licence": None})
    shards = make_output(store, "faces", [(listed(str(number)), {"person": number % 4}) for number in range(9)])
    before = list(decided(gather(store, shards)).values())
    shards += make_output(store, "more", [(listed(str(number)), {"person": number % 6}) for number in range(9)])
    measures = gather(store, shards[::-1])  # as they were done, not as they were seen
    wanted = ReleaseSettings()
    after = list(decision_rows(measures, decide(measures, wanted), wanted, {"faces": SOURCE, "more": other}))
    assert after[:9] == before
    assert after[9]["identity"] == before[0]["identity"]
    assert after[9]["licence"] == "unknown"


def test_rows_without_a_shard_or_no_longer_listed_are_rows_too(store: Store) -> None:
    shards = make_output(store, "faces", [(listed(str(number)), {"person": number}) for number in range(6)])
    shards[1] = Shard(shards[1].part, None, "2 attempts, the last: it crashed")
    make_output(store, "faces", [(listed(str(number)), {"person": number}) for number in (0, 2, 3, 4, 5)])
    measures = gather(store, shards)
    found = decided(measures)
    assert [row["reason"] for row in found.values()] == ["", "not_listed", "", "", *["not_annotated"] * 2]
    assert found[5]["detail"] == "crashed_worker: 2 attempts, the last: it crashed"
    assert found[5]["shard"] is None


def test_the_counts_add_up(store: Store) -> None:
    rows = [
        (listed(str(number), "anna" if number < 4 else None), {"person": min(number, 4), "unsafe_score": number == 9})
        for number in range(10)
    ]
    rows[:4] = [(one, {"person": 0}) for one, _ in rows[:4]]
    measures = gather(store, make_output(store, "faces", rows))
    counts = counted(decided(measures).values())
    assert counts["rows"] == 10 == counts["kept"] + sum(counts["dropped"].values())
    assert counts["kept"] == sum(counts["splits"].values())
    assert (counts["identities"], counts["identities_known"], counts["largest_identity"]) == (2, 1, 5)


def test_vectors_and_rows_are_those_of_the_shards(store: Store) -> None:
    rows = [(listed(str(number)), {"person": number, "face_embedding": face(number, 3)}) for number in range(6)]
    rows[2] = (listed("2"), {"status": "dropped", "reason": "no_face", "face_embedding": None, "image_embedding": None})
    measures = gather(store, make_output(store, "faces", rows))
    assert len(measures) == 6
    assert np.allclose(measures.faces[5], face(5, 3), atol=1e-6)
    assert not measures.faces[2].any()
    assert not measures.images[2].any()
    assert len(gather(store, [])) == 0
