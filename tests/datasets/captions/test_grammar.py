from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from studiolo.datasets.captions import CAPTIONERS, CaptionSettings, open_captioner
from studiolo.datasets.captions.findings import findings_of, patch_share, rising
from studiolo.datasets.captions.grammar import Grammar
from studiolo.datasets.captions.settings import GrammarSettings
from studiolo.datasets.captions.shapes import SHAPES, measures_of
from studiolo.datasets.captions.wording import PARTS as WORDED
from studiolo.datasets.records import CAPTION_SCHEMA, PARTS, WHOLE
from studiolo.errors import SettingsError
from studiolo.perception import colour, tag
from studiolo.perception.expression import Expression
from studiolo.perception.pose import Pose
from tests.datasets.drawn import annotation, drawn_mesh

NUMBERS = st.integers(0, 200)
ROWS = st.builds(
    annotation,
    NUMBERS,
    attributes__p_female=st.floats(0, 1),
    attributes__age_years=st.floats(0, 80),
    pose__yaw_deg=st.floats(-60, 60),
    pose__pitch_deg=st.floats(-40, 40),
    expression__smile=st.floats(0.5, 0.8),
    expression__mouth_openness=st.floats(0, 0.5),
    expression__eye_openness=st.floats(0.02, 0.4),
    detector_score=st.floats(0.7, 1),
    mesh_score=st.floats(0, 1),
)


def texts(row: dict[str, Any], **changes: Any) -> dict[str, str]:
    """Captions of a row by part."""
    return {caption["part"]: caption["text"] for caption in Grammar(GrammarSettings(**changes))([row])[0]}


def test_a_face_is_described_whole_and_part_by_part():
    (captions,) = Grammar()([annotation()])
    assert [caption["part"] for caption in captions] == [WHOLE, *PARTS]
    whole = captions[0]["text"]
    assert "a young woman" in whole.lower()
    assert all(words in whole for words in ("black hair", "blue clothes", "a grey background", "She is smiling"))
    by_part = {caption["part"]: caption["text"] for caption in captions}
    assert by_part["hair"].endswith("hair is black.")
    assert by_part["body"].endswith("clothes are blue.")
    assert "smiling" in by_part["mouth"]
    assert "open" in by_part["eyes"]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ROWS)
def test_every_phrase_stands_in_its_text_and_is_sure_enough(row: dict[str, Any]):
    least = min(GrammarSettings().model_dump().values())
    (captions,) = Grammar()([row])
    assert captions[0]["part"] == WHOLE
    for caption in captions:
        assert caption["evidence"]
        assert caption["text"][0].isupper()
        assert caption["text"].endswith(".")
        assert "  " not in caption["text"]
        for one in caption["evidence"]:
            assert one["phrase"] in caption["text"]
            assert one["value"]
            assert least <= one["confidence"] <= 1


@settings(max_examples=25, deadline=None, derandomize=True)
@given(ROWS)
def test_expression_and_pose_are_said_where_the_tagger_says_them(row: dict[str, Any]):
    found = findings_of(row, GrammarSettings())
    tags = tag.expression_tags(Expression(**row["expression"]))
    tags += tag.pose_tags(Pose(**row["pose"]))
    said = {
        "smile": "smile" in found,
        "open mouth": "mouth" in found and found["mouth"].says == "open",
        "neutral expression": "calm" in found,
        "closed eyes": "eyes" in found and found["eyes"].says == "shut",
        "facing forward": "turn" in found and found["turn"].says == "forward",
        "looking left": "turn" in found and found["turn"].says == "left",
        "looking right": "turn" in found and found["turn"].says == "right",
        "looking up": "nod" in found and found["nod"].says == "up",
        "looking down": "nod" in found and found["nod"].says == "down",
    }
    assert {name for name, holds in said.items() if holds} == set(tags)


def test_below_its_threshold_a_phrase_is_left_out():
    assert "woman" in texts(annotation(attributes__p_female=0.81))[WHOLE]
    unsure = texts(annotation(attributes__p_female=0.79))
    assert "woman" not in unsure[WHOLE]
    assert "She" not in unsure[WHOLE]
    assert all("Her" not in text for text in unsure.values())
    assert "smiling" not in str(texts(annotation(expression__smile=0.65)))
    assert "smiling" in str(texts(annotation(expression__smile=0.65), expression=0.5))
    assert "hair is" not in str(texts(annotation(tags=["smile"])))  # the tagger does not know
    assert "hair is" not in str(texts(annotation(tags=["brown hair"])))  # nor does the picture bear it out


def test_of_a_person_of_whom_nothing_is_sure_only_the_person_is_said():
    row = annotation(
        attributes__p_female=0.5,
        attributes__age_years=20.0,
        expression__smile=0.64,
        expression__mouth_openness=0.13,
        expression__eye_openness=0.125,
        pose__yaw_deg=15.5,
        tags=[],
        mesh_score=0.4,
    )
    (captions,) = Grammar()([row])
    (whole,) = captions
    assert "person" in whole["text"]
    assert [one["measure"] for one in whole["evidence"]] == ["detector_score"]


@pytest.mark.parametrize(
    ("p_female", "years", "noun"),
    [(0.99, 50, "middle-aged woman"), (0.01, 70, " man"), (0.99, 5, " girl"), (0.01, 5, " boy"), (0.5, 5, " child")],
)
def test_people_are_called_by_age_and_gender(p_female: float, years: float, noun: str):
    row = annotation(attributes__p_female=p_female, attributes__age_years=float(years))
    assert noun in texts(row)[WHOLE]


def test_the_same_row_is_told_the_same_and_others_in_other_words():
    rows = [annotation(number) for number in range(25)]
    told = Grammar()(rows)
    assert Grammar()(rows[::-1]) == told[::-1]
    assert len({captions[0]["text"] for captions in told}) > 10
    assert len({captions[1]["text"] for captions in told}) > 2


def test_a_part_that_was_not_found_is_not_described():
    row = annotation(parts=[part for part in annotation()["parts"] if part["part"] != "nose"])
    assert "nose" not in texts(row)
    calm = annotation(pose__yaw_deg=40.0, expression__eye_openness=0.125)
    assert texts(calm)["eyes"].endswith("can be seen.")


def test_shapes_are_told_of_a_frontal_face_at_rest_only():
    wide = drawn_mesh()
    wide[[64, 294]] = (50, 76), (78, 76)
    row = annotation(mesh_px=wide.reshape(-1).tolist(), tags=["neutral expression"])

    def is_wide(row: dict[str, Any]) -> bool:
        return any(word in texts(row)["nose"] for word in ("broad", "wide"))

    assert is_wide(row)
    assert not is_wide({**row, "tags": ["smile"]})
    assert not is_wide({**row, "pose": {**row["pose"], "yaw_deg": 30.0}})
    assert not is_wide({**row, "mesh_px": drawn_mesh().reshape(-1).tolist()})


def test_measures_do_not_depend_on_place_size_and_turn_in_the_picture():
    mesh, angle = drawn_mesh(), np.radians(20)
    turned = 3.0 * mesh @ np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) + 17
    assert measures_of(turned) == pytest.approx(measures_of(mesh))
    assert set(SHAPES) == set(measures_of(mesh))
    assert all(shape.low < shape.high and shape.noise > 0 for shape in SHAPES.values())
    kinds = {kind for words in WORDED.values() for kind, _ in words}
    assert set(SHAPES) <= kinds


def test_a_colour_is_as_sure_as_its_patches_agree():
    rgb_u8 = np.full((64, 64, 3), (60, 90, 170), np.uint8)
    area = np.ones((64, 64), np.bool_)
    assert patch_share(rgb_u8, area, colour.surface_colour, "blue") == 1
    rgb_u8[:, 32:] = (22, 22, 24)
    assert patch_share(rgb_u8, area, colour.surface_colour, "blue") == pytest.approx(0.5)
    assert patch_share(rgb_u8, np.zeros_like(area), colour.surface_colour, "blue") == 0


def test_the_scale_has_the_taggers_thresholds_on_it():
    assert (rising(1.0, 1.0, 3.0), rising(3.0, 1.0, 3.0)) == (pytest.approx(0.2), pytest.approx(0.8))
    assert rising(-1e9, 1.0, 3.0) < 1e-9


def test_the_id_follows_what_decides_the_words():
    assert Grammar().id == Grammar(GrammarSettings()).id
    assert Grammar().id != Grammar(GrammarSettings(gender=0.9)).id
    assert {open_captioner(name, CaptionSettings()).id.partition("@")[0] for name in CAPTIONERS} == {
        "grammar",
        "llava-1-5-7b",
        "llava-hf/llava-1.5-7b-hf",
    }
    with pytest.raises(SettingsError, match="did you mean 'grammar'"):
        open_captioner("gramar", CaptionSettings())


def test_captions_are_rows_of_their_schema():
    import pyarrow as pa

    rows = [annotation(number) for number in range(3)]
    table = pa.Table.from_pylist(
        [
            {"row_id": row["row_id"], "captioner": Grammar().id, "captions": captions}
            for row, captions in zip(rows, Grammar()(rows), strict=True)
        ],
        CAPTION_SCHEMA,
    )
    assert table.column("captions").null_count == 0
    assert table.column("captions")[0].as_py()[0]["part"] == WHOLE
