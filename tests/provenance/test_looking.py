import io
import tempfile
import time
from pathlib import Path
from typing import IO

import pytest
from PIL import Image

from studiolo.portraits.files import encode_portrait, image_sha256
from studiolo.provenance import looking
from studiolo.provenance.credentials import Credentials
from studiolo.provenance.looking import Seen, look
from studiolo.provenance.manifests import ManifestState, Signer
from studiolo.settings import ProvenanceSettings
from tests.portraits.job_rows import picture

RGB = picture(3)
PIXELS = RGB.shape[0] * RGB.shape[1]


@pytest.fixture(scope="module")
def signer(tmp_path_factory: pytest.TempPathFactory) -> Signer:
    return Signer(Credentials.open(ProvenanceSettings(development=str(tmp_path_factory.mktemp("provenance")))))


def opened(content: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115
    file.write(content)
    file.flush()
    file.seek(0)
    return file


def seen(signer: Signer, content: bytes, max_pixels: int = PIXELS) -> Seen:
    with opened(content) as file:
        return look(file, signer.credentials.ours, max_pixels)


def test_manifest_and_pixels_are_found(signer: Signer):
    signed = signer.sign(encode_portrait(RGB, {}))
    assert seen(signer, signed) == Seen(ManifestState.OURS, image_sha256(RGB))
    assert seen(signer, signed, PIXELS - 1) == Seen(ManifestState.OURS, None)


def test_pixels_are_the_same_however_they_are_packed_without_loss(signer: Signer):
    packed = io.BytesIO()
    Image.fromarray(RGB).save(packed, "WEBP", lossless=True)
    assert seen(signer, packed.getvalue()) == Seen(ManifestState.NONE, image_sha256(RGB))


def test_what_is_no_picture_is_nothing(signer: Signer):
    assert seen(signer, b"GIF8" + b"\0" * 100) == Seen(ManifestState.NONE, None)


def test_a_child_that_dies_or_hangs_says_as_much_as_it_knew(
    signer: Signer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    signed = signer.sign(encode_portrait(RGB, {}))
    for body in ("import os; os.abort()", "import time; time.sleep(60)"):
        script = tmp_path / "python"  # of which the first line comes through, and half of the second
        script.write_text(f'#!{looking.sys.executable}\nprint(\'{{"pixels": "5"}}\\n{{"mani\', flush=True)\n{body}\n')
        script.chmod(0o755)
        began_s = time.monotonic()
        with monkeypatch.context() as patch, opened(signed) as file:
            patch.setattr(looking.sys, "executable", str(script))
            assert look(file, signer.credentials.ours, PIXELS, limit_s=3) == Seen(ManifestState.BROKEN, "5")
        assert time.monotonic() - began_s < 30
