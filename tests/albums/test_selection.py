import copy
import math
from collections import Counter
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.albums.records import ALBUM_SCHEMA, Reason, Status, Verdict, photo_id
from studiolo.albums.selection import (
    STAGE,
    by_person,
    require_references,
    select,
    selected_face,
    selected_photos,
)
from studiolo.errors import IdentityError
from studiolo.settings import SelectionSettings

SETTINGS = SelectionSettings()
PROPERTY = settings(deadline=None, derandomize=True, max_examples=80)

Row = dict[str, Any]


class Bands:
    """A similarity with plain limits: same below 0.5, different above 0.7."""

    def verdict(self, distance: float) -> Verdict:
        if distance < 0.5:
            return Verdict.SAME
        return Verdict.DIFFERENT if distance > 0.7 else Verdict.UNSURE

    def score(self, distance: float) -> float:
        return math.exp(-distance)


BANDS = Bands()


def face(x: float = 0.0, quality: float = 0.8, side: float = 100.0, face_id: int = 0) -> Row:
    """A face as perception returns it; its embedding is `x` along one axis."""
    embedding = np.zeros(128, np.float32)
    embedding[0] = x
    return {
        "face_id": face_id,
        "bbox_xyxy_px": [10.0, 20.0, 10.0 + side, 20.0 + side],
        "landmarks_px": [0.0] * 10,
        "detector_score": 0.9,
        "mesh_score": 0.9,
        "embedding": embedding.tolist(),
        "attributes": {
            "p_female": 0.5,
            "age_years": 30.0,
            "glasses": "unknown",
            "headwear": "unknown",
            "ears": "unknown",
        },
        "pose": {"yaw_deg": 0.0, "pitch_deg": 0.0, "roll_deg": 0.0},
        "quality": dict.fromkeys(("score", "size", "sharpness", "exposure", "pose", "eyes"), quality),
        "tags": ["smile"],
    }


def photo(name: str, *faces: Row, content: str | None = None, **fields: Any) -> Row:
    return {
        "photo_id": photo_id("album", name),
        "uri": name,
        "content_sha256": name if content is None else content,
        "width_px": 400,
        "height_px": 300,
        "rotation_deg": 0,
        "status": "ok",
        "stage": "perceive",
        "reason": "",
        "detail": "",
        "faces": list(faces),
        **fields,
    }


def album(*photos: Row) -> Row:
    return {"album_id": "album", "album_uri": "/albums/album", "photos": list(photos)}


def decided(*photos: Row, **changes: Any) -> dict[str, Row]:
    rows = select(album(*photos), SelectionSettings(**changes), BANDS)
    return {row["uri"]: row for row in rows["photos"]}


def required(row: Row, limits: SelectionSettings) -> list[Row]:
    """The owner's references, where nobody else is wanted."""
    return require_references(by_person(row, 1), 0, limits)


def reasons(*photos: Row, **changes: Any) -> dict[str, str]:
    return {uri: row["reason"] for uri, row in decided(*photos, **changes).items()}


@st.composite
def any_albums(draw: st.DrawFn) -> Row:
    photos = []
    for number in range(draw(st.integers(0, 12))):
        faces = [
            face(
                draw(st.sampled_from([0.0, 0.1, 0.6, 2.0, 2.1])),
                draw(st.sampled_from([0.1, 0.5, 0.5, 0.9, float("nan")])),
                draw(st.sampled_from([50.0, 100.0, 300.0])),
                face_id,
            )
            for face_id in range(draw(st.integers(0, 3)))
        ]
        status = draw(
            st.sampled_from([("ok", ""), ("ok", ""), ("failed", "damaged"), ("dropped", "no_face"), ("", "")])
        )
        content = draw(st.sampled_from(["", "a", "b", *[f"own{number}"] * 6]))
        photos.append(photo(f"{number}.jpg", *faces, content=content, status=status[0], reason=status[1]))
    return album(*photos)


@given(row=any_albums(), most=st.integers(1, 4))
@PROPERTY
def test_every_photo_ends_with_a_status_and_a_reason(row: Row, most: int) -> None:
    before = copy.deepcopy(row)
    limits = SelectionSettings(max_references=most)
    result = select(row, limits, BANDS)
    assert repr(row) == repr(before)  # pure; by text, because NaN is not equal to itself
    assert [p["photo_id"] for p in result["photos"]] == [p["photo_id"] for p in row["photos"]]
    counts = Counter(p["status"] for p in result["photos"])
    assert counts["ok"] + counts["dropped"] + counts["failed"] == len(row["photos"])
    assert counts["failed"] == sum(p["status"] == "failed" for p in row["photos"])
    assert counts["ok"] <= most
    for old, new in zip(row["photos"], result["photos"], strict=True):
        assert new["stage"]
        assert (Reason(new["reason"]) == Reason.NONE) == (new["status"] == Status.OK)
        if old["status"] in ("failed", "dropped"):
            assert (new["status"], new["reason"]) == (old["status"], old["reason"])
        if new["status"] == Status.OK:
            assert (new["person"], new["stage"]) == (0, STAGE)
            assert new["verdict"] in (Verdict.SAME, Verdict.UNSURE)
            assert selected_face(new)["quality"]["score"] >= limits.min_quality
    contents = [p["content_sha256"] for p in selected_photos(result) if p["content_sha256"]]
    assert len(contents) == len(set(contents))


@given(row=any_albums(), data=st.data())
@PROPERTY
def test_the_order_of_the_photos_does_not_matter(row: Row, data: st.DataObject) -> None:
    shuffled = {**row, "photos": data.draw(st.permutations(row["photos"]))}

    def by_id(result: Row) -> dict[str, str]:
        return {p["photo_id"]: repr(p) for p in result["photos"]}

    limits = SelectionSettings(max_references=2)
    assert by_id(select(row, limits, BANDS)) == by_id(select(shuffled, limits, BANDS))


@given(row=any_albums())
@settings(deadline=None, derandomize=True, max_examples=20)
def test_the_result_fits_the_schema(row: Row) -> None:
    result = select(row, SETTINGS, BANDS)
    table = pa.Table.from_pylist([result], ALBUM_SCHEMA)
    assert [p["reason"] for p in table.to_pylist()[0]["photos"]] == [p["reason"] for p in result["photos"]]


@given(row=any_albums(), people=st.integers(1, 4), least=st.integers(1, 2), most=st.integers(2, 4))
@PROPERTY
def test_every_photo_counts_to_one_of_the_people(row: Row, people: int, least: int, most: int) -> None:
    limits = SelectionSettings(min_references=least, max_references=most)
    result = select(row, limits, BANDS, people)
    rows = by_person(result, people)
    counted = Counter(p["photo_id"] for own in rows for p in own["photos"])
    assert counted == Counter(p["photo_id"] for p in row["photos"])
    for person, own in enumerate(rows):
        for p in own["photos"]:
            assert (Reason(p["reason"]) == Reason.NONE) == (p["status"] == Status.OK)
            assert p["person"] == person or (person == 0 and not 0 < p["person"] < people)
        kept = selected_photos(own)
        assert len(kept) <= most
        assert {(p["person"], selected_face(p)["quality"]["score"] >= limits.min_quality) for p in kept} <= {
            (person, True)
        }
        assert {p["reason"] for p in own["photos"] if p["person"] == person} <= {
            *("", "several_faces", "low_quality", "surplus"),
        }
    for person in range(1, people) if row["photos"] else ():
        if rows[person]["photos"]:
            assert len(require_references(rows, person, limits)) >= least
        else:
            with pytest.raises(IdentityError) as caught:
                require_references(rows, person, limits)
            assert caught.value.reason == Reason.FEWER_PEOPLE


@given(row=any_albums(), people=st.integers(2, 4))
@PROPERTY
def test_more_people_change_nothing_of_those_before(row: Row, people: int) -> None:
    """Bit by bit: the references decide what is learned, and are the same however many more are wanted."""

    def references(wanted: int) -> list[str]:
        rows = by_person(select(row, SETTINGS, BANDS, wanted), wanted)
        return [repr(selected_photos(own)) for own in rows]

    assert references(people)[: people - 1] == references(people - 1)


@given(row=any_albums(), people=st.integers(2, 4), data=st.data())
@PROPERTY
def test_the_order_of_the_photos_does_not_matter_to_many_either(row: Row, people: int, data: st.DataObject) -> None:
    shuffled = {**row, "photos": data.draw(st.permutations(row["photos"]))}
    first, second = (
        {p["photo_id"]: repr(p) for p in select(album, SETTINGS, BANDS, people)["photos"]} for album in (row, shuffled)
    )
    assert first == second


def pair() -> list[Row]:
    """An owner of three photos, a second person of two, and one with both of which the second is much larger."""
    photos = [photo(f"{i}.jpg", face()) for i in range(3)] + [photo(f"b{i}.jpg", face(5.0)) for i in range(2)]
    return [*photos, photo("both.jpg", face(5.0, side=300.0), face(side=40.0, face_id=1))]


def wanting(people: int, *photos: Row, **changes: Any) -> list[dict[str, tuple[str, int]]]:
    """Reason and face of every photo, by person."""
    limits = SelectionSettings(**changes)
    rows = by_person(select(album(*photos), limits, BANDS, people), people)
    return [{p["uri"]: (p["reason"], p["face_id"]) for p in own["photos"]} for own in rows]


def test_a_photo_of_another_person_serves_that_person_where_it_is_wanted() -> None:
    of_owner = {f"{i}.jpg": ("", 0) for i in range(3)}
    refused = {"b0.jpg": ("other_person", -1), "b1.jpg": ("other_person", -1), "both.jpg": ("other_person", 1)}
    assert wanting(1, *pair()) == [{**of_owner, **refused}]
    assert wanting(2, *pair()) == [of_owner, {"b0.jpg": ("", 0), "b1.jpg": ("", 0), "both.jpg": ("", 0)}]


def test_several_people_of_like_size_serve_none_of_them() -> None:
    together = photo("together.jpg", face(side=100.0), face(5.0, side=110.0, face_id=1))
    owner, second = wanting(2, *pair(), together)
    assert second["together.jpg"] == ("several_faces", 1)
    assert "together.jpg" not in owner


def test_each_person_has_its_own_surplus_and_its_own_age() -> None:
    rows = wanting(2, *pair(), max_references=2)
    assert [Counter(reason for reason, _ in own.values()) for own in rows] == [{"": 2, "surplus": 1}] * 2
    photos = pair()
    for each in photos[3:]:
        each["faces"][0]["attributes"]["age_years"] = 9.0
    refusing = SelectionSettings(minors="refuse")
    decided_rows = by_person(select(album(*photos), refusing, BANDS, 2), 2)
    assert [{p["apparent_minor"] for p in own["photos"]} for own in decided_rows] == [{False}, {True}]
    assert len(require_references(decided_rows, 0, refusing)) == 3
    with pytest.raises(IdentityError, match=r"9\.0 years, the median of 3") as caught:
        require_references(decided_rows, 1, refusing)
    assert caught.value.reason == Reason.APPARENT_MINOR


def test_people_whom_the_album_does_not_show_are_missing_one_by_one() -> None:
    rows = by_person(select(album(*pair()), SETTINGS, BANDS, 4), 4)
    assert [len(require_references(rows, person, SETTINGS)) for person in (0, 1)] == [3, 3]
    for person in (2, 3):
        with pytest.raises(IdentityError, match=r"people with usable photos \(at least 1\): 2, wanted 4") as caught:
            require_references(rows, person, SETTINGS)
        assert caught.value.reason == Reason.FEWER_PEOPLE
    nobody = by_person(select(album(photo("1.jpg")), SETTINGS, BANDS, 2), 2)
    with pytest.raises(IdentityError) as caught:
        require_references(nobody, 0, SETTINGS)
    assert (caught.value.reason, caught.value.detail) == (
        Reason.NOTHING_USABLE,
        "0 of 1 usable, wanted 1: 1 no_face",
    )
    for person in (0, 1):
        with pytest.raises(IdentityError) as caught:
            require_references(by_person(select(album(), SETTINGS, BANDS, 2), 2), person, SETTINGS)
        assert caught.value.reason == Reason.EMPTY_ALBUM


def test_what_failed_before_keeps_its_reason() -> None:
    broken = photo("1.jpg", status="failed", stage="read", reason="damaged", detail="cut short", content="x")
    row = decided(broken, photo("2.jpg", face(), content="x"))
    assert (row["1.jpg"]["status"], row["1.jpg"]["stage"], row["1.jpg"]["detail"]) == (
        "failed",
        "read",
        "cut short",
    )
    assert row["2.jpg"]["status"] == "ok"


def test_the_first_of_equal_files_stays() -> None:
    rows = decided(photo("b.jpg", face(), content="x"), photo("a.jpg", face(), content="x"), photo("c.jpg", face()))
    assert [rows[name]["reason"] for name in ("a.jpg", "b.jpg", "c.jpg")] == ["", "duplicate", ""]
    assert "'a.jpg'" in rows["b.jpg"]["detail"]


def test_copies_of_one_picture_do_not_elect_an_owner() -> None:
    copies = [photo(f"z{i}.jpg", face(5.0), content="x") for i in range(5)]
    kept = reasons(photo("1.jpg", face()), photo("2.jpg", face()), *copies)
    assert (kept["1.jpg"], kept["2.jpg"], kept["z0.jpg"]) == ("", "", "other_person")


@pytest.mark.parametrize(("side", "expected"), [(50.0, ""), (51.0, "several_faces")])
def test_the_largest_face_must_dominate(side: float, expected: str) -> None:
    owner = [photo(f"{i}.jpg", face()) for i in range(2)]
    pair = photo("pair.jpg", face(side=100.0), face(5.0, side=side, face_id=1))
    row = decided(*owner, pair)["pair.jpg"]
    assert row["reason"] == expected
    assert (row["person"], row["face_id"]) == (0, 0)
    if expected:
        assert row["detail"] == "2 faces, the largest 3.84 times the second, wanted 4"


def test_the_owner_in_the_background_does_not_save_a_picture() -> None:
    behind = photo("x.jpg", face(5.0, side=300.0), face(side=40.0, face_id=1))
    row = decided(photo("1.jpg", face()), photo("2.jpg", face()), behind)["x.jpg"]
    assert (row["reason"], row["person"], row["verdict"], row["face_id"]) == (
        "other_person",
        1,
        "different",
        1,
    )


def test_low_quality_says_the_number() -> None:
    row = decided(photo("1.jpg", face(quality=0.1234)))["1.jpg"]
    assert (row["status"], row["reason"], row["detail"]) == (
        "dropped",
        "low_quality",
        "mostly because the face is blurred (sharpness 0.12; quality 0.12, wanted 0.4)",
    )
    unscored = {**face(), "quality": None}
    assert reasons(photo("1.jpg", unscored)) == {"1.jpg": "low_quality"}


def test_no_face_and_another_person() -> None:
    rows = decided(photo("0.jpg"), *[photo(f"{i}.jpg", face()) for i in (1, 2)], photo("3.jpg", face(5.0)))
    assert [row["reason"] for row in rows.values()] == ["no_face", "", "", "other_person"]
    assert [row["person"] for row in rows.values()] == [-1, 0, 0, 1]
    assert [row["face_id"] for row in rows.values()] == [-1, 0, 0, -1]
    assert [row["verdict"] for row in rows.values()] == ["", "same", "same", "different"]


def test_unsure_is_kept_and_flagged() -> None:
    row = decided(*[photo(f"{i}.jpg", face()) for i in (1, 2)], photo("3.jpg", face(0.6)))["3.jpg"]
    assert (row["status"], row["verdict"]) == ("ok", "unsure")


def test_the_best_are_kept_and_unsure_goes_first() -> None:
    qualities = {"1.jpg": 0.5, "2.jpg": 0.9, "3.jpg": 0.7}
    photos = [photo(name, face(quality=q)) for name, q in qualities.items()]
    photos.append(photo("4.jpg", face(0.6, quality=1.0)))
    rows = decided(*photos, max_references=2)
    assert [name for name, row in rows.items() if row["status"] == "ok"] == ["2.jpg", "3.jpg"]
    assert rows["1.jpg"]["detail"] == "place 3 of 4, quality 0.500"
    assert rows["4.jpg"]["reason"] == "surplus"
    result = select(album(*photos), SelectionSettings(max_references=2), BANDS)
    assert [row["uri"] for row in selected_photos(result)] == ["2.jpg", "3.jpg"]


def aged(*ages: float | None) -> list[Row]:
    """A photo of the owner for each estimated age."""
    photos = [photo(f"{i}.jpg", face()) for i in range(len(ages))]
    for row, age in zip(photos, ages, strict=True):
        row["faces"][0]["attributes"]["age_years"] = age
    return photos


def test_an_apparent_minor_is_flagged_in_every_selected_photo() -> None:
    rows = decided(*aged(15.0, 22.0, 17.0), photo("empty.jpg"))
    said = "appears to be a minor: estimated age 17.0 years, the median of 3; adults from 18"
    assert [(row["status"], row["apparent_minor"], row["detail"]) for row in rows.values()] == [
        *[("ok", True, said)] * 3,
        ("dropped", False, ""),
    ]
    assert not any(row["apparent_minor"] for row in decided(*aged(15.0, 22.0, 17.0), minors="keep").values())


@pytest.mark.parametrize("ages", [(18.0,), (17.0, 19.0), (9.0, 30.0, 30.0), (None,), (math.nan,), (None, math.nan, 40)])
def test_one_young_looking_photo_makes_no_minor(ages: tuple[float | None, ...]) -> None:
    assert not any(row["apparent_minor"] for row in decided(*aged(*ages)).values())


def test_minors_are_refused_where_the_studio_says_so() -> None:
    refusing = SelectionSettings(minors="refuse")
    young = select(album(*aged(15.0, 16.0)), refusing, BANDS)
    with pytest.raises(IdentityError, match=r"15\.5 years, the median of 2; adults from 18") as caught:
        required(young, refusing)
    assert caught.value.reason == Reason.APPARENT_MINOR
    assert len(required(young, SETTINGS)) == 2
    adult = SelectionSettings(minors="refuse", adult_age=15)
    assert len(required(select(album(*aged(15.0, 16.0)), adult, BANDS), adult)) == 2


def test_an_album_that_is_not_enough_says_why() -> None:
    with pytest.raises(IdentityError) as caught:
        required(select(album(), SETTINGS, BANDS), SETTINGS)
    assert caught.value.reason == Reason.EMPTY_ALBUM
    bad = album(photo("1.jpg"), photo("2.jpg"), photo("3.jpg", status="failed", reason="damaged"))
    with pytest.raises(IdentityError) as caught:
        required(select(bad, SETTINGS, BANDS), SETTINGS)
    assert caught.value.reason == Reason.NOTHING_USABLE
    assert caught.value.detail == "0 of 3 usable, wanted 1: 1 damaged, 2 no_face"
    good = select(album(photo("1.jpg", face())), SETTINGS, BANDS)
    assert [row["uri"] for row in required(good, SETTINGS)] == ["1.jpg"]
    with pytest.raises(IdentityError, match="1 of 1 usable, wanted 2"):
        required(good, SelectionSettings(min_references=2))


@pytest.mark.parametrize(
    ("part", "words"),
    [("size", "small"), ("sharpness", "blurred"), ("exposure", "dark"), ("pose", "turned"), ("eyes", "closed")],
)
def test_a_face_of_low_quality_is_told_its_weakest_part(part: str, words: str) -> None:
    seen = face(quality=0.8)
    seen["quality"] |= {"score": 0.25, part: 0.02}
    row = decided(photo("a.jpg", seen))["a.jpg"]
    assert row["reason"] == Reason.LOW_QUALITY
    assert words in row["detail"]
    assert f"{part} 0.02; quality 0.25, wanted 0.4" in row["detail"]
