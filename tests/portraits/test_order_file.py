import datetime

import pytest

from studiolo.errors import SettingsError
from studiolo.portraits.order_file import AlbumOrder, read_order_file, resolve_orders
from studiolo.settings import StudioSettings

SETTINGS = StudioSettings(albums="albums", out="out", styles=("studio", "plain"), per_style=2)
STYLES = ("studio", "plain", "warm-film")
ALBUMS = ["anna", "ben", "zoë, the second"]

YAML = """\
default: none
albums:
  - album_id: anna
    styles: {studio: 3, warm-film: }
    edits: {wedding: , beach@0.3x0.5: 1}
    per_style: 5
    prints: [4x5, 8x10@240]
    people: 3
    delete_after: 2027-01-31
  - album_id: "zoë, the second"
"""
CSV = """\
album_id,styles,edits,per_style,prints,people,delete_after
anna,studio:3 warm-film,wedding beach@0.3x0.5:1,5,4x5;8x10@240,3,2027-01-31
"zoë, the second",,,,,,
*,none,,,,,
"""
JSONL = """\
{"album_id": "*", "styles": "none"}
{"album_id": "anna", "styles": {"studio": 3, "warm-film": 5}, "edits": {"wedding": 5, "beach@0.3x0.5": 1}, \
"prints": "4x5 8x10@240", "people": 3, "delete_after": "2027-01-31"}

{"album_id": "zoë, the second"}
"""


def orders(content: str, name: str = "orders.yaml") -> dict[str, AlbumOrder]:
    return resolve_orders(ALBUMS, SETTINGS, STYLES, *read_order_file(name, content.encode))


@pytest.mark.parametrize(
    ("name", "content"), [("o.yaml", YAML), ("o.csv", CSV), ("o.csv", "\ufeff" + CSV), ("o.jsonl", JSONL)]
)
def test_every_format_says_the_same(name: str, content: str):
    found = orders(content, name)
    assert list(found) == ["anna", "zoë, the second"]
    assert found["anna"].styles == {"studio": 3, "warm-film": 5, "wedding": 5, "beach@0.3x0.5": 1}
    assert [size.name for size in found["anna"].prints] == ["4x5", "8x10@240"]
    assert [order.people for order in found.values()] == [3, 1]
    assert found["anna"].delete_after == datetime.date(2027, 1, 31)
    assert found["zoë, the second"].styles == {"studio": 2, "plain": 2}
    assert found["zoë, the second"].delete_after is None


def test_pictures_in_templates_may_be_all_that_is_ordered():
    found = orders("albums: [{album_id: anna, styles: none, edits: wedding}, {album_id: ben, styles: none}]")
    assert found["anna"].styles == {"wedding": 2}
    assert "ben" not in found


def test_albums_not_named_get_the_settings_or_the_default():
    named = "albums: [{album_id: anna, styles: warm-film}]"
    assert orders(named)["ben"].styles == {"studio": 2, "plain": 2}
    assert orders(named)["anna"].styles == {"warm-film": 2}
    found = orders(named + "\ndefault: {styles: [plain], prints: 4x5, people: 2}")
    assert found["ben"].styles == {"plain": 2}
    assert [order.people for order in found.values()] == [1, 2, 2]
    assert [size.name for size in found["ben"].prints] == ["4x5"]
    assert found["anna"].prints == ()
    assert resolve_orders(ALBUMS, SETTINGS, STYLES)["ben"].styles == {"studio": 2, "plain": 2}


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("albums: [{album_id: ana}]", "no album of 'albums' is called 'ana'; did you mean 'anna'"),
        ("albums: [{album_id: anna, styles: stduio}]", "'anna': no style is called 'stduio'; did you mean 'studio'"),
        ("default: {styles: palin}", "no style is called 'palin'; did you mean 'plain'"),
        ("albums: [{album_id: anna}, {album_id: anna}]", "'anna' is ordered twice"),
        ("albums: [{album_id: anna, stlyes: studio}]", "no field is called 'stlyes'; did you mean 'styles'"),
        ("album: [{album_id: anna}]", "no part is called 'album'; did you mean 'albums'"),
        ("albums: [{album_id: anna, people: 0}]", "people of album 'anna': got 0; Input should be greater than or"),
        ("albums: [{album_id: anna, people: 51}]", "people of album 'anna': got 51; Input should be less than or"),
        ("albums: [{album_id: anna, people: two}]", "people of album 'anna': got 'two'"),
        ("albums: [{album_id: anna, prints: 4by5}]", "got the print '4by5', wanted inches such as 4x5"),
        ("albums: [{album_id: anna, prints: [4x5, 4x5@300]}]", "each print once"),
        ("albums: [{album_id: anna, styles: {studio: 0}}]", "at least 1 portrait"),
        ("albums: [{album_id: anna, edits: 'wedding:0'}]", "edits of album 'anna'"),
        ("albums: [{album_id: anna, edits: studio}]", "'studio' is a style; rename the template"),
        ("albums: [{album_id: anna, styles: {studio: 1, studio: 2}}]", "'studio' stands twice"),
        ("albums: [{album_id: anna, styles: 'studio:1, studio:2'}]", "each name once"),
        ("albums: [{album_id: anna, styles: 'studio:x'}]", "styles of album 'anna'"),
        ("albums: [{album_id: anna, delete_after: soon}]", "delete_after of album 'anna': got 'soon'"),
        ("albums: [{album_id: 7}]", "write it in quotes"),
        ("albums: [anna]", "wanted fields such as"),
        ("anna", "wanted `albums:`"),
        ("albums: [{album_id", "cannot be read"),
        ("? [a, b]\n: c", "cannot be read"),
        ("a: &a [x]\nalbums: *a", "aliases (*name) are not taken"),
        ("albums: &a [*a]", "aliases (*name) are not taken"),
        ("albums: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("albums: [{album_id: anna, people: " + "9" * 5000 + "}]", "cannot be read"),
        ("albums: " + "[" * 20_000, "nested too deeply"),
    ],
)
def test_what_does_not_fit_is_told(content: str, says: str):
    with pytest.raises(SettingsError) as caught:
        orders(content)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("o.csv", "album_id,styles\nanna,studio:1,plain:2\n", "more cells than the header"),
        ("o.csv", "album_id,styels\nanna,studio\n", "did you mean 'styles'"),
        ("o.csv", "album_id,styles\nanna,studio\nanna,plain\n", "'anna' is ordered twice"),
        ("o.csv", "styles\nstudio\n", "album_id is missing"),
        ("o.jsonl", '{"album_id": "anna"', "cannot be read"),
        ("o.jsonl", "[" * 100_000, "nested too deeply"),
        ("o.jsonl", '{"people": ' + "9" * 5000 + "}", "cannot be read"),
        ("o.csv", "album_id\n" + "x" * 200_000, "cannot be read"),
        ("o.csv", "album_id\0\nanna", "album_id"),
        ("o.xlsx", "", "wanted .yaml, .csv or .jsonl"),
    ],
)
def test_tables_are_checked_as_well(name: str, content: str, says: str):
    with pytest.raises(SettingsError) as caught:
        orders(content, name)
    assert says in str(caught.value)


def test_ids_of_digits_stay_text():
    found = resolve_orders(
        ["007"], SETTINGS, STYLES, *read_order_file("o.csv", lambda: b"album_id,styles\n007,studio:1\n")
    )
    assert found["007"].styles == {"studio": 1}


def test_a_bomb_of_aliases_is_not_unfolded():
    """Nine lines that are a billion words when they are written out."""
    lines = ["a: &a [lol, lol, lol, lol, lol, lol, lol, lol, lol, lol]"]
    lines += [f"{b}: &{b} [{', '.join([f'*{a}'] * 10)}]" for a, b in zip("abcdefgh", "bcdefghi", strict=True)]
    with pytest.raises(SettingsError, match="aliases") as caught:
        orders("\n".join([*lines, "albums: [{album_id: anna, styles: *i}]"]))
    assert len(str(caught.value)) < 1000
