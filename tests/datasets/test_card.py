import io
from collections import Counter
from statistics import mean

import numpy as np
import pyarrow as pa
import pytest
from huggingface_hub import DatasetCard, DatasetCardData
from PIL import Image

from studiolo.datasets.card import _MEANING, CARD, FIGURES, SAMPLES, card_head, check_card, write_card
from studiolo.datasets.figures import DECADES, NOT_SURE, SIZES, decade_of, differences, gender_of, release_figures
from studiolo.datasets.plots import PLOTS
from studiolo.datasets.records import DATA_SCHEMA, PARTS, WHOLE
from studiolo.datasets.release_files import ReleaseFiles
from studiolo.storage.store import Store
from tests.datasets.release import DROPPED, NAME, ODD, write_release


def test_figures_are_what_the_tables_hold(finished_release):
    store, rows = finished_release
    figures = release_figures(ReleaseFiles(store, NAME))
    assert figures["rows"] == {"listed": len(rows) + len(DROPPED), "kept": len(rows), "dropped": len(DROPPED)}
    assert figures["reasons"] == {"low_quality": 2, "not_annotated": 1, "unsafe": 1}
    assert figures["licences"] == Counter(row["licence"] for row in rows)
    assert figures["splits"]["train"]["rows"] == sum(row["split"] == "train" for row in rows)
    people = Counter(row["identity"] for row in rows)
    assert figures["identities"]["all"] == len(people)
    assert figures["identities"]["known"] == 3
    assert figures["identities"]["largest"] == max(people.values())
    assert sum(figures["identities"]["sizes"].values()) == len(people)
    assert figures["parts"]["brows"] == {"rows": len(rows) - 1, "share": round(1 - 1 / len(rows), 3)}
    assert figures["gender"] == Counter(gender_of(row["attributes"]["p_female"]) for row in rows)
    words = [len(caption["text"].split()) for row in rows for caption in row["captions"] if caption["part"] == WHOLE]
    assert figures["captions"][WHOLE] == {"rows": len(rows), "words": round(mean(words), 1)}
    scores = [np.float32(row["quality"]["score"]) for row in rows]
    assert figures["quality"]["quartiles"][1] == pytest.approx(np.median(scores), abs=1e-3)
    assert figures["circles_across_splits"] == 1
    assert figures["files"]["count"] == len(ReleaseFiles(store, NAME).data_paths())


def test_every_row_counts_once_in_each_division(finished_release):
    store, rows = finished_release
    figures = release_figures(ReleaseFiles(store, NAME))
    divisions = [
        list(figures["gender"].values()),
        [count for decade in figures["age"].values() for count in decade.values()],
        [split["rows"] for split in figures["splits"].values()],
        [source["kept"] for source in figures["sources"].values()],
        figures["quality"]["histogram"],
        list(figures["models"]["captioner"].values()),
    ]
    assert [sum(counts) for counts in divisions] == [len(rows)] * len(divisions)


@pytest.mark.parametrize(
    ("age", "group"), [(0.0, "0-9"), (9.99, "0-9"), (10.0, "10-19"), (79.9, "70-79"), (80.0, "80+")]
)
def test_an_age_has_one_group(age: float, group: str):
    assert decade_of(age) == group
    assert group in DECADES


def test_a_gender_is_counted_only_when_it_is_sure():
    assert [gender_of(p) for p in (0.8, 0.79, 0.5, 0.21, 0.19)] == ["woman", NOT_SURE, NOT_SURE, NOT_SURE, "man"]
    assert [largest for _, largest in SIZES] == sorted(largest for _, largest in SIZES)


def test_the_card_is_one_that_hugging_face_reads(described_release):
    store, rows = described_release
    card = DatasetCard(store.read_bytes(f"releases/{NAME}/{CARD}").decode())
    data = card.data
    assert isinstance(data, DatasetCardData)
    assert data.license == "other"
    assert data.license_name == "by-source"
    assert data.size_categories == ["n<1K"]
    files = data.configs[0]["data_files"]
    assert files == [
        {"split": "train", "path": "data/train-*.parquet"},
        {"split": "test", "path": "data/test-*.parquet"},
    ]
    for row in rows:
        assert row["licence"] in card.text
    assert f"{len(rows)} faces" in card.text


def test_a_single_licence_of_the_hub_is_said_by_its_name(finished_release):
    store, _ = finished_release
    files = ReleaseFiles(store, NAME)
    figures = release_figures(files)
    assert card_head(files, {**figures, "licences": {"CC-BY-4.0": 1}})["license"] == "cc-by-4.0"
    assert card_head(files, {**figures, "licences": {"FFHQ's own": 1}})["license"] == "other"


def test_names_of_sources_cannot_break_the_card(release):
    store, _ = release
    for path in (*ReleaseFiles(store, NAME).data_paths(), f"releases/{NAME}/decisions.parquet"):
        table = store.read_table(path)
        index = table.schema.get_field_index("source")
        store.write_table(path, table.set_column(index, "source", pa.array([ODD] * table.num_rows)))
    write_card(store, NAME)
    text = store.read_bytes(f"releases/{NAME}/{CARD}").decode()
    assert "<b" not in text
    (line,) = [line for line in text.splitlines() if "Zoë" in line]
    assert line.replace("\\|", "").count("|") == 7
    assert check_card(store, NAME) == []


def test_plots_and_samples_are_there_and_the_same_each_time(own_described):
    store, _ = own_described
    first = {path: store.read_bytes(path) for path in store.list(f"releases/{NAME}")}
    for path in (CARD, FIGURES, SAMPLES, *(f"card/{file}" for file in PLOTS)):
        assert f"releases/{NAME}/{path}" in first
    for path in (SAMPLES, *(f"card/{file}" for file in PLOTS)):
        picture = np.asarray(Image.open(io.BytesIO(first[f"releases/{NAME}/{path}"])).convert("RGB"))
        assert picture.std() > 5
    write_card(store, NAME)
    assert {path: store.read_bytes(path) for path in store.list(f"releases/{NAME}")} == first


def test_a_card_that_holds_has_nothing_against_it(release, described_release):
    assert check_card(release[0], NAME) == [f"{CARD} is not there", f"{FIGURES} is not there"]
    assert check_card(described_release[0], NAME) == []


def test_every_number_on_the_card_is_checked(own_described):
    """A digit changed anywhere in the body is found, and so is a row that went away behind the card's back."""
    store, _ = own_described
    path = f"releases/{NAME}/{CARD}"
    text = store.read_bytes(path).decode()
    start = text.index("# Faces")
    digits = [place for place in range(start, len(text)) if text[place].isdigit()]
    assert len(digits) > 40
    for place in digits[::11]:
        wrong = str((int(text[place]) + 1) % 10)
        store.write_bytes(path, (text[:place] + wrong + text[place + 1 :]).encode())
        (problem,) = check_card(store, NAME)
        assert problem.startswith(f"{CARD}, line ")
    store.write_bytes(path, text.encode())
    data = ReleaseFiles(store, NAME).data_paths()[0]
    store.keep_rows(data, lambda row: row["row_id"] != rows_in(store, data)[0])
    problems = check_card(store, NAME)
    assert any(problem.startswith("rows.kept: the card says 12, the tables 11") for problem in problems)


def rows_in(store, path: str) -> list[str]:
    return [row["row_id"] for row in store.iter_rows(path, ["row_id"])]


def test_differences_name_the_place():
    assert differences({"a": {"b": 1}, "c": [1]}, {"a": {"b": 2}, "c": [1]}) == ["a.b: the card says 1, the tables 2"]
    assert differences({"a": 1}, {"a": 1, "d": 0}) == ["d: the card says None, the tables 0"]


def test_a_release_of_nothing_has_a_card(tmp_path):
    store = Store(tmp_path)
    write_release(store, count=0)
    figures = write_card(store, NAME)
    assert figures["rows"]["kept"] == 0
    assert check_card(store, NAME) == []


def test_columns_named_on_the_card_exist(finished_release):
    assert set(_MEANING) <= set(DATA_SCHEMA.names)
    assert set(PARTS) <= set(release_figures(ReleaseFiles(finished_release[0], NAME))["parts"])
