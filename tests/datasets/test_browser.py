import json

from studiolo.datasets.browser import FOLDER, INDEX, ROWS_PER_SCRIPT, browser_row, script, write_browser
from studiolo.datasets.figures import release_figures
from studiolo.datasets.release_files import ReleaseFiles
from tests.datasets.release import NAME, ODD


def rows_of(content: bytes) -> list[dict]:
    text = content.decode("ascii")
    return json.loads(text[text.index(",") + 1 : text.rindex(")")])


def test_the_page_shows_every_row_with_its_picture(described_release):
    store, rows = described_release
    base = f"releases/{NAME}/{FOLDER}"
    shown = rows_of(store.read_bytes(f"{base}/rows-000.js"))
    assert {row["id"] for row in shown} == {row["row_id"] for row in rows}
    assert all(store.exists(f"{base}/{row['picture']}") for row in shown)
    html = store.read_bytes(f"releases/{NAME}/{INDEX}").decode()
    assert f'<script src="{FOLDER}/rows-000.js" defer></script>' in html
    assert "http" not in html.replace("http.server", "").replace("http://localhost:8000/", "")


def test_of_many_rows_a_sample_is_shown_that_stays_the_same(release):
    store, rows = release
    figures = release_figures(ReleaseFiles(store, NAME))
    assert write_browser(store, NAME, figures, rows=5) == 5
    base = f"releases/{NAME}"
    first = {path: store.read_bytes(path) for path in store.list(base)}
    assert "this page shows 5 of them" in first[f"{base}/{INDEX}"].decode()
    shown = rows_of(first[f"{base}/{FOLDER}/rows-000.js"])
    assert sorted(row["id"] for row in shown) == sorted(row["row_id"] for row in rows)[:5]
    write_browser(store, NAME, figures, rows=5)
    assert {path: store.read_bytes(path) for path in store.list(base)} == first


def test_nothing_in_a_name_ends_the_script_or_the_page(finished_release):
    _, rows = finished_release
    odd = next(row for row in rows if ODD in row["identity"])
    hostile = {**browser_row(odd), "uri": "</script><img src=x onerror=alert(1)>\u2028 "}
    content = script(0, [hostile])
    assert b"<" not in content
    assert rows_of(content) == [hostile]
    assert content.startswith(b"release.rows(0,[")
    assert ROWS_PER_SCRIPT > 0


def test_masks_become_paths_within_the_picture(finished_release):
    _, rows = finished_release
    shown = browser_row(rows[0])
    assert set(shown["shapes"]) == set(shown["parts"])
    for path in shown["shapes"].values():
        assert path.startswith("M")
        assert path.endswith("Z")
        numbers = [float(number) for number in path.replace("M", " ").replace("L", " ").replace("Z", " ").split()]
        assert 0 <= min(numbers) <= max(numbers) <= shown["side"]
