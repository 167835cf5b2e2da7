"""A release as a training loads it, with one line."""

import datasets
import numpy as np
import pytest
import torch

from studiolo.datasets.hub_features import PICTURES, hub_features
from studiolo.datasets.records import DATA_SCHEMA
from studiolo.perception.regions import Region
from tests.datasets.release import NAME


@pytest.fixture
def folder(described_release, tmp_path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The release's folder, and a cache of the test's own."""
    store, _ = described_release
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return str(store.local_path(f"releases/{NAME}"))


def test_the_cards_head_has_the_columns_as_datasets_writes_them():
    features = datasets.Features.from_arrow_schema(DATA_SCHEMA)
    features.update({name: datasets.Image() for name in PICTURES})
    assert hub_features(DATA_SCHEMA) == features._to_yaml_list()


def test_one_line_loads_pictures_masks_and_captions(finished_release, folder: str):
    _, rows = finished_release
    train = datasets.load_dataset(folder, split="train", streaming=True)
    test = datasets.load_dataset(folder, split="test", streaming=True)
    loaded = {row["row_id"]: row for split in (train, test) for row in split}
    assert set(loaded) == {row["row_id"] for row in rows}
    for row in rows:
        one = loaded[row["row_id"]]
        assert one["image"].size == one["mask"].size == (128, 128)
        assert set(np.unique(np.asarray(one["mask"]))) <= set(map(int, Region))
        assert [caption["text"] for caption in one["captions"]] == [caption["text"] for caption in row["captions"]]
        assert one["split"] == row["split"]


def test_a_torch_loader_makes_batches_of_it(folder: str):
    def batch(rows: list[dict]) -> dict[str, torch.Tensor]:
        images = [torch.from_numpy(np.array(row["image"])).permute(2, 0, 1) for row in rows]
        masks = [torch.from_numpy(np.array(row["mask"])) for row in rows]
        return {
            "image_NCHW": torch.stack(images),
            "mask_NHW": torch.stack(masks),
            "face_ND": torch.tensor([row["face_embedding"] for row in rows]),
        }

    train = datasets.load_dataset(folder, split="train", streaming=True).shuffle(seed=0, buffer_size=8)
    loader = torch.utils.data.DataLoader(train, batch_size=4, collate_fn=batch)
    shapes = [{name: tuple(tensor.shape) for name, tensor in one.items()} for one in loader]
    assert shapes[0] == {"image_NCHW": (4, 3, 128, 128), "mask_NHW": (4, 128, 128), "face_ND": (4, 128)}
    assert sum(shape["face_ND"][0] for shape in shapes) == 9
