import numpy as np
import pytest

from studiolo.portraits.sheets import SheetRow, Tile, contact_sheet, square
from tests.portraits.job_rows import picture


def test_pictures_stand_where_row_and_column_say():
    red, blue = np.zeros((50, 50, 3), np.uint8), np.zeros((80, 40, 3), np.uint8)
    red[..., 0], blue[..., 2] = 250, 250
    sheet = contact_sheet([SheetRow("anna", [Tile(red), None]), SheetRow("berta", [None, Tile(blue)])], ("a", "b"), 64)
    reds = np.argwhere((sheet == (250, 0, 0)).all(axis=-1))
    blues = np.argwhere((sheet == (0, 0, 250)).all(axis=-1))
    assert len(reds) == len(blues) == 64 * 64
    assert (reds.max(axis=0) < blues.min(axis=0)).all()


def test_labels_are_drawn_and_change_nothing_else():
    tiles = [Tile(picture(1), "0.91")]
    with_label = contact_sheet([SheetRow("anna", tiles)], ("studio",))
    other_label = contact_sheet([SheetRow("berta", tiles)], ("studio",))
    assert with_label.shape == other_label.shape
    differing = np.argwhere((with_label != other_label).any(axis=-1))
    assert len(differing) > 0
    assert differing[:, 1].max() < 192 * 0.7 + 16


def test_long_and_foreign_labels_stay_in_their_place():
    short = contact_sheet([SheetRow("x", [Tile(picture(1), "y")])], ("z",))
    long = contact_sheet([SheetRow("Žofie Ελένη " * 9, [Tile(picture(1), "Ж" * 200)])], ("w" * 300,))
    assert short.shape == long.shape


def test_every_line_of_a_caption_has_its_place():
    one, two = (contact_sheet([SheetRow("", [Tile(picture(1), words)])]) for words in ("first", "first\nsecond"))
    assert two.shape[0] > one.shape[0]
    np.testing.assert_array_equal(one[:-20], two[: len(one) - 20])
    assert (two[len(one) - 12 :] != two[-1]).any()


def test_same_input_same_bytes_and_no_input_is_refused():
    rows = [SheetRow("anna", [Tile(picture(1), "0.9"), Tile(picture(2))])]
    np.testing.assert_array_equal(contact_sheet(rows), contact_sheet(rows))
    with pytest.raises(ValueError, match="no pictures"):
        contact_sheet([SheetRow("anna", [])])


def test_square_keeps_the_upper_middle_of_upright_pictures():
    tall = np.zeros((90, 30, 3), np.uint8)
    tall[20:50] = 255
    assert np.asarray(square(tall, 30)).min() == 255


def test_square_around_a_face_stays_in_the_picture():
    wide = np.zeros((30, 90, 3), np.uint8)
    wide[:, 65:75] = 255
    assert np.asarray(square(wide, 30)).max() == 0
    assert np.asarray(square(wide, 30, (70 / 90, 0.5)))[:, 10:20].min() == 255
    assert np.array_equal(square(wide, 30, (1.0, 0.5)), square(wide[:, 60:], 30))
    assert np.array_equal(square(wide, 30, (0.0, 0.9)), square(wide[:, :30], 30))
