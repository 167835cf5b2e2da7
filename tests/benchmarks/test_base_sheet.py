import json

import numpy as np
import pytest

from benchmarks.base_sheet import hand_figures, write_sheet
from benchmarks.sampling import Sample, Sight
from studiolo.errors import SettingsError
from studiolo.metrics.prompts import attributes_of

PROMPTS = ("a handsome man, black hair, smile", "a girl, children, brown hair")


@pytest.fixture
def sheet(tmp_path):
    """Two samples; the tagger sees the hair of both as black, and one smile."""
    made = [Sample(np.full((16, 16, 3), level, np.uint8), 1.0) for level in (20, 200)]
    asked = [
        attributes_of("a handsome man", ["black hair", "smile"]),
        attributes_of("a girl, children", ["brown hair"]),
    ]
    seen = [
        Sight(1, attributes_of("a handsome man", ["black hair", "smile"])),
        Sight(1, attributes_of("", ["black hair"])),
    ]
    write_sheet(tmp_path, made, PROMPTS, asked, seen)
    return tmp_path


def test_a_sheet_has_its_prompts_and_a_table_to_fill_in(sheet):
    assert [row["prompt"] for row in json.loads((sheet / "samples.json").read_text())] == list(PROMPTS)
    lines = (sheet / "labels.csv").read_text().splitlines()
    assert lines[0] == "number,attribute,holds"
    assert {line for line in lines if line.startswith("1,")} == {"1,hair,", "1,gender,", "1,age,"}
    assert (sheet / "page-1.png").stat().st_size > 0


def test_labels_are_counted_and_the_tagger_is_held_against_them(sheet):
    labels = sheet / "filled.csv"
    labels.write_text("number,attribute,holds\n0,hair,1\n1,hair,1\n0,expression,0\n1,age,\n")
    found = hand_figures(sheet, labels)
    assert found == {
        "hair": {"labelled": 2, "holds": 1.0, "tagger_says_the_same": 0.5},
        "expression": {"labelled": 1, "holds": 0.0, "tagger_says_the_same": 0.0},
    }


@pytest.mark.parametrize("line", ["2,hair,1", "1,expression,1", "0,hair,yes", "x,hair,1"])
def test_a_label_that_does_not_fit_the_sheet_is_refused(sheet, line):
    labels = sheet / "filled.csv"
    labels.write_text(f"number,attribute,holds\n{line}\n")
    with pytest.raises(SettingsError, match="wanted a number of"):
        hand_figures(sheet, labels)


def test_a_table_nobody_filled_in_is_refused(sheet):
    with pytest.raises(SettingsError, match="got no row"):
        hand_figures(sheet, sheet / "labels.csv")
