import io
import json
import socket
from pathlib import Path

import c2pa
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import studiolo
from studiolo.errors import StudioloError
from studiolo.portraits.files import decode_portrait, encode_portrait
from studiolo.portraits.prints import PrintSize, encode_print
from studiolo.provenance.credentials import AUTHORITY_FILE, Credentials
from studiolo.provenance.manifests import ManifestState, Signer, Stamp, read_manifest, without_manifest
from studiolo.settings import ProvenanceSettings
from tests.portraits.job_rows import picture

PROMPT = "a portrait of Annabella in the summer of 1987"
RGB = picture(3)
PORTRAIT = encode_portrait(RGB, {"prompt": PROMPT, "seed": 7})
PRINT = encode_print(RGB, (0, 0, 64, 64), PrintSize.parse("2x2@100"))
CLAIMS = {
    "assertions": [
        {
            "label": "c2pa.actions.v2",
            "data": {
                "actions": [
                    {
                        "action": "c2pa.created",
                        "digitalSourceType": "http://cv.iptc.org/newscodes/digitalsourcetype/digitalCapture",
                    }
                ]
            },
        }
    ]
}
"""Of somebody else's program."""
FILES = pytest.mark.parametrize("content", [PORTRAIT, PRINT], ids=["png", "jpeg"])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("provenance")


@pytest.fixture(scope="module")
def signer(folder: Path) -> Signer:
    return Signer(Credentials.open(ProvenanceSettings(development=str(folder))))


@pytest.fixture
def stranger(tmp_path: Path) -> Signer:
    return Signer(Credentials.open(ProvenanceSettings(development=str(tmp_path))))


def state(signer: Signer, content: bytes) -> ManifestState:
    return read_manifest(content, signer.credentials.ours)


@FILES
def test_a_signed_file_is_the_unsigned_one_with_a_block_put_in(signer: Signer, content: bytes):
    stamp = signer.stamp(content)
    signed = stamp.put_into(content)
    assert without_manifest(signed) == content
    assert Stamp.from_bytes(stamp.to_bytes()) == stamp
    with Image.open(io.BytesIO(signed)) as one, Image.open(io.BytesIO(content)) as other:
        assert np.array_equal(np.asarray(one), np.asarray(other))
    assert 2000 < len(stamp.block) < 5000
    assert state(signer, signed) == "ours"
    assert state(signer, content) == "none"


def test_settings_in_a_portrait_are_still_read(signer: Signer):
    assert decode_portrait(signer.sign(PORTRAIT))[1] == decode_portrait(PORTRAIT)[1]


@FILES
def test_any_reader_that_trusts_the_authority_trusts_it_and_it_says_what_made_it(
    folder: Path, signer: Signer, content: bytes
):
    trust = {"trust": {"trust_anchors": (folder / AUTHORITY_FILE).read_text()}}
    with (
        c2pa.Context.from_dict(trust) as context,
        c2pa.Reader(
            "image/png" if content is PORTRAIT else "image/jpeg", io.BytesIO(signer.sign(content)), context=context
        ) as reader,
    ):
        assert reader.get_validation_state() == "Trusted"
        manifest = reader.get_active_manifest()
    program = {"name": "Studiolo", "version": studiolo.__version__}
    (assertion,) = manifest["assertions"]
    assert assertion["label"] == "c2pa.actions.v2"
    (action,) = assertion["data"]["actions"]
    assert action["action"] == "c2pa.created"
    assert action["digitalSourceType"].endswith("/trainedAlgorithmicMedia")
    assert action["softwareAgent"] == program
    assert manifest["claim_generator_info"][0].items() >= program.items()
    assert manifest.keys() <= {
        *("claim_generator_info", "instance_id", "assertions", "signature_info", "label", "claim_version"),
    }, "nothing else is said"


@FILES
def test_of_an_edit_it_says_that_a_part_was_made(signer: Signer, content: bytes):
    signed = signer.sign(content, composite=True)
    assert state(signer, signed) == "ours"
    assert b"/compositeWithTrainedAlgorithmicMedia" in signed
    assert b"/compositeWithTrainedAlgorithmicMedia" not in signer.sign(content)


@FILES
def test_no_word_of_the_order_is_in_a_manifest(signer: Signer, content: bytes):
    block = signer.stamp(content).block
    assert not [word for word in PROMPT.split() if len(word) > 3 and word.encode() in block]
    assert b"/tmp" not in block
    assert b"PRIVATE" not in block


@FILES
@settings(deadline=None, max_examples=15)
@given(data=st.data())
def test_a_changed_byte_is_told(signer: Signer, content: bytes, data: st.DataObject):
    stamp = signer.stamp(content)
    signed = bytearray(stamp.put_into(content))
    outside = [*range(stamp.at), *range(stamp.at + len(stamp.block), len(signed))]
    at = data.draw(st.sampled_from(outside))
    signed[at] ^= data.draw(st.integers(1, 255))
    assert state(signer, bytes(signed)) != "ours"


def test_what_becomes_of_signed_pictures_is_told_apart(signer: Signer, stranger: Signer):
    signed = signer.sign(PORTRAIT)
    pixel = RGB.copy()
    pixel[0, 0, 0] ^= 1
    changed = signer.stamp(PORTRAIT).put_into(encode_portrait(pixel, {"prompt": PROMPT, "seed": 7}))
    assert state(signer, changed) == "altered"
    assert state(signer, signed + b"PK\x03\x04 and a program") == "altered"
    assert state(signer, stranger.sign(PORTRAIT)) == "other"
    assert state(signer, without_manifest(signed)) == "none"
    assert state(signer, signed[: len(signed) // 2]) in ("altered", "broken")


def test_ours_inside_somebody_elses_manifest_is_not_ours(signer: Signer, stranger: Signer):
    given, out = stranger.credentials, io.BytesIO()
    info = c2pa.C2paSignerInfo(given.algorithm, given.chain_pem.encode(), given.key_pem.encode(), None)
    with c2pa.Builder(json.dumps(CLAIMS)) as builder:
        parent = {"title": "x", "relationship": "componentOf"}
        builder.add_ingredient_from_stream(json.dumps(parent), "image/png", io.BytesIO(signer.sign(PORTRAIT)))
        builder.sign(c2pa.Signer.from_info(info), "image/png", io.BytesIO(PORTRAIT), out)
    assert state(signer, out.getvalue()) in ("other", "broken")


def test_an_address_in_a_picture_is_not_called(signer: Signer, stranger: Signer):
    given, out = stranger.credentials, io.BytesIO()
    info = c2pa.C2paSignerInfo(given.algorithm, given.chain_pem.encode(), given.key_pem.encode(), None)
    with socket.create_server(("127.0.0.1", 0)) as server, c2pa.Builder(json.dumps(CLAIMS)) as builder:
        server.settimeout(0.2)
        url = f"http://127.0.0.1:{server.getsockname()[1]}/manifest.c2pa"
        builder.set_no_embed()
        builder.set_remote_url(url)
        builder.sign(c2pa.Signer.from_info(info), "image/jpeg", io.BytesIO(PRINT), out)
        assert url.encode() in out.getvalue()
        assert state(signer, out.getvalue()) in ("none", "broken")
        with pytest.raises(TimeoutError):
            server.accept()


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_no_bytes_make_reading_or_stripping_fail(signer: Signer, data: st.DataObject):
    signed = signer.sign(data.draw(st.sampled_from([PORTRAIT, PRINT])))
    start = data.draw(
        st.sampled_from([b"", b"\xff\xd8", b"\x89PNG\r\n\x1a\n", signed[: data.draw(st.integers(0, 4000))]])
    )
    content = start + data.draw(st.binary(max_size=200))
    assert state(signer, content) != "ours"
    assert len(without_manifest(content)) <= len(content)


def test_what_carries_a_manifest_already_or_cannot_is_refused(signer: Signer):
    with pytest.raises(StudioloError, match="wanted PNG or JPEG"):
        signer.stamp(b"GIF89a")
    with pytest.raises(StudioloError, match="provenance: "):
        signer.stamp(signer.sign(PORTRAIT))
    with pytest.raises(StudioloError, match="did not sign"):
        signer.stamp(b"\x89PNG\r\n\x1a\n")
