"""What is made of a release, once."""

from typing import Any

import pytest

from studiolo.datasets import describe as module
from studiolo.datasets import releases
from studiolo.datasets.describe import describe, undescribed
from studiolo.storage.store import Store
from tests.datasets.release import NAME

Release = tuple[Store, list[dict[str, Any]]]


def contents(store: Store) -> dict[str, bytes]:
    return {path: store.read_bytes(path) for path in store.list()}


def record(store: Store) -> dict[str, Any]:
    return releases.find(store, NAME)[1]


def test_all_is_made_once_and_another_form_beside_it(own_described: Release) -> None:
    store, _ = own_described
    made = contents(store)
    for path in ("README.md", "card/figures.json", "croissant.json", "index.html"):
        assert f"releases/{NAME}/{path}" in made
    assert list(describe(store, NAME, record(store))) == []
    assert contents(store) == made

    releases.with_formats(store, record(store), ["webdataset", "consistentid"])
    assert record(store)["formats"] == ["consistentid", "webdataset"]
    assert list(describe(store, NAME, record(store))) == ["consistentid", "webdataset"]
    of_record = f"releases/{NAME}/release.json"
    assert contents(store).items() >= {path: made[path] for path in made if path != of_record}.items()
    assert store.exists(f"releases/{NAME}/consistentid/JSON_all.json")
    assert store.exists(f"releases/{NAME}/webdataset/train-00000.tar")
    releases.with_formats(store, record(store), [])
    assert record(store)["formats"] == ["consistentid", "webdataset"]
    assert list(undescribed(store, NAME, record(store))) == []


def test_what_is_interrupted_is_made_again(release: Release, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def killed(*arguments: object) -> None:
        raise Killed

    store, _ = release
    with monkeypatch.context() as patch:
        patch.setattr(module, "write_browser", killed)
        with pytest.raises(Killed):
            list(describe(store, NAME, record(store)))
    assert list(undescribed(store, NAME, record(store))) != []
    assert list(describe(store, NAME, record(store))) == ["card"]


def test_what_is_gone_or_of_another_state_is_made_anew(own_described: Release) -> None:
    store, _ = own_described
    made = contents(store)
    store.remove(f"releases/{NAME}/index.html")
    assert list(undescribed(store, NAME, record(store))) != []
    assert list(describe(store, NAME, record(store))) == ["card"]
    assert contents(store) == made

    store.write_json(f"releases/{NAME}/release.json", {**record(store), "merged_across_splits": 7})
    assert list(describe(store, NAME, record(store))) == ["card"]
    assert "7 groups that grew together" in store.read_bytes(f"releases/{NAME}/README.md").decode()
    assert list(undescribed(store, NAME, record(store))) == []
