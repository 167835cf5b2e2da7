"""People who were learned already, for tests that begin with their portraits."""

import tempfile
from pathlib import Path

from diffusers import StableDiffusionPipeline

from actors.perceiver import png_bytes
from benchmarks.workloads import write_loras
from studiolo.identities.learned import LearnedReference, LearnedVersion
from studiolo.perception.suite import open_suite
from studiolo.service.records import Consent, Kind, NewJob, Person, new_id
from studiolo.service.service import Service
from studiolo.weights.fetch import sha256_of
from tests.portraits.test_fusion import crop_of


def learn(service: Service, tenant_id: str, photo: Path, base: StableDiffusionPipeline) -> str:
    """An identity of a tenant with one photo as its reference and a face-LoRA of random weights for `base`; its id."""
    identity_id, store = new_id("id"), service.store
    crop_path, lora_path = (f"identities/{identity_id}/{name}" for name in ("references/a.png", "lora/a.safetensors"))
    store.write_bytes(crop_path, png_bytes(crop_of(photo, open_suite("embedded"), 0.35, 512)[0]))
    with tempfile.TemporaryDirectory() as folder:
        (lora,) = write_loras(base, Path(folder), 1)
        store.write_bytes(lora_path, lora.read_bytes())
        sha256 = sha256_of(lora)
    reference = LearnedReference(
        photo=1, crop_path=crop_path, quality_score=0.9, verdict="same", embedding=(0.0,) * 128
    )
    version = LearnedVersion(
        lora_path=lora_path, lora_sha256=sha256, steps=1, trigger="a handsome man", references=(reference,)
    )
    person = Person(name="Anna", consent=Consent(given_by="Anna", statement="Yes.", given_at=0.0))
    new = NewJob(kind=Kind.IDENTITY, request={}, steps=1, identity_id=identity_id, person=person)
    service.queue.submit(tenant_id, new)
    (lease,) = service.queue.lease([Kind.IDENTITY], "trainer", 60)
    within = service.identities.learned(lease, version.model_dump(mode="json"))
    service.queue.complete(lease, {}, within=within)
    return identity_id
