"""People for benchmarks: sample people as the job sees them, each with a face-LoRA of random weights."""

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from actors.perceiver import Perceiver
from benchmarks.workloads import write_loras
from studiolo.albums.samples import extract_people
from studiolo.albums.sources import INPUT_SCHEMA, list_albums
from studiolo.generation.base import load_base
from studiolo.identities.learned import LearnedReference, LearnedVersion
from studiolo.settings import PerceptionSettings, SelectionSettings
from studiolo.storage.store import Store
from studiolo.weights.fetch import pull

SUITE, BASE = "embedded", "embedded-base"
PHOTOS = 5
"""Of each person."""


@dataclass(frozen=True, eq=False)
class SamplePerson:
    """A person whose references lie in a store, and the face-LoRA beside them."""

    row: dict[str, Any]
    """Of `IDENTITY_SCHEMA`."""
    lora_path: str
    """In the store."""
    lora_sha256: str

    def learned(self) -> LearnedVersion:
        """The same as the endpoint keeps it."""
        references = [
            LearnedReference(
                photo=number,
                **{name: row[name] for name in ("crop_path", "quality_score", "verdict")},
                embedding=tuple(row["embedding"]),
            )
            for number, row in enumerate(self.row["references"], 1)
        ]
        return LearnedVersion(
            lora_path=self.lora_path,
            lora_sha256=self.lora_sha256,
            steps=0,
            trigger=self.row["trigger"],
            common_tags=tuple(self.row["common_tags"]),
            references=tuple(references),
        )


def sample_people(folder: Path, store: Store, count: int) -> list[SamplePerson]:
    """`count` sample people of `PHOTOS` photos each; what belongs to them is put into `store`, all else in `folder`."""
    extract_people(folder / "all", count)
    for album in sorted((folder / "all").iterdir()):
        (folder / "albums" / album.name).mkdir(parents=True)
        for photo in sorted(album.glob("*.jpg"), key=lambda path: (path.stem != "portrait", path.name))[:PHOTOS]:
            shutil.copy(photo, folder / "albums" / album.name)
    perceiver = Perceiver(store, SUITE, PerceptionSettings(), SelectionSettings())
    perceiver.open()
    sources = list_albums(str(folder / "albums"))
    seen = [perceiver(pa.Table.from_pylist([source.row()], INPUT_SCHEMA)).to_pylist()[0] for source in sources]
    people = []
    for row, path in zip(seen, write_loras(load_base(pull(BASE)), folder, len(seen)), strict=True):
        content, name = path.read_bytes(), f"{row['identity_id']}.safetensors"
        store.write_bytes(name, content)
        people.append(SamplePerson(row, name, hashlib.sha256(content).hexdigest()))
    return people
