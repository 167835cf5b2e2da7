import io
from pathlib import Path

import pytest
from PIL import Image

from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.provenance.credentials import Credentials
from studiolo.provenance.manifests import ManifestState, Signer, without_manifest
from studiolo.service.database import Database
from studiolo.service.provenance import MadeBy, Provenance, Verdict
from studiolo.service.queue import JobQueue
from studiolo.service.records import Kind, Lease
from studiolo.settings import ProvenanceSettings
from tests.portraits.job_rows import picture
from tests.provenance.test_looking import opened
from tests.service.rows import portraits

RGB = picture(3)
PIXELS = image_sha256(RGB)


@pytest.fixture
def provenance(database: Database, tmp_path: Path) -> Provenance:
    return Provenance(database, Signer(Credentials.open(ProvenanceSettings(development=str(tmp_path)))))


def leased(queue: JobQueue) -> Lease:
    queue.submit("ten_a", portraits())
    (lease,) = queue.lease([Kind.PORTRAITS], "w", 60)
    return lease


def test_pixels_are_known_from_the_moment_of_the_result(queue: JobQueue, provenance: Provenance):
    first, again = leased(queue), leased(queue)
    remember = provenance.remember(first.job.id, [PIXELS, PIXELS])

    def broken(session) -> None:
        remember(session)
        raise RuntimeError("the transaction does not come to its end")

    with pytest.raises(RuntimeError):
        queue.complete(first, {"n": 1}, within=broken)
    assert not provenance.known(PIXELS)
    for _ in range(2):  # the answer to the first was lost
        queue.complete(first, {"n": 1}, within=remember)
    queue.complete(again, {"n": 1}, within=provenance.remember(again.job.id, [PIXELS]))
    assert provenance.known(PIXELS)
    assert not provenance.known("0" * 64)
    queue.complete(leased(queue), {"images": []}, within=provenance.remember("job_x", []))


@pytest.mark.parametrize("known", [False, True])
def test_it_is_told_how_a_picture_is_known(queue: JobQueue, provenance: Provenance, known: bool):
    lease = leased(queue)
    queue.complete(lease, {"n": 1}, within=provenance.remember(lease.job.id, [PIXELS] if known else []))
    by = MadeBy.PIXELS if known else None
    signed = provenance.sign(encode_portrait(RGB, {"seed": 1}))
    assert judged(provenance, signed) == Verdict(MadeBy.MANIFEST, ManifestState.OURS)
    assert judged(provenance, signed + b"x") == Verdict(by, ManifestState.ALTERED)
    assert judged(provenance, without_manifest(signed)) == Verdict(by, ManifestState.NONE)


def test_a_changed_pixel_is_another_picture(queue: JobQueue, provenance: Provenance):
    lease = leased(queue)
    queue.complete(lease, {"n": 1}, within=provenance.remember(lease.job.id, [PIXELS]))
    changed, content = RGB.copy(), io.BytesIO()
    changed[0, 0, 0] ^= 1
    Image.fromarray(changed).save(content, "PNG")
    assert judged(provenance, content.getvalue()) == Verdict(None, ManifestState.NONE)


def judged(provenance: Provenance, content: bytes) -> Verdict:
    with opened(content) as file:
        return provenance.judge(file, RGB.shape[0] * RGB.shape[1])


def test_every_verdict_has_a_sentence_that_names_nobody():
    sentences = {Verdict(by, manifest).sentence() for by in (None, *MadeBy) for manifest in ManifestState}
    assert all(sentence.endswith(".") and "tenant" not in sentence for sentence in sentences)
    assert Verdict(MadeBy.MANIFEST, ManifestState.OURS).sentence().startswith("It was made here")
