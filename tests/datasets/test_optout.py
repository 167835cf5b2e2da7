import json
from pathlib import Path

import numpy as np
import pytest

from studiolo.datasets.optout import OptOut, add
from studiolo.errors import SettingsError
from studiolo.storage.store import Store

FACE = np.linspace(-0.2, 0.2, 128, dtype=np.float32)


def write(path: Path, *rows: object) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_contents_and_faces_are_found(tmp_path: Path) -> None:
    found = OptOut.read(write(tmp_path / "list.jsonl", {"content_sha256": "AB" * 32}, {"embedding": FACE.tolist()}))
    assert found.has_content("ab" * 32)
    assert not found.has_content("cd" * 32)
    assert found.has_face(FACE + 0.01, within=0.2)
    assert not found.has_face(FACE + 0.1, within=0.2)
    assert not OptOut()
    assert not OptOut().has_face(FACE, within=9)


def test_what_was_erased_adds_up(tmp_path: Path) -> None:
    store = Store(tmp_path)
    assert not OptOut.of_output(store)
    add(store, ["ab" * 32])
    add(store, ["cd" * 32, "ab" * 32])
    assert OptOut.of_output(store).contents == {"ab" * 32, "cd" * 32}
    both = OptOut.of_output(store) | OptOut(frozenset(["ef" * 32]), FACE[None])
    assert len(both.contents) == 3
    assert both.has_face(FACE, within=0.1)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"content_sha256": "abc"}, "wanted 64 hexadecimal digits"),
        ({"content_sha256": None, "embedding": None}, "names nothing"),
        ({"embedding": [1.0, 2.0]}, "wanted 128 numbers"),
        ({"name": "Anna"}, "wanted content_sha256 or embedding"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(tmp_path: Path, row: object, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        OptOut.read(write(tmp_path / "list.jsonl", row))
