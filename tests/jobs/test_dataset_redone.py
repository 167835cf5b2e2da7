"""Which units a changed setting of the dataset job redoes."""

from pathlib import Path
from typing import Any

import pytest

from studiolo.datasets.annotate import cards_of
from studiolo.datasets.captions import open_captioner
from studiolo.datasets.captions.settings import GrammarSettings
from studiolo.datasets.captions.shards import caption_key
from studiolo.datasets.listing import bring_up_to_date, parts_of, read_part
from studiolo.datasets.measures import Shard, gather
from studiolo.datasets.releases import release_key
from studiolo.datasets.settings import DatasetSettings, SourceSettings
from studiolo.datasets.shards import shard_key
from studiolo.datasets.sources import list_pictures
from studiolo.perception.suite import PERCEPTION_CARDS
from studiolo.storage.store import Store
from studiolo.weights.cards import weights_sha256
from tests.jobs.test_redone import fields

NOTHING: set[str] = set()
RELEASE = {"release"}
SAID = {"captions", "release"}
ALL = {"shard", "captions", "release"}

SERVER: dict[str, Any] = {
    **{"url": "http://elsewhere/v1", "model": "other", "api_key_variable": "KEY", "max_new_tokens": 64, "side_px": 336},
    **{"rows_per_part": 8, "in_flight": 1, "timeout_s": 9.0, "attempts": 2, "pause_s": 2.0, "longest_pause_s": 9.0},
    **{"prompt_price": 1.0, "completion_price": 2.0},
}

# setting, another value, the units whose keys it changes; a release of other shards is another release
TABLE: list[tuple[str, Any, set[str]]] = [
    ("sources", ["synthetic:count=5,seed=3", "synthetic:count=2,seed=4"], RELEASE),  # one more shard; the others stay
    ("sources", ["synthetic:count=5,seed=3;weight=2"], RELEASE),
    ("sources", ["synthetic:count=5,seed=3;licence=CC0"], RELEASE),
    ("sources", ["synthetic:count=5,seed=3,side=256"], RELEASE),  # other versions: another shard beside the first
    ("out", "elsewhere", NOTHING),
    ("opt_out", "list.jsonl", NOTHING),  # what is on it is erased
    ("suite", "modelscope", ALL),
    ("captioner", "openai", SAID),
    ("formats", ["webdataset"], NOTHING),  # made of the release that is there
    ("cpus", 1, NOTHING),
    ("object_store_mib", 300, NOTHING),
    ("tracking_uri", "http://localhost:5000", NOTHING),
    ("max_failed_share", 0.5, NOTHING),
    ("perception.max_pixels", 1000, ALL),
    ("perception.working_side_px", 800, ALL),
    ("perception.min_side_px", 65, ALL),
    ("perception.decode_seconds", 20.0, ALL),
    ("perception.decode_mib", 512, ALL),
    ("perception.detector_score", 0.8, ALL),
    ("perception.min_face_px", 49, ALL),
    ("perception.mesh_score", 0.6, ALL),
    ("perception.actors", 1, NOTHING),
    ("perception.cpus_per_actor", 0.5, NOTHING),
    ("perception.time_limit_s", 100.0, NOTHING),
    ("perception.memory_limit_mib", 4000, NOTHING),
    ("annotation.image_side_px", 256, ALL),
    ("annotation.face_ratio", 0.5, ALL),
    ("annotation.jpeg_quality", 90, ALL),
    ("annotation.rows_per_shard", 2, NOTHING),  # of what is listed
    ("annotation.actors", 1, NOTHING),
    ("annotation.cpus_per_actor", 0.5, NOTHING),
    ("annotation.time_limit_s", 100.0, NOTHING),
    ("annotation.memory_limit_mib", 4000, NOTHING),
    ("captions.actors", 1, NOTHING),
    ("captions.cpus_per_actor", 0.5, NOTHING),
    ("captions.time_limit_s", 100.0, NOTHING),
    *((f"captions.grammar.{name}", 0.7, SAID) for name in GrammarSettings.model_fields),
    ("captions.llava.card", "another", NOTHING),  # of a captioner that is not asked
    ("captions.llava.batch_size", 4, NOTHING),
    ("captions.llava.max_new_tokens", 64, NOTHING),
    ("captions.llava.side_px", 336, NOTHING),
    *((f"captions.openai.{name}", value, NOTHING) for name, value in SERVER.items()),
    ("release.min_face_px", 100, RELEASE),
    ("release.max_second_face_share", 0.4, RELEASE),
    ("release.max_yaw_deg", 50.0, RELEASE),
    ("release.max_pitch_deg", 30.0, RELEASE),
    ("release.min_quality", 0.4, RELEASE),
    ("release.unsafe_above", 0.7, RELEASE),
    ("release.duplicate_bits", 4, RELEASE),
    ("release.duplicate_cosine", 0.8, RELEASE),
    ("release.cluster_distance", 0.3, RELEASE),
    ("release.wrong_label_distance", 0.7, RELEASE),
    ("release.validation_share", 0.1, RELEASE),
    ("release.test_share", 0.1, RELEASE),
    ("release.rows_per_file", 100, RELEASE),
    ("release.rows_per_group", 10, RELEASE),
]


def keys(settings: DatasetSettings, store: Store) -> dict[str, set[str]]:
    """Keys of the shards, their captions and the release, as the job makes them; nothing is annotated."""
    for source in settings.sources:
        bring_up_to_date(store, source.name, list_pictures(source), settings.annotation.rows_per_shard)
    sources: dict[str, SourceSettings] = {source.name: source for source in settings.sources}
    parts = parts_of(store, sources)
    weights = weights_sha256(cards_of(settings.suite))
    found = [
        shard_key(read_part(store, part.path), settings.perception, settings.annotation, weights) for part in parts
    ]
    measures = gather(store, [Shard(part, None, key) for part, key in zip(parts, found, strict=True)])
    measures.shards[:] = [Shard(part, key) for part, key in zip(parts, found, strict=True)]
    captioner = open_captioner(settings.captioner, settings.captions).id
    return {
        "shard": set(found),
        "captions": {caption_key(shard, captioner) for shard in found},
        "release": {release_key(measures, settings.release, sources, captioner)},
    }


@pytest.mark.parametrize(("name", "value", "redone"), TABLE)
def test_a_changed_setting_redoes_exactly_what_depends_on_it(
    name: str, value: Any, redone: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PERCEPTION_CARDS, "modelscope", ("face-quality",))  # as it will be
    before: dict[str, Any] = {"sources": ["synthetic:count=5,seed=3"], "out": "out"}
    change: Any = value
    for part in reversed(name.split(".")):
        change = {part: change}
    settings, changed = (DatasetSettings.load(None, values) for values in (before, before | change))
    assert settings != changed
    known = keys(settings, Store(tmp_path))
    found = keys(changed, Store(tmp_path))
    assert {kind for kind in known if known[kind] - found[kind]} == redone


def test_every_setting_has_an_entry() -> None:
    assert {name for name, _, _ in TABLE} == set(fields(DatasetSettings))
