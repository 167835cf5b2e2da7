"""Small albums and settings: the whole job on real models in about a minute."""

import shutil
from pathlib import Path

import pytest

QUICK = """\
styles: [studio]
per_style: 1
object_store_mib: 100
face_lora: {steps: 6, batch_size: 2, views_per_photo: 1, rank: 4}
generation: {steps: 3, slots: 2, upscale: 1, retries: 0, accept_similarity: 0.0}
"""


@pytest.fixture(scope="session")
def small_albums(people: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two people with three photos each, and one album in which nothing is usable."""
    out = tmp_path_factory.mktemp("small")
    for person in ("P001", "P002"):
        (out / person).mkdir()
        for name in ("portrait.jpg", "selfie.jpg", "expression-02-happy.jpg"):
            shutil.copy(people / person / name, out / person / name)
    (out / "nobody").mkdir()
    (out / "nobody" / "words.jpg").write_text("these are words")
    (out / "nobody" / "empty.jpg").write_bytes(b"")
    return out


@pytest.fixture(scope="session")
def quick_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings that do everything once and nothing well."""
    path = tmp_path_factory.mktemp("config") / "quick.yaml"
    path.write_text(QUICK)
    return path
